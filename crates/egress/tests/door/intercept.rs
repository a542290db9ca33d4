//! TLS that ends at the door: certificates, names, and requests judged one by one.

use std::time::Duration;

use http::{Method, Version};
use stockade_egress::Config;
use stockade_testkit::upstream::{
    Https,
    https::{Options, Reply},
};
use stockade_types::Reason;

use crate::{
    browser::{Raw, browse, get, request},
    names::lookup,
    world::{Client, World},
};

const POLICY: &str = "
version: 1
network:
  endpoints:
    api:
      hosts: [api.test]
      ports: [443]
      private_addresses: [192.0.2.0/24]
      allow:
        - {methods: [GET, HEAD], paths: [/public/**, /]}
        - {methods: [POST], paths: [/upload]}
      deny:
        - {paths: [/public/secret/**]}
      limits: {request_body: 64KiB}
    free:
      hosts: [free.test]
      ports: [443]
      private_addresses: [192.0.2.0/24]
";

#[track_caller]
fn with(body: impl FnOnce(&World)) {
    World::run(|world| {
        world.names.host("api.test", "192.0.2.10");
        world.names.host("free.test", "192.0.2.20");
        world.reload(POLICY);
        body(world);
    });
}

const BOTH: [&str; 2] = ["h2", "http/1.1"];

#[test]
fn each_request_is_judged_and_a_denied_one_leaves_the_connection_usable() {
    with(|world| {
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        let mut client = Raw::connect(world, "api.test:443", "api.test");
        let ask = |line: &str| format!("{line} HTTP/1.1\r\nHost: api.test\r\n\r\n");
        assert_eq!(client.ask(ask("GET /public/a?x=1")).body, "hello from upstream\n");
        for (line, status, reason) in [
            ("DELETE /public/a", 403, Reason::L7),
            ("GET /private", 403, Reason::L7),
            ("GET /public/secret/x", 403, Reason::PolicyDeny),
            ("GET /public/../private", 403, Reason::L7),
            ("GET /public/%2e%2e/private", 403, Reason::L7),
            ("GET /public/%2fprivate", 400, Reason::Path),
            ("GET /public/..;/private", 400, Reason::Path),
            ("get /public/a", 403, Reason::L7),
        ] {
            let answer = client.ask(ask(line));
            assert_eq!((answer.status, answer.reason().as_str()), (status, reason.code()), "{line}");
            world.one_refusal(reason);
        }
        assert_eq!(client.ask(ask("GET //public//./b")).status, 200);
        let lines: Vec<String> = origin.requests().into_iter().map(|r| r.line).collect();
        assert_eq!(lines, ["GET /public/a?x=1 HTTP/1.1", "GET /public/b HTTP/1.1"], "what was judged was sent");
        assert_eq!(origin.requests()[0].header("host"), Some("api.test"));
        world.no_refusal();
    });
}

#[test]
fn the_same_over_http2_with_requests_at_once() {
    with(|world| {
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        let requests = ["/public/1", "/private", "/public/2", "/public/secret/3", "/public/4"];
        let requests = requests.iter().map(|path| get(&format!("https://api.test{path}"))).collect();
        let told: Vec<_> =
            browse(world, "api.test:443", &BOTH, requests).into_iter().map(|told| told.expect("an answer")).collect();
        assert!(told.iter().all(|t| t.version == Version::HTTP_2));
        assert_eq!(told.iter().map(|t| t.status).collect::<Vec<_>>(), [200, 403, 200, 403, 200]);
        assert_eq!((told[1].reason(), told[3].reason()), ("l7".into(), "policy_deny".into()));
        let mut lines: Vec<String> = origin.requests().into_iter().map(|r| r.line).collect();
        lines.sort();
        assert_eq!(lines, ["GET /public/1 HTTP/2.0", "GET /public/2 HTTP/2.0", "GET /public/4 HTTP/2.0"]);
        assert_eq!(origin.connections(), 1);
        assert_eq!(origin.requests()[0].header(":authority"), Some("api.test"));
        assert_eq!(origin.requests()[0].header("host"), None);
    });
}

#[test]
fn the_client_gets_the_protocol_that_the_origin_chose() {
    with(|world| {
        let spoken = |origin: &[&str], client: &[&str]| {
            let options = Options::of(&["api.test"]).speaking(origin);
            let origin = Https::start("192.0.2.10:443", &world.authority, &options, |_| Reply::ok("x"));
            let mut told = browse(world, "api.test:443", client, vec![get("https://api.test/")]);
            let told = told.remove(0).expect("an answer");
            assert_eq!(told.status, 200, "{told:?}");
            let inner = origin.requests()[0].line.rsplit(' ').next().unwrap().to_owned();
            (told.version, inner)
        };
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(spoken(&BOTH, &BOTH), (two, "HTTP/2.0".into()));
        assert_eq!(spoken(&["http/1.1"], &BOTH), (one, "HTTP/1.1".into()));
        assert_eq!(spoken(&[], &BOTH), (one, "HTTP/1.1".into()), "an origin without ALPN");
        assert_eq!(spoken(&BOTH, &["http/1.1"]), (one, "HTTP/1.1".into()));
        assert_eq!(spoken(&BOTH, &[]), (one, "HTTP/1.1".into()), "a client without ALPN");
        assert_eq!(spoken(&["http/1.1"], &["h2"]), (two, "HTTP/1.1".into()), "translated");
        assert_eq!(spoken(&["h2"], &["http/1.1"]), (one, "HTTP/2.0".into()), "translated");
    });
}

#[test]
fn connections_to_origins_are_shared_by_clients_and_not_by_places() {
    with(|world| {
        let api = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        let free = Https::hello("192.0.2.20:443", &world.authority, &["free.test"]);
        for _ in 0..4 {
            let mut client = Raw::connect(world, "api.test:443", "api.test");
            assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").status, 200);
        }
        assert_eq!((api.connections(), free.connections()), (1, 0));
        let mut client = Raw::connect(world, "free.test:443", "free.test");
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: free.test\r\n\r\n").status, 200);
        assert_eq!((api.connections(), free.connections()), (1, 1));
    });
}

#[test]
fn a_connection_that_is_logged_in_by_itself_is_used_once() {
    with(|world| {
        let challenge = |_: &_| Reply::ok("x").header("www-authenticate", "Basic realm=x, NTLM");
        let options = Options::of(&["api.test"]).speaking(&["http/1.1"]);
        let origin = Https::start("192.0.2.10:443", &world.authority, &options, challenge);
        let mut client = Raw::connect(world, "api.test:443", "api.test");
        for n in 1..=3 {
            assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").status, 200);
            assert_eq!(origin.connections(), n, "the origin spoke of a login");
        }
        drop(origin);
        let origin = Https::start("192.0.2.10:443", &world.authority, &options, |_| Reply::ok("x"));
        for n in 1..=3 {
            let fields = "Host: api.test\r\nAuthorization: Negotiate abc\r\n\r\n";
            assert_eq!(client.ask(format!("GET / HTTP/1.1\r\n{fields}")).status, 200);
            assert_eq!(origin.connections(), n, "the client did");
        }
        for _ in 0..3 {
            let fields = "Host: api.test\r\nAuthorization: Bearer ntlm-and-negotiate\r\n\r\n";
            assert_eq!(client.ask(format!("GET / HTTP/1.1\r\n{fields}")).status, 200);
        }
        assert_eq!(origin.connections(), 4, "nobody did");
    });
}

#[test]
fn one_client_cannot_open_more_connections_to_origins_than_there_are_places() {
    World::configured(Config { connections: 3, ..Config::default() }, |world| {
        world.names.host("api.test", "192.0.2.10");
        world.names.host("free.test", "192.0.2.20");
        world.reload(POLICY);
        let slow = |_: &_| {
            std::thread::sleep(Duration::from_millis(500));
            Reply::ok("x")
        };
        let options = Options::of(&["api.test"]).speaking(&["http/1.1"]);
        let origin = Https::start("192.0.2.10:443", &world.authority, &options, slow);
        let requests = || (0..8).map(|_| get("https://api.test/")).collect();
        let mut told: Vec<u16> =
            browse(world, "api.test:443", &["h2"], requests()).into_iter().map(|t| t.unwrap().status).collect();
        told.sort_unstable();
        assert_eq!(told, [200, 200, 200, 503, 503, 503, 503, 503]);
        assert_eq!(origin.connections(), 3);
        // Three rest now, and give way to who needs a place.
        let free = Https::hello("192.0.2.20:443", &world.authority, &["free.test"]);
        let told = browse(world, "free.test:443", &["h2"], vec![get("https://free.test/")]).remove(0).unwrap();
        assert_eq!((told.status, free.connections()), (200, 1));
    });
}

#[test]
fn another_name_in_sni_or_host_reaches_nobody() {
    with(|world| {
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test", "free.test"]);
        let mut fronting = Raw::connect(world, "api.test:443", "free.test");
        assert!(fronting.shake().is_err());
        world.one_refusal(Reason::SniMismatch);
        assert_eq!(origin.connections(), 0, "not even dialled");

        let mut client = Raw::connect(world, "api.test:443", "api.test");
        let answer = client.ask("GET / HTTP/1.1\r\nHost: free.test\r\n\r\n");
        assert_eq!((answer.status, answer.reason().as_str()), (421, "authority_mismatch"));
        world.one_refusal(Reason::AuthorityMismatch);
        let mut client = Raw::connect(world, "api.test:443", "api.test");
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").status, 200);
        let answer = client.ask("GET https://free.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n");
        assert_eq!((answer.status, answer.reason().as_str()), (421, "authority_mismatch"));
        world.one_refusal(Reason::AuthorityMismatch);
        let told = browse(world, "api.test:443", &BOTH, vec![get("https://free.test/")]).remove(0).unwrap();
        assert_eq!((told.status, told.reason().as_str()), (421, "authority_mismatch"));
        world.one_refusal(Reason::AuthorityMismatch);
        assert_eq!(origin.requests().len(), 1);
    });
}

#[test]
fn an_origin_that_is_not_who_it_should_be_is_sent_nothing() {
    with(|world| {
        let wrong = |change: fn(&mut Options), word: &str| {
            let mut options = Options::of(&["api.test"]);
            change(&mut options);
            let origin = Https::start("192.0.2.10:443", &world.authority, &options, |_| Reply::ok("x"));
            let mut client = Raw::connect(world, "api.test:443", "api.test");
            let answer = client.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n");
            assert_eq!((answer.status, answer.reason().as_str()), (502, "upstream_tls"), "{answer:?}");
            assert!(answer.body.contains(word), "{answer:?}");
            assert!(world.one_refusal(Reason::UpstreamTls).detail.unwrap().contains(word));
            assert!(origin.requests().is_empty());
        };
        wrong(|o| o.self_signed = true, "does not trust");
        wrong(|o| o.expired_for = Duration::from_secs(60), "expired");
        wrong(|o| o.names = vec!["other.test".into()], "another name");
        let mut client = Raw::connect(world, "api.test:443", "api.test");
        let answer = client.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n");
        assert_eq!((answer.status, answer.reason().as_str()), (502, "upstream_connect"), "nobody listens: {answer:?}");
        world.one_refusal(Reason::UpstreamConnect);
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").status, 200, "the same connection");
        assert_eq!(origin.requests().len(), 1);
    });
}

#[test]
fn a_client_that_pins_is_told_apart() {
    with(|world| {
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        let mut pinned = Raw::trusting(world, "api.test:443", "api.test", world.authority.pem());
        assert!(pinned.shake().is_err());
        let refusal = world.one_refusal(Reason::ClientRejectedCert);
        assert!(refusal.detail.unwrap().contains("passthrough"));
        assert!(origin.requests().is_empty());
    });
}

#[test]
fn framing_that_can_be_read_in_two_ways_does_not_pass() {
    with(|world| {
        let origin = Https::hello("192.0.2.20:443", &world.authority, &["free.test"]);
        for framing in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
            "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "X: y\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let mut client = Raw::connect(world, "free.test:443", "free.test");
            let answer = client.ask(format!("POST / HTTP/1.1\r\nHost: free.test\r\n{framing}"));
            assert_eq!((answer.status, answer.reason().as_str()), (400, "framing"), "{framing:?}");
            world.one_refusal(Reason::Framing);
        }
        assert!(origin.requests().is_empty());
        let mut client = Raw::connect(world, "free.test:443", "free.test");
        let answer = client.ask("CONNECT evil.test:443 HTTP/1.1\r\nHost: free.test\r\n\r\n");
        assert_eq!((answer.status, answer.reason().as_str()), (403, "l7"));
        world.one_refusal(Reason::L7);
        let mut client = Raw::connect(world, "free.test:443", "free.test");
        let body = "POST /a HTTP/1.1\r\nHost: free.test\r\nContent-Length: 5\r\n\r\nhello";
        client.send([body, "GET /b HTTP/1.1\r\nHost: free.test\r\n\r\n"].concat());
        assert_eq!((client.answer().status, client.answer().status), (200, 200), "pipelined");
        assert_eq!(origin.requests()[0].body, b"hello");
    });
}

#[test]
fn bodies_stream_both_ways_with_trailers_and_within_their_bound() {
    with(|world| {
        let options = Options::of(&["api.test"]);
        let origin = Https::start("192.0.2.10:443", &world.authority, &options, |request| {
            let mut reply = Reply::ok(&format!("{} ", request.body.len())).header("trailer", "grpc-status");
            reply.pieces.push((Duration::from_millis(50), b"later".to_vec()));
            reply.trailers = vec![("grpc-status".into(), "0".into())];
            reply
        });
        let upload = |size: usize| request(Method::POST, "https://api.test/upload", &"x".repeat(size));
        for alpn in [&BOTH[..], &["http/1.1"]] {
            let told = browse(world, "api.test:443", alpn, vec![upload(60_000), upload(70_000), upload(1)]);
            let told: Vec<_> = told.into_iter().map(|t| t.expect("an answer")).collect();
            assert_eq!(told.iter().map(|t| t.status).collect::<Vec<_>>(), [200, 413, 200], "{told:?}");
            assert_eq!((told[0].body.as_str(), told[2].body.as_str()), ("60000 later", "1 later"));
            assert_eq!(told[1].reason(), "tx_limit");
            world.one_refusal(Reason::TxLimit);
            if alpn.len() == 2 {
                assert_eq!(told[0].trailers.as_ref().expect("trailers")["grpc-status"], "0");
            }
        }
        assert_eq!(origin.requests().len(), 4);
    });
}

#[test]
fn a_policy_that_changes_is_obeyed_by_the_next_request() {
    with(|world| {
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        let mut client = Raw::connect(world, "api.test:443", "api.test");
        let ask = "GET /public/a HTTP/1.1\r\nHost: api.test\r\n\r\n";
        assert_eq!(client.ask(ask).status, 200);
        world.reload(&POLICY.replace("/public/**, /", "/other"));
        let answer = client.ask(ask);
        assert_eq!((answer.status, answer.reason().as_str()), (403, "l7"));
        world.one_refusal(Reason::L7);
        world.reload("version: 1\nnetwork: {endpoints: {}}");
        let answer = client.ask(ask);
        assert_eq!((answer.status, answer.reason().as_str()), (403, "no_policy"));
        assert_eq!(origin.requests().len(), 1);
    });
}

#[test]
fn direct_connections_are_decrypted_too() {
    with(|world| {
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        let addr = lookup(world, "api.test", "A").remove(0);
        let stream = Client::connect(format!("{addr}:443").parse().unwrap()).0;
        let mut client = Raw::over(stream, "api.test", &world.ca);
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").status, 200);
        let denied = client.ask("GET /private HTTP/1.1\r\nHost: api.test\r\n\r\n");
        assert_eq!(denied.status, 403);
        world.one_refusal(Reason::L7);
        assert_eq!(origin.requests().len(), 1);
    });
}
