//! The door, through the real program: curl once allowed and once denied, in every mode this machine has.
#![forbid(unsafe_code)]

use stockade_testkit::{
    Mode, Outer, Stockade,
    outer::RESOLVER,
    upstream::{Dns, Http},
};

/// One host over plain HTTP; its name resolves to a documentation address, which is internal unless it is listed.
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
fn curl_reaches_an_allowed_host() {
    Outer::run(|_| {
        let (site, dns) = world();
        for mode in Mode::available() {
            let before = site.requests().len();
            let run = Stockade::new(*mode).policy(POLICY).sh("curl -sS --max-time 10 http://up.test/greeting");
            run.assert_code(0);
            assert_eq!(run.text(), "hello from upstream\n", "{mode:?} {run:?}");
            let seen = &site.requests()[before..];
            assert_eq!(seen.iter().map(|r| r.target()).collect::<Vec<_>>(), ["/greeting"], "{mode:?}");
            let allowed = run.events.iter().filter(|e| e.host() == Some("up.test") && e.action() == Some("allowed"));
            assert!(allowed.count() >= 1, "{mode:?}: the log names what was allowed\n{run:?}");
        }
        assert!(dns.count("up.test") >= 1);
    });
}

#[test]
fn curl_is_refused_a_host_outside_the_policy() {
    Outer::run(|_| {
        let (site, dns) = world();
        dns.host("evil.test", "192.0.2.10");
        for mode in Mode::available() {
            let script = "curl -sS --max-time 10 -w ' %{http_code}' http://evil.test/";
            let run = Stockade::new(*mode).policy(POLICY).sh(script);
            assert!(run.text().contains("no_policy") && run.text().ends_with(" 403"), "{mode:?} {run:?}");
            assert_eq!(run.events.one("no_policy").host(), Some("evil.test"), "{mode:?}");
        }
        site.counters().assert_untouched();
        assert_eq!(dns.count("evil.test"), 0, "no resolver saw the name");
    });
}

#[test]
fn a_client_that_ignores_the_proxy_is_refused_at_once() {
    Outer::run(|_| {
        let (site, _dns) = world();
        for mode in Mode::available() {
            let script = "curl -sS --noproxy '*' --max-time 10 http://192.0.2.10:8081/; echo code=$?";
            let run = Stockade::new(*mode).policy(POLICY).sh(script);
            assert!(run.text().contains("code=7"), "refused, not timed out: {mode:?} {run:?}");
            let event = run.events.some("bypass");
            assert_eq!(event.port(), Some(8081), "{mode:?} {run:?}");
        }
        site.counters().assert_untouched();
    });
}

/// An origin at 192.0.2.10:80, and a resolver that knows it as up.test.
fn world() -> (Http, Dns) {
    let dns = Dns::start((RESOLVER, 53));
    dns.host("up.test", "192.0.2.10");
    (Http::hello("192.0.2.10:80"), dns)
}
