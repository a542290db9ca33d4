//! A policy that changes under open connections.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use stockade_testkit::upstream::{Http, Tcp};
use stockade_types::Reason;

use crate::{
    names::lookup,
    world::{Client, POLICY, World, client_hello},
};

/// The same policy without the endpoints `web` and `raw`.
fn nothing_but_public() -> String {
    let (head, _) = POLICY.split_once("    web:").unwrap();
    let (_, public) = POLICY.split_once("    public:").unwrap();
    format!("{head}    public:{public}")
}

#[test]
fn open_connections_close_when_denied_and_live_on_when_not() {
    World::run(|world| {
        let tls = Tcp::echo("192.0.2.10:443");
        let raw = Tcp::echo("192.0.2.10:9000");
        let web = Http::hello("192.0.2.10:80");
        let hello = client_hello(Some("allowed.test"));
        let mut tunnel = world.tunnel("allowed.test:443");
        tunnel.send(&hello);
        tunnel.read(hello.len());
        let mut relay = world.tunnel("raw.test:9000");
        relay.send("ping");
        relay.read(4);
        lookup(world, "other.test", "A");
        let mut direct = Client::connect("198.18.0.1:443".parse().unwrap());
        let fronted = client_hello(Some("other.test"));
        direct.send(&fronted);
        direct.read(fronted.len());
        let mut kept = world.client();
        kept.send("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
        assert_eq!(kept.answer().status, 200);
        let mut waiting = world.tunnel("allowed.test:443");

        // Control: the same rules in a new generation.
        world.reload(POLICY);
        tunnel.send("more");
        assert_eq!(tunnel.read(4), b"more");
        relay.send("pong");
        assert_eq!(relay.read(4), b"pong");
        kept.send("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
        assert_eq!(kept.answer().status, 200);
        world.no_refusal();

        let before = (tls.counters.bytes(), raw.counters.bytes(), web.requests().len());
        world.reload(&nothing_but_public());
        // Sent at once, before anybody can have noticed: must not go up.
        for open in [&mut tunnel, &mut relay, &mut direct, &mut waiting] {
            std::io::Write::write(&mut open.0, b"late").ok();
        }
        for open in [&mut tunnel, &mut relay, &mut direct, &mut waiting] {
            open.rest();
        }
        kept.send("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
        assert_eq!(kept.answer().reason(), "no_policy");
        assert_eq!((tls.counters.bytes(), raw.counters.bytes(), web.requests().len()), before, "no byte after it");
        let reasons: Vec<_> = world.refusals().iter().filter_map(|n| n.reason).collect();
        let stale = reasons.iter().filter(|r| **r == Reason::StaleGeneration).count();
        assert_eq!((stale, reasons.len()), (4, 5), "{reasons:?}");
    });
}

#[test]
fn a_response_under_way_ends_when_its_host_is_denied() {
    World::run(|world| {
        static STOP: AtomicBool = AtomicBool::new(false);
        let _drip = Tcp::serve("192.0.2.10:80", |mut s| {
            std::io::Read::read(&mut s, &mut [0; 1024])?;
            std::io::Write::write_all(&mut s, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
            while !STOP.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut s, b"x")?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let mut client = world.client();
        client.send("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
        assert!(client.read(60).starts_with(b"HTTP/1.1 200 OK\r\n"));
        world.reload(&nothing_but_public());
        client.rest();
        STOP.store(true, Ordering::Relaxed);
        let event = world.one_refusal(Reason::StaleGeneration);
        assert_eq!(event.host.as_deref(), Some("allowed.test"));
    });
}

#[test]
fn a_narrowed_address_list_closes_what_it_no_longer_holds() {
    World::run(|world| {
        let _upstream = Tcp::echo("192.0.2.10:9000");
        let mut relay = world.tunnel("raw.test:9000");
        relay.send("ping");
        relay.read(4);
        world.reload(&POLICY.replace("private_addresses: [192.0.2.0/24]", "private_addresses: [198.51.100.0/24]"));
        relay.rest();
        world.one_refusal(Reason::StaleGeneration);
    });
}

#[test]
fn every_verdict_comes_from_one_generation_while_policies_alternate() {
    World::run(|world| {
        let _web = Http::hello("192.0.2.10:80");
        let denying = nothing_but_public();
        let proxy = world.proxy;
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let (mut allowed, mut denied) = (0, 0);
                let mut client = Client::connect(proxy);
                let began = Instant::now();
                // At least a thousand requests, and some on each side also on a busy machine.
                for n in 0.. {
                    let enough = n >= 1000 && allowed > 100 && denied > 100;
                    if enough || began.elapsed() > Duration::from_secs(60) {
                        break;
                    }
                    client.send("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
                    let Some(answer) = client.try_answer() else {
                        // Cut off between verdict and answer.
                        client = Client::connect(proxy);
                        continue;
                    };
                    if answer.status == 200 {
                        allowed += 1;
                        continue;
                    }
                    // Even generations deny.
                    assert_eq!((answer.status, answer.json()["generation"].as_u64().unwrap() % 2), (403, 0));
                    assert!(["no_policy", "stale_generation"].contains(&answer.reason().as_str()), "{answer:?}");
                    denied += 1;
                }
                (allowed, denied)
            });
            let mut reloads = 0;
            while !asking.is_finished() || reloads < 100 {
                world.reload(if reloads % 2 == 0 { &denying } else { POLICY });
                reloads += 1;
                // Long enough for some requests on each side of it, also on a busy machine.
                std::thread::sleep(Duration::from_millis(5));
            }
            let (allowed, denied) = asking.join().unwrap();
            assert!(allowed > 100 && denied > 100, "{allowed} allowed, {denied} denied");
        });
        for refused in world.refusals() {
            assert_eq!(refused.generation.0 % 2, 0, "{refused:?}");
        }
    });
}
