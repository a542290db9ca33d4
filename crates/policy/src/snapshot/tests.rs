use stockade_types::{Authority, Port};

use super::*;
use crate::decision::{Door, TlsMode};

fn policy(network: &str) -> Policy {
    Policy::parse(&[Source::new("p.yaml", format!("version: 1\nnetwork:\n  endpoints:\n{network}"))])
        .unwrap_or_else(|e| panic!("{e}"))
}

fn snapshot(network: &str) -> Snapshot {
    Snapshot::compile(&policy(network), &[], Generation::FIRST, Posture::Enforce).unwrap()
}

fn with_module(network: &str, module: &str, posture: Posture) -> Result<Snapshot, Rejected> {
    let modules = [Source::new("extra.rego", module)];
    Snapshot::compile(&policy(network), &modules, Generation::FIRST, posture)
}

fn intent(authority: &str) -> Intent {
    let Authority { host, port } = Authority::parse(authority, None).unwrap();
    Intent::new(Door::Connect, host, port)
}

fn permit(snapshot: &Snapshot, authority: &str) -> Permit {
    match snapshot.authorize(&intent(authority)) {
        Verdict::Allow(permit) => permit,
        Verdict::Deny(denial) => panic!("{authority}: {denial:?}"),
    }
}

fn denial(snapshot: &Snapshot, authority: &str) -> Denial {
    match snapshot.authorize(&intent(authority)) {
        Verdict::Allow(permit) => panic!("{authority}: {permit:?}"),
        Verdict::Deny(denial) => denial,
    }
}

const THREE: &str = "
    exact: {hosts: [a.test.example], tls: passthrough}
    one: {hosts: ['*.test.example'], ports: [80, 443], tls: passthrough}
    many: {hosts: ['**.test.example', '203.0.113.10'], ports: [22], protocol: tcp, private_addresses: [203.0.113.0/24]}
";

#[test]
fn the_most_specific_endpoint_names_the_terms() {
    let s = snapshot(THREE);
    for (authority, endpoint) in [
        ("a.test.example:443", "exact"),
        ("A.Test.Example.:443", "exact"),
        ("a.test.example:80", "one"),
        ("b.test.example:443", "one"),
        ("a.test.example:22", "many"),
        ("c.b.test.example:22", "many"),
        ("203.0.113.10:22", "many"),
    ] {
        for _ in 0..2 {
            assert_eq!(permit(&s, authority).terms().endpoint, endpoint, "{authority}");
        }
    }
}

#[test]
fn what_no_endpoint_matches_is_denied() {
    let s = snapshot(THREE);
    for authority in [
        "test.example:443",
        "eviltest.example:443",
        "test.example.evil.test:443",
        "b.a.test.example:443",
        "203.0.113.11:22",
        "a.test.example:444",
        "xa.test.example.:22222",
        "[::ffff:203.0.113.10]:22",
    ] {
        let d = denial(&s, authority);
        assert_eq!((d.reason, d.rule.as_str()), (Reason::NoPolicy, "default"), "{authority}");
    }
}

#[test]
fn an_empty_policy_denies_everything() {
    for text in [
        "version: 1",
        "version: 1\nnetwork:",
        "version: 1\nnetwork: {endpoints: {}}",
        "version: 1\nnetwork: {endpoints: }",
    ] {
        let p = Policy::parse(&[Source::new("p", text)]).unwrap();
        let s = Snapshot::compile(&p, &[], Generation::FIRST, Posture::Enforce).unwrap();
        assert_eq!(denial(&s, "a.test.example:443").reason, Reason::NoPolicy);
        assert!(matches!(s.name(&"a.test.example".parse().unwrap()), NameVerdict::Unknown(_)));
    }
    let p = Policy::parse(&[]).unwrap();
    let s = Snapshot::compile(&p, &[], Generation::FIRST, Posture::Enforce).unwrap();
    assert_eq!(denial(&s, "a.test.example:443").reason, Reason::NoPolicy);
}

#[test]
fn names() {
    let s = snapshot(THREE);
    for (name, literal) in [("a.test.example", true), ("b.test.example", false), ("c.b.test.example", false)] {
        let NameVerdict::Known { literal: got } = s.name(&name.parse().unwrap()) else { panic!("{name}") };
        assert_eq!(got, literal, "{name}");
    }
    let NameVerdict::Unknown(d) = s.name(&"test.example".parse().unwrap()) else { panic!() };
    assert_eq!(d.reason, Reason::DnsNoPolicy);
    assert!(d.suggestion.unwrap().contains("hosts: [test.example]"));
    let literal: Vec<&str> = s.literal_names().map(HostName::as_str).collect();
    assert_eq!(literal, ["a.test.example"]);
    assert_eq!(s.transparent_ports().iter().copied().collect::<Vec<_>>(), [22, 80, 443]);
}

#[test]
fn reserved_names_are_denied_in_every_posture() {
    let p = policy("    all: {hosts: ['**.google.internal'], tls: passthrough}");
    for posture in [Posture::Enforce, Posture::Learn { inspect: true }] {
        let s = Snapshot::compile(&p, &[], Generation::FIRST, posture).unwrap();
        for (authority, reason) in [
            ("metadata.google.internal:80", Reason::SsrfMetadata),
            ("metadata.google.internal:443", Reason::SsrfMetadata),
            ("x.localhost:443", Reason::SsrfAlwaysBlocked),
            ("inference.local:443", Reason::NotAvailable),
        ] {
            let d = denial(&s, authority);
            assert_eq!((d.reason, d.suggestion), (reason, None), "{authority}");
        }
        assert!(matches!(s.name(&"metadata.google.internal".parse().unwrap()), NameVerdict::Unknown(_)));
        assert!(matches!(s.name(&"other.google.internal".parse().unwrap()), NameVerdict::Known { literal: false }));
    }
}

#[test]
fn suggestions_allow_what_was_denied() {
    let s = snapshot(THREE);
    for door in [Door::Connect, Door::Forward, Door::Transparent] {
        for authority in [
            "new.example.org:443",
            "new.example.org:80",
            "new.example.org:2222",
            "new.example.org:8443",
            "8.8.8.8:53",
            "10.1.2.3:443",
            "[2606:4700::1111]:443",
            "[fd12::1]:5432",
        ] {
            let asked = Intent { door, ..intent(authority) };
            let Verdict::Deny(d) = s.authorize(&asked) else { panic!("{authority}") };
            let text = format!("version: 1\n{}\n", d.suggestion.unwrap());
            let p = Policy::parse(&[Source::new("suggested", &text)]).unwrap_or_else(|e| panic!("{text}: {e}"));
            let fixed = Snapshot::compile(&p, &[], Generation::FIRST, Posture::Enforce).unwrap();
            assert!(matches!(fixed.authorize(&asked), Verdict::Allow(_)), "{text}");
        }
    }
    for authority in ["127.0.0.1:80", "169.254.169.254:80", "[::1]:443", "198.18.0.7:443", "xn--bcher-kva.test:443"] {
        assert_eq!(denial(&s, authority).suggestion, None, "{authority}");
    }
}

#[test]
fn a_missing_port_is_suggested_as_a_port() {
    let s = snapshot(
        "    web: {hosts: [a.test.example], ports: [80]}\n    git: {hosts: [b.test.example], ports: [22], protocol: tcp}",
    );
    let d = denial(&s, "a.test.example:443");
    let want = "network:\n  endpoints:\n    web:\n      ports: [80, 443]";
    assert_eq!(d.suggestion.as_deref(), Some(want));
    assert_eq!(d.detail, "endpoint `web` covers a.test.example, but not port 443");
    let d = denial(&s, "b.test.example:443");
    assert_eq!(d.suggestion.as_deref(), Some("network:\n  endpoints:\n    git:\n      ports: [22, 443]"));
}

#[test]
fn user_modules_deny() {
    let module = "package stockade.custom\n\
        deny contains msg if {\n\tinput.destination.port == 80\n\tmsg := sprintf(\"no plain http to %s\", [input.destination.host])\n}\n\
        ask contains \"sure?\" if input.destination.host == \"b.test.example\"\n";
    let s = with_module(THREE, module, Posture::Enforce).unwrap();
    let d = denial(&s, "a.test.example:80");
    assert_eq!((d.reason, d.rule.as_str()), (Reason::CustomDeny, "rego.deny"));
    assert_eq!(d.detail, "a Rego rule denies a.test.example:80: no plain http to a.test.example");
    assert_eq!(permit(&s, "a.test.example:443").terms().endpoint, "exact");
    assert_eq!(denial(&s, "b.test.example:443").reason, Reason::NotAvailable);
    // They take away and never add.
    assert_eq!(denial(&s, "z.example.org:443").reason, Reason::NoPolicy);
}

#[test]
fn user_modules_see_the_documented_input() {
    let module = "package stockade.custom\n\
        deny contains sprintf(\"%v\", [input]) if true\n";
    let s = with_module(THREE, module, Posture::Enforce).unwrap();
    let d = denial(&s, "a.test.example:443");
    for part in [
        "\"version\": 1",
        "\"kind\": \"connect\"",
        "\"door\": \"connect\"",
        "\"labels\": 3",
        "\"port\": 443",
        "\"kind\": \"name\"",
        "\"host\": \"a.test.example\"",
        "\"name\": \"exact\"",
        "\"protocol\": \"http\"",
        "\"tls\": \"passthrough\"",
        "\"mode\": \"enforce\"",
    ] {
        assert!(d.detail.contains(part), "{part} in {}", d.detail);
    }
    assert!(!d.detail.contains("candidates"));
}

#[test]
fn learning_and_audit_record_what_they_let_through() {
    let module = "package stockade.custom\ndeny contains \"never\" if input.destination.port == 443\n";
    let s = with_module(THREE, module, Posture::Learn { inspect: false }).unwrap();
    let p = permit(&s, "z.example.org:8443");
    assert_eq!(p.would_deny().unwrap().reason, Reason::NoPolicy);
    assert_eq!((p.terms().protocol, p.terms().tls), (Protocol::Http, TlsMode::Passthrough));
    let inspecting = with_module(THREE, module, Posture::Learn { inspect: true }).unwrap();
    for (at, protocol, tls) in [
        ("z.example.org:443", Protocol::Http, TlsMode::Inspect),
        ("z.example.org:22", Protocol::Tcp, TlsMode::Passthrough),
        // What an endpoint says holds.
        ("b.test.example:443", Protocol::Http, TlsMode::Passthrough),
    ] {
        let terms = permit(&inspecting, at);
        assert_eq!((terms.terms().protocol, terms.terms().tls), (protocol, tls), "{at}");
    }
    let p = permit(&s, "a.test.example:443");
    assert_eq!((p.terms().endpoint.as_str(), p.would_deny().unwrap().reason), ("exact", Reason::CustomDeny));
    assert_eq!(permit(&s, "a.test.example:22").would_deny(), None);
    assert!(matches!(s.name(&"z.example.org".parse().unwrap()), NameVerdict::Known { literal: false }));

    let audit = "    a: {hosts: [a.test.example], tls: passthrough, mode: audit}";
    let s = with_module(audit, module, Posture::Enforce).unwrap();
    assert_eq!(permit(&s, "a.test.example:443").would_deny().unwrap().reason, Reason::CustomDeny);
    // Audit is of one endpoint: what no endpoint covers is denied as ever.
    assert_eq!(denial(&s, "b.test.example:443").reason, Reason::NoPolicy);
}

#[test]
fn modules_that_cannot_work_are_refused_with_their_place() {
    for (module, want) in [
        ("package stockade.custom\ndeny contains msg if {\n", "extra.rego:"),
        ("package stockade.custom\n\n\ndeny contains ) if true\n", "extra.rego:4:15"),
        (
            "# x\npackage stockade.base\ndecision := {\"effect\": \"allow\"}\n",
            "extra.rego:2:1: package stockade.base: a module of a policy",
        ),
        ("package stockade.customs\ndeny contains 1 if true\n", "extra.rego:1:1: package stockade.customs"),
        ("package stockade.custom\nx := 1\n", "extra.rego: not valid Rego"),
        ("package stockade.custom\ndeny := \"all\"\n", "`deny` is not a set of messages"),
        (
            "package stockade.custom\n\ndeny contains \"x\" if time.now_ns() > 0\n",
            "extra.rego:3:33: not valid Rego: Unknown function",
        ),
        ("package stockade.custom\ndeny contains \"x\" if rand.intn(\"a\", 4) > 0\n", "extra.rego:2:1: `rand.intn`"),
        ("package stockade.custom\ndeny contains \"x\" if http.send({}) > 0\n", "extra.rego"),
        (
            "package stockade.custom\n\ndeny contains \"x\" if {\n\tinput.version == 2\n\tundefined_function(1)\n}\n",
            "extra.rego:5:",
        ),
        ("package stockade.custom\nf(x) := f(x + 1)\ndeny contains \"x\" if f(1) == 2\n", "recursion"),
        ("package stockade.custom\na if b\nb if a\ndeny contains \"x\" if a\n", "recursion"),
        (
            "package stockade.custom\ndeny contains \"x\" if input.version / 0 == 1\n",
            "fails for a connection to example.com:443",
        ),
        (
            "package stockade.custom\ndeny contains \"x\" if input.version == 2 with input as {}\n",
            "`with` keyword is not supported",
        ),
        ("", "extra.rego"),
    ] {
        for posture in [Posture::Enforce, Posture::Learn { inspect: true }] {
            let text = with_module(THREE, module, posture).map(|_| ()).unwrap_err().to_string();
            assert!(text.contains(want), "{module}: {text}");
        }
    }
}

#[test]
fn calls_nest_only_so_deep() {
    let chain = |n: usize| {
        let mut module = String::from("package stockade.custom\nf0(x) := x + 1\n");
        for i in 1..n {
            module.push_str(&format!("f{i}(x) := [y | some z in [x]; y := f{}(z) + 1][0]\n", i - 1));
        }
        module.push_str(&format!("deny contains \"x\" if f{}(1) == 1\n", n - 1));
        with_module(THREE, &module, Posture::Enforce)
    };
    permit(&chain(24).unwrap(), "a.test.example:443");
    for n in [25, 100, 2_000] {
        let text = chain(n).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("deeper than 24") || text.contains("not valid Rego"), "{text}");
    }
    for rules in [
        "f(x) := g(x)\ng(x) := f(x)",
        "f(x) := [f(y) | some y in [x]][0]",
        "f(x) := {\"k\": f(x)}.k",
        "f(x) := 1 if x == 0\nf(x) := y if { x > 0; y := f(x - 1) }",
        "f(x) := 1 if { not g(x) }\ng(x) if { every y in [x] { f(y) } }",
        "f(x) := 2 if x == 7 else := f(x + 1)",
        "f(x) := r if x\nr := 1 if f(true)",
    ] {
        let module = format!("package stockade.custom\n{rules}\ndeny contains \"x\" if f(1) == 2\n");
        let text = with_module(THREE, &module, Posture::Enforce).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("recursion"), "{rules}: {text}");
    }
}

#[test]
fn a_module_that_is_named_must_be_given() {
    let p = Policy::parse(&[Source::new("p.yaml", "version: 1\nrego: [rules/extra.rego]\n")]).unwrap();
    let compile = |modules: &[Source]| Snapshot::compile(&p, modules, Generation::FIRST, Posture::Enforce);
    let text = compile(&[]).unwrap_err().to_string();
    assert_eq!(text, "p.yaml:2:8: the module `rules/extra.rego` was not loaded");
    let module = "package stockade.custom\ndeny contains \"x\" if false\n";
    assert!(compile(&[Source::new("/etc/stockade/rules/extra.rego", module)]).is_ok());
    assert!(compile(&[Source::new("/etc/stockade/other.rego", module)]).is_err());
}

/// Rules that fail in many ways, for one destination only: a `deny` that fails must not be a `deny` that is silent.
const FAILING: [&str; 6] = [
    "deny contains \"x\" if {\n\tbad\n\tinput.destination.port / 0 == 1\n}",
    "deny contains \"x\" if {\n\tbad\n\tregex.match(\"(\", input.destination.host)\n}",
    "deny contains \"x\" if {\n\tbad\n\tto_number(input.destination.host) == 1\n}",
    "v := 1 if bad\nv := 2 if input.version\ndeny contains \"x\" if v == 1",
    "f(x) := 1 if bad\nf(x) := 2 if x\ndeny contains \"x\" if f(true) == 1",
    "deny contains \"x\" if {\n\tbad\n\tsome a in numbers.range(1, 3000)\n\tsome b in numbers.range(1, 3000)\n\ta * b == -1\n}",
];

#[test]
fn engine_errors_deny_and_are_not_remembered() {
    for rules in FAILING {
        let module = format!("package stockade.custom\nbad if input.destination.host == \"a.test.example\"\n{rules}\n");
        for posture in [Posture::Enforce, Posture::Learn { inspect: true }] {
            let s = with_module(THREE, &module, posture).unwrap_or_else(|e| panic!("{rules}: {e}"));
            let begun = std::time::Instant::now();
            let d = denial(&s, "a.test.example:443");
            assert_eq!(d.reason, Reason::EngineError, "{rules}: {d:?}");
            assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{rules}");
            assert_eq!(s.cache.len(), 0, "{rules}");
            assert_eq!(permit(&s, "b.test.example:443").would_deny(), None, "{rules}");
        }
    }
}

#[test]
fn the_cache_is_bounded() {
    let s = snapshot(THREE);
    for i in 0..3 * CACHED {
        let asked = Intent { port: Port::new(443).unwrap(), ..intent(&format!("h{i}.example.org:443")) };
        assert!(matches!(s.authorize(&asked), Verdict::Deny(_)));
    }
    assert!(s.cache.len() <= CACHED, "{}", s.cache.len());
}

#[test]
fn the_digest_is_of_sources_and_modules() {
    let m = |t: &str| {
        with_module(THREE, &format!("package stockade.custom\ndeny contains \"{t}\" if false\n"), Posture::Enforce)
    };
    let (plain, a, b) = (snapshot(THREE), m("a").unwrap(), m("b").unwrap());
    assert_eq!(plain.digest(), snapshot(THREE).digest());
    assert!(plain.digest().len() == 64 && plain.digest() != a.digest() && a.digest() != b.digest());
}

#[test]
fn dns_and_connections_agree_on_reserved_names() {
    let s = snapshot("    all: {hosts: ['**.google.internal', '**.host.example'], tls: passthrough}");
    for (name, reserved) in [
        ("metadata.google.internal", true),
        ("x.metadata.google.internal", true),
        ("xmetadata.google.internal", false),
        ("a.localhost", true),
        ("localhost.host.example", false),
        ("inference.local", true),
        ("a.inference.local", true),
        ("stockade.local", true),
        ("a.host.example", false),
    ] {
        let by_name = matches!(s.name(&name.parse().unwrap()), NameVerdict::Unknown(d) if d.rule == "reserved");
        let asked = intent(&format!("{name}:443"));
        let by_connection = matches!(s.authorize(&asked), Verdict::Deny(d) if d.rule == "reserved");
        assert_eq!((by_name, by_connection), (reserved, reserved), "{name}");
    }
}

/// The examples of the documentation are what they say they are.
#[test]
fn documentation() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let block = |file: &str, language: &str| {
        let text = std::fs::read_to_string(docs.join(file)).unwrap();
        let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let policy =
        Policy::parse(&[Source::new("policy.md", block("policy.md", "yaml"))]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(policy.network().endpoints.len(), 3);
    assert!(policy.process().require_weakened().is_empty());
    let modules = [Source::new("extra.rego", block("rego-input.md", "rego"))];
    let s = Snapshot::compile(&policy, &modules, Generation::FIRST, Posture::Enforce).unwrap_or_else(|e| panic!("{e}"));
    permit(&s, "api.github.com:443");
    assert_eq!(denial(&s, "api.github.com:80").reason, Reason::NoPolicy);
}

mod invisible {
    //! Neither the index nor the cache changes a verdict: each is compared with Rego over every row of the policy.

    use proptest::prelude::*;

    use super::*;
    use crate::{index::PatternRef, model::HostPattern};

    /// Every pattern of every endpoint as a candidate, most specific first: what Rego would be asked without an index.
    fn all_rows(endpoints: &[Endpoint]) -> Vec<Candidate<'_>> {
        let mut rows: Vec<(u8, isize, Candidate<'_>)> = Vec::new();
        for (at, endpoint) in (0u32..).zip(endpoints) {
            for pattern in &endpoint.hosts {
                let labels = |name: &HostName| -name.labels().count().cast_signed();
                let (rank, length, pattern) = match pattern {
                    HostPattern::Exact(host) => (0, 0, PatternRef::Exact(host)),
                    HostPattern::One(parent) => (1, labels(parent), PatternRef::One(parent.as_str())),
                    HostPattern::Many(parent) => (2, labels(parent), PatternRef::Many(parent.as_str())),
                };
                rows.push((rank, length, Candidate { endpoint: at, pattern }));
            }
        }
        rows.sort_by_key(|(rank, length, c)| (*rank, *length, c.endpoint));
        rows.into_iter().map(|(_, _, c)| c).collect()
    }

    fn shown(verdict: Result<Outcome, EngineError>) -> (bool, String, Option<Reason>) {
        match verdict.unwrap() {
            Outcome::Allow { terms, would_deny } => (true, terms.endpoint.clone(), would_deny.map(|d| d.reason)),
            Outcome::Deny(denial) => (false, denial.rule.clone(), Some(denial.reason)),
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        let name = "[ab](\\.[ab]){1,3}\\.test";
        prop_oneof![
            name,
            name.prop_map(|n| format!("*.{n}")),
            name.prop_map(|n| format!("**.{n}")),
            Just("203.0.113.7".to_owned()),
            Just("**.google.internal".to_owned()),
        ]
    }

    fn endpoints() -> impl Strategy<Value = String> {
        // All alike but for hosts, ports and names, so that no two contradict each other.
        let one = (
            prop::collection::vec(pattern(), 1..5),
            prop::collection::vec(prop_oneof![Just(22u16), Just(80), Just(443)], 1..3),
        );
        prop::collection::vec(one, 1..12).prop_map(|all| {
            let line = |(i, (hosts, ports)): (usize, &(Vec<String>, Vec<u16>))| {
                let hosts: Vec<String> = hosts.iter().map(|h| format!("'{h}'")).collect();
                let blocks = "private_addresses: [203.0.113.0/24]";
                format!("    e{i}: {{hosts: [{}], ports: {ports:?}, tls: passthrough, {blocks}}}\n", hosts.join(", "))
            };
            all.iter().enumerate().map(line).collect()
        })
    }

    fn asked() -> impl Strategy<Value = String> {
        let host = prop_oneof![
            4 => "[ab](\\.[ab]){0,4}\\.test",
            1 => Just("203.0.113.7".to_owned()),
            1 => Just("metadata.google.internal".to_owned()),
            1 => Just("x.google.internal".to_owned()),
        ];
        (host, prop_oneof![Just(22), Just(80), Just(443), Just(8080)]).prop_map(|(host, port)| format!("{host}:{port}"))
    }

    const MODULE: &str = "package stockade.custom\ndeny contains \"no\" if {\n\tinput.destination.port == 80\n\tstartswith(input.destination.host, \"a.\")\n}\n";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn index_and_cache(network in endpoints(), all in prop::collection::vec(asked(), 1..24), learn in any::<bool>()) {
            let posture = if learn { Posture::Learn { inspect: false } } else { Posture::Enforce };
            let s = with_module(&network, MODULE, posture).unwrap();
            let rows = all_rows(&s.endpoints);
            for authority in all.iter().chain(&all) {
                let intent = intent(authority);
                let scanned = shown(s.decide(&intent, &rows));
                let indexed = shown(s.decide(&intent, &s.index.candidates(&intent.host)));
                let answered = match s.authorize(&intent) {
                    Verdict::Allow(p) => (true, p.terms().endpoint.clone(), p.would_deny().map(|d| d.reason)),
                    Verdict::Deny(d) => (false, d.rule, Some(d.reason)),
                };
                prop_assert_eq!(&scanned, &indexed, "{} in\n{}", authority, network);
                prop_assert_eq!(&scanned, &answered, "{} in\n{}", authority, network);
                // The patterns' own grammar agrees with Rego's.
                let covered = s.endpoints.iter().any(|e| {
                    e.ports.contains(&intent.port) && e.hosts.iter().any(|h| h.matches(&intent.host))
                });
                if scanned.2.is_none() || scanned.2 == Some(Reason::NoPolicy) {
                    prop_assert_eq!(scanned.2.is_none(), covered, "{} in\n{}", authority, network);
                }
            }
        }
    }
}

#[test]
fn many_threads_get_the_same_answers() {
    let s = snapshot(THREE);
    std::thread::scope(|scope| {
        for t in 0..8 {
            let s = &s;
            scope.spawn(move || {
                for i in 0..200 {
                    let fresh = format!("h{t}-{i}.test.example:443");
                    assert_eq!(permit(s, &fresh).terms().endpoint, "one");
                    assert_eq!(denial(s, &format!("h{t}-{i}.example.net:443")).reason, Reason::NoPolicy);
                }
            });
        }
    });
}
