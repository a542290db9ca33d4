//! Percent-encoding in normal form (RFC 3986, section 6.2.2).

use std::borrow::Cow;

use super::TargetError;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Text as it is sent, and decoded: unreserved characters plain, those that `keep` names as they were written, every
/// other octet encoded.
pub(super) fn normal(text: &str, keep: fn(u8) -> bool) -> Result<(String, String), TargetError> {
    let mut wire = String::with_capacity(text.len());
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let (byte, plain) = if byte == b'%' {
            let digit = |b: Option<u8>| b.and_then(value).ok_or(TargetError::BadPercent);
            (digit(bytes.next())? << 4 | digit(bytes.next())?, false)
        } else {
            (byte, keep(byte))
        };
        decoded.push(byte);
        if plain || unreserved(byte) {
            wire.push(char::from(byte));
        } else {
            encode(&mut wire, byte);
        }
    }
    Ok((wire, String::from_utf8(decoded).map_err(|_| TargetError::NotUtf8)?))
}

/// Decodes what [`normal`] made; anything else as far as it goes.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let (byte, behind) = escape(rest).unwrap_or((byte, behind));
        decoded.push(byte);
        rest = behind;
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// Whether decoded text, decoded once more, has a character that changes the shape of a path.
pub(super) fn twice(decoded: &str) -> bool {
    let bytes = decoded.as_bytes();
    (0..bytes.len())
        .filter_map(|at| bytes.get(at..).and_then(escape))
        .any(|(byte, _)| matches!(byte, b'.' | b'/' | b'\\' | b';' | b'%' | 0..=0x1f | 0x7f))
}

/// The octet that `%XX` at the beginning stands for, and what follows.
fn escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&[percent, high, low], rest) = bytes.split_first_chunk::<3>()?;
    (percent == b'%').then_some(())?;
    Some((value(high)? << 4 | value(low)?, rest))
}

fn encode(out: &mut String, byte: u8) {
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        out.extend(HEX.get(usize::from(digit)).map(|d| char::from(*d)));
    }
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
