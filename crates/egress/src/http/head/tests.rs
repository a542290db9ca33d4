use super::*;

fn proxy(head: &str) -> Result<Framing, Violation> {
    check(head.as_bytes(), &Surface::Proxy, 64)
}

fn host(head: &str) -> Result<Framing, Violation> {
    check(head.as_bytes(), &Surface::Host(Authority::parse("a.test:80", None).unwrap(), Scheme::Http), 64)
}

fn reason(result: Result<Framing, Violation>) -> (u16, &'static str) {
    let (status, reason) = result.unwrap_err().row();
    (status.as_u16(), reason.code())
}

#[test]
fn what_a_proxy_serves() {
    assert_eq!(proxy("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"), Ok(Framing::Tunnel));
    assert_eq!(proxy("CONNECT a.test:443 HTTP/1.0\r\n\r\n"), Ok(Framing::Tunnel));
    assert_eq!(proxy("GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n"), Ok(Framing::Length(0)));
    assert_eq!(proxy("GET HTTP://A.test:8080 HTTP/1.1\r\nHost: a.TEST:8080\r\n\r\n"), Ok(Framing::Length(0)));
    let post = "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n";
    assert_eq!(proxy(&format!("{post}Content-Length: 5\r\n\r\n")), Ok(Framing::Length(5)));
    assert_eq!(proxy(&format!("{post}Transfer-Encoding: Chunked\r\n\r\n")), Ok(Framing::Chunked));
}

#[test]
fn what_a_host_serves() {
    assert_eq!(host("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"), Ok(Framing::Length(0)));
    assert_eq!(host("GET http://a.test/ HTTP/1.1\r\nHost: a.test:80\r\n\r\n"), Ok(Framing::Length(0)));
    assert_eq!(reason(host("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n")), (421, "authority_mismatch"));
    assert_eq!(reason(host("GET / HTTP/1.1\r\nHost: a.test:81\r\n\r\n")), (421, "authority_mismatch"));
    assert_eq!(reason(host("GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n")), (421, "authority_mismatch"));
    assert_eq!(reason(host("CONNECT evil.test:443 HTTP/1.1\r\n\r\n")), (403, "l7"));
    assert_eq!(reason(host("GET / HTTP/1.0\r\n\r\n")), (400, "bad_request"), "no Host");
    assert_eq!(proxy("GET http://a.test/ HTTP/1.0\r\n\r\n"), Ok(Framing::Length(0)));
}

#[test]
fn targets_and_authorities() {
    assert_eq!(reason(proxy("GET /x HTTP/1.1\r\nHost: evil.test\r\n\r\n")), (400, "bad_request"));
    assert_eq!(reason(proxy("GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n")), (400, "bad_request"));
    for target in [
        "allowed.test@evil.test:443",
        "allowed.test:443@evil.test:443",
        "allowed.test\\@evil.test:443",
        "allowed.test%2eevil.test:443",
        "allowed.test#@evil:443",
        "evil.test\0.allowed.test:443",
        "a\t.test:443",
        "a .test:443",
        "a.test",
        "a.test:",
        "a.test:0",
        "a.test:65536",
        "a.test:-1",
        "a.test:00443",
        "a.test:443:80",
        "[::1:443",
        "[::1]:443x",
        "a.test:４４３",
        "127.1:80",
    ] {
        let result = proxy(&format!("CONNECT {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(reason(result), (400, "bad_authority"), "{target:?}");
    }
    for target in ["http://a.test@evil.test/", "http://a\0.test/", "http://a .test/", "http://a.test\\@e/", "http:///"]
    {
        let result = proxy(&format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(reason(result), (400, "bad_authority"), "{target:?}");
    }
    assert_eq!(reason(proxy("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n")), (421, "authority_mismatch"));
    assert_eq!(reason(proxy("GET http://a.test/ HTTP/1.1\r\nHost: a@b.test\r\n\r\n")), (400, "bad_authority"));
    assert_eq!(reason(proxy("GET http://a.test/ HTTP/1.1\r\n\r\n")), (400, "bad_request"), "no Host");
}

#[test]
fn framing_that_two_readers_could_read_differently() {
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n folded\r\n",
        "X: a\r\n\tfolded\r\n",
        "X: a\nContent-Length: 5\r\n",
        "X: a\rContent-Length: 5\r\n",
        "Host: b.test\r\n",
        "X\0: a\r\n",
    ] {
        assert_eq!(reason(host(&format!("{post}{fields}\r\n"))), (400, "framing"), "{fields:?}");
    }
    let old = "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(reason(host(old)), (400, "framing"));
    let connect = "CONNECT a.test:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(reason(proxy(connect)), (400, "framing"));
}

#[test]
fn upgrades_and_bounds() {
    let get = "GET / HTTP/1.1\r\nHost: a.test\r\n";
    assert_eq!(reason(host(&format!("{get}Upgrade: h2c\r\n\r\n"))), (403, "h2c"));
    assert_eq!(reason(host(&format!("{get}Upgrade: websocket, H2C\r\n\r\n"))), (403, "h2c"));
    assert_eq!(host(&format!("{get}Upgrade: WebSocket\r\n\r\n")), Ok(Framing::Upgrade));
    for (no, text) in [
        ("another protocol", format!("{get}Upgrade: tls/1.2\r\n\r\n")),
        ("twice", format!("{get}Upgrade: websocket\r\nUpgrade: websocket\r\n\r\n")),
        ("a list", format!("{get}Upgrade: websocket, foo\r\n\r\n")),
        ("a body", format!("{get}Upgrade: websocket\r\nContent-Length: 1\r\n\r\n")),
        ("HTTP/1.0", "GET / HTTP/1.0\r\nHost: a.test\r\nUpgrade: websocket\r\n\r\n".to_owned()),
        ("POST", "POST / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\n\r\n".to_owned()),
    ] {
        assert_eq!(reason(host(&text)), (403, "upgrade"), "{no}");
    }
    assert_eq!(reason(host(&format!("{get}{}\r\n", "X: y\r\n".repeat(64)))), (431, "limit"));
    assert!(host(&format!("{get}{}\r\n", "X: y\r\n".repeat(63))).is_ok());
    assert_eq!(reason(host("GET / HTTP/2.0\r\nHost: a.test\r\n\r\n")), (400, "bad_request"));
    assert_eq!(reason(host("nonsense\r\n\r\n")), (400, "unknown_protocol"));
    assert_eq!(reason(host("\x05\x01\0\r\n\r\n")), (400, "unknown_protocol"));
}

proptest::proptest! {
    #[test]
    fn what_passes_is_read_the_same_by_the_server_behind(
        line in "(GET|POST|CONNECT) (/|http://a.test/|a.test:80|[ -~]{0,12}) HTTP/1.[01]",
        fields in proptest::collection::vec("(Host: a.test|Content-Length: [0-9]{1,3}|Transfer-Encoding: chunked|[ -~\t]{0,20})", 0..5),
    ) {
        let head = format!("{line}\r\n{}\r\n\r\n", fields.join("\r\n"));
        if let Ok(framing) = host(&head) {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut request = httparse::Request::new(&mut headers);
            let n = request.parse(head.as_bytes()).unwrap().unwrap();
            proptest::prop_assert_eq!(n, head.len(), "{:?}", head);
            let count = |name: &str| request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
            proptest::prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
            proptest::prop_assert_eq!(count("transfer-encoding") == 1, framing == Framing::Chunked);
        }
    }
}
