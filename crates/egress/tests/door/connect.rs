//! CONNECT: verdict first, destinations, authorities, what is no request at all.

use std::time::{Duration, Instant, SystemTime};

use stockade_audit::{Action, Event};
use stockade_egress::Config;
use stockade_testkit::upstream::{Answer as DnsAnswer, Hostile, Tcp};
use stockade_types::Reason;

use crate::world::{Client, World, client_hello, ip};

fn connect(world: &World, authority: &str) -> crate::world::Answer {
    world.ask(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"))
}

#[test]
fn a_permitted_host_is_reached_and_another_is_not_even_asked_for() {
    World::run(|world| {
        let upstream = Tcp::echo("192.0.2.10:443");
        world.names.host("evil.test", "192.0.2.10");

        let denied = connect(world, "evil.test:443");
        assert_eq!((denied.status, denied.reason().as_str()), (403, "no_policy"));
        let body = denied.json();
        assert!(body["detail"].as_str().unwrap().contains("evil.test"), "{body}");
        assert!(body["allow"].as_str().unwrap().contains("evil.test"), "{body}");
        assert_eq!(body["generation"], 1);
        let event = world.one_refusal(Reason::NoPolicy);
        assert_eq!((event.host.as_deref(), event.port, event.door), (Some("evil.test"), Some(443), "connect"));
        assert_eq!(world.names.count("evil.test"), 0, "no lookup before the verdict");
        upstream.counters.assert_untouched();

        let mut tunnel = world.tunnel("allowed.test:443");
        let hello = client_hello(Some("allowed.test"));
        tunnel.send(&hello);
        assert_eq!(tunnel.read(hello.len()), hello);
        drop(tunnel);
        world.no_refusal();
        let deadline = Instant::now() + Duration::from_secs(2);
        let closed = loop {
            let closed = world.events().into_iter().find_map(|e| match e {
                Event::Network(n) if n.action == Action::Closed => Some(n),
                _ => None,
            });
            if closed.is_some() || Instant::now() > deadline {
                break closed.expect("an event when it closed");
            }
        };
        assert_eq!((closed.bytes_out, closed.bytes_in), (hello.len() as u64, hello.len() as u64));
        assert_eq!(closed.addr, Some(ip("192.0.2.10")));
    });
}

#[test]
fn addresses_that_no_policy_allows_are_refused_with_their_reason() {
    World::run(|world| {
        for (authority, reason) in [
            ("127.0.0.1:443", Reason::SsrfAlwaysBlocked),
            ("[::1]:443", Reason::SsrfAlwaysBlocked),
            ("0.0.0.0:443", Reason::SsrfAlwaysBlocked),
            ("[::ffff:127.0.0.1]:443", Reason::SsrfAlwaysBlocked),
            ("[::ffff:0:a9fe:a9fe]:443", Reason::SsrfMetadata),
            ("169.254.169.254:80", Reason::SsrfMetadata),
            ("metadata.google.internal:80", Reason::SsrfMetadata),
            ("10.0.0.1:443", Reason::NoPolicy),
            ("10.0.0.1:6443", Reason::ControlPlanePort),
            ("198.18.55.55:443", Reason::MappingUnknown),
            ("192.0.2.10:22", Reason::NoPolicy),
        ] {
            let answer = connect(world, authority);
            assert_eq!((answer.status, answer.reason().as_str()), (403, reason.code()), "{authority}");
            world.one_refusal(reason);
        }
        let upstream = Tcp::echo("192.0.2.10:443");
        let mut tunnel = world.tunnel("192.0.2.10:443");
        let hello = client_hello(None);
        tunnel.send(&hello);
        assert_eq!(tunnel.read(hello.len()), hello, "a literal that the policy names");
        assert_eq!(upstream.counters.arrivals(), 1);
    });
}

#[test]
fn answers_are_judged_by_address_and_only_good_ones_dialled() {
    World::run(|world| {
        let upstream = Tcp::echo("192.0.2.10:443");
        let addrs = |list: &[&str]| DnsAnswer::Addrs(list.iter().map(|a| ip(a)).collect());
        for (name, list, reason) in [
            ("a.wild.test", &["127.0.0.1", "::1"][..], Reason::SsrfAlwaysBlocked),
            ("b.wild.test", &["10.0.0.9"], Reason::SsrfInternal),
            ("c.wild.test", &["::ffff:169.254.169.254"], Reason::SsrfMetadata),
            ("public.test", &["192.0.2.10"], Reason::SsrfInternal),
        ] {
            world.names.set(name, addrs(list));
            let answer = connect(world, &format!("{name}:443"));
            assert_eq!((answer.status, answer.reason().as_str()), (403, reason.code()), "{list:?}");
            assert!(!answer.body.contains(list[0]), "no address in the body");
            world.one_refusal(reason);
        }
        world.names.set("mixed.wild.test", addrs(&["127.0.0.1", "192.0.2.10", "::1"]));
        let mut tunnel = world.tunnel("mixed.wild.test:443");
        let hello = client_hello(Some("mixed.wild.test"));
        tunnel.send(&hello);
        assert_eq!(tunnel.read(hello.len()), hello);
        world.names.set("alias.wild.test", DnsAnswer::Alias("inner.attacker.test".into()));
        world.names.host("inner.attacker.test", "169.254.169.254");
        assert_eq!(connect(world, "alias.wild.test:443").reason(), "ssrf_metadata", "judged by where it ends");
        assert_eq!(upstream.counters.arrivals(), 1);
    });
}

#[test]
fn a_rebinding_name_is_looked_up_once_per_connection() {
    World::run(|world| {
        let upstream = Tcp::echo("192.0.2.10:443");
        let turns = vec![vec![ip("192.0.2.10")], vec![ip("127.0.0.1")]];
        world.names.set("turn.wild.test", DnsAnswer::Turns(turns));
        let mut tunnel = world.tunnel("turn.wild.test:443");
        let hello = client_hello(Some("turn.wild.test"));
        tunnel.send(&hello);
        assert_eq!(tunnel.read(hello.len()), hello, "what was checked is what was dialled");
        assert_eq!(connect(world, "turn.wild.test:443").reason(), "ssrf_always_blocked", "judged anew");
        assert_eq!(upstream.counters.arrivals(), 1);
    });
}

#[test]
fn failures_behind_a_permit_are_502_and_say_which() {
    World::run(|world| {
        let missing = connect(world, "missing.wild.test:443");
        assert_eq!((missing.status, missing.reason().as_str()), (502, "upstream_dns"));
        assert_eq!(world.one_refusal(Reason::UpstreamDns).action, Action::Failed);
        let closed = connect(world, "allowed.test:8080");
        assert_eq!((closed.status, closed.reason().as_str()), (502, "upstream_connect"));
        assert!(!closed.body.contains("192.0.2.10"), "{}", closed.body);
        world.one_refusal(Reason::UpstreamConnect);
    });
}

#[test]
fn malformed_requests_are_refused_before_anything_happens() {
    World::run(|world| {
        for (head, status, reason) in [
            ("CONNECT allowed.test@evil.test:443 HTTP/1.1\r\n\r\n", 400, Reason::BadAuthority),
            ("CONNECT evil.test\0.allowed.test:443 HTTP/1.1\r\n\r\n", 400, Reason::BadAuthority),
            ("CONNECT allowed.test:443:80 HTTP/1.1\r\n\r\n", 400, Reason::BadAuthority),
            ("CONNECT allowed.test HTTP/1.1\r\n\r\n", 400, Reason::BadAuthority),
            ("CONNECT localhost:80 HTTP/1.1\r\n\r\n", 400, Reason::BadAuthority),
            ("CONNECT 127.1:80 HTTP/1.1\r\n\r\n", 400, Reason::BadAuthority),
            ("CONNECT allowed.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", 421, Reason::AuthorityMismatch),
            ("GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n", 400, Reason::BadRequest),
            ("GET http://allowed.test/\r\n\r\n", 400, Reason::UnknownProtocol),
            ("GET http://allowed.test/ HTTP/1.1\nHost: allowed.test\r\n\r\n", 400, Reason::Framing),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, Reason::UnknownProtocol),
        ] {
            let answer = world.ask(head);
            assert_eq!((answer.status, answer.reason().as_str()), (status, reason.code()), "{head:?}");
            world.one_refusal(reason);
        }
        assert!(world.names.queries().is_empty());
    });
}

#[test]
fn what_is_no_http_ends_soon() {
    World::run(|world| {
        for bytes in [&b"\x05\x01\x00"[..], b"\x04\x01\x00\x50\xc0\x00\x02\x0a\x00", &client_hello(None)] {
            let mut client = world.client();
            client.send(bytes);
            let start = Instant::now();
            let (answer, _) = client.rest();
            assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
            assert!(start.elapsed() < Duration::from_secs(2));
            world.one_refusal(Reason::UnknownProtocol);
        }
        let silent = world.client();
        drop(silent);
        world.no_refusal();
    });
}

#[test]
fn header_bombs_meet_a_fixed_bound() {
    World::run(|world| {
        let mut client = world.client();
        client.send(format!("CONNECT allowed.test:443 HTTP/1.1\r\nX: {}", "a".repeat(40_000)));
        assert_eq!(client.answer().status, 431);
        world.one_refusal(Reason::Limit);
        let fields = "X: y\r\n".repeat(1_000);
        assert_eq!(world.ask(&format!("CONNECT allowed.test:443 HTTP/1.1\r\n{fields}\r\n")).status, 431);
        world.one_refusal(Reason::Limit);
    });
}

#[test]
fn a_slow_head_runs_out_of_time_and_drops_in_between_do_not_extend_it() {
    let mut config = stockade_egress::Config::default();
    config.head.time = Duration::from_millis(300);
    World::configured(config, |world| {
        let mut client = world.client();
        let start = Instant::now();
        for byte in b"CONNECT allowed.test:443 HT" {
            if std::io::Write::write(&mut client.0, &[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(client.answer().status, 408);
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        world.one_refusal(Reason::Limit);
    });
}

#[test]
fn bytes_behind_the_head_belong_to_the_tunnel() {
    World::run(|world| {
        let upstream = Tcp::echo("192.0.2.10:9000");
        let mut client = world.client();
        let second = "CONNECT evil.test:443 HTTP/1.1\r\n\r\n";
        client.send(format!("CONNECT raw.test:9000 HTTP/1.1\r\n\r\n{second}"));
        assert_eq!(client.answer().status, 200);
        assert_eq!(client.read(second.len()), second.as_bytes());
        assert_eq!(upstream.counters.arrivals(), 1);
        world.no_refusal();

        let mut refused = world.client();
        refused.send(format!("CONNECT evil.test:443 HTTP/1.1\r\n\r\n{second}"));
        assert_eq!(refused.answer().status, 403);
        assert_eq!(refused.rest(), (Vec::new(), false), "one answer, then the end");
        world.one_refusal(Reason::NoPolicy);
    });
}

#[test]
fn beyond_the_bound_connections_are_closed_and_places_come_back() {
    let config = stockade_egress::Config { connections: 4, ..Default::default() };
    World::configured(config, |world| {
        let mut open: Vec<Client> = (0..4).map(|_| world.client()).collect();
        // Each is known to be served once it got an answer.
        for client in &mut open {
            client.send("GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n");
            assert_eq!(client.answer().status, 403);
        }
        let mut fifth = world.client();
        assert_eq!(fifth.rest().0, b"", "closed without an answer");
        assert!(world.refusals().iter().any(|n| n.reason == Some(Reason::Limit)));
        drop(open);
        let deadline = Instant::now() + Duration::from_secs(2);
        while world.door.counts().active > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(connect(world, "evil.test:443").status, 403, "served again");
    });
}

#[test]
fn a_hostile_resolver_costs_time_and_nothing_else() {
    World::run(|world| {
        let upstream = Tcp::echo("192.0.2.66:443");
        for (n, hostile) in [
            Hostile::WrongId,
            Hostile::OtherQuestion,
            Hostile::OtherOwner,
            Hostile::Loop,
            Hostile::TruncatedThenSilent,
            Hostile::Silent,
            Hostile::Short,
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("h{n}.wild.test");
            world.names.set(&name, DnsAnswer::Hostile(hostile));
            let start = Instant::now();
            let mut client = world.client();
            client.0.set_read_timeout(Some(Duration::from_secs(12))).unwrap();
            client.send(format!("CONNECT {name}:443 HTTP/1.1\r\n\r\n"));
            let answer = client.answer();
            assert!([502, 504].contains(&answer.status), "{hostile:?}: {answer:?}");
            assert!(["upstream_dns", "dns_invalid"].contains(&answer.reason().as_str()), "{hostile:?}: {answer:?}");
            assert!(start.elapsed() < Duration::from_secs(10), "{hostile:?}: {:?}", start.elapsed());
        }
        assert_eq!(upstream.counters.arrivals(), 0);
        let control = Tcp::echo("192.0.2.10:443");
        let mut tunnel = world.tunnel("allowed.test:443");
        let hello = client_hello(Some("allowed.test"));
        tunnel.send(&hello);
        assert_eq!(tunnel.read(hello.len()), hello, "an honest answer still counts");
        assert_eq!(control.counters.arrivals(), 1);
    });
}

#[test]
fn a_dead_address_does_not_keep_a_live_one_from_being_reached() {
    World::run(|world| {
        let upstream = Tcp::echo("192.0.2.10:443");
        let both = vec![ip("2001:db8::dead"), ip("192.0.2.11"), ip("192.0.2.10")];
        world.names.set("both.wild.test", DnsAnswer::Addrs(both));
        let start = Instant::now();
        let mut tunnel = world.tunnel("both.wild.test:443");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let hello = client_hello(Some("both.wild.test"));
        tunnel.send(&hello);
        assert_eq!(tunnel.read(hello.len()), hello);
        assert_eq!(upstream.counters.arrivals(), 1);
    });
}

#[test]
fn without_a_certificate_there_is_no_tunnel() {
    let long_ago = SystemTime::now() - Duration::from_secs(30 * 86_400);
    World::with_authority_of(long_ago, Config::default(), |world| {
        let origin = Tcp::sink("192.0.2.10:443");
        world.reload(
            "{version: 1, network: {endpoints: {a: {hosts: [allowed.test], ports: [443], \
             private_addresses: [192.0.2.0/24]}}}}",
        );
        let answer = world.ask("CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n");
        assert_eq!((answer.status, answer.reason().as_str()), (503, "tls_unavailable"), "before any 200");
        world.one_refusal(Reason::TlsUnavailable);
        origin.counters.assert_untouched();
    });
}
