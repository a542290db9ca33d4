//! The form in which a request is judged, and sent.

use http::{HeaderMap, Method, uri::PathAndQuery};
use stockade_l7::http::{self as form, Slashes, Target, TargetError};
use stockade_policy::{Protocol, Request, Terms};

use super::{forward, head::Violation};

/// Brings a request into canonical form: the method one that is known, the target one that every server reads alike,
/// no field by which it means another, and of the fields those that go on. Returns what is sent to `host`, and what is
/// judged.
///
/// # Errors
/// What has no such form.
pub(crate) fn canonical<B>(
    request: &http::Request<B>,
    terms: &Terms,
    host: &str,
) -> Result<(http::Request<()>, Request), Violation> {
    let method = form::method(request.method().as_str()).map_err(Violation::Method)?;
    let text = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let slashes = if terms.encoded_slash || !terms.judged { Slashes::Encoded } else { Slashes::Plain };
    if request.headers().values().any(padded) {
        return Err(Violation::Line("a field value begins or ends with white space"));
    }
    let mut sent = http::Request::new(());
    *sent.method_mut() = request.method().clone();
    *sent.headers_mut() = request.headers().clone();
    let mut sent = forward::rebuild(sent, host);
    let facts = |path: &str, query: &[(String, String)]| Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_vec(),
        headers: if terms.judged || terms.protocol != Protocol::Http { fields(sent.headers()) } else { Vec::new() },
        operations: Vec::new(),
    };
    let (wire, facts) = match Target::parse(text, slashes) {
        Ok(target) => (target.to_string(), facts(target.path(), target.pairs())),
        Err(_) if *request.method() == Method::OPTIONS && text == "*" => ("*".to_owned(), facts("*", &[])),
        // Where nothing looks at targets, what servers may read in several ways does not matter.
        Err(e) if !terms.judged && terms.protocol == Protocol::Http && ambiguous(e) => {
            (text.to_owned(), facts(request.uri().path(), &[]))
        }
        Err(e) => return Err(Violation::Target(e)),
    };
    if terms.judged {
        overrides(request.headers())?;
    }
    *sent.uri_mut() = wire.parse().map_err(|_| Violation::Target(TargetError::Control))?;
    Ok((sent, facts))
}

fn ambiguous(error: TargetError) -> bool {
    matches!(
        error,
        TargetError::Backslash
            | TargetError::EncodedSlash
            | TargetError::DoubleEncoded
            | TargetError::PathParameter
            | TargetError::Semicolon
            | TargetError::NotUtf8
            | TargetError::BadPercent
            | TargetError::TooManySegments
            | TargetError::TooManyParameters
    )
}

/// Fields by which frameworks let a request mean another method or path than its own would defeat the rules.
fn overrides(headers: &HeaderMap) -> Result<(), Violation> {
    // Many origins take `_` in names for `-`.
    let mut names = form::METHOD_OVERRIDES.iter().chain(&form::TARGET_OVERRIDES);
    let given = names.find(|name| headers.keys().any(|key| dashed(key.as_str()).eq(name.bytes())));
    given.map_or(Ok(()), |name| Err(Violation::Override(name)))
}

fn dashed(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().map(|b| if b == b'_' { b'-' } else { b })
}

/// HTTP/2 lets a value pass that HTTP/1 would trim: what is judged would not be what an origin reads.
fn padded(value: &http::HeaderValue) -> bool {
    let blank = |b: Option<&u8>| b.is_some_and(|b| matches!(b, b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

/// The fields as rules see them.
pub(super) fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

#[cfg(test)]
mod tests;
