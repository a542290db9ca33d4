//! What a client of HTTP/1 may send: each case with what it is told and what an origin may see of it, where the rules are
//! [`crate::world::POLICY`]'s.

/// One connection's bytes.
pub(crate) struct Case {
    /// The row of the security catalogue; empty for what must work.
    pub(crate) row: &'static str,
    /// A host label of its own.
    pub(crate) name: &'static str,
    /// The bytes, one for each character. `~` stands for the beginning of an absolute target where the door wants one,
    /// `^` for the host.
    pub(crate) send: &'static str,
    /// Each answer: the status, and the reason if it is a refusal.
    pub(crate) told: &'static [(u16, &'static str)],
    /// Each request that arrives: method, target, bytes of its body.
    pub(crate) seen: &'static [Seen],
}

/// A request as an origin sees it.
pub(crate) type Seen = (&'static str, &'static str, usize);

const fn case(
    row: &'static str,
    name: &'static str,
    send: &'static str,
    told: &'static [(u16, &'static str)],
    seen: &'static [Seen],
) -> Case {
    Case { row, name, send, told, seen }
}

macro_rules! get {
    ($($rest:literal),*) => { concat!("GET ~/public/a HTTP/1.1\r\nHost: ^\r\n", $($rest),*) };
}
macro_rules! post {
    ($($rest:literal),*) => { concat!("POST ~/public/a HTTP/1.1\r\nHost: ^\r\n", $($rest),*) };
}
macro_rules! to {
    ($line:literal) => {
        concat!($line, " HTTP/1.1\r\nHost: ^\r\n\r\n")
    };
}

type Told = &'static [(u16, &'static str)];
const OK: Told = &[(200, "")];
const TWICE: Told = &[(200, ""), (200, "")];
const FRAMING: Told = &[(400, "framing")];
const BAD: Told = &[(400, "bad_request")];
const PATH: Told = &[(400, "path")];
const L7: Told = &[(403, "l7")];
const NOT: Told = &[(400, "unknown_protocol")];
const THEN_NOT: Told = &[(200, ""), (400, "unknown_protocol")];
const LIMIT: Told = &[(431, "limit")];
const MISMATCH: Told = &[(421, "authority_mismatch")];

const NONE: &[Seen] = &[];
const GET: &[Seen] = &[("GET", "/public/a", 0)];
const EMPTY: &[Seen] = &[("POST", "/public/a", 0)];
const POST: &[Seen] = &[("POST", "/public/a", 5)];

/// What an ordinary client sends.
pub(crate) const ORDINARY: &[Case] = &[
    case("", "get", get!("\r\n"), OK, GET),
    case("", "query", to!("GET ~/public/a?x=1&y=%20z"), OK, &[("GET", "/public/a?x=1&y=%20z", 0)]),
    case("", "head", to!("HEAD ~/public/a"), OK, &[("HEAD", "/public/a", 0)]),
    case("", "options", to!("OPTIONS ~/public/a"), OK, &[("OPTIONS", "/public/a", 0)]),
    case("", "length", post!("Content-Length: 5\r\n\r\nhello"), OK, POST),
    case("", "zero", post!("Content-Length: 0\r\n\r\n"), OK, EMPTY),
    case("", "chunked", post!("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), OK, POST),
    case("", "chunks", post!("Transfer-Encoding: CHUNKED\r\n\r\n2\r\nhe\r\n003\r\nllo\r\n000\r\n\r\n"), OK, POST),
    case(
        "",
        "trailer",
        post!("Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
        OK,
        POST,
    ),
    case("", "expect", post!("Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"), OK, POST),
    case("", "old", "GET ~/public/a HTTP/1.0\r\nHost: ^\r\n\r\n", OK, GET),
    case("", "close", get!("Connection: close\r\n\r\n"), OK, GET),
    case("", "spaces", post!("Content-Length:   5  \r\nX:\t \r\n\r\nhello"), OK, POST),
    case("", "blank", "\r\nGET ~/public/a HTTP/1.1\r\nHost: ^\r\n\r\n", OK, GET),
    case("", "two", concat!(get!("\r\n"), get!("\r\n")), TWICE, &[("GET", "/public/a", 0), ("GET", "/public/a", 0)]),
    case(
        "",
        "behind-a-body",
        concat!(post!("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), get!("\r\n")),
        TWICE,
        &[("POST", "/public/a", 5), ("GET", "/public/a", 0)],
    ),
];

/// Where a request ends.
pub(crate) const FRAMES: &[Case] = &[
    case("HTTP-01", "cl-te", post!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx"), FRAMING, NONE),
    case("HTTP-01", "te-cl", post!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nx"), FRAMING, NONE),
    case("HTTP-02", "te-x", post!("Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), FRAMING, NONE),
    case("HTTP-02", "te-identity-last", post!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), FRAMING, NONE),
    case("HTTP-02", "te-gzip", post!("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), FRAMING, NONE),
    case(
        "HTTP-02",
        "te-identity",
        post!("Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"),
        FRAMING,
        NONE,
    ),
    case("HTTP-02", "te-space", post!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), FRAMING, NONE),
    case("HTTP-02", "te-vtab", post!("Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"), FRAMING, NONE),
    case(
        "HTTP-02",
        "te-twice",
        post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        FRAMING,
        NONE,
    ),
    case(
        "HTTP-02",
        "te-two",
        post!("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        FRAMING,
        NONE,
    ),
    case("HTTP-02", "te-quoted", post!("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), FRAMING, NONE),
    case("HTTP-02", "te-parameter", post!("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), FRAMING, NONE),
    case("HTTP-02", "te-empty", post!("Transfer-Encoding: \r\n\r\n0\r\n\r\n"), FRAMING, NONE),
    // White space around a value is the grammar's own, and goes.
    case("", "te-tab", post!("Transfer-Encoding:\tchunked \r\n\r\n5\r\nhello\r\n0\r\n\r\n"), OK, POST),
    case(
        "HTTP-02",
        "te-old",
        "POST ~/public/a HTTP/1.0\r\nHost: ^\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        FRAMING,
        NONE,
    ),
    case("HTTP-03", "cl-differ", post!("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), FRAMING, NONE),
    case("HTTP-03", "cl-twice", post!("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), FRAMING, NONE),
    case("HTTP-03", "cl-list", post!("Content-Length: 5, 5\r\n\r\nhello"), FRAMING, NONE),
    case("HTTP-03", "cl-plus", post!("Content-Length: +5\r\n\r\nhello"), FRAMING, NONE),
    case("HTTP-03", "cl-hex", post!("Content-Length: 0x5\r\n\r\nhello"), FRAMING, NONE),
    case("HTTP-03", "cl-wrap", post!("Content-Length: 18446744073709551621\r\n\r\nhello"), FRAMING, NONE),
    case("HTTP-03", "cl-minus", post!("Content-Length: -1\r\n\r\nhello"), FRAMING, NONE),
    case("HTTP-03", "cl-word", post!("Content-Length: 5 x\r\n\r\nhello"), FRAMING, NONE),
    case("HTTP-03", "cl-empty", post!("Content-Length: \r\n\r\nhello"), FRAMING, NONE),
    case("HTTP-03", "cl-get", get!("Content-Length: 5\r\n\r\nhello"), OK, &[("GET", "/public/a", 5)]),
    case("HTTP-03", "cl-name", post!("Content_Length: 5\r\n\r\nhello\r\n\r\n"), THEN_NOT, EMPTY),
    case(
        "HTTP-03",
        "chunk-extension",
        post!("Transfer-Encoding: chunked\r\n\r\n5;x=\"\r\nhello\r\n0\r\n\r\n"),
        FRAMING,
        NONE,
    ),
    case("HTTP-03", "chunk-space", post!("Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n"), FRAMING, NONE),
    case("HTTP-03", "chunk-hex", post!("Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"), FRAMING, NONE),
    case("HTTP-03", "chunk-minus", post!("Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"), FRAMING, NONE),
    case(
        "HTTP-03",
        "chunk-wrap",
        post!("Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"),
        FRAMING,
        NONE,
    ),
    case("HTTP-03", "chunk-empty", post!("Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n"), FRAMING, NONE),
    case("HTTP-03", "chunk-lf", post!("Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n"), FRAMING, NONE),
    case(
        "HTTP-06",
        "hidden",
        post!("Content-Length: 49\r\n\r\nDELETE /public/a HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        OK,
        &[("POST", "/public/a", 49)],
    ),
    case(
        "HTTP-06",
        "hidden-chunk",
        post!("Transfer-Encoding: chunked\r\n\r\n1B\r\nDELETE /public/a HTTP/1.1\r\n\r\n0\r\n\r\n"),
        OK,
        &[("POST", "/public/a", 27)],
    ),
    case("HTTP-06", "pipelined", concat!(get!("\r\n"), to!("DELETE ~/public/b")), &[(200, ""), (403, "l7")], GET),
    case(
        "HTTP-06",
        "between",
        concat!(get!("\r\n"), to!("DELETE ~/public/b"), to!("GET ~/public/c")),
        &[(200, ""), (403, "l7"), (200, "")],
        &[("GET", "/public/a", 0), ("GET", "/public/c", 0)],
    ),
    case(
        "HTTP-06",
        "behind-denied",
        concat!("DELETE ~/public/b HTTP/1.1\r\nHost: ^\r\nContent-Length: 5\r\n\r\nhello", get!("\r\n")),
        &[(403, "l7"), (200, "")],
        GET,
    ),
    case("HTTP-06", "overflow", post!("Content-Length: 5\r\n\r\nhelloDELETE /public/a\r\n\r\n"), THEN_NOT, POST),
    case("HTTP-06", "no-body", get!("Expect: 100-continue\r\nContent-Length: 0\r\n\r\nX\r\n\r\n"), THEN_NOT, GET),
];

/// The grammar of a head.
pub(crate) const HEADS: &[Case] = &[
    case("HTTP-05", "lf", get!("X: a\nY: b\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "lf-all", "GET ~/public/a HTTP/1.1\nHost: ^\n\n", FRAMING, NONE),
    case("HTTP-05", "cr", get!("X: a\rY: b\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "cr-cr", get!("X: a\r\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "fold", get!("X: a\r\n b\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "fold-tab", get!("X: a\r\n\tTransfer-Encoding: chunked\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "nul", get!("X: a\0b\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "nul-name", get!("X\0: a\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "control", get!("X\x01: a\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "space", get!("X : a\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "indented", "GET ~/public/a HTTP/1.1\r\n Host: ^\r\n\r\n", FRAMING, NONE),
    case("HTTP-05", "no-colon", get!("X\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "no-name", get!(": a\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "no-utf8", get!("X\u{ff}: a\r\n\r\n"), FRAMING, NONE),
    case("HTTP-05", "two-spaces", to!("GET  ~/public/a"), BAD, NONE),
    case("HTTP-05", "space-behind", "GET ~/public/a  HTTP/1.1\r\nHost: ^\r\n\r\n", BAD, NONE),
    case("HTTP-05", "space-within", to!("GET ~/public/a b"), BAD, NONE),
    case("HTTP-05", "tab", to!("GET\t~/public/a"), NOT, NONE),
    case("HTTP-05", "version", "GET ~/public/a HTTP/1.2\r\nHost: ^\r\n\r\n", BAD, NONE),
    case("HTTP-05", "version-2", "GET ~/public/a HTTP/2.0\r\nHost: ^\r\n\r\n", BAD, NONE),
    case("HTTP-05", "version-low", "GET ~/public/a http/1.1\r\nHost: ^\r\n\r\n", NOT, NONE),
    case("HTTP-05", "version-none", "GET ~/public/a\r\nHost: ^\r\n\r\n", NOT, NONE),
    case("HTTP-12", "host-none", "GET ~/public/a HTTP/1.1\r\n\r\n", BAD, NONE),
    case("HTTP-12", "host-other", "GET ~/public/a HTTP/1.1\r\nHost: evil.example\r\n\r\n", MISMATCH, NONE),
    case("HTTP-12", "host-twice", get!("Host: ^\r\n\r\n"), FRAMING, NONE),
    case("HTTP-12", "host-two", get!("Host: evil.example\r\n\r\n"), FRAMING, NONE),
    case("HTTP-12", "host-empty", "GET ~/public/a HTTP/1.1\r\nHost: \r\n\r\n", &[(400, "bad_authority")], NONE),
    case("HTTP-12", "host-port", "GET ~/public/a HTTP/1.1\r\nHost: ^:8443\r\n\r\n", MISMATCH, NONE),
    case(
        "HTTP-12",
        "host-user",
        "GET ~/public/a HTTP/1.1\r\nHost: ^@evil.example\r\n\r\n",
        &[(400, "bad_authority")],
        NONE,
    ),
    case(
        "HTTP-08",
        "upgrade-other",
        get!("Connection: upgrade\r\nUpgrade: TLS/1.2\r\n\r\n"),
        &[(403, "upgrade")],
        NONE,
    ),
    case(
        "HTTP-08",
        "upgrade-list",
        get!("Connection: upgrade\r\nUpgrade: websocket, x\r\n\r\n"),
        &[(403, "upgrade")],
        NONE,
    ),
    case(
        "HTTP-08",
        "upgrade-body",
        post!("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello"),
        &[(403, "upgrade")],
        NONE,
    ),
    case(
        "HTTP-08",
        "upgrade-declined",
        concat!(
            get!("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            to!("DELETE ~/public/b")
        ),
        &[(200, ""), (403, "l7")],
        GET,
    ),
    case("HTTP-08", "upgrade-bare", get!("Upgrade: websocket\r\n\r\n"), &[(403, "upgrade")], NONE),
    case(
        "PRX-13",
        "h2c",
        get!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"),
        &[(403, "h2c")],
        NONE,
    ),
    case("", "http2-settings", get!("Connection: HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"), OK, GET),
    case("", "nominated", get!("Connection: close, Host, Content-Length, X\r\nX: 1\r\n\r\n"), OK, GET),
];

/// What is asked for.
pub(crate) const TARGETS: &[Case] = &[
    case("HTTP-09", "dots", to!("GET ~/public/../private"), L7, NONE),
    case("HTTP-09", "dots-encoded", to!("GET ~/public/%2e%2e/private"), L7, NONE),
    case("HTTP-09", "dots-capital", to!("GET ~/public/%2E%2E%2Fprivate"), PATH, NONE),
    case("HTTP-09", "slashes", to!("GET ~//private"), L7, NONE),
    case("HTTP-09", "dot", to!("GET ~/./private"), L7, NONE),
    case("HTTP-09", "parameter", to!("GET ~/public/..;/private"), PATH, NONE),
    case("HTTP-09", "parameter-dots", to!("GET ~/public;x/../private"), PATH, NONE),
    case("HTTP-09", "backslash", to!("GET ~/public\\..\\private"), PATH, NONE),
    case("HTTP-09", "backslash-encoded", to!("GET ~/public/%5c..%5cprivate"), PATH, NONE),
    case("HTTP-09", "twice", to!("GET ~/public/%252e%252e/private"), PATH, NONE),
    case("HTTP-09", "path-nul", to!("GET ~/public/%00/private"), PATH, NONE),
    case("HTTP-09", "slash-encoded", to!("GET ~/public%2f..%2fprivate"), PATH, NONE),
    case("HTTP-09", "overlong", to!("GET ~/public/%c0%ae%c0%ae/private"), PATH, NONE),
    case("HTTP-09", "percent", to!("GET ~/public/%zz"), PATH, NONE),
    case("HTTP-09", "crlf", to!("GET ~/public/%0d%0ax"), PATH, NONE),
    case("HTTP-09", "resolved", to!("GET ~/private/..//public/./%61"), OK, GET),
    case("HTTP-09", "above", to!("GET ~/../../public/a"), OK, GET),
    case("HTTP-09", "case", to!("GET ~/PUBLIC/a"), L7, NONE),
    case("HTTP-09", "query-dots", to!("GET ~/private?/../public/a"), L7, NONE),
    case("HTTP-09", "denied", to!("GET ~/public/secret/%78"), &[(403, "policy_deny")], NONE),
    case("HTTP-10", "low", to!("get ~/public/a"), L7, NONE),
    case("HTTP-10", "mixed", to!("PoSt ~/public/a"), L7, NONE),
    case("HTTP-10", "method-tab", to!("POST\t ~/public/a"), NOT, NONE),
    case("HTTP-10", "unknown", to!("BREW ~/public/a"), L7, NONE),
    case("HTTP-10", "trace", to!("TRACE ~/public/a"), L7, NONE),
    case("HTTP-10", "delete", to!("DELETE ~/public/a"), L7, NONE),
    case("HTTP-10", "override", post!("X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n"), L7, NONE),
    case("HTTP-10", "override-url", get!("X-Original-URL: /private\r\n\r\n"), L7, NONE),
];

/// What only a connection to one host can be asked for.
pub(crate) const INSIDE: &[Case] = &[
    case("PRX-07", "connect", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", L7, NONE),
    case("PRX-07", "connect-own", "CONNECT ^:443 HTTP/1.1\r\nHost: ^:443\r\n\r\n", L7, NONE),
    case("HTTP-12", "absolute-other", to!("GET https://evil.example/public/a"), MISMATCH, NONE),
    case("HTTP-12", "absolute-user", to!("GET https://^@evil.example/public/a"), &[(400, "bad_authority")], NONE),
    case("HTTP-12", "absolute-own", to!("GET https://^/public/a"), OK, GET),
    case("HTTP-12", "absolute-http", to!("GET http://^/public/a"), BAD, NONE),
    case("HTTP-12", "old-no-host", "GET /public/a HTTP/1.0\r\n\r\n", BAD, NONE),
    case("HTTP-12", "target-authority", to!("GET ^:443"), BAD, NONE),
    case("HTTP-12", "target-star", to!("GET *"), BAD, NONE),
    case("HTTP-12", "target-relative", to!("GET public/a"), BAD, NONE),
    case("PRX-13", "preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[(403, "h2c")], NONE),
    case(
        "PRX-13",
        "preface-later",
        concat!(get!("\r\n"), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        &[(200, ""), (403, "h2c")],
        GET,
    ),
];

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [ORDINARY, FRAMES, HEADS, TARGETS, INSIDE].into_iter().flatten()
}

/// Heads over the bounds, which are too long to be written out.
pub(crate) fn long() -> Vec<(&'static str, String, Told)> {
    let fields = "X: y\r\n".repeat(129);
    vec![
        ("head-bytes", format!("GET ~/public/a HTTP/1.1\r\nHost: ^\r\nX: {}\r\n\r\n", "y".repeat(33 * 1024)), LIMIT),
        ("head-fields", format!("GET ~/public/a HTTP/1.1\r\nHost: ^\r\n{fields}\r\n"), LIMIT),
        ("target", format!("GET ~/public/{} HTTP/1.1\r\nHost: ^\r\n\r\n", "y".repeat(17 * 1024)), &[(414, "limit")]),
    ]
}
