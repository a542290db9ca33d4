//! WebSockets over HTTP/2 (RFC 8441): granted, judged and ended as those of HTTP/1.1 are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http2::{self, SendRequest},
    ext::Protocol,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use stockade_audit::{Action, Event};
use stockade_l7::websocket::Handshake;
use stockade_testkit::upstream::{
    Https,
    https::{Options, Reply},
};
use stockade_types::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    browser::{Raw, config},
    world::{SOON, World},
};

const POLICY: &str = "
version: 1
network:
  endpoints:
    sock:
      hosts: [sock.test]
      ports: [443]
      private_addresses: [192.0.2.0/24]
      allow: [{methods: [GET], paths: ['/chat', '/odd/**']}]
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
      allow: [{methods: [stream]}]
";

type Sender = SendRequest<Full<Bytes>>;

/// Serves `/chat` and `/` as WebSockets, and what else is asked for below `/odd`.
#[track_caller]
fn with(alpn: &[&str], body: impl FnOnce(&World, &Https)) {
    World::run(|world| {
        let hosts = ["sock.test", "rpc.test", "mcp.test"];
        hosts.iter().for_each(|host| world.names.host(host, "192.0.2.10"));
        world.reload(POLICY);
        let options = Options::of(&hosts).speaking(alpn);
        let origin = Https::start("192.0.2.10:443", &world.authority, &options, |request| {
            let switch = |accept: &str| {
                let reply = Reply { status: 101, ..Reply::ok("") }.header("connection", "upgrade");
                reply.header("upgrade", "websocket").header("sec-websocket-accept", accept)
            };
            match (Handshake::request("GET", &request.headers), request.target()) {
                (Ok(handshake), "/chat" | "/") => switch(handshake.accept()),
                (_, "/odd/accept") => switch("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
                (_, "/odd/absent") => Reply { status: 404, ..Reply::ok("no such chat") },
                _ => Reply::ok("just a page"),
            }
        });
        body(world, &origin);
    });
}

const BOTH: [&str; 2] = ["h2", "http/1.1"];

/// One connection of HTTP/2 through the proxy.
#[track_caller]
fn talk<T>(world: &World, host: &str, body: impl AsyncFnOnce(Sender) -> T) -> T {
    let tunnel = world.tunnel(&format!("{host}:443")).0;
    let (config, name) = (config(&world.ca, &["h2"]), ServerName::try_from(host.to_owned()).unwrap());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        tunnel.set_nonblocking(true).unwrap();
        let tunnel = tokio::net::TcpStream::from_std(tunnel).unwrap();
        let stream = TlsConnector::from(config).connect(name, tunnel).await.expect("a handshake");
        let (sender, mut connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let began = Instant::now();
        while !connection.is_extended_connect_protocol_enabled() {
            assert!(began.elapsed() < SOON, "the door does not offer it");
            timeout(Duration::from_millis(1), &mut connection).await.ok();
        }
        tokio::spawn(connection);
        body(sender).await
    })
}

fn connect(uri: &str, protocol: Option<&'static str>) -> Request<Full<Bytes>> {
    let request = Request::connect(uri).header("sec-websocket-version", "13").header("sec-websocket-key", "mine");
    let mut request = request.body(Full::default()).unwrap();
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(Protocol::from_static(protocol));
    }
    request
}

/// A WebSocket that must be granted.
async fn open(sender: &mut Sender, uri: &str) -> TokioIo<Upgraded> {
    let mut response = sender.send_request(connect(uri, Some("websocket"))).await.unwrap();
    assert_eq!(response.status(), 200, "{response:?}");
    let left: Vec<_> =
        response.headers().keys().filter(|n| n.as_str().starts_with("sec-") || *n == "upgrade").collect();
    assert!(left.is_empty(), "{left:?}");
    TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap())
}

/// Status and reason of a refusal.
async fn refused(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    (status, body["reason"].as_str().unwrap().to_owned())
}

#[test]
fn a_websocket_over_http2_is_the_get_that_it_stands_for() {
    with(&BOTH, |world, origin| {
        talk(world, "sock.test", async |mut sender| {
            let mut one = open(&mut sender, "https://sock.test/chat").await;
            let mut other = open(&mut sender, "https://sock.test/chat").await;
            for (socket, text) in [(&mut one, "one"), (&mut other, "GET /admin HTTP/1.1\r\n\r\n")] {
                socket.write_all(text.as_bytes()).await.unwrap();
                let mut echo = vec![0; text.len()];
                socket.read_exact(&mut echo).await.unwrap();
                assert_eq!(echo, text.as_bytes());
            }
            one.shutdown().await.unwrap();
            assert_eq!(one.read(&mut [0; 9]).await.unwrap(), 0, "the end is passed on both ways");
        });
        let seen = origin.requests();
        assert_eq!(seen.iter().map(|r| &*r.line).collect::<Vec<_>>(), ["GET /chat HTTP/1.1"; 2]);
        let key = seen[0].header("sec-websocket-key");
        assert!(key.is_some_and(|k| k.len() == 24) && key != seen[1].header("sec-websocket-key"), "{key:?}");
        assert_eq!((seen[0].header("host"), seen[0].header(":protocol")), (Some("sock.test"), None));
        world.no_refusal();
    });
}

#[test]
fn what_is_no_websocket_is_no_connect_either() {
    with(&BOTH, |world, origin| {
        talk(world, "sock.test", async |mut sender| {
            for (uri, protocol, reason) in [
                ("https://sock.test/private", Some("websocket"), Reason::L7),
                ("https://sock.test/chat/../private", Some("websocket"), Reason::L7),
                ("https://sock.test/chat", Some("connect-udp"), Reason::Upgrade),
                ("https://sock.test/chat", Some("WEBSOCKET"), Reason::Upgrade),
                ("evil.test:443", None, Reason::L7),
                ("sock.test:443", None, Reason::L7),
            ] {
                let response = sender.send_request(connect(uri, protocol)).await.unwrap();
                assert_eq!(refused(response).await, (403, reason.code().to_owned()), "{uri} {protocol:?}");
                let event = world.one_refusal(reason);
                assert_eq!(event.host.as_deref(), Some("sock.test"), "{uri} {protocol:?}");
            }
            let mut disguised = connect("https://sock.test/private", Some("websocket"));
            disguised.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            let response = sender.send_request(disguised).await.unwrap();
            assert_eq!(response.status(), 403, "no success, whatever it says it carries");
            world.one_refusal(Reason::L7);
            let other = sender.send_request(connect("https://evil.test/chat", Some("websocket"))).await.unwrap();
            assert_eq!(refused(other).await, (421, "authority_mismatch".to_owned()));
            world.one_refusal(Reason::AuthorityMismatch);
            assert!(origin.requests().is_empty(), "{:?}", origin.requests());
            open(&mut sender, "https://sock.test/chat").await;
        });
        assert_eq!(origin.requests().len(), 1, "the connection stayed usable");
    });
}

#[test]
fn only_a_right_101_opens_it() {
    with(&BOTH, |world, origin| {
        talk(world, "sock.test", async |mut sender| {
            for path in ["/odd/page", "/odd/accept"] {
                let uri = format!("https://sock.test{path}");
                let response = sender.send_request(connect(&uri, Some("websocket"))).await.unwrap();
                assert_eq!(refused(response).await, (502, "upgrade".to_owned()), "{path}");
                world.one_refusal(Reason::Upgrade);
            }
            let absent = connect("https://sock.test/odd/absent", Some("websocket"));
            let response = sender.send_request(absent).await.unwrap();
            assert_eq!(response.status(), 404, "an answer is an answer");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no such chat");
            world.no_refusal();
        });
        assert_eq!(origin.requests().len(), 3);
        assert!(origin.upgraded().is_empty());
    });
}

#[test]
fn an_origin_that_speaks_only_http2_has_none() {
    with(&["h2"], |world, origin| {
        talk(world, "sock.test", async |mut sender| {
            let response = sender.send_request(connect("https://sock.test/chat", Some("websocket"))).await.unwrap();
            assert_eq!(refused(response).await, (502, "upgrade".to_owned()));
            world.one_refusal(Reason::Upgrade);
            let page = Request::get("https://sock.test/odd/page").body(Full::default()).unwrap();
            assert_eq!(sender.send_request(page).await.unwrap().status(), 200, "control");
        });
        assert_eq!(origin.requests().len(), 1);
    });
}

/// A text frame of a client; the mask is zero, so the payload is readable.
fn call(method: &str) -> Vec<u8> {
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
    [&[0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0][..], text.as_bytes()].concat()
}

#[test]
fn its_messages_are_judged_one_by_one() {
    with(&BOTH, |world, origin| {
        talk(world, "rpc.test", async |mut sender| {
            let mut socket = open(&mut sender, "https://rpc.test/").await;
            let allowed = call("getBlock");
            let (head, tail) = allowed.split_at(9);
            socket.write_all(head).await.unwrap();
            socket.write_all(tail).await.unwrap();
            let mut echo = vec![0; allowed.len()];
            socket.read_exact(&mut echo).await.unwrap();
            let before = origin.upgraded().len();
            socket.write_all(&call("sendAll")).await.unwrap();
            let mut told = Vec::new();
            socket.read_to_end(&mut told).await.ok();
            assert_eq!(told.get(..4).map(|b| (b[0], u16::from_be_bytes([b[2], b[3]]))), Some((0x88, 1008)), "{told:?}");
            assert!(String::from_utf8_lossy(&told).contains("l7"), "{told:?}");
            world.one_refusal(Reason::L7);
            assert_eq!(origin.upgraded().len(), before, "nothing of it went up");
            open(&mut sender, "https://rpc.test/").await;
        });
    });
}

/// The stream of an MCP endpoint may be opened; a WebSocket in its place would carry calls that nobody reads.
#[test]
fn where_messages_are_judged_and_cannot_be_read_there_is_none() {
    with(&BOTH, |world, origin| {
        talk(world, "mcp.test", async |mut sender| {
            let response = sender.send_request(connect("https://mcp.test/", Some("websocket"))).await.unwrap();
            assert_eq!(refused(response).await, (403, "upgrade".to_owned()));
            world.one_refusal(Reason::Upgrade);
            assert!(origin.requests().is_empty());
            let stream = Request::get("https://mcp.test/").header("accept", "text/event-stream");
            let response = sender.send_request(stream.body(Full::default()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200, "control");
        });
        let ask = "GET / HTTP/1.1\r\nHost: mcp.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let answer = Raw::connect(world, "mcp.test:443", "mcp.test").ask(ask);
        assert_eq!((answer.status, answer.reason().as_str()), (403, "upgrade"), "nor over HTTP/1.1");
        world.one_refusal(Reason::Upgrade);
        assert_eq!(origin.requests().len(), 1);
    });
}

#[test]
fn it_ends_when_the_policy_takes_it_back() {
    with(&BOTH, |world, origin| {
        talk(world, "sock.test", async |mut sender| {
            let mut socket = open(&mut sender, "https://sock.test/chat").await;
            socket.write_all(b"x").await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), b'x');
            world.reload("version: 1\nnetwork: {endpoints: {}}");
            let mut told = Vec::new();
            socket.read_to_end(&mut told).await.ok();
            assert!(String::from_utf8_lossy(&told).contains("stale_generation"), "{told:?}");
            world.one_refusal(Reason::StaleGeneration);
        });
        assert_eq!(origin.upgraded(), b"x");
    });
}

/// What the origin may have seen is on record, also when its client did not wait for the answer.
#[test]
fn a_request_that_is_given_up_is_recorded() {
    with(&BOTH, |world, _| {
        world.names.host("sock.test", "192.0.2.11");
        let arrived = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&arrived);
        let _origin = Https::start("192.0.2.11:443", &world.authority, &Options::of(&["sock.test"]), move |_| {
            seen.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
            Reply::ok("late")
        });
        talk(world, "sock.test", async |mut sender| {
            let page = |path: &str| Request::get(format!("https://sock.test{path}")).body(Full::default()).unwrap();
            let given_up = tokio::spawn(sender.send_request(page("/odd/given-up")));
            while !arrived.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            given_up.abort();
            assert_eq!(sender.send_request(page("/odd/kept")).await.unwrap().status(), 200, "control");
        });
        let told: Vec<_> = world
            .events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Http(http) => Some((http.network.action, http.path, http.status)),
                _ => None,
            })
            .collect();
        let allowed = |path: &str, status| (Action::Allowed, path.to_owned(), status);
        assert_eq!(told, [allowed("/odd/given-up", 0), allowed("/odd/kept", 200)]);
    });
}
