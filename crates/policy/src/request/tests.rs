use stockade_types::{Authority, Generation};

use super::*;
use crate::{Door, Policy, Source, Verdict};

fn snapshot(endpoint: &str) -> Snapshot {
    with(endpoint, &[], Posture::Enforce)
}

fn with(endpoint: &str, modules: &[Source], posture: Posture) -> Snapshot {
    let text = format!("version: 1\nnetwork:\n  endpoints:\n    api: {{hosts: [a.test.example], {endpoint}}}\n");
    let policy = Policy::parse(&[Source::new("p.yaml", text)]).unwrap_or_else(|e| panic!("{e}"));
    Snapshot::compile(&policy, modules, Generation::FIRST, posture).unwrap_or_else(|e| panic!("{e}"))
}

fn permit(snapshot: &Snapshot) -> Permit {
    let Authority { host, port } = Authority::parse("a.test.example:443", None).unwrap();
    match snapshot.authorize(&Intent::new(Door::Connect, host, port)) {
        Verdict::Allow(permit) => permit,
        Verdict::Deny(denial) => panic!("{denial:?}"),
    }
}

/// `GET /path?k=v&k=w`, then header fields.
fn request(line: &str, headers: &[(&str, &str)]) -> Request {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pair = |t: &str| t.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.split('&').filter_map(pair).collect(),
        headers: headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        operations: Vec::new(),
    }
}

fn ask(snapshot: &Snapshot, line: &str) -> Result<Option<String>, (Reason, String)> {
    asked(snapshot, &request(line, &[]))
}

fn asked(snapshot: &Snapshot, request: &Request) -> Result<Option<String>, (Reason, String)> {
    let permit = permit(snapshot);
    let first = answer(snapshot.authorize_request(&permit, request));
    // What is remembered is what was decided.
    assert_eq!(answer(snapshot.authorize_request(&permit, request)), first);
    first
}

fn answer(verdict: RequestVerdict) -> Result<Option<String>, (Reason, String)> {
    match verdict {
        RequestVerdict::Allow(permit) => Ok(permit.rule().map(str::to_owned)),
        RequestVerdict::Deny(denial) => Err((denial.reason, denial.rule)),
    }
}

const API: &str = "network.endpoints.api";

#[test]
fn without_rules_every_request_is_allowed() {
    for s in [snapshot("ports: [443]"), snapshot("deny: []")] {
        assert_eq!(ask(&s, "DELETE /x/../y"), Ok(None));
        // What is no path cannot be judged.
        assert_eq!(ask(&s, "GET *").unwrap_err().0, Reason::L7);
        assert_eq!(ask(&s, "OPTIONS *"), Ok(None));
    }
}

#[test]
fn an_empty_allow_allows_nothing() {
    assert_eq!(ask(&snapshot("allow: []"), "GET /"), Err((Reason::L7, format!("{API}.allow"))));
}

#[test]
fn allow_covers_and_deny_wins() {
    let s = snapshot(
        "allow: [{methods: [GET, HEAD], paths: [/repos/**]}, {methods: ['*'], paths: [/gists/*]}], \
         deny: [{paths: ['/repos/*/*/settings/**']}, {methods: [HEAD], paths: [/repos/private]}]",
    );
    let allowed = |i: usize| Ok(Some(format!("{API}.allow[{i}]")));
    let denied = |i: usize| Err((Reason::PolicyDeny, format!("{API}.deny[{i}]")));
    let not = || Err((Reason::L7, format!("{API}.allow")));
    for (line, want) in [
        ("GET /repos/a/b", allowed(0)),
        ("HEAD /repos", allowed(0)),
        ("POST /repos/a/b", not()),
        ("get /repos/a/b", not()),
        ("PURGE /gists/1", allowed(1)),
        ("GET /gists/1/x", not()),
        ("GET /", not()),
        ("GET /repos/a/b/settings", denied(0)),
        ("DELETE /repos/a/b/settings/x", denied(0)),
        ("HEAD /repos/private", denied(1)),
        ("GET /repos/private", allowed(0)),
    ] {
        assert_eq!(ask(&s, line), want, "{line}");
    }
}

#[test]
fn every_value_of_a_parameter_must_match_and_one_is_enough_to_deny() {
    let s = snapshot("allow: [{query: {page: ['1*', '2']}}], deny: [{query: {debug: '*'}}]");
    for (line, want) in [
        ("GET /", true),
        ("GET /?page=10", true),
        ("GET /?page=2&other=x", true),
        ("GET /?page=1&page=3", false),
        ("GET /?page=", false),
        ("GET /?page=1&debug=", false),
    ] {
        assert_eq!(ask(&s, line).is_ok(), want, "{line}");
    }
}

#[test]
fn a_named_header_must_be_there_and_every_value_match() {
    let s = snapshot("allow: [{headers: {accept: 'application/*'}}], deny: [{headers: {x-trace: on}}]");
    let s = &s;
    for (headers, want) in [
        (&[][..], false),
        (&[("accept", "application/json")][..], true),
        (&[("accept", "application/json"), ("accept", "text/html")], false),
        (&[("accept", "application/json"), ("x-trace", "on")], false),
        (&[("accept", "application/json"), ("x-trace", "off")], true),
    ] {
        assert_eq!(asked(s, &request("GET /", headers)).is_ok(), want, "{headers:?}");
    }
}

#[test]
fn audit_and_learning_let_through_what_they_record() {
    for s in [
        snapshot("mode: audit, allow: [{methods: [GET]}]"),
        with("allow: [{methods: [GET]}]", &[], Posture::Learn { inspect: false }),
    ] {
        let (permit, asked) = (permit(&s), request("POST /x", &[]));
        let RequestVerdict::Allow(given) = s.authorize_request(&permit, &asked) else { panic!() };
        assert_eq!((given.would_deny().unwrap().reason, given.rule()), (Reason::L7, None));
        assert_eq!(given.permit().terms().endpoint, "api");
        let RequestVerdict::Allow(given) = s.authorize_request(&permit, &request("GET /x", &[])) else { panic!() };
        assert_eq!((given.would_deny(), given.rule()), (None, Some("network.endpoints.api.allow[0]")));
    }
    let s = with("ports: [443]", &[], Posture::Learn { inspect: false });
    let Authority { host, port } = Authority::parse("b.test.example:443", None).unwrap();
    let Verdict::Allow(learned) = s.authorize(&Intent::new(Door::Connect, host, port)) else { panic!() };
    let RequestVerdict::Allow(given) = s.authorize_request(&learned, &request("GET /x", &[])) else { panic!() };
    assert_eq!(given.would_deny().unwrap().reason, Reason::NoPolicy);
}

#[test]
fn a_permit_of_another_snapshot_is_stale() {
    let (a, b) = (snapshot("ports: [443]"), snapshot("ports: [443]"));
    for (s, p) in [
        (&a, permit(&b)),
        (&b, permit(&a)),
        (&with("ports: [443]", &[], Posture::Learn { inspect: false }), permit(&a)),
    ] {
        let RequestVerdict::Deny(d) = s.authorize_request(&p, &request("GET /", &[])) else { panic!() };
        assert_eq!(d.reason, Reason::StaleGeneration);
    }
}

#[test]
fn user_modules_see_the_request() {
    let module = |rules: &str| [Source::new("m.rego", format!("package stockade.custom\n{rules}\n"))];
    let rules = "deny contains msg if {\n\tinput.kind == \"request\"\n\tsome [\"x-team\", team] in input.request.headers\n\tteam != \"a\"\n\tmsg := sprintf(\"%s %s by %s on %s\", [input.request.method, input.request.segments[0], team, input.destination.host])\n}";
    let s = with("allow: [{paths: [/a/**]}]", &module(rules), Posture::Enforce);
    let given = permit(&s);
    let RequestVerdict::Deny(d) = s.authorize_request(&given, &request("GET /a/b", &[("x-team", "b")])) else {
        panic!()
    };
    assert_eq!((d.reason, d.rule.as_str()), (Reason::CustomDeny, "rego.deny"));
    assert_eq!(d.detail, "a Rego rule denies GET /a/b: GET a by b on a.test.example");
    assert!(asked(&s, &request("GET /a/b", &[("x-team", "a")])).is_ok());
    // They take away and never add.
    assert_eq!(ask(&s, "GET /b").unwrap_err().0, Reason::L7);
    // An error is not silence, and is not remembered.
    let failing =
        "deny contains \"x\" if {\n\tinput.request.path == \"/a/b\"\n\t1 / (input.destination.port - 443) > 0\n}";
    let s = with("ports: [443]", &module(failing), Posture::Enforce);
    assert_eq!(ask(&s, "GET /a/b").unwrap_err().0, Reason::EngineError);
    assert_eq!((ask(&s, "GET /a"), s.requests.len()), (Ok(None), 1));
    // What fails for any request is found when it is loaded.
    let broken = module("deny contains \"x\" if input.request.method / 2 == 1");
    let text = "version: 1\nnetwork: {endpoints: {a: {hosts: [a.test.example]}}}";
    let policy = Policy::parse(&[Source::new("p.yaml", text)]).unwrap();
    let text = Snapshot::compile(&policy, &broken, Generation::FIRST, Posture::Enforce).unwrap_err().to_string();
    assert!(text.contains("`deny` fails for GET https://example.com/"), "{text}");
}

#[test]
fn suggestions_allow_what_was_denied() {
    let s = snapshot("allow: [{methods: [GET], paths: [/only]}]");
    for line in ["POST /repos/a/b", "DELETE /a%2Fb/~x:y,z'\"", "GET /true", "GET /a,b]}", "GET /#x%20{", "GET /a*b"] {
        let asked = request(line, &[]);
        let RequestVerdict::Deny(d) = s.authorize_request(&permit(&s), &asked) else { panic!("{line}") };
        let Some(text) = d.suggestion else {
            assert!(line.contains('#'), "{line}");
            continue;
        };
        let (_, rule) = text.split_once("- ").unwrap();
        assert_eq!(ask(&snapshot(&format!("allow: [{rule}]")), line), Ok(Some(format!("{API}.allow[0]"))), "{text}");
        assert_eq!(ask(&snapshot(&format!("allow: [{rule}]")), "GET /only").unwrap_err().0, Reason::L7);
    }
    let RequestVerdict::Deny(d) = s.authorize_request(&permit(&s), &request("get /x", &[])) else { panic!() };
    assert_eq!(d.suggestion, None);
}

fn denied(s: &Snapshot, asked: &Request) -> Denial {
    match s.authorize_request(&permit(s), asked) {
        RequestVerdict::Deny(denial) => denial,
        RequestVerdict::Allow(given) => panic!("allowed by {:?}", given.rule()),
    }
}

#[test]
fn a_suggestion_names_the_values_that_rules_look_at() {
    let list = "{methods: [GET], paths: [/search], query: {q: ['pub*'], page: ['1']}}, {paths: ['/x/*'], headers: {accept: a}}";
    let s = snapshot(&format!("allow: [{list}]"));
    for (line, detail, rule) in [
        (
            "GET /search?q=secret&other=1",
            "covers GET /search; `allow[0]` does, but for its query parameter `q`",
            Some("{methods: [GET], paths: [/search], query: {q: [secret]}}"),
        ),
        (
            "GET /search?page=2&q=b%20: c&q=a",
            "`allow[0]` does, but for its query parameter `q`, query parameter `page`",
            Some(r#"{methods: [GET], paths: [/search], query: {page: ["2"], q: ["b%20: c", a]}}"#),
        ),
        // Another method is more than other values, and the values count all the same.
        (
            "POST /search?q=secret",
            "covers POST /search",
            Some("{methods: [POST], paths: [/search], query: {q: [secret]}}"),
        ),
        ("GET /other?q=secret", "covers GET /other", Some("{methods: [GET], paths: [/other]}")),
        ("GET /search?q=a*", "query parameter `q`", None),
        ("GET /x/y", "`allow[1]` does, but for its header `accept`", None),
    ] {
        let asked = request(line, &[]);
        let denial = denied(&s, &asked);
        assert!(denial.detail.ends_with(detail), "{line}: {}", denial.detail);
        let suggested = denial.suggestion.as_deref().map(|text| text.split_once("- ").unwrap().1);
        assert_eq!(suggested, rule, "{line}");
        if let Some(rule) = rule {
            let s = snapshot(&format!("allow: [{list}, {rule}]"));
            assert!(ask(&s, line).is_ok(), "{line}");
            let other = ask(&s, &line.replace("secret", "secrets"));
            assert_eq!(other.is_err(), rule.contains("[secret]"), "nothing beside it: {line}");
        }
    }
    let long = request(&format!("GET /search?q={}", "x".repeat(500)), &[]);
    assert_eq!(denied(&s, &long).suggestion, None);
}

#[test]
fn what_is_remembered_is_bounded() {
    let s = snapshot("allow: [{paths: [/a/*]}]");
    let p = permit(&s);
    let long = request(&format!("GET /a/{}", "x".repeat(MAX_KEY)), &[]);
    assert!(answer(s.authorize_request(&p, &long)).is_ok());
    assert_eq!(s.requests.len(), 0);
    for i in 0..2 * CACHED {
        assert!(answer(s.authorize_request(&p, &request(&format!("GET /a/{i}"), &[]))).is_ok());
    }
    assert!(s.requests.len() <= CACHED);
}

mod operations {
    use stockade_l7::{GraphQl, GraphQlKind, Mcp};

    use super::*;

    fn with_operations(s: &Snapshot, operations: Vec<Operation>) -> bool {
        asked(s, &Request { operations, ..request("POST /rpc", &[]) }).is_ok()
    }

    fn grpc(service: &str, method: &str) -> Operation {
        Operation::Grpc { service: service.to_owned(), method: method.to_owned() }
    }

    fn call(method: &str) -> Operation {
        Operation::JsonRpc { method: method.to_owned(), notification: false }
    }

    fn graphql(kind: GraphQlKind, name: Option<&str>, fields: &[&str]) -> Operation {
        let fields = fields.iter().map(ToString::to_string).collect();
        Operation::GraphQl(GraphQl { kind, name: name.map(str::to_owned), fields })
    }

    fn tool(name: &str, arguments: &[(&str, &str)]) -> Operation {
        let arguments = arguments.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Operation::Mcp(Mcp { method: "tools/call".to_owned(), tool: Some(name.to_owned()), name: None, arguments })
    }

    #[test]
    fn grpc_rules() {
        let s = snapshot(
            "protocol: grpc, allow: [{services: [a.v1.*], methods: [Get*, List*]}, {services: [health.Health]}], \
             deny: [{methods: [GetSecret]}]",
        );
        for (service, method, want) in [
            ("a.v1.Users", "GetUser", true),
            ("a.v1.Users", "DeleteUser", false),
            ("a.v1.Users", "GetSecret", false),
            ("b.v1.Users", "GetUser", false),
            ("health.Health", "Watch", true),
        ] {
            assert_eq!(with_operations(&s, vec![grpc(service, method)]), want, "{service}/{method}");
        }
    }

    #[test]
    fn every_operation_must_be_allowed_and_none_denied() {
        let s = snapshot(
            "protocol: jsonrpc, allow: [{methods: [eth_*]}, {methods: [net_version]}], deny: [{methods: [eth_sign]}]",
        );
        for (methods, want) in [
            (&["eth_call"][..], true),
            (&["eth_call", "net_version"], true),
            (&["eth_call", "admin_peers"], false),
            (&["eth_call", "eth_sign"], false),
            (&[], false),
        ] {
            assert_eq!(with_operations(&s, methods.iter().map(|m| call(m)).collect()), want, "{methods:?}");
        }
    }

    #[test]
    fn graphql_rules() {
        use GraphQlKind::{Mutation, Query};
        let s = snapshot(
            "protocol: graphql, allow: [{operations: [query], fields: [user, repo*]}, {operations: [mutation], names: [Star]}], \
             deny: [{fields: [secrets]}]",
        );
        for (operation, want) in [
            (graphql(Query, None, &["user", "repository"]), true),
            (graphql(Query, None, &["user", "viewer"]), false),
            (graphql(Mutation, None, &["user"]), false),
            (graphql(Mutation, Some("Star"), &["addStar"]), true),
            (graphql(Mutation, Some("Star"), &["addStar", "secrets"]), false),
        ] {
            assert_eq!(with_operations(&s, vec![operation.clone()]), want, "{operation:?}");
        }
    }

    #[test]
    fn mcp_rules() {
        let s = snapshot(
            "protocol: mcp, allow: [{methods: [initialize, tools/list]}, {tools: [read_file], arguments: {path: '/w/*'}}, {tools: [search]}], \
             deny: [{arguments: {path: ['*..*', '*/.env']}}, {tools: [search], arguments: {q: '*password*'}}]",
        );
        let plain = |method: &str| {
            Operation::Mcp(Mcp { method: method.to_owned(), tool: None, name: None, arguments: Vec::new() })
        };
        for (operation, want) in [
            (plain("initialize"), true),
            (plain("resources/read"), false),
            (tool("read_file", &[("path", "/w/a")]), true),
            (tool("read_file", &[("path.0", "/w/a"), ("path.1", "/etc/passwd")]), false),
            (tool("read_file", &[("path", "/w/../etc")]), false),
            (tool("read_file", &[("path", "/w/.env")]), false),
            (tool("read_file", &[]), false),
            (tool("read_file", &[("paths", "/w/a")]), false),
            (tool("write_file", &[("path", "/w/a")]), false),
            (tool("search", &[]), true),
            (tool("search", &[("q.all", "a password")]), false),
        ] {
            assert_eq!(with_operations(&s, vec![operation.clone()]), want, "{operation:?}");
        }
    }

    #[test]
    fn a_message_of_many_operations_is_judged_within_a_bound() {
        let rules = |n: usize| (0..n).map(|i| format!("{{methods: ['m{i}*']}}")).collect::<Vec<_>>().join(", ");
        let s = snapshot(&format!("protocol: jsonrpc, mode: audit, allow: [{}]", rules(MAX_OPERATIONS)));
        let calls = |n: usize| (0..n).map(|i| call(&format!("m{i}"))).collect::<Vec<_>>();
        let begun = std::time::Instant::now();
        assert!(with_operations(&s, calls(MAX_OPERATIONS)));
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
        // A bound is no rule: audit does not lift it.
        let many = Request { operations: calls(MAX_OPERATIONS + 1), ..request("POST /", &[]) };
        assert_eq!(asked(&s, &many).unwrap_err().0, Reason::Limit);
    }

    #[test]
    fn suggestions() {
        for (protocol, operations, rule) in [
            ("grpc", vec![grpc("a.B", "C")], "{services: [a.B], methods: [C]}"),
            ("jsonrpc", vec![call("a"), call("a"), call("b: #")], "{methods: [a]}\n        - {methods: [\"b: #\"]}"),
            (
                "graphql",
                vec![graphql(GraphQlKind::Mutation, Some("X"), &["a", "b"])],
                "{operations: [mutation], fields: [a, b]}",
            ),
            ("mcp", vec![tool("read", &[("p", "/x")])], "{methods: [tools/call], tools: [read]}"),
        ] {
            let s = snapshot(&format!("protocol: {protocol}, allow: []"));
            let asked = Request { operations, ..request("POST /rpc", &[]) };
            let RequestVerdict::Deny(d) = s.authorize_request(&permit(&s), &asked) else { panic!("{protocol}") };
            let text = d.suggestion.unwrap();
            assert!(text.ends_with(&format!("      allow:\n        - {rule}")), "{text}");
            let text = text.replace(
                "    api:\n",
                &format!("    api:\n      hosts: [a.test.example]\n      protocol: {protocol}\n"),
            );
            let policy = Policy::parse(&[Source::new("s.yaml", format!("version: 1\n{text}"))]).unwrap();
            let s = Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap();
            assert!(super::asked(&s, &asked).is_ok(), "{text}");
        }
        let s = snapshot(
            "protocol: mcp, allow: [{tools: [read], arguments: {path: '/w/*', mode: r}}, {methods: ['tools/*'], tools: [stat]}]",
        );
        let of = |arguments: &[(&str, &str)]| Request {
            operations: vec![tool("read", arguments)],
            ..request("POST /rpc", &[])
        };
        let denial = denied(&s, &of(&[("path", "/etc/x"), ("mode", "r"), ("other", "1")]));
        let rule = r#"{methods: [tools/call], tools: [read], arguments: {mode: [r], path: [/etc/x]}}"#;
        assert!(denial.detail.ends_with("`allow[0]` does, but for its argument `path`"), "{}", denial.detail);
        assert!(denial.suggestion.unwrap().ends_with(rule));
        assert_eq!(denied(&s, &of(&[])).suggestion, None, "without its arguments the tool would be allowed for all");
        let s = snapshot("protocol: jsonrpc, allow: []");
        let star = Request { operations: vec![call("a*")], ..request("POST /", &[]) };
        let RequestVerdict::Deny(d) = s.authorize_request(&permit(&s), &star) else { panic!() };
        assert_eq!(d.suggestion, None);
    }

    #[test]
    fn what_was_not_read_is_denied_even_without_rules() {
        for protocol in ["grpc", "graphql", "jsonrpc", "mcp"] {
            let s = snapshot(&format!("protocol: {protocol}"));
            assert!(!with_operations(&s, Vec::new()), "{protocol}");
            // Nor is what another protocol's reader read.
            let foreign = if protocol == "grpc" { call("x") } else { grpc("a", "b") };
            assert!(!with_operations(&s, vec![foreign]), "{protocol}");
        }
        assert!(with_operations(&snapshot("protocol: grpc"), vec![grpc("a", "b")]));
    }
}

mod invisible {
    //! Neither the narrowing nor what is remembered changes a verdict: each is compared with Rego over every rule.

    use proptest::prelude::*;

    use super::*;

    fn rule() -> impl Strategy<Value = String> {
        let path = "(/(a|b|\\*|\\*\\*|a\\*)){1,3}";
        let all = (
            prop::option::of(prop::sample::subsequence(vec!["GET", "POST", "HEAD"], 1..3)),
            prop::option::of(prop::collection::vec(path, 1..3)),
            prop::option::of("(a|b|\\*|a\\*)"),
            prop::option::of("(a|b|\\*)"),
        );
        all.prop_map(|(methods, paths, query, header)| {
            let mut keys = Vec::new();
            keys.extend(methods.map(|m| format!("methods: [{}]", m.join(", "))));
            keys.extend(paths.map(|p| format!("paths: ['{}']", p.join("', '"))));
            keys.extend(query.map(|q| format!("query: {{q: '{q}'}}")));
            keys.extend(header.map(|h| format!("headers: {{h: '{h}'}}")));
            if keys.is_empty() { "{methods: ['*']}".to_owned() } else { format!("{{{}}}", keys.join(", ")) }
        })
    }

    fn rules(most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(rule(), 0..most).prop_map(|all| format!("[{}]", all.join(", ")))
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let value = "[ab]{0,2}";
        let pairs = |name: &'static str| prop::collection::vec(value.prop_map(move |v| (name.to_owned(), v)), 0..3);
        ("(GET|POST|HEAD|PUT)", "(/(a|b|ab|)){1,4}", pairs("q"), pairs("h"))
            .prop_map(|(method, path, query, headers)| Request { method, path, query, headers, operations: Vec::new() })
    }

    fn operation_rules(most: usize) -> impl Strategy<Value = String> {
        let rule =
            (prop::option::of("(a|b|a\\*|\\*)"), prop::option::of("(a|b|\\*)"), prop::option::of("(a|\\*b|\\*)"));
        let rule = rule.prop_map(|(methods, tools, arguments)| {
            let mut keys = Vec::new();
            keys.extend(methods.map(|m| format!("methods: ['{m}']")));
            keys.extend(tools.map(|t| format!("tools: ['{t}']")));
            keys.extend(arguments.map(|a| format!("arguments: {{p: '{a}'}}")));
            if keys.is_empty() { "{methods: ['*']}".to_owned() } else { format!("{{{}}}", keys.join(", ")) }
        });
        prop::collection::vec(rule, 0..most).prop_map(|all| format!("[{}]", all.join(", ")))
    }

    fn any_message() -> impl Strategy<Value = Request> {
        let operation = ("[ab]{1,2}", prop::option::of("[ab]"), prop::collection::vec(("p(\\.0)?", "[ab]{0,2}"), 0..3));
        let operation = operation.prop_map(|(method, tool, arguments)| {
            Operation::Mcp(stockade_l7::Mcp { method, tool, name: None, arguments })
        });
        prop::collection::vec(operation, 0..4).prop_map(|operations| Request { operations, ..request("POST /", &[]) })
    }

    fn decided(s: &Snapshot, rows: Rows, request: &Request) -> Result<Option<String>, (Reason, String)> {
        match s.decide_request((&s.endpoints[0], None), request, rows).unwrap() {
            Outcome::Allow { rule, .. } => Ok(rule.map(|r| r.to_string())),
            Outcome::Deny(d) => Err((d.reason, d.rule.clone())),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn narrowing_and_memory(allow in prop::option::of(rules(8)), deny in rules(4), all in prop::collection::vec(any_request(), 1..16), more in rule()) {
            let text = |allow: &Option<String>| {
                let allow = allow.as_ref().map(|a| format!("allow: {a}, ")).unwrap_or_default();
                format!("{allow}deny: {deny}")
            };
            let s = snapshot(&text(&allow));
            let wider = allow.as_ref().map(|a| {
                let (head, _) = a.rsplit_once(']').unwrap();
                let comma = if head == "[" { "" } else { ", " };
                snapshot(&text(&Some(format!("{head}{comma}{more}]"))))
            });
            let permit = permit(&s);
            for request in all.iter().chain(&all) {
                let view = View::new(request);
                let scanned = decided(&s, s.matchers[0].all(&view), request);
                let narrowed = decided(&s, s.matchers[0].candidates(&view), request);
                let answered = answer(s.authorize_request(&permit, request));
                prop_assert_eq!(&scanned, &narrowed, "{:?} by {}", request, text(&allow));
                prop_assert_eq!(&scanned, &answered, "{:?} by {}", request, text(&allow));
                // Deny wins: with the same rules and no `allow`, what is denied stays denied.
                let open = decided(&snapshot(&text(&None)), s.matchers[0].all(&view), request);
                prop_assert_eq!(matches!(open, Err((Reason::PolicyDeny, _))), matches!(scanned, Err((Reason::PolicyDeny, _))));
                // A rule more in `allow` takes nothing away.
                if let (Some(wider), Ok(_)) = (&wider, &scanned) {
                    prop_assert!(asked(wider, request).is_ok(), "{:?} by {} and {}", request, text(&allow), more);
                }
            }
        }

        #[test]
        fn narrowing_of_operations(allow in prop::option::of(operation_rules(6)), deny in operation_rules(4), all in prop::collection::vec(any_message(), 1..12)) {
            let list = allow.map(|a| format!("allow: {a}, ")).unwrap_or_default();
            let s = snapshot(&format!("protocol: mcp, {list}deny: {deny}"));
            let permit = permit(&s);
            for request in all.iter().chain(&all) {
                let view = View::new(request);
                let scanned = decided(&s, s.matchers[0].all(&view), request);
                let narrowed = decided(&s, s.matchers[0].candidates(&view), request);
                prop_assert_eq!(&scanned, &narrowed, "{:?} by {}deny: {}", request, list, deny);
                let answered = answer(s.authorize_request(&permit, request));
                prop_assert_eq!(&scanned, &answered, "{:?} by {}deny: {}", request, list, deny);
                // All of a message is allowed only where each of its parts is.
                let each = request.operations.iter().all(|o| {
                    asked(&s, &Request { operations: vec![o.clone()], ..request.clone() }).is_ok()
                });
                prop_assert_eq!(scanned.is_ok(), each && !request.operations.is_empty());
            }
        }
    }
}

#[test]
fn whether_anything_looks_at_requests_is_in_the_terms() {
    let module =
        [Source::new("m.rego", "package stockade.custom\ndeny contains \"x\" if input.request.path == \"/x\"\n")];
    let judged = |endpoint: &str, modules: &[Source]| permit(&with(endpoint, modules, Posture::Enforce)).terms().judged;
    assert!(!judged("ports: [443]", &[]));
    assert!(judged("ports: [443]", &module));
    assert!(judged("allow: []", &[]));
    assert!(judged("deny: [{paths: [/x]}]", &[]));
}

#[test]
fn the_opening_of_a_socket_is_shown_to_modules() {
    let module =
        [Source::new("m.rego", "package stockade.custom\ndeny contains \"x\" if input.request.path == \"/x\"\n")];
    let opened = |mode: &str, path: &str| {
        let s = with(&format!("protocol: jsonrpc, mode: {mode}"), &module, Posture::Enforce);
        match s.authorize_socket(&permit(&s), &request(&format!("GET {path}"), &[])) {
            RequestVerdict::Allow(permit) => Ok(permit.would_deny().map(|d| d.reason)),
            RequestVerdict::Deny(denial) => Err(denial.reason),
        }
    };
    assert_eq!(opened("enforce", "/y"), Ok(None));
    assert_eq!(opened("enforce", "/x"), Err(Reason::CustomDeny));
    assert_eq!(opened("audit", "/x"), Ok(Some(Reason::CustomDeny)));
}

#[test]
fn the_opening_of_a_socket_is_held_against_the_rules() {
    let opened = |endpoint: &str, line: &str, headers: &[(&str, &str)]| {
        let s = snapshot(endpoint);
        match s.authorize_socket(&permit(&s), &request(line, headers)) {
            RequestVerdict::Allow(permit) => Ok(permit.rule().map(str::to_owned)),
            RequestVerdict::Deny(denial) => Err(denial.reason),
        }
    };
    let rule = |at: &str| Ok(Some(format!("network.endpoints.api.{at}")));
    for (endpoint, line, want) in [
        ("protocol: jsonrpc, allow: []", "GET /", Err(Reason::L7)),
        ("protocol: jsonrpc, allow: [{methods: [get], paths: [/rpc]}]", "GET /rpc", rule("allow[0]")),
        ("protocol: jsonrpc, allow: [{methods: [get], paths: [/rpc]}]", "GET /admin", Err(Reason::L7)),
        ("protocol: graphql, allow: [{operations: [query]}]", "GET /graphql", rule("allow[0]")),
        ("protocol: graphql, deny: [{paths: [/admin/**]}]", "GET /admin/keys", Err(Reason::PolicyDeny)),
        ("protocol: graphql, deny: [{paths: [/admin/**]}]", "GET /graphql", Ok(None)),
        // Only some of its messages are denied, one by one.
        ("protocol: graphql, deny: [{paths: [/graphql], fields: [secrets]}]", "GET /graphql", Ok(None)),
        ("protocol: jsonrpc, deny: [{methods: ['debug_*']}]", "GET /", Ok(None)),
    ] {
        assert_eq!(opened(endpoint, line, &[]), want, "{endpoint} {line}");
    }
    let wants = "protocol: jsonrpc, allow: [{methods: [get], headers: {x-tenant: [a]}}]";
    assert_eq!(opened(wants, "GET /", &[("x-tenant", "a")]), rule("allow[0]"));
    assert_eq!(opened(wants, "GET /", &[("x-tenant", "b")]), Err(Reason::L7));
}

/// Many origins take `X_Role` for `X-Role`.
#[test]
fn fields_with_low_lines_count_against_a_request_and_never_for_it() {
    let denied = snapshot("deny: [{headers: {x-role: [admin]}}]");
    let allowed = snapshot("allow: [{headers: {x-dry-run: ['true']}}]");
    for (s, headers, want) in [
        (&denied, &[("x_role", "admin")][..], false),
        (&denied, &[("x_role", "guest")], true),
        (&denied, &[("x-role", "guest"), ("x_role", "admin")], false),
        (&allowed, &[("x-dry-run", "true")], true),
        (&allowed, &[("x_dry_run", "true")], false),
        (&allowed, &[("x-dry-run", "true"), ("x_dry_run", "false")], false),
    ] {
        assert_eq!(asked(s, &request("GET /", headers)).is_ok(), want, "{headers:?}");
    }
}
