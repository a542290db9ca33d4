//! Ways out that do not go through the door (NET): each is refused at once, reaches nothing, and leaves an event.
#![forbid(unsafe_code)]

use stockade_testkit::{
    Arena, Mode, Outer, Stockade,
    outer::RESOLVER,
    upstream::{Dns, Http, Tcp, Udp},
};

/// Port 80 is in the policy, so the transparent listener takes it; nothing takes any other.
const POLICY: &str = "
version: 1
network:
  endpoints:
    site:
      hosts: [up.test]
      ports: [80]
      private_addresses: [192.0.2.0/24]
";

#[test]
fn tcp_to_ports_outside_the_policy_is_refused_at_once() {
    Outer::run(|_| {
        let ports = [22, 25, 81, 443, 3000, 5432, 6379, 8443, 65535];
        let sinks: Vec<_> = ports.iter().map(|p| Tcp::sink(("198.51.100.1", *p))).collect();
        let tries: Vec<_> = ports.iter().map(|p| format!("tcp:198.51.100.1:{p}")).collect();
        let tries: Vec<_> = tries.iter().map(String::as_str).collect();
        Arena::new(POLICY, "up.test").run(&tries, |mode, run| {
            for attempt in &tries {
                let outcome = run.outcome(attempt);
                assert!(outcome.is_refused() && outcome.millis < 100, "{mode:?} {attempt} {outcome:?}");
            }
            for port in ports {
                let of_port = |e: &&stockade_testkit::Event| e.port() == Some(port.into());
                let events = run.events.with("bypass").into_iter().filter(of_port).count();
                assert_eq!(events, 1, "{mode:?} port {port}\n{run:?}");
            }
        });
        sinks.iter().for_each(|s| s.counters.assert_untouched());
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&tries);
        let reached = tries.iter().filter(|t| bare.outcome(t).what.starts_with("ok")).count();
        assert_eq!(reached, tries.len(), "tripwire: without Stockade each arrives: {bare:?}");
    });
}

#[test]
fn a_direct_connection_on_an_allowed_port_meets_the_door() {
    Outer::run(|_| {
        let sink = Tcp::sink("198.51.100.1:80");
        let attempt = "say:198.51.100.1:80:GET / HTTP/1.1\\r\\nHost: up.test\\r\\n\\r\\n";
        Arena::new(POLICY, "up.test").run(&[attempt], |mode, run| {
            let outcome = run.outcome(attempt);
            assert!(outcome.what.starts_with("ok HTTP/1.1 403"), "refused by the door: {mode:?} {outcome:?}\n{run:?}");
            assert!(outcome.millis < 1000, "{mode:?} {outcome:?}");
            assert_eq!(run.events.one("no_policy").host(), Some("198.51.100.1"), "{mode:?} {run:?}");
            assert_eq!(run.events.refusals(), 1, "{mode:?} {run:?}");
        });
        sink.counters.assert_untouched();
        Stockade::new(Mode::Rootless)
            .unwrapped()
            .timeout(std::time::Duration::from_secs(60))
            .probe(&["tcp:198.51.100.1:80"]);
        assert_eq!(sink.counters.arrivals(), 1, "tripwire: without Stockade it arrives");
    });
}

#[test]
fn udp_leaves_to_nowhere() {
    Outer::run(|_| {
        let addrs =
            ["198.51.100.1:53", "203.0.113.1:443", "203.0.113.1:123", "198.51.100.1:40000", "[2001:db8::1]:443"];
        let sinks: Vec<_> = addrs.iter().map(Udp::sink).collect();
        let tries: Vec<_> = addrs.iter().map(|a| format!("udp:{a}:exfil")).collect();
        let tries: Vec<_> = tries.iter().map(String::as_str).collect();
        Arena::new(POLICY, "up.test").run(&tries, |mode, run| {
            for attempt in &tries {
                let outcome = run.outcome(attempt);
                assert!(!outcome.what.starts_with("ok"), "{mode:?} {attempt} {outcome:?}");
                assert!(outcome.millis < 100, "{mode:?} {attempt} {outcome:?}");
            }
            for (port, events) in [(443, 2), (123, 1), (40_000, 1), (53, 1)] {
                let refused = run.events.with("bypass").into_iter().filter(|e| e.port() == Some(port));
                let refused: Vec<_> = refused.map(|e| e.0.pointer("/connection_info/protocol_num")).collect();
                assert_eq!(refused.len(), events, "{mode:?} port {port}\n{run:?}");
                assert!(refused.iter().all(|p| p.and_then(|p| p.as_u64()) == Some(17)), "{mode:?} {refused:?}");
            }
        });
        sinks.iter().for_each(|s| s.counters.assert_untouched());
        Stockade::new(Mode::Rootless).unwrapped().probe(&tries);
        let reached = sinks.iter().filter(|s| s.counters.arrivals() > 0).count();
        assert_eq!(reached, sinks.len(), "tripwire: without Stockade the same datagrams arrive");
    });
}

#[test]
fn ipv6_is_refused_as_ipv4_is() {
    Outer::run(|_| {
        let sinks = [Tcp::sink("[2001:db8::1]:443"), Tcp::sink("198.51.100.1:444")];
        let tries = ["tcp:[2001:db8::1]:443", "tcp:[::ffff:198.51.100.1]:444", "tcp:[fe80::1]:443"];
        Arena::new(POLICY, "up.test").run(&tries, |mode, run| {
            for attempt in tries {
                let outcome = run.outcome(attempt);
                let refused = outcome.is_refused() || outcome.what == "EINVAL" && attempt.contains("fe80");
                assert!(refused && outcome.millis < 100, "{mode:?} {attempt} {outcome:?}\n{run:?}");
            }
            for (port, events) in [(443, 1..=2), (444, 1..=1)] {
                // A link-local address without a link is refused by the kernel, or by the fence.
                let refused = run.events.with("bypass").into_iter().filter(|e| e.port() == Some(port)).count();
                assert!(events.contains(&refused), "{mode:?} port {port}\n{run:?}");
            }
        });
        sinks.iter().for_each(|s| s.counters.assert_untouched());
        Stockade::new(Mode::Rootless).unwrapped().probe(&tries);
        assert_eq!(sinks.each_ref().map(|s| s.counters.arrivals()), [1, 1], "tripwire: without Stockade they arrive");
    });
}

#[test]
fn socket_families_and_protocols_outside_the_list_cannot_be_made() {
    // family:type:protocol, of socket(2)
    let refused = [
        "socket:40:1:0",   // AF_VSOCK
        "socket:17:3:768", // AF_PACKET
        "socket:44:3:0",   // AF_XDP
        "socket:38:5:0",   // AF_ALG
        "socket:15:3:2",   // AF_KEY
        "socket:30:1:0",   // AF_TIPC
        "socket:21:5:0",   // AF_RDS
        "socket:29:3:1",   // AF_CAN
        "socket:33:2:2",   // AF_RXRPC
        "socket:43:1:0",   // AF_SMC
        "socket:31:3:1",   // AF_BLUETOOTH
        "socket:42:2:0",   // AF_QIPCRTR
        "socket:255:1:0",  // no family
        "socket:2:3:255",  // raw IPv4
        "socket:10:3:255", // raw IPv6
        "socket:2:3:47",   // GRE
        "socket:2:3:50",   // ESP
        "socket:16:3:12",  // NETLINK_NETFILTER
        "socket:16:3:4",   // NETLINK_SOCK_DIAG
        "socket:16:3:16",  // NETLINK_GENERIC
        "socket:16:3:9",   // NETLINK_AUDIT
    ];
    let allowed = ["socket:2:1:0", "socket:10:1:0", "socket:1:1:0", "socket:2:2:0", "socket:16:3:0"];
    Outer::run(|_| {
        Arena::new(POLICY, "up.test").run(&[&refused[..], &allowed].concat(), |mode, run| {
            for attempt in refused {
                let what = run.outcome(attempt).what;
                assert!(matches!(&*what, "EPERM" | "EAFNOSUPPORT" | "EACCES"), "{mode:?} {attempt} {what}");
            }
            for attempt in allowed {
                assert_eq!(run.outcome(attempt).what, "ok made", "{mode:?} {attempt}");
            }
        });
        // Netlink and what modules of this kernel offer; raw and packet sockets need a capability.
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&refused);
        let made = refused.iter().filter(|t| bare.outcome(t).what == "ok made").count();
        assert!(made >= 4, "tripwire: without Stockade some can be made: {bare:?}");
    });
}

#[test]
fn leaving_the_proxy_variables_out_changes_nothing() {
    Outer::run(|_| {
        let (dns, _site) = (Dns::start((RESOLVER, 53)), Http::hello("192.0.2.10:80"));
        dns.host("up.test", "192.0.2.10");
        let sink = Tcp::sink("198.51.100.1:8080");
        for mode in Mode::available() {
            let script =
                "for c in 'env -u http_proxy -u all_proxy -u ALL_PROXY' 'env NO_PROXY=* no_proxy=*' 'env -i'; do
                $c curl -sS --max-time 5 http://198.51.100.1:8080/; echo code=$?
                done; curl -sS --noproxy '*' --max-time 5 http://198.51.100.1:8080/; echo code=$?
                curl -sS --max-time 5 http://up.test/; env -i curl -sS --max-time 5 http://up.test/";
            let run = Stockade::new(*mode).policy(POLICY).sh(script);
            assert_eq!(run.text().matches("code=7").count(), 4, "{mode:?} {run:?}");
            assert_eq!(run.text().matches("hello from upstream\n").count(), 2, "control: {mode:?} {run:?}");
            let told: u64 = run.events.with("bypass").iter().map(|e| e.0["count"].as_u64().unwrap_or(1)).sum();
            assert_eq!((told, run.events.refusals()), (4, 4), "{mode:?} {run:?}");
        }
        sink.counters.assert_untouched();
        assert!(dns.queries().iter().all(|(name, _)| name == "up.test"), "{:?}", dns.queries());
        Stockade::new(Mode::Rootless).unwrapped().probe(&["tcp:198.51.100.1:8080"]);
        assert_eq!(sink.counters.arrivals(), 1, "tripwire: without Stockade it arrives");
    });
}
