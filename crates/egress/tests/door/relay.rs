//! Tunnels: names in ClientHellos, both directions to their own end, bulk, timers.

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use stockade_testkit::upstream::{Http, Tcp};
use stockade_types::Reason;

use crate::world::{World, client_hello};

#[test]
fn the_server_name_must_be_the_hosts() {
    World::run(|world| {
        let upstream = Tcp::echo("192.0.2.10:443");
        let good = client_hello(Some("allowed.test"));
        let mut split = world.tunnel("allowed.test:443");
        for byte in &good {
            split.send([*byte]);
        }
        assert_eq!(split.read(good.len()), good, "also byte by byte");
        let before = upstream.counters.bytes();
        for (name, reason) in [
            (Some("other.test"), Reason::SniMismatch),
            (None, Reason::SniInvalid),
            (Some("192.0.2.10"), Reason::SniInvalid),
            (Some("allowed.test."), Reason::SniInvalid),
            (Some("allowed.test\0"), Reason::SniInvalid),
            (Some(""), Reason::SniInvalid),
        ] {
            let mut tunnel = world.tunnel("allowed.test:443");
            tunnel.send(client_hello(name));
            let (answer, _) = tunnel.rest();
            assert_eq!((answer.first(), answer.len()), (Some(&21), 7), "an alert, {name:?}: {answer:?}");
            let refusal = world.refusals();
            assert!(matches!(refusal[0].reason, Some(r) if r == reason || r == Reason::UnknownProtocol), "{name:?}");
            world.one_refusal(refusal[0].reason.unwrap());
        }
        assert_eq!(upstream.counters.bytes(), before, "nothing went up");
        let mut literal = world.tunnel("192.0.2.10:443");
        let nameless = client_hello(None);
        literal.send(&nameless);
        assert_eq!(literal.read(nameless.len()), nameless, "an address has no server name");
    });
}

#[test]
fn on_an_endpoint_that_inspects_a_broken_hello_reaches_nobody_and_plain_http_is_served() {
    World::run(|world| {
        let upstream = Http::hello("192.0.2.10:80");
        let mut tunnel = world.tunnel("plain.test:80");
        tunnel.send(client_hello(Some("plain.test")));
        assert_eq!(tunnel.rest().0.first(), Some(&21), "an alert");
        world.one_refusal(Reason::ClientTls);
        assert!(upstream.requests().is_empty() && upstream.counters().bytes() == 0);
        let mut tunnel = world.tunnel("plain.test:80");
        tunnel.send("GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n");
        assert_eq!(tunnel.answer().status, 200);
    });
}

#[test]
fn an_opaque_endpoint_lets_the_server_speak_first_and_still_refuses_another_name() {
    World::run(|world| {
        let ssh = Tcp::serve("192.0.2.10:22", |mut s| {
            s.write_all(b"SSH-2.0-test\r\n")?;
            let mut echo = [0; 64];
            loop {
                match s.read(&mut echo)? {
                    0 => return Ok(()),
                    n => s.write_all(&echo[..n])?,
                }
            }
        });
        let mut tunnel = world.tunnel("raw.test:22");
        assert_eq!(tunnel.read(14), b"SSH-2.0-test\r\n");
        tunnel.send("SSH-2.0-client\r\n");
        assert_eq!(tunnel.read(16), b"SSH-2.0-client\r\n");
        assert_eq!(ssh.counters.arrivals(), 1);
        world.no_refusal();

        let tls = Tcp::sink("192.0.2.10:443");
        let mut tunnel = world.tunnel("raw.test:443");
        tunnel.send(client_hello(Some("evil.test")));
        tunnel.rest();
        world.one_refusal(Reason::SniMismatch);
        assert_eq!(tls.counters.bytes(), 0);
    });
}

#[test]
fn each_direction_ends_by_itself() {
    World::run(|world| {
        let upstream = Tcp::serve("192.0.2.10:9000", |mut s| {
            let mut all = Vec::new();
            s.read_to_end(&mut all)?;
            s.write_all(&all)?;
            s.write_all(b" after your end")
        });
        let mut tunnel = world.tunnel("raw.test:9000");
        tunnel.send("data");
        tunnel.0.shutdown(Shutdown::Write).unwrap();
        assert_eq!(tunnel.rest(), (b"data after your end".to_vec(), false));
        assert_eq!(upstream.counters.arrivals(), 1);

        let _first = Tcp::serve("192.0.2.10:22", |mut s| {
            s.write_all(b"bye")?;
            s.socket().shutdown(Shutdown::Write)?;
            let mut all = Vec::new();
            s.read_to_end(&mut all)?;
            Ok(())
        });
        let mut tunnel = world.tunnel("raw.test:22");
        assert_eq!(tunnel.read(3), b"bye");
        assert_eq!(tunnel.0.read(&mut [0]).unwrap(), 0, "its end came through");
        tunnel.send("still talking");
        tunnel.0.shutdown(Shutdown::Write).unwrap();
    });
}

#[test]
fn bulk_arrives_whole_in_both_directions_at_once() {
    World::run(|world| {
        let _upstream = Tcp::echo("192.0.2.10:9000");
        let tunnel = world.tunnel("raw.test:9000");
        let mut writer = tunnel.0.try_clone().unwrap();
        let size = 64 << 20;
        let sender = std::thread::spawn(move || {
            let mut block = vec![0; 1 << 20];
            for n in 0..size / block.len() {
                for (i, b) in block.iter_mut().enumerate() {
                    *b = u8::try_from((i * 31 + n) % 251).unwrap();
                }
                writer.write_all(&block).unwrap();
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut reader = tunnel.0;
        let mut block = vec![0; 1 << 20];
        for n in 0..size / block.len() {
            reader.read_exact(&mut block).unwrap();
            let good = block.iter().enumerate().all(|(i, b)| usize::from(*b) == (i * 31 + n) % 251);
            assert!(good, "block {n}");
        }
        assert_eq!(reader.read(&mut block).unwrap(), 0);
        sender.join().unwrap();
    });
}

#[test]
fn a_tunnel_at_rest_ends_when_its_time_is_up_and_a_half_open_one_sooner() {
    let mut config = stockade_egress::Config::default();
    config.timers.idle = Duration::from_millis(1500);
    config.timers.half_closed = Duration::from_millis(300);
    World::configured(config, |world| {
        let _upstream = Tcp::sink("192.0.2.10:9000");
        let mut idle = world.tunnel("raw.test:9000");
        let mut half = world.tunnel("raw.test:9000");
        let start = Instant::now();
        half.send("x");
        idle.send("x");
        half.0.shutdown(Shutdown::Write).unwrap();
        // The sink ends its own side when the client's ended, so this is only an upper bound.
        half.rest();
        assert!(start.elapsed() < Duration::from_millis(1400), "{:?}", start.elapsed());
        idle.rest();
        let took = start.elapsed();
        assert!(took > Duration::from_millis(1200) && took < Duration::from_secs(4), "{took:?}");
    });
}
