//! The first bytes of a connection.

use stockade_l7::{ClientHello, Kind, Progress, ServerName, sniff as sniffed};

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b"\x16\x03\x01",
    b"\x16\x03\x03\x00\x01",
    b"\x01\x00\x00",
    b"\x00\x00",
    b"\xfe\x0d",
    b"\x00\x10",
    b"a.test",
    b"\0",
    b"GET ",
    b"PRI * HTTP/2.0",
    b"CONNECT ",
    b"\r\n",
    b"\xff\xff",
    b"SSH-2.0-",
];

/// However the bytes are cut, the answer is the same; once given it stays.
pub(super) fn client_hello(data: &[u8]) -> u64 {
    let Some((&cut, hello)) = data.split_first() else { return 0 };
    let whole = ClientHello::new().feed(hello);
    let mut reader = ClientHello::new();
    let mut last = Progress::NeedMore;
    for piece in hello.chunks(usize::from(cut).max(1)) {
        let next = reader.feed(piece);
        assert!(last == Progress::NeedMore || last == next, "an answer changed");
        last = next;
    }
    assert_eq!(last, whole);
    match whole {
        Progress::Done(hello) => {
            let name = match &hello.server_name {
                None => "none".to_owned(),
                Some(ServerName::Name(name)) => {
                    assert!(name.as_str().len() <= 253 && !name.as_str().ends_with('.'));
                    "name".to_owned()
                }
                Some(ServerName::Malformed(why)) => format!("{why:?}"),
            };
            signature((name, hello.alpn.len().min(3), hello.ech))
        }
        other => signature(format!("{other:?}")),
    }
}

/// More bytes only ever turn "not yet" into an answer.
pub(super) fn sniff(data: &[u8]) -> u64 {
    let last = sniffed(data);
    for n in 0..data.len().min(stockade_l7::sniff::MOST_BYTES + 4) {
        let early = sniffed(&data[..n]);
        assert!(early == Kind::NeedMore || early == last);
    }
    assert!(last != Kind::NeedMore || data.len() < stockade_l7::sniff::MOST_BYTES);
    signature(last)
}
