use super::*;

fn given() -> Snapshot {
    let policy = Policy::parse(&[Source::new(
        "p",
        "version: 1\nnetwork: {endpoints: {a: {hosts: [a.example.org], tls: passthrough}}}",
    )]);
    Snapshot::compile(&policy.unwrap(), &[], Generation::FIRST, Posture::Enforce).unwrap()
}

fn failures(text: &str) -> Vec<Option<String>> {
    let outcomes = run(&Source::new("cases.yaml", text), Some(&given())).unwrap_or_else(|e| panic!("{e}"));
    outcomes.into_iter().map(|o| o.failure).collect()
}

/// Every file of `tests/cases/policy` passes.
#[test]
fn cases_of_the_repository() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/policy");
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut ran = 0;
    let mut failed = Vec::new();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "yaml")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let source = Source::new(name, std::fs::read_to_string(file).unwrap());
        let outcomes = run(&source, Some(&given())).unwrap_or_else(|e| panic!("{e}"));
        ran += outcomes.len();
        let wrong = outcomes.into_iter().filter(|o| o.failure.is_some());
        failed.extend(wrong.map(|o| format!("{}:{}: {}: {}", source.name, o.at.line, o.note, o.failure.unwrap())));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(ran >= 60, "only {ran} cases were found");
}

#[test]
fn a_case_that_is_wrong_fails() {
    let text = "
cases:
  - {input: {host: a.example.org, port: 443}, want: allow, endpoint: a}
  - {input: {host: a.example.org, port: 443}, want: allow, endpoint: b}
  - {input: {host: a.example.org, port: 443}, want: deny}
  - {input: {host: b.example.org, port: 443}, want: allow}
  - {input: {host: b.example.org, port: 443}, want: deny, reason: custom_deny}
  - {input: {host: b.example.org, port: 443}, want: deny, reason: no_policy, message: nonsense}
  - {policy: 'version: 1', want: reject}
  - {policy: 'version: 2', want: reject, message: nonsense}
  - {policy: 'version: 2', input: {host: b.example.org, port: 443}, want: deny}
  - {want: reject}
";
    let failures = failures(text);
    assert_eq!(failures[0], None);
    assert!(failures.iter().skip(1).all(Option::is_some), "{failures:?}");
    assert_eq!(failures[1].as_deref(), Some("allowed by endpoint `a`, not `b`"));
    assert_eq!(failures[2].as_deref(), Some("wanted deny, got allow (endpoint `a`)"));
    assert!(failures[3].as_deref().is_some_and(|why| why.starts_with("wanted allow, got deny (no_policy): ")));
    assert_eq!(failures[4].as_deref(), Some("denied for no_policy, not custom_deny"));
}

#[test]
fn without_a_policy_there_is_nothing_to_test() {
    let run = |text| run(&Source::new("cases.yaml", text), None);
    let bare = run("cases: [{want: deny, input: {host: a.b, port: 1}}]").unwrap_err().to_string();
    assert!(bare.starts_with("cases.yaml:1:9: a case without a policy") && bare.contains("--policy FILE"), "{bare}");
    let own = run("cases: [{policy: 'version: 1', want: deny, input: {host: a.b, port: 1}}]").unwrap();
    assert_eq!(own[0].failure, None);
}

#[test]
fn a_file_of_cases_is_checked() {
    for (text, want) in [
        ("cases: [{want: alow, input: {host: a.b, port: 1}}]", "unknown answer `alow`"),
        ("cases: [{input: {host: a.b, port: 1}}]", "`want` is missing"),
        ("cases: [{want: deny}]", "`input` is missing"),
        ("cases: [{want: deny, input: {host: a.b}}]", "`host` or `port` is missing"),
        ("cases: [{want: deny, input: {host: a.b, port: 0}}]", "expected a number from 1 to 65535"),
        ("cases: [{want: deny, input: {host: 'a b', port: 1}}]", "a character that no host name has"),
        ("cases: [{want: deny, reason: nope, input: {host: a.b, port: 1}}]", "unknown reason `nope`"),
        ("cases: [{want: allow, reason: no_policy, input: {host: a.b, port: 1}}]", "does not go with `want`"),
        ("case: []", "did you mean `cases`?"),
        ("cases: {", "not valid YAML"),
    ] {
        let text = run(&Source::new("cases.yaml", text), Some(&given())).unwrap_err().to_string();
        assert!(text.contains(want), "{text}");
    }
}
