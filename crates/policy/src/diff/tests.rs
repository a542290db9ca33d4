use stockade_types::Generation;

use super::*;
use crate::{Policy, Posture, Source, model::Binary, model::Callers};

fn compiled(endpoints: &str) -> Snapshot {
    let text = format!("version: 1\nnetwork:\n  endpoints:\n{endpoints}");
    let policy = Policy::parse(&[Source::new("p.yaml", text)]).unwrap_or_else(|e| panic!("{e}"));
    Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap()
}

fn one(keys: &str) -> Snapshot {
    compiled(&format!("    api: {{hosts: [a.test.example], {keys}}}\n"))
}

/// What is newly allowed and no longer allowed, by example.
fn examples(a: &Snapshot, b: &Snapshot) -> (Vec<String>, Vec<String>) {
    let list = |changes: &[Change]| changes.iter().map(|c| c.example.clone()).collect();
    let (there, back) = (a.diff(b), b.diff(a));
    // The way back is the reverse.
    let set = |changes: &[Change]| changes.iter().map(|c| (c.before.clone(), c.after.clone())).collect::<BTreeSet<_>>();
    let turned =
        |changes: &[Change]| changes.iter().map(|c| (c.after.clone(), c.before.clone())).collect::<BTreeSet<_>>();
    assert_eq!(set(&there.newly_allowed), turned(&back.no_longer_allowed));
    (list(&there.newly_allowed), list(&there.no_longer_allowed))
}

#[test]
fn the_same_policy_differs_in_nothing() {
    for keys in [
        "tls: passthrough",
        "allow: [{methods: [GET], paths: [/a/**, '/b/*/c*']}], deny: [{query: {x: 'y*'}}]",
        "protocol: mcp, allow: [{tools: [a], arguments: {p: '/x/*'}}]",
    ] {
        let diff = one(keys).diff(&one(keys));
        assert!(diff.is_empty() && diff.notes.is_empty(), "{keys}: {diff}");
    }
}

#[test]
fn hosts_and_ports() {
    let a = compiled(
        "    x: {hosts: [a.test.example], tls: passthrough}\n    y: {hosts: ['*.b.example'], ports: [22], protocol: tcp}\n",
    );
    let b = compiled("    x: {hosts: [a.test.example, c.test.example], ports: [443, 8443], tls: passthrough}\n");
    let (newly, no_longer) = examples(&a, &b);
    // One example for each rule and reason.
    assert_eq!(newly, ["a.test.example:8443"]);
    assert_eq!(no_longer, ["example.b.example:22"]);
    let diff = compiled("    x: {hosts: [a.test.example], tls: passthrough}\n").diff(&a);
    let change = &diff.newly_allowed[0];
    assert_eq!((change.before.as_str(), change.after.as_str()), ("default (no_policy)", "network.endpoints.y"));
}

#[test]
fn rules() {
    let narrow = one("allow: [{methods: [GET], paths: [/repos/**]}], deny: [{paths: ['/repos/*/secret']}]");
    let (newly, no_longer) = examples(&narrow, &one("allow: [{methods: [GET, PUT], paths: [/repos/**]}]"));
    assert!(newly.contains(&"PUT https://a.test.example:443/repos".to_owned()), "{newly:?}");
    assert!(newly.iter().any(|e| e.ends_with("/repos/x/secret")) && no_longer.is_empty(), "{newly:?} {no_longer:?}");
    let diff = narrow.diff(&one(
        "allow: [{methods: [GET], paths: [/repos/**]}, {paths: [/repos/**]}], deny: [{paths: ['/repos/*/secret']}]",
    ));
    assert!(diff.newly_allowed.iter().any(|c| c.after == "network.endpoints.api.allow[1]"), "{diff}");
    // Without `allow` everything is allowed.
    let (newly, _) = examples(&narrow, &one("ports: [443]"));
    assert!(newly.iter().any(|e| e.starts_with("DELETE")), "{newly:?}");
    // A `deny` added.
    let (newly, no_longer) = examples(&one("ports: [443]"), &one("deny: [{headers: {x-a: 'v*'}}]"));
    assert!(newly.is_empty() && no_longer[0].ends_with("-H 'x-a: vx'"), "{no_longer:?}");
}

#[test]
fn operations() {
    let a = one("protocol: mcp, allow: [{tools: [read]}]");
    let b = one("protocol: mcp, allow: [{tools: [read, write]}, {tools: [send], arguments: {to: '*@corp.example'}}]");
    let (newly, no_longer) = examples(&a, &b);
    assert!(newly.iter().any(|e| e.contains("tools/call write")), "{newly:?}");
    assert!(newly.iter().any(|e| e.contains("tools/call send to=x@corp.example")), "{newly:?}");
    assert!(no_longer.is_empty(), "{no_longer:?}");
}

#[test]
fn terms() {
    let (newly, no_longer) = examples(&one("allow: [{methods: [GET]}]"), &one("tls: passthrough"));
    assert!(newly.iter().any(|e| e.ends_with("requests that nobody reads")) && no_longer.is_empty(), "{newly:?}");
    let (newly, _) = examples(&one("allow: [{methods: [GET]}]"), &one("mode: audit, allow: [{methods: [GET]}]"));
    assert!(newly.iter().any(|e| !e.starts_with("GET")), "{newly:?}");
    let (newly, _) = examples(&one("ports: [443]"), &one("private_addresses: [10.0.0.0/8]"));
    assert_eq!(newly, ["a.test.example:443 at 10.0.0.0/8"]);
    let (newly, no_longer) = examples(&one("limits: {request_body: 1MiB}"), &one("limits: {requests_per_minute: 5}"));
    assert_eq!((newly.len(), no_longer.len()), (1, 1));
    let (newly, _) = examples(&one("ports: [443]"), &one("encoded_slash: true"));
    assert_eq!(newly, ["a.test.example:443: paths with %2F"]);
}

#[test]
fn callers() {
    let naming = |paths: &[&str]| {
        let text = "version: 1\nnetwork: {endpoints: {api: {hosts: [a.test.example]}}}";
        let mut policy = Policy::parse(&[Source::new("p.yaml", text)]).unwrap();
        let binaries = paths.iter().map(|p| Binary { path: p.into(), sha256: None }).collect::<Vec<_>>();
        if !binaries.is_empty() {
            let callers = Callers { binaries, ancestors: false, scripts: Vec::new() };
            policy.network.endpoints[0].callers = Some(std::sync::Arc::new(callers));
        }
        Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap()
    };
    let (newly, no_longer) = examples(&naming(&["/usr/bin/git"]), &naming(&["/usr/bin/gh", "/usr/bin/git"]));
    assert_eq!((newly, no_longer), (vec!["a.test.example:443 by /usr/bin/gh".to_owned()], Vec::new()));
    let (newly, _) = examples(&naming(&["/usr/bin/git"]), &naming(&[]));
    assert_eq!(newly, ["a.test.example:443"]);
}
