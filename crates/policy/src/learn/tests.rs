use proptest::prelude::*;
use stockade_types::Generation;

use super::*;
use crate::{Door, Intent, Policy, Posture, Snapshot, Source, Verdict};

#[test]
fn the_text_is_stable_and_minimal() {
    let mut learned = Learned::new();
    for (host, port, seen) in [
        ("b.example.org", 443, Seen::Tls),
        ("a.example.org", 80, Seen::Http),
        ("b.example.org", 80, Seen::Http),
        ("b.example.org", 22, Seen::Opaque),
        ("10.0.0.7", 5432, Seen::Opaque),
        ("metadata.google.internal", 80, Seen::Http),
        ("b.example.org", 443, Seen::Tls),
    ] {
        learned.observe(&Host::parse(host).unwrap(), Port::new(port).unwrap(), seen);
    }
    let want = "version: 1\nnetwork:\n  endpoints:\n    \
        a.example.org:\n      hosts: [a.example.org]\n      ports: [80]\n    \
        b.example.org:\n      hosts: [b.example.org]\n      ports: [80, 443]\n      tls: passthrough\n    \
        b.example.org-tcp:\n      hosts: [b.example.org]\n      ports: [22]\n      protocol: tcp\n    \
        10.0.0.7-tcp:\n      hosts: [10.0.0.7]\n      ports: [5432]\n      protocol: tcp\n      private_addresses: [\"10.0.0.7/32\"]\n\
        # not allowed: metadata.google.internal: `metadata.google.internal` cannot be an endpoint: \
        it is a cloud metadata service, which is never reachable\n";
    assert_eq!(learned.to_yaml(), want);
}

#[test]
fn nothing_seen_allows_nothing() {
    assert!(Learned::new().is_empty());
    let policy = Policy::parse(&[Source::new("learned", Learned::new().to_yaml())]).unwrap();
    assert!(policy.network().endpoints.is_empty());
}

const BASE: &str = "version: 1
network:
  endpoints:
    inner: {hosts: ['*.in.example.org'], ports: [80, 443], tls: passthrough, private_addresses: [10.0.0.0/8, 192.168.0.0/16]}
    learn: {hosts: [learn.example.org], tls: passthrough, private_addresses: [172.16.0.0/12]}
    tools: {hosts: [tool.example.org], ports: [80, 443], binaries: [/usr/bin/curl], limits: {requests_per_minute: 7}, allow: [], credentials: [key]}
credentials:
  key: {env: KEY, source: env:KEY, inject: {header: x-key, value: '{secret}'}}
";

fn seen_beside_base(seen: &[(&str, u16, &str)]) -> Learned {
    let mut learned = Learned::with(&Policy::parse(&[Source::new("base", BASE)]).unwrap());
    for (name, port, endpoint) in seen {
        let (host, port) = (Host::parse(name).unwrap(), Port::new(*port).unwrap());
        learned.observe(&host, port, Seen::Http);
        learned.see_endpoint(&host, port, endpoint, *endpoint == "learn");
    }
    learned
}

#[test]
fn private_addresses_of_the_policy_in_force_are_said_again() {
    let learned = seen_beside_base(&[
        ("a.in.example.org", 80, "inner"),
        ("a.in.example.org", 22, "learn"),
        ("out.example.org", 80, "learn"),
    ]);
    let blocks = "      private_addresses: [\"10.0.0.0/8\", \"192.168.0.0/16\"]\n";
    let written = learned.written();
    assert!(
        written.text.contains(&format!("hosts: [a.in.example.org]\n      ports: [80]\n{blocks}")),
        "{}",
        written.text
    );
    // Not where another endpoint, or learning alone, let it through.
    assert_eq!(written.text.matches("private_addresses").count(), 1, "{}", written.text);
    assert_eq!((written.endpoints, written.beside), (3, false));
    Policy::parse(&[Source::new("learned", &written.text)]).unwrap_or_else(|e| panic!("{e}\n{}", written.text));
}

#[test]
fn what_no_run_can_show_is_left_to_the_policy_in_force() {
    let mut learned = seen_beside_base(&[
        ("a.in.example.org", 80, "inner"),
        ("out.example.org", 80, "learn"),
        ("tool.example.org", 80, "tools"),
    ]);
    let host = Host::parse("tool.example.org").unwrap();
    learned.see_request(&host, Port::HTTP, "GET", "/more");
    learned.see_endpoint(&host, Port::HTTP, "tools", true);
    let written = learned.written();
    let want = "# Use this beside the policy that was in force (`--policy` is taken several times). It says what no run can show:
#   endpoint `tools`: `binaries`, `limits`, `credentials: [key]`
version: 1
network:
  endpoints:
    out.example.org:
      hosts: [out.example.org]
      ports: [80]
# not repeated: a.in.example.org:80 is in endpoint `inner` of that policy
# not repeated: tool.example.org:80 is in endpoint `tools` of that policy, which does not allow all that was asked; add to it what it lacks of
#       allow:
#         - {methods: [GET], paths: [/more]}
";
    assert_eq!(written.text, want);
    assert_eq!((written.endpoints, written.beside), (1, true));
    let both = [Source::new("base", BASE), Source::new("learned", &written.text)];
    Policy::parse(&both).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn what_was_refused_is_listed() {
    let mut learned = Learned::new();
    learned.see_refused("in.example.org:443".to_owned(), Some(Reason::SsrfInternal), "a private\nnetwork: {}", 2);
    let written = learned.written();
    assert_eq!(written.unlearned.len(), 1);
    let line = "# refused or failed: 2 × in.example.org:443  ssrf_internal: a private\\u{a}network: {}\n";
    assert!(written.text.ends_with(line), "{}", written.text);
    assert!(Policy::parse(&[Source::new("learned", &written.text)]).unwrap().network().endpoints.is_empty());
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut learned = Learned::new();
    for i in 0..MAX_HOSTS + 5 {
        learned.observe(&Host::parse(&format!("h{i}.example.org")).unwrap(), Port::HTTPS, Seen::Tls);
    }
    let host = Host::parse("h0.example.org").unwrap();
    (1..=400).for_each(|p| learned.observe(&host, Port::new(p).unwrap(), Seen::Opaque));
    assert_eq!((learned.hosts.len(), learned.hosts[&host].len()), (MAX_HOSTS, MAX_PORTS));
    assert!(learned.to_yaml().ends_with("# 150 more connections were not recorded\n"), "{}", learned.dropped);
}

#[test]
fn pinned_clients_are_named_and_allowed_nothing() {
    let mut learned = Learned::new();
    for i in 0..MAX_HOSTS + 5 {
        learned.see_pinned(&Host::parse(&format!("h{i}.example.org")).unwrap(), Port::HTTPS);
    }
    let text = learned.to_yaml();
    assert_eq!(text.matches("# not learned: ").count(), MAX_HOSTS);
    assert!(text.contains("# not learned: h7.example.org:443: a program did not accept"), "{text:.400}");
    assert!(Policy::parse(&[Source::new("learned", &text)]).unwrap().network().endpoints.is_empty());
}

#[test]
fn requests_become_rules() {
    let mut learned = Learned::new();
    let host = Host::parse("api.example.org").unwrap();
    let port = |n| Port::new(n).unwrap();
    let request = |method: &str, path: &str| Request::parse(method, path, &[]).unwrap();
    for (at, method, path) in
        [(443, "GET", "/a/1"), (443, "GET", "/a/2"), (443, "GET", "/a/3"), (80, "POST", "/b"), (8443, "POST", "/b")]
    {
        learned.observe(&host, port(at), if at == 443 { Seen::Tls } else { Seen::Http });
        learned.see_request(&host, port(at), method, path);
    }
    learned.observe(&host, port(8080), Seen::Tls);
    learned.observe(&host, port(22), Seen::Opaque);
    let text = learned.to_yaml();
    let want = "version: 1\nnetwork:\n  endpoints:\n    \
        api.example.org-443:\n      hosts: [api.example.org]\n      ports: [443]\n      allow:\n        - {methods: [GET], paths: [\"/a/*\"]}\n    \
        api.example.org-80:\n      hosts: [api.example.org]\n      ports: [80, 8443]\n      allow:\n        - {methods: [POST], paths: [/b]}\n    \
        api.example.org-sealed:\n      hosts: [api.example.org]\n      ports: [8080]\n      tls: passthrough\n    \
        api.example.org-tcp:\n      hosts: [api.example.org]\n      ports: [22]\n      protocol: tcp\n";
    assert_eq!(text, want);
    let policy = Policy::parse(&[Source::new("learned", &text)]).unwrap_or_else(|e| panic!("{e}"));
    let snapshot = Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap();
    for (at, method, path, allowed) in [
        (443, "GET", "/a/9", true),
        (443, "POST", "/a/1", false),
        (443, "GET", "/b", false),
        (80, "POST", "/b", true),
        (80, "GET", "/a/1", false),
    ] {
        let Verdict::Allow(permit) = snapshot.authorize(&Intent::new(Door::Connect, host.clone(), port(at))) else {
            panic!("{at}")
        };
        let verdict = snapshot.authorize_request(&permit, &request(method, path));
        assert_eq!(matches!(verdict, crate::RequestVerdict::Allow(_)), allowed, "{at} {method} {path}");
    }
}

fn host() -> impl Strategy<Value = Host> {
    let name = prop_oneof![
        "[a-c]{1,2}\\.[xy]\\.test",
        "[a-z][a-z0-9_-]{0,60}[a-z0-9]\\.[a-z]{40,60}\\.example\\.org",
        "(203\\.0\\.113|10\\.0\\.0|8\\.8\\.8)\\.[1-9]",
        "\\[2001:db8::[1-9a-f]{1,4}\\]",
        "[0-9]{1,3}e[0-9]\\.test",
    ];
    name.prop_filter_map("not a host", |text| Host::parse(&text).ok())
}

fn seen() -> impl Strategy<Value = (Host, Port, Seen)> {
    let port = prop_oneof![Just(80u16), Just(443), Just(22), 1..=u16::MAX];
    let spoken = prop_oneof![Just(Seen::Http), Just(Seen::Tls), Just(Seen::Opaque)];
    (host(), port.prop_filter_map("port", Port::new), spoken)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_policy_allows_exactly_what_was_seen(all in prop::collection::vec(seen(), 0..12), other in prop::collection::vec(seen(), 0..6)) {
        let mut learned = Learned::new();
        for (host, port, spoken) in &all {
            learned.observe(host, *port, *spoken);
        }
        let text = learned.to_yaml();
        let policy = Policy::parse(&[Source::new("learned", &text)]).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        let snapshot = Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap();
        let hosts = all.iter().chain(&other).map(|s| &s.0);
        for host in hosts {
            for port in all.iter().chain(&other).map(|s| s.1) {
                let intent = Intent::new(Door::Transparent, host.clone(), port);
                let allowed = matches!(snapshot.authorize(&intent), Verdict::Allow(_));
                let observed = all.iter().any(|(h, p, _)| h == host && *p == port);
                prop_assert_eq!(allowed, observed, "{} {}\n{}", host, port, text);
            }
        }
    }
}
