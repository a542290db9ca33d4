//! Queries and form bodies: names and values, percent-encoded. What is not the credential's stays as it was written.

use zeroize::Zeroizing;

/// Takes every pair of this name out; gives the rest and the values, decoded.
pub(super) fn take<'a>(pairs: &'a str, name: &str) -> (Vec<&'a str>, Vec<Zeroizing<Vec<u8>>>) {
    let (mut rest, mut values) = (Vec::new(), Vec::new());
    for pair in pairs.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key).as_slice() == name.as_bytes() {
            values.push(decode(value));
        } else if !pair.is_empty() {
            rest.push(pair);
        }
    }
    (rest, values)
}

/// The names of a pair, decoded: some readers take `;` for `&`, so that one pair may be several to them.
pub(super) fn names(pair: &str) -> impl Iterator<Item = String> {
    let name = |part: &str| String::from_utf8_lossy(&decode(part.split('=').next().unwrap_or(""))).to_ascii_lowercase();
    pair.split(';').map(name)
}

/// Whether a pair of this name is among these for some reader.
pub(super) fn hides(rest: &[&str], name: &str) -> bool {
    rest.iter().any(|pair| names(pair).any(|n| n == name.to_ascii_lowercase()))
}

/// The pairs with one more behind them.
pub(super) fn with(rest: &[&str], name: &str, value: &str) -> Zeroizing<String> {
    let length: usize = rest.iter().map(|p| p.len() + 1).sum();
    let mut out = Zeroizing::new(String::with_capacity(length + 3 * (name.len() + value.len()) + 1));
    for pair in rest {
        out.push_str(pair);
        out.push('&');
    }
    out.push_str(&encode(name));
    out.push('=');
    out.push_str(&encode(value));
    out
}

/// Percent-encodes all but unreserved characters (RFC 3986).
pub(super) fn encode(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(3 * text.len()));
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        }
    }
    out
}

fn decode(text: &str) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digit =
            |at: usize| more.get(at).and_then(|d| char::from(*d).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                rest = &more[2..];
                continue;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*first),
        }
        rest = more;
    }
    out
}

/// The text with a `?` before it, or nothing.
pub(super) fn target(path: &str, query: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(path.len() + query.len() + 1));
    out.push_str(path);
    if !query.is_empty() {
        out.push('?');
        out.push_str(query);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_taken_and_put_by_decoded_name() {
        let (rest, values) = take("a=1&k%65y=x%20+y&&b&key=%zz&key", "key");
        assert_eq!(rest, ["a=1", "b"]);
        assert_eq!(values.iter().map(|v| v.as_slice()).collect::<Vec<_>>(), [&b"x  y"[..], b"%zz", b""]);
        assert_eq!(*with(&rest, "key", "a+b/c&d~"), "a=1&b&key=a%2Bb%2Fc%26d~");
        assert_eq!(*with(&[], "key", "v"), "key=v");
        assert!(hides(&["a=1;k%45y=2"], "key") && !hides(&["a=1;b=key"], "key"));
        assert_eq!((&**target("/p", "a=1"), &**target("/p", "")), ("/p?a=1", "/p"));
    }
}
