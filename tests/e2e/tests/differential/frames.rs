//! What a client of HTTP/2 may send, frame by frame: fields are written out without compression, so that any may be sent.

use std::time::Duration;

use crate::corpus::Seen;

/// One connection's bytes, in pieces.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Pieces, and how long to wait after each.
    pub(crate) send: Vec<(Vec<u8>, Duration)>,
    /// Each request that arrives whole. `None`: servers differ, and some refuse it.
    pub(crate) seen: Option<Vec<Seen>>,
    /// Streams that come to an end.
    pub(crate) ends: usize,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field block: each field a literal that no table learns.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            // One byte for each character, as in the corpus of HTTP/1.
            let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
            assert!(bytes.len() < 127, "{text}");
            out.push(u8::try_from(bytes.len()).unwrap());
            out.extend(bytes);
        }
    }
    out
}

fn open() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The four fields that a request begins with, some of them changed, added (`+`) or left out (an empty value).
fn head<'a>(host: &'a str, changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/public/a")];
    for (name, value) in changes {
        match name.strip_prefix('+') {
            Some(name) => fields.push((name, value)),
            None if value.is_empty() => fields.retain(|(n, _)| n != name),
            None => fields.iter_mut().filter(|(n, _)| n == name).for_each(|(_, v)| *v = value),
        }
    }
    fields
}

fn request(stream: u32, fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

const GET: Seen = ("GET", "/public/a", 0);

/// All of them, for a host.
pub(crate) fn all(host: &dyn Fn(&str) -> String) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, changes, seen) in heads() {
        let own = host(name);
        let changes: Vec<_> = changes.iter().map(|(n, v)| (*n, v.replace('^', &own))).collect();
        let changes: Vec<_> = changes.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let bytes = [open(), request(1, &head(&own, &changes), END_STREAM)].concat();
        cases.push(Case { name, send: vec![(bytes, Duration::ZERO)], seen: Some(seen.to_vec()), ends: 1 });
    }
    for (name, length, data, seen) in bodies() {
        let own = host(name);
        let mut fields = head(&own, &[(":method", "POST")]);
        fields.extend(length.iter().map(|l| ("content-length", *l)));
        let bytes = [open(), request(1, &fields, 0), frame(DATA, END_STREAM, 1, data)].concat();
        cases.push(Case { name, send: vec![(bytes, Duration::ZERO)], seen: Some(seen.to_vec()), ends: 1 });
    }
    for (name, trailers) in trailers() {
        let own = host(name);
        let fields = head(&own, &[(":method", "POST"), ("+trailer", "x-t")]);
        let bytes = [open(), request(1, &fields, 0), frame(DATA, 0, 1, b"hello"), request(1, trailers, END_STREAM)];
        cases.push(Case { name, send: vec![(bytes.concat(), Duration::ZERO)], seen: None, ends: 1 });
    }
    cases.extend(streams(host));
    cases
}

type Fields = &'static [(&'static str, &'static str)];

/// Requests without a body, as changes of an ordinary one.
fn heads() -> Vec<(&'static str, Fields, &'static [Seen])> {
    vec![
        ("h2-get", &[], &[GET]),
        ("h2-te", &[("+te", "trailers")], &[GET]),
        ("h2-te-gzip", &[("+te", "gzip")], &[]),
        ("h2-connection", &[("+connection", "keep-alive")], &[]),
        ("h2-keep-alive", &[("+keep-alive", "5")], &[]),
        ("h2-proxy-connection", &[("+proxy-connection", "close")], &[]),
        ("h2-coding", &[("+transfer-encoding", "chunked")], &[]),
        ("h2-upgrade", &[("+upgrade", "h2c")], &[]),
        ("h2-capital", &[("+X-Y", "1")], &[]),
        ("h2-name-space", &[("+x y", "1")], &[]),
        ("h2-name-colon", &[("+x:y", "1")], &[]),
        ("h2-name-crlf", &[("+x\r\ny", "1")], &[]),
        ("h2-name-nul", &[("+x\0", "1")], &[]),
        ("h2-name-empty", &[("+", "1")], &[]),
        ("h2-value-crlf", &[("+x", "1\r\nTransfer-Encoding: chunked")], &[]),
        ("h2-value-lf", &[("+x", "1\nx: 2")], &[]),
        ("h2-value-cr", &[("+x", "1\r2")], &[]),
        ("h2-value-nul", &[("+x", "1\x002")], &[]),
        ("h2-path-space", &[(":path", "/public/a HTTP/1.1")], &[]),
        ("h2-path-crlf", &[(":path", "/public/a HTTP/1.1\r\nX: y\r\n\r\nDELETE /x")], &[]),
        ("h2-path-nul", &[(":path", "/public/\0")], &[]),
        ("h2-path-relative", &[(":path", "public/a")], &[]),
        ("h2-path-absolute", &[(":path", "https://evil.example/public/a")], &[]),
        ("h2-path-star", &[(":path", "*")], &[]),
        ("h2-path-none", &[(":path", "")], &[]),
        ("h2-path-twice", &[("+:path", "/private")], &[]),
        // A fragment is never sent.
        ("h2-path-fragment", &[(":path", "/public/a#x")], &[GET]),
        ("h2-path-dots", &[(":path", "/public/../private")], &[]),
        ("h2-path-slash", &[(":path", "/public%2f..%2fprivate")], &[]),
        ("h2-path-resolved", &[(":path", "//x/..//public/./%61")], &[GET]),
        ("h2-method-line", &[(":method", "GET /public/b HTTP/1.1\r\nX:")], &[]),
        ("h2-method-space", &[(":method", "GET ")], &[]),
        ("h2-method-low", &[(":method", "get")], &[]),
        ("h2-method-unknown", &[(":method", "BREW")], &[]),
        ("h2-method-none", &[(":method", "")], &[]),
        ("h2-method-twice", &[("+:method", "DELETE")], &[]),
        ("h2-method-delete", &[(":method", "DELETE")], &[]),
        ("h2-connect", &[(":method", "CONNECT")], &[]),
        ("h2-connect-plain", &[(":method", "CONNECT"), (":path", ""), (":scheme", "")], &[]),
        ("h2-connect-udp", &[(":method", "CONNECT"), ("+:protocol", "connect-udp")], &[]),
        ("h2-protocol", &[("+:protocol", "websocket")], &[]),
        ("h2-pseudo-unknown", &[("+:other", "1")], &[]),
        ("h2-pseudo-late", &[("+x", "1"), ("+:path", "/private")], &[]),
        ("h2-status", &[("+:status", "200")], &[]),
        ("h2-scheme-http", &[(":scheme", "http")], &[]),
        ("h2-scheme-none", &[(":scheme", "")], &[]),
        ("h2-scheme-line", &[(":scheme", "https://x/ HTTP/1.1\r\n")], &[]),
        ("h2-authority-other", &[(":authority", "evil.example")], &[]),
        ("h2-authority-user", &[(":authority", "^@evil.example")], &[]),
        ("h2-authority-port", &[(":authority", "^:443")], &[GET]),
        ("h2-authority-8443", &[(":authority", "^:8443")], &[]),
        ("h2-authority-none", &[(":authority", "")], &[]),
        ("h2-host-only", &[(":authority", ""), ("+host", "^")], &[GET]),
        ("h2-host-same", &[("+host", "^")], &[GET]),
        ("h2-host-other", &[("+host", "evil.example")], &[]),
        ("h2-host-twice", &[("+host", "^"), ("+host", "evil.example")], &[]),
        ("h2-override", &[("+x-http-method-override", "DELETE")], &[]),
        ("h2-length-no-body", &[("+content-length", "5")], &[]),
    ]
}

const POST: Seen = ("POST", "/public/a", 5);

/// A case: its name, each length that is said, the body, what arrives.
type Body = (&'static str, &'static [&'static str], &'static [u8], &'static [Seen]);

/// Bodies, and what is said of their length.
fn bodies() -> Vec<Body> {
    vec![
        ("h2-post", &["5"], b"hello", &[POST]),
        ("h2-post-unsaid", &[], b"hello", &[POST]),
        ("h2-length-short", &["5"], b"hel", &[]),
        ("h2-length-long", &["3"], b"hello", &[]),
        ("h2-length-twice", &["5", "5"], b"hello", &[]),
        ("h2-length-differ", &["5", "0"], b"hello", &[]),
        ("h2-length-differ-first", &["0", "5"], b"hello", &[]),
        ("h2-length-list", &["5, 5"], b"hello", &[]),
        ("h2-length-plus", &["+5"], b"hello", &[]),
        ("h2-length-wrap", &["18446744073709551621"], b"hello", &[]),
        ("h2-body-request", &[], b"0\r\n\r\nDELETE /public/a HTTP/1.1\r\n\r\n", &[("POST", "/public/a", 34)]),
    ]
}

/// Trailer sections behind a body of five bytes. Not every server reads them at all.
fn trailers() -> Vec<(&'static str, Fields)> {
    vec![
        ("h2-trailer", &[("x-t", "1")]),
        ("h2-trailer-pseudo", &[(":path", "/private")]),
        ("h2-trailer-capital", &[("X-T", "1")]),
        ("h2-trailer-crlf", &[("x-t", "1\r\nDELETE /x HTTP/1.1")]),
        ("h2-trailer-coding", &[("transfer-encoding", "chunked")]),
    ]
}

/// More than one stream, or a stream in an unusual order.
fn streams(host: &dyn Fn(&str) -> String) -> Vec<Case> {
    let pause = Duration::from_millis(150);
    let made = |name: &'static str, pieces: &dyn Fn(&str) -> Vec<Vec<u8>>, seen: &[Seen]| {
        let mut send: Vec<_> = pieces(&host(name)).into_iter().map(|bytes| (bytes, pause)).collect();
        send.insert(0, (open(), Duration::ZERO));
        let ends = if name == "h2-two" { 2 } else { 1 };
        // A server may have answered before it learns that the client left.
        let seen = (name != "h2-given-up").then(|| seen.to_vec());
        Case { name, send, seen, ends }
    };
    let slow = Duration::from_millis(1);
    let mut cases = vec![
        made(
            "h2-two",
            &|h| vec![[request(1, &head(h, &[]), 1), request(3, &head(h, &[(":method", "DELETE")]), 1)].concat()],
            &[GET],
        ),
        made(
            "h2-continuation",
            &|h| {
                let fields = block(&head(h, &[]));
                let (one, two) = fields.split_at(9);
                vec![[frame(HEADERS, END_STREAM, 1, one), frame(CONTINUATION, END_HEADERS, 1, two)].concat()]
            },
            &[GET],
        ),
        made(
            "h2-interrupted",
            &|h| {
                let fields = block(&head(h, &[]));
                let (one, two) = fields.split_at(9);
                let between = request(3, &head(h, &[]), 1);
                vec![[frame(HEADERS, END_STREAM, 1, one), between, frame(CONTINUATION, END_HEADERS, 1, two)].concat()]
            },
            &[],
        ),
        made(
            "h2-padded",
            &|h| {
                let body = [&[3][..], b"hello", b"DEL"].concat();
                vec![
                    [request(1, &head(h, &[(":method", "POST")]), 0), frame(DATA, END_STREAM | PADDED, 1, &body)]
                        .concat(),
                ]
            },
            &[POST],
        ),
        made(
            "h2-data-first",
            &|h| vec![[frame(DATA, END_STREAM, 1, b"hello"), request(1, &head(h, &[]), 1)].concat()],
            &[],
        ),
        made(
            "h2-given-up",
            &|h| vec![request(1, &head(h, &[(":method", "POST")]), 0), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])],
            &[],
        ),
        made(
            "h2-head-twice",
            &|h| vec![[request(1, &head(h, &[]), 1), request(1, &head(h, &[(":path", "/private")]), 1)].concat()],
            &[],
        ),
    ];
    // Each byte for itself.
    let whole = [open(), request(1, &head(&host("h2-bytes"), &[]), END_STREAM)].concat();
    let send = whole.iter().map(|b| (vec![*b], slow)).collect();
    cases.push(Case { name: "h2-bytes", send, seen: Some(vec![GET]), ends: 1 });
    cases
}
