//! What the first bytes of a connection are.

/// Longest method looked for. The longest registered one has 17 characters.
const MAX_METHOD: usize = 32;
/// First line of the HTTP/2 connection preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// The kind of a connection, by its first bytes. A sign, not a proof: the parser of that kind still judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A TLS handshake record.
    Tls,
    /// A method and a space.
    Http1,
    /// HTTP/2 with prior knowledge, without TLS.
    H2cPreface,
    /// None of these.
    Other,
    /// Too few bytes to tell. At most [`MOST_BYTES`] are ever needed.
    NeedMore,
}

/// With this many bytes the answer is never [`Kind::NeedMore`].
pub const MOST_BYTES: usize = MAX_METHOD + 1;

/// Tells the kind. A longer prefix of the same bytes only ever turns [`Kind::NeedMore`] into an answer.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Kind {
    match bytes {
        [] | [0x16] => return Kind::NeedMore,
        [0x16, 0x03, ..] => return Kind::Tls,
        _ => {}
    }
    if bytes.starts_with(PREFACE) {
        return Kind::H2cPreface;
    }
    // `PRI ` would be a method, so the whole line is waited for.
    if PREFACE.starts_with(bytes) {
        return Kind::NeedMore;
    }
    match bytes.iter().position(|&b| !method(b)) {
        Some(at) if (1..=MAX_METHOD).contains(&at) && bytes.get(at) == Some(&b' ') => Kind::Http1,
        None if bytes.len() <= MAX_METHOD => Kind::NeedMore,
        _ => Kind::Other,
    }
}

/// Characters of registered methods. The grammar allows more, but those begin other protocols (`SSH-2.0-…`).
fn method(b: u8) -> bool {
    b.is_ascii_alphabetic() || matches!(b, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds() {
        for (bytes, want) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], Kind::Tls),
            (b"GET / HTTP/1.1\r\n", Kind::Http1),
            (b"VERSION-CONTROL /x", Kind::Http1),
            (b"get / HTTP/1.1", Kind::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Kind::H2cPreface),
            (b"PRI * HTTP/1.1\r\n", Kind::Http1),
            (b"PRIX /", Kind::Http1),
            (b"\x16\x02", Kind::Other),
            (b"\x80\x2e\x01\x03\x01", Kind::Other),
            (b"\x05\x01\x00", Kind::Other),
            (b"SSH-2.0-OpenSSH_9.2 Debian", Kind::Other),
            (b" GET / HTTP/1.1", Kind::Other),
            (b"\r\nGET / HTTP/1.1", Kind::Other),
            (b"GET\t/ HTTP/1.1", Kind::Other),
            (b"GET\r\n", Kind::Other),
            (b"GET\0 /", Kind::Other),
            (b"", Kind::NeedMore),
            (b"GET", Kind::NeedMore),
        ] {
            assert_eq!(sniff(bytes), want, "{bytes:?}");
        }
        assert_eq!(sniff(&[b'A'; MAX_METHOD]), Kind::NeedMore);
        assert_eq!(sniff(&[b'A'; MAX_METHOD + 1]), Kind::Other);
    }

    #[test]
    fn no_prefix_of_the_preface_counts_as_http1() {
        for n in 0..PREFACE.len() {
            assert_eq!(sniff(&PREFACE[..n]), Kind::NeedMore, "{n}");
        }
        assert_eq!(sniff(PREFACE), Kind::H2cPreface);
    }

    proptest! {
        #[test]
        fn an_answer_never_changes(bytes in prop_oneof![any::<Vec<u8>>(), "[A-Z]{0,40} ?.{0,9}".prop_map(String::into_bytes)]) {
            let last = sniff(&bytes);
            for n in 0..bytes.len() {
                let early = sniff(&bytes[..n]);
                prop_assert!(early == Kind::NeedMore || early == last);
                prop_assert!(n < MOST_BYTES || early != Kind::NeedMore);
            }
        }
    }
}
