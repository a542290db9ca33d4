use stockade_types::{Authority, Generation, Reason};

use super::*;
use crate::{Denial, Door, Intent, Policy, Posture, Snapshot, Source, Verdict, parse};

/// Endpoints with the callers of the second column, as the key `binaries` gives them.
fn snapshot(endpoints: &[(&str, &str)]) -> Snapshot {
    let line = |(name, keys): (usize, &(&str, &str))| format!("    e{name}: {{{}}}\n", keys.0);
    let text: String = endpoints.iter().enumerate().map(line).collect();
    let text = format!("version: 1\nnetwork:\n  endpoints:\n{text}");
    let mut policy = Policy::parse(&[Source::new("p.yaml", text)]).unwrap_or_else(|e| panic!("{e}"));
    for (endpoint, (_, callers)) in policy.network.endpoints.iter_mut().zip(endpoints) {
        endpoint.callers = parse::callers(callers).unwrap_or_else(|e| panic!("{e}"));
    }
    Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap()
}

fn running(snapshot: &Snapshot, exe: &str) -> Caller {
    let matched = (0u32..).zip(snapshot.binaries()).filter(|(_, b)| b.path.to_str() == Some(exe)).map(|(id, _)| id);
    Caller { exe: exe.to_owned(), sha256: None, matched: matched.collect(), ancestors: Some(Vec::new()), script: None }
}

fn ask(snapshot: &Snapshot, caller: Option<Caller>) -> Result<String, Denial> {
    let Authority { host, port } = Authority::parse("a.test.example:443", None).unwrap();
    let intent = Intent { caller: caller.map(Arc::new), ..Intent::new(Door::Connect, host, port) };
    match snapshot.authorize(&intent) {
        Verdict::Allow(permit) => Ok(permit.terms().endpoint.clone()),
        Verdict::Deny(denial) => Err(denial),
    }
}

#[test]
fn who_asks_decides_between_endpoints() {
    let s = snapshot(&[
        ("hosts: ['*.test.example']", "[]"),
        ("hosts: [a.test.example]", "[]"),
        ("hosts: [a.test.example]", "[/usr/bin/gh]"),
        ("hosts: [a.test.example]", "[/usr/bin/git, /usr/bin/gh]"),
    ]);
    assert_eq!(s.binaries().len(), 2);
    for (exe, endpoint) in [("/usr/bin/gh", "e2"), ("/usr/bin/git", "e3"), ("/usr/bin/curl", "e1")] {
        assert_eq!(ask(&s, Some(running(&s, exe))).unwrap(), endpoint, "{exe}");
    }
    assert_eq!(ask(&s, None).unwrap(), "e1");
}

#[test]
fn nobody_known_and_somebody_else_are_denied() {
    let s = snapshot(&[("hosts: [a.test.example]", "[/usr/bin/git]")]);
    let d = ask(&s, None).unwrap_err();
    assert_eq!((d.reason, d.rule.as_str()), (Reason::IdentityUnresolved, "network.endpoints.e0.binaries"));
    let d = ask(&s, Some(running(&s, "/tmp/git"))).unwrap_err();
    assert_eq!((d.reason, d.suggestion), (Reason::IdentityNoMatch, None));
    assert_eq!(
        d.detail,
        "endpoint `e0` opens a.test.example:443 to certain executables, and /tmp/git is none of them, or not as the endpoint wants it"
    );
    // The path alone is nothing: what matches has been found out by what it is.
    let forged = Caller { matched: Vec::new(), ..running(&s, "/usr/bin/git") };
    assert_eq!(ask(&s, Some(forged)).unwrap_err().reason, Reason::IdentityNoMatch);
    // A place beyond the table is nobody.
    let beyond = Caller { matched: vec![7], ..running(&s, "/x") };
    assert_eq!(ask(&s, Some(beyond)).unwrap_err().reason, Reason::IdentityNoMatch);
    assert_eq!(ask(&s, Some(running(&s, "/usr/bin/git"))).unwrap(), "e0");
}

#[test]
fn ancestors_only_narrow() {
    let s = snapshot(&[("hosts: [a.test.example]", "{any: [/usr/bin/git, /bin/sh], ancestors: true}")]);
    let git = running(&s, "/usr/bin/git");
    let above = |exe: &str| Ancestor { exe: exe.to_owned(), matched: running(&s, exe).matched };
    for (ancestors, allowed) in [
        (Some(vec![]), true),
        (Some(vec![above("/bin/sh")]), true),
        (Some(vec![above("/bin/sh"), above("/usr/bin/python3")]), false),
        (Some(vec![above("/usr/bin/python3")]), false),
        // A chain that is not known whole.
        (None, false),
    ] {
        let caller = Caller { ancestors: ancestors.clone(), ..git.clone() };
        assert_eq!(ask(&s, Some(caller)).is_ok(), allowed, "{ancestors:?}");
    }
    let child = Caller { ancestors: Some(vec![above("/usr/bin/git")]), ..running(&s, "/usr/bin/python3") };
    assert_eq!(ask(&s, Some(child)).unwrap_err().reason, Reason::IdentityNoMatch);
}

#[test]
fn scripts() {
    let s = snapshot(&[("hosts: [a.test.example]", "{any: [/usr/bin/python3], scripts: [/opt/fetch.py]}")]);
    let python = running(&s, "/usr/bin/python3");
    for (script, allowed) in [(Some("/opt/fetch.py"), true), (Some("/tmp/x.py"), false), (None, false)] {
        let caller = Caller { script: script.map(str::to_owned), ..python.clone() };
        assert_eq!(ask(&s, Some(caller)).is_ok(), allowed, "{script:?}");
    }
}

#[test]
fn a_pinned_executable_is_another_than_the_same_path() {
    let pin = "0123456789abcdef".repeat(4);
    let s = snapshot(&[
        ("hosts: [a.test.example]", &format!("[{{path: /usr/bin/git, sha256: {pin}}}]")),
        ("hosts: ['*.test.example']", "[/usr/bin/git]"),
    ]);
    assert_eq!(s.binaries().len(), 2);
    assert_eq!((s.binaries()[0].sha256, s.binaries()[1].sha256.unwrap()[1]), (None, 0x23));
    let with = |matched: Vec<u32>| ask(&s, Some(Caller { matched, ..running(&s, "/usr/bin/git") })).unwrap();
    assert_eq!((with(vec![0]).as_str(), with(vec![0, 1]).as_str()), ("e1", "e0"));
}

#[test]
fn grammar() {
    for (text, want) in [
        ("[git]", "`git`: not an absolute path"),
        ("{any: []}", "an empty list"),
        ("{paths: [/usr/bin/git]}", "unknown key `paths`"),
        ("{ancestors: true}", "`any` is missing"),
        ("{any: [/a], scripts: []}", "an empty list"),
        ("{any: [/a], ancestors: yes}", "expected true or false"),
        ("[{path: /a, sha256: 12}]", "expected text"),
    ] {
        let said = parse::callers(text).map(|c| format!("{c:?}")).map_err(|e| e.to_string());
        assert!(said.as_ref().is_err_and(|e| e.contains(want)), "{text}: {said:?}");
    }
    let callers = parse::callers("[/a, /a, {path: /a}]").unwrap().unwrap();
    assert_eq!(callers.binaries.len(), 1);
}
