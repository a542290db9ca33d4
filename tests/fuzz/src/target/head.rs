//! Request heads and chunked bodies: what passes has one reading.

use std::sync::LazyLock;

use stockade_egress::{Framing, chunked_length, request_framing};
use stockade_types::Authority;

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b HTTP/1.1\r\n",
    b"GET https://a.test/ HTTP/1.0\r\n",
    b"CONNECT a.test:443 HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"Host: a.test\r\n",
    b"Host: a.test:443\r\n",
    b"Host: b.test\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"content-length:05\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Upgrade: websocket\r\n",
    b"Connection: upgrade\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b":",
    b";x=y",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff",
    b"\xff",
];

static OWN: LazyLock<Authority> = LazyLock::new(|| Authority::parse("a.test:443", None).unwrap());

/// Every line of a head that passes is read alike by a reader that knows nothing but lines and colons.
pub(super) fn head(data: &[u8]) -> u64 {
    let head = [data, b"\r\n\r\n"].concat();
    let Some(framing) = request_framing(&head, &OWN) else { return signature(data.len().min(4)) };
    let text: String = head.iter().map(|b| char::from(*b)).collect();
    let (body, rest) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(rest, "", "something after the head");
    let mut lines = body.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let [method, target, "HTTP/1.0" | "HTTP/1.1"] = first[..] else { panic!("request line {first:?}") };
    assert!(!method.is_empty() && target.chars().all(|c| c.is_ascii_graphic()), "{first:?}");
    let (mut hosts, mut lengths, mut codings) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        let (name, value) = line.split_once(':').expect("a colon");
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_graphic()), "{name:?}");
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts.push(value.trim()),
            "content-length" => lengths.push(value.trim()),
            "transfer-encoding" => codings.push(value.trim()),
            _ => {}
        }
    }
    assert!(hosts.len() <= 1 && lengths.len() + codings.len() <= 1, "{hosts:?} {lengths:?} {codings:?}");
    for host in hosts {
        assert_eq!(Authority::parse(host, Some(OWN.port)).as_ref(), Ok(&*OWN));
    }
    let length: u64 = lengths.first().map_or(0, |l| l.parse().unwrap());
    match framing {
        Framing::Length(n) => assert!(n == length && codings.is_empty()),
        Framing::Chunked => assert!(codings[0].eq_ignore_ascii_case("chunked")),
        Framing::Upgrade => assert!(length == 0 && codings.is_empty() && method == "GET"),
        Framing::Tunnel => panic!("a CONNECT inside a connection for one host"),
    }
    signature(framing)
}

/// A chunked body ends where a reader ends that takes it apart as a whole, however it comes.
pub(super) fn chunked(data: &[u8]) -> u64 {
    let Some((&cut, body)) = data.split_first() else { return 0 };
    let whole = chunked_length(&[body]);
    let pieces: Vec<&[u8]> = body.chunks(usize::from(cut).max(1)).collect();
    // What follows a complete body is not read, in whichever piece.
    assert_eq!(chunked_length(&pieces), whole);
    if let Some(end) = whole {
        assert_eq!(apart(&body[..end]), Some(()), "{:?}", String::from_utf8_lossy(&body[..end]));
    }
    signature(whole)
}

fn apart(mut body: &[u8]) -> Option<()> {
    loop {
        let line = body.windows(2).position(|w| w == b"\r\n")?;
        let (size, rest) = body.split_at(line);
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        body = &rest[2..];
        if size == 0 {
            break;
        }
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
    // Trailers, up to an empty line that is the very end.
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let line = &body[..end];
        body = &body[end + 2..];
        if line.is_empty() {
            return body.is_empty().then_some(());
        }
        assert!(!line.contains(&b'\n'), "a bare line feed in a trailer");
    }
    None
}
