//! Plain HTTP: absolute form through the proxy, and requests inside a tunnel.

use std::io::{Read, Write};

use stockade_audit::{Action, Event};
use stockade_testkit::upstream::{Http, Response as HttpResponse, Tcp};
use stockade_types::Reason;

use crate::world::World;

#[test]
fn a_request_is_judged_rebuilt_and_answered_and_another_host_refused() {
    World::run(|world| {
        let upstream = Http::hello("192.0.2.10:80");
        let mut client = world.client();
        client.send(
            "POST http://allowed.test/a/b?secret=1 HTTP/1.1\r\nHost: allowed.test\r\nProxy-Connection: keep-alive\r\n\
             Connection: x-drop\r\nX-Drop: 1\r\nProxy-Authorization: Basic eA==\r\nX-Forwarded-Host: evil.test\r\n\
             Content-Length: 5\r\n\r\nhello",
        );
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello from upstream\n"));
        let seen = &upstream.requests()[0];
        assert_eq!(seen.line, "POST /a/b?secret=1 HTTP/1.1");
        assert_eq!(seen.body, b"hello");
        assert_eq!(seen.header("host"), Some("allowed.test"));
        for gone in ["proxy-connection", "connection", "x-drop", "proxy-authorization"] {
            assert_eq!(seen.header(gone), None, "{gone}");
        }
        world.no_refusal();
        let http =
            world.events().into_iter().find_map(|e| if let Event::Http(h) = e { Some(h) } else { None }).unwrap();
        assert_eq!((http.network.action, http.method.as_str(), http.status), (Action::Allowed, "POST", 200));
        assert_eq!(http.path, "/a/b", "queries carry secrets");

        client.send("GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n");
        let denied = client.answer();
        assert_eq!((denied.status, denied.reason().as_str()), (403, "no_policy"));
        world.one_refusal(Reason::NoPolicy);
        assert_eq!(upstream.counters().arrivals(), 1);
    });
}

#[test]
fn requests_share_a_connection_and_each_is_judged() {
    World::run(|world| {
        let upstream = Http::hello("192.0.2.10:80");
        let mut client = world.client();
        for _ in 0..3 {
            client.send("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
            assert_eq!(client.answer().status, 200);
        }
        assert_eq!(upstream.counters().arrivals(), 1, "kept alive");
        client.send("GET http://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n");
        assert_eq!(client.answer().status, 200);
        assert_eq!(upstream.counters().arrivals(), 2, "another host, another connection");
        assert_eq!(upstream.requests()[3].header("host"), Some("other.test"));
    });
}

#[test]
fn chunked_bodies_pass_and_smuggled_ones_do_not() {
    World::run(|world| {
        let upstream = Http::hello("192.0.2.10:80");
        let head = "POST http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n";
        let answer = world.ask(&format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
        assert_eq!(answer.status, 200);
        assert_eq!(upstream.requests()[0].body, b"abcde");
        for framing in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
            "Content-Length: +4\r\n\r\nabcd",
            "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "X: y\r\n z: folded\r\n\r\n",
            "X: y\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let answer = world.ask(&format!("{head}{framing}"));
            assert_eq!((answer.status, answer.reason().as_str()), (400, "framing"), "{framing:?}");
            world.one_refusal(Reason::Framing);
        }
        assert_eq!(upstream.requests().len(), 1);
        let mut client = world.client();
        client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n"));
        assert_eq!(client.answer().reason(), "framing", "in the body too");
        assert_eq!(upstream.requests().len(), 1, "no complete request went up");
    });
}

#[test]
fn upgrades_to_anything_but_a_websocket_are_refused() {
    World::run(|world| {
        let upstream = Http::hello("192.0.2.10:80");
        let head = "GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\nConnection: Upgrade\r\n";
        for (upgrade, reason) in [("h2c", Reason::H2c), ("tls/1.2", Reason::Upgrade)] {
            let answer = world.ask(&format!("{head}Upgrade: {upgrade}\r\n\r\n"));
            assert_eq!((answer.status, answer.reason().as_str()), (403, reason.code()));
            world.one_refusal(reason);
        }
        upstream.counters().assert_untouched();
    });
}

const SOCKET: &str = "GET http://allowed.test/chat HTTP/1.1\r\nHost: allowed.test\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// The answer to that key (RFC 6455, section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[test]
fn the_reason_phrase_of_an_origin_goes_nowhere() {
    World::run(|world| {
        let said = "HTTP/1.1 200 phrase-of-the-origin\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        let _upstream = Http::start("192.0.2.10:80", move |_| HttpResponse::Raw(said.into()));
        let mut client = world.client();
        client.send("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n");
        let text = String::from_utf8(client.rest().0).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("ok"), "{text}");

        let head = "HTTP/1.1 101 phrase-of-the-origin\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        let _socket = answering("192.0.2.20", format!("{head}Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"));
        world.names.host("other.test", "192.0.2.20");
        let mut client = world.client();
        client.send(SOCKET.replace("allowed.test", "other.test"));
        assert_eq!(client.read(34), b"HTTP/1.1 101 Switching Protocols\r\n");
    });
}

fn answering(addr: &str, answer: String) -> Tcp {
    Tcp::serve((addr, 80), move |mut stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        stream.write_all(answer.as_bytes())?;
        let mut echo = [0; 64];
        loop {
            match stream.read(&mut echo)? {
                0 => return Ok(()),
                n => stream.write_all(&echo[..n])?,
            }
        }
    })
}

#[test]
fn a_websocket_that_the_origin_accepts_carries_bytes_both_ways() {
    World::run(|world| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        let upstream = answering("192.0.2.10", format!("{head}Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"));
        let mut client = world.client();
        client.send([SOCKET, "early"].concat());
        assert_eq!(client.answer().status, 101);
        assert_eq!(client.read(5), b"early");
        client.send(b"GET http://evil.test/ HTTP/1.1\r\n\r\n");
        assert_eq!(client.read(34), b"GET http://evil.test/ HTTP/1.1\r\n\r\n", "bytes, no request");
        drop(client);
        assert_eq!(upstream.counters.arrivals(), 1);
        world.no_refusal();
    });
}

#[test]
fn nothing_behind_an_upgrade_passes_before_the_origin_accepts_it() {
    World::run(|world| {
        let upstream =
            answering("192.0.2.10", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno".into());
        let mut client = world.client();
        client.send([SOCKET, "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"].concat());
        assert_eq!(client.answer().body, "no");
        let next = client.answer();
        assert_eq!((next.status, next.reason().as_str()), (403, "no_policy"), "a request, and judged");
        world.one_refusal(Reason::NoPolicy);
        drop((client, upstream));
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        let wrong = "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n";
        for (host, addr, accept) in [("a.wild.test", "192.0.2.11", wrong), ("b.wild.test", "192.0.2.12", "")] {
            world.names.host(host, addr);
            let upstream = answering(addr, format!("{head}{accept}\r\n"));
            let mut client = world.client();
            client.send([&SOCKET.replace("allowed.test", host), "secret"].concat());
            let answer = client.answer();
            assert_eq!((answer.status, answer.reason().as_str()), (502, "upgrade"));
            world.one_refusal(Reason::Upgrade);
            assert!(upstream.counters.bytes() < 300, "the head alone");
        }
        world.names.host("c.wild.test", "192.0.2.13");
        let _upstream = answering("192.0.2.13", format!("{head}Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"));
        let answer = world.ask("GET http://c.wild.test/ HTTP/1.1\r\nHost: c.wild.test\r\n\r\n");
        assert_eq!((answer.status, answer.reason().as_str()), (502, "upgrade"), "nobody asked");
        world.one_refusal(Reason::Upgrade);
    });
}

/// A text frame of a client (RFC 6455, section 5.2); the mask is zero, so the payload is readable.
fn text_frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0][..], text.as_bytes()].concat()
}

#[test]
fn messages_of_a_websocket_are_judged_one_by_one() {
    World::run(|world| {
        world.names.host("rpc.test", "192.0.2.10");
        world.reload(
            "{version: 1, network: {endpoints: {rpc: {hosts: [rpc.test], ports: [80], protocol: jsonrpc, \
             private_addresses: [192.0.2.0/24], allow: [{methods: ['get*']}]}}}}",
        );
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        let upstream = answering("192.0.2.10", format!("{head}Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"));
        let mut client = world.client();
        client.send(SOCKET.replace("allowed.test", "rpc.test"));
        assert_eq!(client.answer().status, 101);
        let call = |method: &str| text_frame(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#));
        let allowed = call("getBlock");
        client.send(&allowed[..9]);
        client.send(&allowed[9..]);
        assert_eq!(client.read(allowed.len()).len(), allowed.len(), "one frame, masked anew, and echoed");
        let before = upstream.counters.bytes();
        client.send(call("sendAll"));
        let (told, _) = client.rest();
        assert_eq!(told.get(..4).map(|b| (b[0], u16::from_be_bytes([b[2], b[3]]))), Some((0x88, 1008)), "{told:?}");
        assert!(String::from_utf8_lossy(&told).contains("l7"), "{told:?}");
        world.one_refusal(Reason::L7);
        assert_eq!(upstream.counters.bytes(), before, "nothing of it went up");
    });
}

/// A server that does not know the upgrade would answer the opening as an ordinary request.
#[test]
fn the_opening_of_a_websocket_asks_for_nothing_by_itself() {
    World::run(|world| {
        world.names.host("rpc.test", "192.0.2.10");
        world.names.host("graph.test", "192.0.2.10");
        world.reload(
            "{version: 1, network: {endpoints: {\
             rpc: {hosts: [rpc.test], ports: [80], protocol: jsonrpc, private_addresses: [192.0.2.0/24], \
             allow: [{methods: ['get*'], paths: [/rpc]}]}, \
             graph: {hosts: [graph.test], ports: [80], protocol: graphql, private_addresses: [192.0.2.0/24], \
             allow: [{operations: [query], fields: [version]}], deny: [{paths: [/admin/**]}]}}}}",
        );
        let upstream = Http::start("192.0.2.10:80", |_| HttpResponse::Whole(200, b"secrets".to_vec()));
        let open = |host: &str, target: &str| SOCKET.replace("allowed.test", host).replace("/chat", target);
        for (host, target, reason) in [
            ("rpc.test", "/admin/keys", Reason::L7),
            ("rpc.test", "/rpc?method=sendAll&id=1", Reason::L7),
            ("graph.test", "/admin/keys", Reason::PolicyDeny),
            ("graph.test", "/graphql?query=%7Bsecrets%7D", Reason::L7),
            ("graph.test", "/graphql?QUERY%5B%5D=mutation%7BdeleteAll%7D", Reason::L7),
            ("graph.test", "/graphql?id=stored", Reason::L7),
        ] {
            let answer = world.ask(&open(host, target));
            assert_eq!((answer.status, answer.reason().as_str()), (403, reason.code()), "{host} {target}");
            world.one_refusal(reason);
        }
        assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
        // It may be opened; an answer that is no WebSocket does not come back.
        for (host, target) in [("rpc.test", "/rpc?token=1"), ("graph.test", "/graphql")] {
            let answer = world.ask(&open(host, target));
            assert_eq!((answer.status, answer.reason().as_str()), (502, "upgrade"), "{host} {target}");
            world.one_refusal(Reason::Upgrade);
        }
        assert_eq!(upstream.requests().len(), 2);
    });
}

#[test]
fn redirects_are_the_clients_to_follow_and_each_step_is_judged() {
    World::run(|world| {
        let location = "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n";
        let _upstream = Http::start("192.0.2.10:80", move |_| HttpResponse::Raw(location.into()));
        let answer = world.ask("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
        assert_eq!(answer.status, 302);
        world.no_refusal();
        let next = world.ask("GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n");
        assert_eq!((next.status, next.reason().as_str()), (403, "ssrf_metadata"));
        world.one_refusal(Reason::SsrfMetadata);
    });
}

#[test]
fn a_broken_upstream_is_a_502() {
    World::run(|world| {
        let get = "GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n";
        let _upstream = Http::start("192.0.2.10:80", |r| {
            HttpResponse::Raw(if r.connection == 0 { b"SSH-2.0-x\r\n\r\n".to_vec() } else { Vec::new() })
        });
        let answer = world.ask(get);
        assert_eq!((answer.status, answer.reason().as_str()), (502, "upstream_framing"));
        world.one_refusal(Reason::UpstreamFraming);
        let answer = world.ask(get);
        assert_eq!((answer.status, answer.reason().as_str()), (502, "upstream_connect"));
        world.one_refusal(Reason::UpstreamConnect);
    });
}

#[test]
fn plain_http_inside_a_tunnel_is_for_the_tunnels_host_only() {
    World::run(|world| {
        let upstream = Http::hello("192.0.2.10:443");
        let mut tunnel = world.tunnel("allowed.test:443");
        tunnel.send("GET /x HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n");
        assert_eq!(tunnel.answer().body, "hello from upstream\n");
        assert_eq!(upstream.requests()[0].target(), "/x");
        tunnel.send("GET /y HTTP/1.1\r\nHost: evil.test\r\n\r\n");
        let refused = tunnel.answer();
        assert_eq!((refused.status, refused.reason().as_str()), (421, "authority_mismatch"));
        world.one_refusal(Reason::AuthorityMismatch);

        let mut tunnel = world.tunnel("allowed.test:443");
        tunnel.send("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n");
        let refused = tunnel.answer();
        assert_eq!((refused.status, refused.reason().as_str()), (403, "l7"));
        world.one_refusal(Reason::L7);
        assert_eq!(upstream.requests().len(), 1);
    });
}

#[test]
fn what_is_neither_tls_nor_http_does_not_enter_an_http_endpoint() {
    World::run(|world| {
        let upstream = Tcp::sink("192.0.2.10:443");
        for (bytes, reason) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Reason::H2c),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Reason::UnknownProtocol),
            (b"\x00\x01\x02\x03", Reason::UnknownProtocol),
        ] {
            let mut tunnel = world.tunnel("allowed.test:443");
            for byte in bytes {
                // One segment each; the refusal may come before the last.
                std::io::Write::write(&mut tunnel.0, &[*byte]).ok();
            }
            tunnel.rest();
            world.one_refusal(reason);
        }
        assert_eq!(upstream.counters.bytes(), 0);
    });
}
