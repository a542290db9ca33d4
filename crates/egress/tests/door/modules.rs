//! User modules: what they look at is what is sent, also where an endpoint has no rule of its own.

use stockade_policy::Source;
use stockade_testkit::upstream::Https;
use stockade_types::Reason;

use crate::{browser::Raw, world::World};

const POLICY: &str = "
version: 1
network:
  endpoints:
    free:
      hosts: [free.test]
      ports: [443]
      private_addresses: [192.0.2.0/24]
    graph:
      hosts: [graph.test]
      ports: [443]
      protocol: graphql
      private_addresses: [192.0.2.0/24]
";

const MODULE: &str = r#"
package stockade.custom

deny contains "the path is hidden" if startswith(input.request.path, "/hidden")
deny contains "nobody is admin" if input.request.query[_] == ["admin", "1"]
deny contains "no such field" if input.request.headers[_][0] == "x-forbidden"
"#;

#[track_caller]
fn with(modules: &[Source], body: impl FnOnce(&World, &Https)) {
    World::run(|world| {
        for host in ["free.test", "graph.test"] {
            world.names.host(host, "192.0.2.10");
        }
        world.reload_with(POLICY, modules);
        body(world, &Https::hello("192.0.2.10:443", &world.authority, &["free.test", "graph.test"]));
    });
}

const EVASIONS: [(&str, &str, u16, Reason); 9] = [
    ("GET /hidden/a", "", 403, Reason::CustomDeny),
    ("GET /x/../hidden", "", 403, Reason::CustomDeny),
    ("GET /%68idden", "", 403, Reason::CustomDeny),
    ("GET /x/..;/hidden", "", 400, Reason::Path),
    ("GET /x/..%2fhidden", "", 400, Reason::Path),
    ("GET /a?admin=1", "", 403, Reason::CustomDeny),
    ("GET /a;b?admin=1", "", 400, Reason::Path),
    ("GET /a", "X-Forbidden: 1\r\n", 403, Reason::CustomDeny),
    ("GET /a", "X-Original-URL: /hidden\r\n", 403, Reason::L7),
];

#[test]
fn modules_see_what_is_sent_on_endpoints_without_rules() {
    with(&[Source::new("own.rego", MODULE)], |world, origin| {
        let mut client = Raw::connect(world, "free.test:443", "free.test");
        for (line, fields, status, reason) in EVASIONS {
            let answer = client.ask(format!("{line} HTTP/1.1\r\nHost: free.test\r\n{fields}\r\n"));
            assert_eq!((answer.status, answer.reason().as_str()), (status, reason.code()), "{line} {fields}");
            world.one_refusal(reason);
        }
        assert!(origin.requests().is_empty(), "{:?}", origin.requests());
        assert_eq!(client.ask("GET /a?admin=0 HTTP/1.1\r\nHost: free.test\r\n\r\n").status, 200);
    });
}

#[test]
fn without_modules_the_same_requests_reach_the_origin() {
    with(&[], |world, origin| {
        for (line, fields, ..) in EVASIONS {
            let mut client = Raw::connect(world, "free.test:443", "free.test");
            let answer = client.ask(format!("{line} HTTP/1.1\r\nHost: free.test\r\n{fields}\r\n"));
            assert_eq!(answer.status, 200, "{line} {fields}");
        }
        assert_eq!(origin.requests().len(), EVASIONS.len());
    });
}

#[test]
fn the_opening_of_a_websocket_is_shown_to_modules() {
    with(&[Source::new("own.rego", MODULE)], |world, origin| {
        let open = |target: &str, fields: &str| {
            format!(
                "GET {target} HTTP/1.1\r\nHost: graph.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
            )
        };
        let mut client = Raw::connect(world, "graph.test:443", "graph.test");
        for (target, fields) in [("/hidden", ""), ("/?admin=1", ""), ("/", "X-Forbidden: 1\r\n")] {
            let answer = client.ask(open(target, fields));
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (403, Reason::CustomDeny.code()),
                "{target} {fields}"
            );
            world.one_refusal(Reason::CustomDeny);
        }
        assert!(origin.requests().is_empty(), "{:?}", origin.requests());
        client.ask(open("/", ""));
        assert_eq!(origin.requests().len(), 1, "another one is asked of the origin");
    });
}
