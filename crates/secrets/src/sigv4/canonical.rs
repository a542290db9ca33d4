//! The canonical request: what both ends hash. It is made from the head as it is sent, not from what the client signed.

use http::{HeaderMap, HeaderName, header::HOST, request::Parts};

use super::SignError;

/// Name and value of a query parameter, decoded.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// The canonical request. The signed fields are all there.
pub(super) fn request(
    parts: &Parts,
    query: &[Pair],
    signed: &[HeaderName],
    s3: bool,
    payload: &str,
) -> Result<String, SignError> {
    let path = path(parts.uri.path(), s3)?;
    let query = self::query(query);
    let mut text = format!("{}\n{path}\n{query}\n", parts.method);
    for name in signed {
        text.push_str(name.as_str());
        text.push(':');
        match parts.uri.authority() {
            // HTTP/2 has no Host field.
            Some(authority) if *name == HOST && !parts.headers.contains_key(HOST) => text.push_str(authority.as_str()),
            _ => text.push_str(&field(&parts.headers, name)?),
        }
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&names(signed));
    text.push('\n');
    text.push_str(payload);
    Ok(text)
}

/// The signed fields' names, in order.
pub(super) fn names(signed: &[HeaderName]) -> String {
    signed.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(";")
}

/// S3 encodes a path once; the other services encode again what is sent.
fn path(sent: &str, s3: bool) -> Result<String, SignError> {
    let bytes = if s3 { decode(sent)? } else { sent.as_bytes().to_vec() };
    Ok(bytes.iter().map(|b| if *b == b'/' { "/".to_owned() } else { encoded(*b) }).collect())
}

fn query(pairs: &[Pair]) -> String {
    let mut pairs: Vec<(String, String)> = pairs.iter().map(|(n, v)| (encode(n), encode(v))).collect();
    pairs.sort();
    pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&")
}

/// The values of a field, trimmed, with single spaces, in their order.
fn field(fields: &HeaderMap, name: &HeaderName) -> Result<String, SignError> {
    let values = fields.get_all(name).iter().map(|value| {
        let text = value.to_str().map_err(|_| SignError::Field(name.clone()))?;
        Ok(text.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    });
    Ok(values.collect::<Result<Vec<_>, _>>()?.join(","))
}

/// The parameters of a query, decoded. A `+` is refused: it is read as itself by some and as a space by others.
pub(super) fn pairs(query: &str) -> Result<Vec<Pair>, SignError> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    });
    match query.contains('+') {
        true => Err(SignError::Query),
        false => pairs.collect(),
    }
}

fn decode(text: &str) -> Result<Vec<u8>, SignError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        if *first != b'%' {
            out.push(*first);
            rest = more;
            continue;
        }
        let digit =
            |at: usize| more.get(at).and_then(|d| char::from(*d).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(SignError::Query) };
        out.push(high << 4 | low);
        rest = &more[2..];
    }
    Ok(out)
}

/// Percent-encodes all but unreserved characters.
pub(super) fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|b| encoded(*b)).collect()
}

fn encoded(byte: u8) -> String {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}
