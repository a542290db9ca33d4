//! DNS: answers that change, answers with traps in them, and names that carry data.

use std::{net::IpAddr, time::Duration};

use stockade_testkit::{
    Arena, Mode, Outer, Stockade,
    outer::RESOLVER,
    upstream::{Answer, Dns, Http, Response, Tcp},
};

use crate::ask::{answer, each_answered, get, through};

const POLICY: &str = "
version: 1
network:
  endpoints:
    all: {hosts: ['*.corp.test'], ports: [80], private_addresses: [192.0.2.0/24]}
";

fn addrs(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|a| a.parse().unwrap()).collect()
}

/// DNS-04: a connection is one question, and goes to the address that was judged.
#[test]
fn a_name_that_rebinds_is_looked_up_once() {
    Outer::run(|_| {
        let inside = Tcp::sink("127.0.0.1:80");
        let dns = Dns::start((RESOLVER, 53));
        // Keeps no connection, which a later request could go on without a question.
        let once = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let site = Http::start("192.0.2.10:80", move |_| Response::Raw(once.into()));
        let rebinding = |name: &str, second: &str| {
            dns.set(name, Answer::Turns(vec![addrs(&["192.0.2.10"]), addrs(&[second])]));
        };
        for (index, mode) in Mode::available().iter().enumerate() {
            for (second, reason) in [("127.0.0.1", "ssrf_always_blocked"), ("169.254.169.254", "ssrf_metadata")] {
                let name = format!("turn{index}{}.corp.test", second.len());
                rebinding(&name, second);
                let (first, next) = (get(&name), through(&format!("{name}:80")));
                let before = site.requests().len();
                let run = Stockade::new(*mode).policy(POLICY).probe(&[&first, &next]);
                assert_eq!(answer(&run, &first).0, 200, "control: {mode:?} {run:?}");
                assert_eq!(site.requests().len(), before + 1, "{mode:?} {run:?}");
                // The second connection asks anew, and goes nowhere: neither there nor to the address of the first.
                each_answered(&run, &[(next, 403, reason)], &format!("{mode:?}"));
                assert_eq!(dns.count(&name), 4, "two connections, each one question for both families: {mode:?}");
            }
        }
        inside.counters.assert_untouched();
        rebinding("bare.corp.test", "127.0.0.1");
        let twice = "for i in 1 2; do curl -sS --max-time 2 http://bare.corp.test/; done";
        let bare = Stockade::new(Mode::Rootless).unwrapped().sh(twice);
        assert_eq!(inside.counters.arrivals(), 1, "tripwire: a client by itself goes there: {bare:?}");
    });
}

/// DNS-05: of a mixed answer the bad addresses are gone before anything is dialled.
#[test]
fn bad_addresses_of_a_mixed_answer_are_never_dialled() {
    Outer::run(|_| {
        let inside = [Tcp::sink("127.0.0.1:80"), Tcp::sink("[::1]:80")];
        let arena = Arena::new(POLICY, "up.corp.test");
        // Nothing listens on .99: it fails first, and what comes next is tried then.
        for (name, all) in [
            ("mixed", &["192.0.2.99", "127.0.0.1", "::1"][..]),
            ("rescued", &["192.0.2.99", "127.0.0.1", "::1", "192.0.2.10"]),
            ("bad", &["127.0.0.1", "::1", "169.254.169.254"]),
        ] {
            arena.dns.set(&format!("{name}.corp.test"), Answer::Addrs(addrs(all)));
        }
        let wanted = [(get("mixed.corp.test"), 502, "upstream_connect"), (get("bad.corp.test"), 403, "ssrf_metadata")];
        arena.run(&[&wanted[0].0, &wanted[1].0], |mode, run| each_answered(run, &wanted, &format!("{mode:?}")));
        for mode in Mode::available() {
            let rescued = get("rescued.corp.test");
            let run = arena.stockade(*mode).probe(&[&rescued]);
            assert_eq!(answer(&run, &rescued).0, 200, "control: the good one is found: {mode:?} {run:?}");
        }
        inside.iter().for_each(|s| s.counters.assert_untouched());
        let bare = Stockade::new(Mode::Rootless).unwrapped().sh("curl -sS --max-time 2 http://mixed.corp.test/");
        let arrivals: u64 = inside.iter().map(|s| s.counters.arrivals()).sum();
        assert!(arrivals > 0, "tripwire: a client by itself goes there: {bare:?}");
    });
}

/// DNS-02: names below an allowed wildcard can carry data out (docs/threat-model.md); very many of them are told.
#[test]
fn very_many_names_below_a_wildcard_are_told() {
    // Over the alarm of a minute, also where the minute changes between them.
    const MANY: usize = 2_100;
    Outer::run(|_| {
        let arena = Arena::new(POLICY, "up.corp.test");
        let name = |n: usize| format!("resolve:{n:06}{}.corp.test", "x".repeat(57));
        let tries: Vec<String> = (0..MANY).map(name).collect();
        for mode in Mode::available() {
            let run = arena.stockade(*mode).probe(&tries);
            assert!(run.outcome(&tries[MANY - 1]).what.starts_with("ok 198.1"), "names are still answered: {mode:?}");
            let finding = run.events.some("dns_volume");
            assert_eq!(finding.class(), 2004, "{mode:?} {finding:?}");
            assert!(run.events.with("dns_volume").len() <= 2, "one a minute: {mode:?} {run:?}");
            let few = arena.stockade(*mode).probe(&tries[..100]);
            // Tripwire: few are nothing to tell.
            few.events.none("dns_volume");
        }
        assert_eq!(arena.dns.queries(), [], "and none of them left");
        // Those that are connected to do leave, to be looked up.
        let tries: Vec<String> = tries.iter().map(|t| get(t.trim_start_matches("resolve:"))).collect();
        let leaving = |tries: &[String]| arena.stockade(Mode::Rootless).timeout(Duration::from_secs(60)).probe(tries);
        let run = leaving(&tries);
        assert!(arena.dns.queries().len() >= MANY, "control: {}", arena.dns.queries().len());
        assert!(matches!(run.events.with("dns_volume").len(), 1 | 2), "one a minute: {run:?}");
        leaving(&tries[..100]).events.none("dns_volume");
        let asked = format!("{:06}{}.corp.test", MANY, "x".repeat(57));
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&[format!("resolve:{asked}")]);
        assert!(arena.dns.count(&asked) > 0, "tripwire: without Stockade it leaves: {bare:?}");
    });
}
