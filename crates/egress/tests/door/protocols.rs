//! Requests whose body says what they ask for.

use http::{Method, Request};
use http_body_util::Full;
use hyper::body::Bytes;
use stockade_testkit::upstream::Https;
use stockade_types::Reason;

use crate::{
    browser::{Told, browse, request},
    world::World,
};

const POLICY: &str = "
version: 1
network:
  endpoints:
    graph:
      hosts: [graph.test]
      ports: [443]
      protocol: graphql
      private_addresses: [192.0.2.0/24]
      allow: [{operations: [query], fields: [viewer, repository]}]
    rpc:
      hosts: [rpc.test]
      ports: [443]
      protocol: jsonrpc
      private_addresses: [192.0.2.0/24]
      allow: [{methods: ['get*']}]
    tools:
      hosts: [mcp.test]
      ports: [443]
      protocol: mcp
      private_addresses: [192.0.2.0/24]
      allow:
        - {methods: [initialize, tools/list]}
        - {methods: [tools/call], tools: [read_file], arguments: {path: '/data/**'}}
    calls:
      hosts: [grpc.test]
      ports: [443]
      protocol: grpc
      private_addresses: [192.0.2.0/24]
      allow: [{services: [shop.Catalogue], methods: [Get]}]
";

const HOSTS: [&str; 4] = ["graph.test", "rpc.test", "mcp.test", "grpc.test"];

/// Sends bodies to a host, one after the other, and says what became of each: the status, or why it was refused.
struct Arena<'w>(&'w World, Https);

impl Arena<'_> {
    #[track_caller]
    fn run(body: impl FnOnce(&Arena<'_>)) {
        World::run(|world| {
            for host in HOSTS {
                world.names.host(host, "192.0.2.10");
            }
            world.reload(POLICY);
            body(&Arena(world, Https::hello("192.0.2.10:443", &world.authority, &HOSTS)));
        });
    }

    fn send(&self, host: &str, request: Request<Full<Bytes>>) -> Told {
        let mut told = browse(self.0, &format!("{host}:443"), &["h2", "http/1.1"], vec![request]);
        told.remove(0).expect("an answer")
    }

    #[track_caller]
    fn post(&self, host: &str, body: &str) -> Told {
        let mut request = request(Method::POST, &format!("https://{host}/"), body);
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        request.headers_mut().insert("accept", "application/json, text/event-stream".parse().unwrap());
        self.send(host, request)
    }

    #[track_caller]
    fn passes(&self, host: &str, body: &str) {
        let before = self.1.requests().len();
        assert_eq!(self.post(host, body).status, 200, "{body}");
        let seen = self.1.requests();
        assert_eq!(seen.len(), before + 1);
        assert_eq!(seen[before].body, body.as_bytes(), "what was judged was sent");
    }

    #[track_caller]
    fn stops(&self, host: &str, body: &str, (status, reason): (u16, Reason)) {
        let before = self.1.requests().len();
        let told = self.post(host, body);
        assert_eq!((told.status, told.reason().as_str()), (status, reason.code()), "{body}");
        self.0.one_refusal(reason);
        assert_eq!(self.1.requests().len(), before, "{body}");
    }
}

const NO: (u16, Reason) = (403, Reason::L7);

#[test]
fn graphql_is_judged_by_operation_and_field() {
    Arena::run(|arena| {
        arena.passes("graph.test", r#"{"query": "{ viewer { login } }"}"#);
        arena.stops("graph.test", r#"{"query": "{ viewer { login } secrets { x } }"}"#, NO);
        arena.stops("graph.test", r#"{"query": "{ viewer: secrets { x } }"}"#, NO);
        arena.stops("graph.test", r#"{"query": "mutation { viewer }"}"#, NO);
        arena.stops("graph.test", r#"[{"query": "{viewer}"}, {"query": "{secrets}"}]"#, NO);
        arena.stops("graph.test", r#"{"query": "{viewer}", "query": "{secrets}"}"#, NO);
        arena.stops("graph.test", r#"{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "00"}}}"#, NO);
    });
}

#[test]
fn heads_of_http2_have_the_bounds_of_http1_and_are_answered() {
    Arena::run(|arena| {
        let ask = |fields: usize, size: usize| {
            let mut request = request(Method::GET, "https://rpc.test/", "");
            for n in 0..fields {
                let name: http::HeaderName = format!("x-{n}").parse().unwrap();
                request.headers_mut().insert(name, "y".repeat(size).parse().unwrap());
            }
            arena.send("rpc.test", request)
        };
        for (fields, size) in [(8, 5_000), (20, 5_000), (200, 1)] {
            let told = ask(fields, size);
            assert_eq!((told.status, told.reason().as_str()), (431, "limit"), "{fields} of {size}");
            assert_eq!(told.version, http::Version::HTTP_2);
            arena.0.one_refusal(Reason::Limit);
        }
        assert_eq!(ask(100, 100).status, 403, "of no operation");
        assert!(arena.1.requests().is_empty());
    });
}

#[test]
fn jsonrpc_is_judged_by_method_in_every_part_of_a_batch() {
    Arena::run(|arena| {
        let call = |method: &str| format!(r#"{{"jsonrpc": "2.0", "id": 1, "method": "{method}"}}"#);
        arena.passes("rpc.test", &call("getBalance"));
        arena.passes("rpc.test", &format!("[{}, {}]", call("getBalance"), call("getBlock")));
        arena.stops("rpc.test", &call("sendTransaction"), NO);
        arena.stops("rpc.test", &format!("[{}, {}]", call("getBalance"), call("sendTransaction")), NO);
        arena.stops("rpc.test", "not json", NO);
        arena.stops("rpc.test", &"[".repeat(10_000), NO);
        let large =
            format!(r#"{{"jsonrpc": "2.0", "id": 1, "method": "getX", "params": ["{}"]}}"#, "x".repeat(1 << 20));
        arena.stops("rpc.test", &large, (413, Reason::Limit));
    });
}

#[test]
fn mcp_is_judged_by_tool_and_argument() {
    Arena::run(|arena| {
        let call = |tool: &str, path: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"path":"{path}"}}}}}}"#
            )
        };
        arena.passes("mcp.test", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        arena.passes("mcp.test", &call("read_file", "/data/a.txt"));
        arena.stops("mcp.test", &call("read_file", "/etc/passwd"), NO);
        arena.stops("mcp.test", &call("delete_file", "/data/a.txt"), NO);
        arena.stops("mcp.test", r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#, NO);
    });
}

#[test]
fn grpc_is_judged_by_service_and_method_before_a_byte_of_the_body() {
    Arena::run(|arena| {
        let call = |path: &str| {
            let mut request = request(Method::POST, &format!("https://grpc.test{path}"), "\0\0\0\0\0");
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            arena.send("grpc.test", request)
        };
        assert_eq!(call("/shop.Catalogue/Get").status, 200);
        assert_eq!(arena.1.requests()[0].header("te"), Some("trailers"));
        for path in ["/shop.Catalogue/Delete", "/shop.Orders/Get", "/shop.Catalogue/Get/", "/x"] {
            let told = call(path);
            let field = |name: &str| told.fields.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
            assert_eq!((told.status, field("grpc-status"), told.body.as_str()), (403, "7", ""), "{path}");
            assert!(field("grpc-message").starts_with("l7: "), "{path} {told:?}");
            arena.0.one_refusal(Reason::L7);
        }
        assert_eq!(arena.1.requests().len(), 1);
    });
}
