//! GraphQL by graphql-yoga, graphql-request and gql: judged by operation and by the real names of the root's fields.

use std::{fs, process::Command};

use stockade_testkit::{Mode, Outer};

use crate::{
    need_packages, need_programs,
    world::{ADDRESS, LONG, World, beside, clients, requests, said},
};

const ENDPOINTS: &str = "
    graph:
      hosts: [graph.test]
      @site
      protocol: graphql
      allow:
        - {operations: [query], fields: [viewer, repository], paths: [/graphql]}
        - {operations: [mutation], fields: [star]}
";

/// What is answered, and the fields that the server resolved for it.
const ANSWERED: [(&str, &str, &[&str]); 8] = [
    ("query", r#"{"viewer":{"login":"me"}}"#, &["viewer"]),
    ("variables", r#"{"repository":{"name":"r"}}"#, &["repository"]),
    ("alias", r#"{"me":{"login":"me"}}"#, &["viewer"]),
    ("fragment", r#"{"viewer":{"login":"me"}}"#, &["viewer"]),
    ("mutation", r#"{"star":{"name":"r"}}"#, &["star"]),
    (
        "batch",
        r#"[{"data":{"viewer":{"login":"me"}}},{"data":{"repository":{"name":"b"}}}]"#,
        &["viewer", "repository"],
    ),
    ("persisted", r#"{"viewer":{"login":"me"}}"#, &["viewer"]),
    ("get", r#"{"viewer":{"login":"me"}}"#, &["viewer"]),
];

#[test]
fn operations_are_judged_however_they_are_written() {
    need_programs!("node", "python3");
    need_packages!("node-graphql/node_modules/graphql-yoga", "node-graphql/node_modules/graphql-request");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["graph.test"]);
        let modules = clients().join("node-graphql/node_modules");
        let mut server = Command::new("node");
        let mut server = world.serve(server.arg(beside("graph.cjs")).arg(ADDRESS).env("NODE_PATH", &modules));
        for mode in Mode::available() {
            let stockade = world.stockade(*mode, ENDPOINTS);
            fs::copy(beside("query.cjs"), stockade.work().join("query.cjs")).unwrap();
            let run = stockade.sh(&format!("NODE_PATH={} node query.cjs", modules.display()));
            for (case, want, _) in ANSWERED {
                assert_eq!(said(&run, case), want, "{case} {mode:?} {run:?}");
            }
            for (case, what) in [
                ("alias_denied", "query secrets"),
                ("fragment_denied", "query secrets"),
                ("mutation_denied", "mutation remove"),
                ("batch_denied", "query viewer, query secrets"),
            ] {
                let want = format!("403 l7 no rule in `allow` of endpoint `graph` covers POST /graphql ({what})");
                assert_eq!(said(&run, case), want, "{case} {mode:?} {run:?}");
            }
            for case in ["hash_denied", "lie_denied"] {
                let text = said(&run, case);
                assert!(text.contains("403 l7 what the request asks for cannot be read: "), "{case}: {text} {mode:?}");
            }
            let resolved: Vec<_> = ANSWERED.iter().flat_map(|(_, _, fields)| fields.iter().copied()).collect();
            // The two of a batch are resolved at the same time.
            let (mut seen, mut want) = (server.seen(), resolved);
            seen.sort();
            want.sort_unstable();
            assert_eq!(seen, want, "{mode:?} {run:?}");
            assert_eq!(requests(&run, "denied"), ["POST /graphql"; 6], "{mode:?} {run:?}");
            assert_eq!(requests(&run, "allowed").len(), ANSWERED.len(), "{mode:?} {run:?}");
            for rule in ["{operations: [query], fields: [secrets]}", "{operations: [mutation], fields: [remove]}"] {
                assert!(run.stderr.contains(rule), "{rule} {mode:?} {run:?}");
            }
        }
    });
}

const SOCKET: &str = "
    graph:
      hosts: [graph.test]
      @site
      protocol: graphql
      allow:
        - {operations: [query], fields: [viewer]}
        - {operations: [subscription], fields: [ticks]}
";

/// Over WebSocket each operation is judged like a request, and the one that is refused never reaches the server.
#[test]
fn operations_over_a_websocket() {
    need_programs!("node");
    need_packages!("node-graphql/node_modules/graphql-ws", "node-graphql/node_modules/ws");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["graph.test"]);
        let modules = clients().join("node-graphql/node_modules");
        let mut server = Command::new("node");
        let mut server = world.serve(server.arg(beside("subscriptions.cjs")).arg(ADDRESS).env("NODE_PATH", &modules));
        for mode in Mode::available() {
            let stockade = world.stockade(*mode, SOCKET);
            fs::copy(beside("subscriber.cjs"), stockade.work().join("subscriber.cjs")).unwrap();
            let run = stockade.sh(&format!("NODE_PATH={} node subscriber.cjs", modules.display()));
            assert_eq!(said(&run, "socket_query"), r#"{"viewer":"me"}"#, "{mode:?} {run:?}");
            let ticks = r#"{"ticks":1} {"ticks":2} {"ticks":3}"#;
            assert_eq!(said(&run, "socket_ticks"), ticks, "{mode:?} {run:?}");
            assert_eq!(said(&run, "socket_alias"), ticks.replace("ticks", "leak"), "{mode:?} {run:?}");
            for (case, what) in [("socket_secrets", "query viewer secrets"), ("socket_leaks", "subscription leaks")] {
                let text = said(&run, case);
                assert!(text.starts_with("1008 "), "{case}: {text} {mode:?} {run:?}");
                assert!(text.contains(&format!("covers GET /graphql ({what})")), "{case}: {text} {mode:?} {run:?}");
            }
            assert_eq!(server.seen(), ["viewer", "ticks", "ticks"], "{mode:?} {run:?}");
            let denied = run.events.iter().filter(|e| e.action() == Some("denied"));
            let denied: Vec<_> = denied.map(|e| (e.host().unwrap_or_default(), e.reason())).collect();
            assert_eq!(denied, [("graph.test", Some("l7")); 2], "{mode:?} {run:?}");
        }
    });
}

#[test]
fn a_client_of_python() {
    need_programs!("node", "python3");
    need_packages!("node-graphql/node_modules/graphql-yoga", "python-gql/gql");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["graph.test"]);
        let mut server = Command::new("node");
        let modules = clients().join("node-graphql/node_modules");
        let mut server = world.serve(server.arg(beside("graph.cjs")).arg(ADDRESS).env("NODE_PATH", modules));
        for mode in Mode::available() {
            let stockade = world.stockade(*mode, ENDPOINTS);
            fs::copy(beside("query.py"), stockade.work().join("query.py")).unwrap();
            let run = stockade.sh(&format!("PYTHONPATH={} python3 query.py", clients().join("python-gql").display()));
            assert_eq!(said(&run, "py_query"), "{'viewer': {'login': 'me'}}", "{mode:?} {run:?}");
            assert_eq!(said(&run, "py_batch"), "[{'viewer': {'login': 'me'}}, {'viewer': {'login': 'me'}}]", "{run:?}");
            let refused = said(&run, "py_denied");
            assert!(refused.starts_with("TransportServerError 403"), "{refused} {mode:?} {run:?}");
            assert_eq!(server.seen(), ["viewer"; 3], "{mode:?}");
            assert_eq!(requests(&run, "denied"), ["POST /graphql"], "{mode:?} {run:?}");
        }
    });
}
