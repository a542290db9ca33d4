//! The form in which a request is judged, and sent.

use http::{HeaderMap, Method, uri::PathAndQuery};
use stockade_l7::http::{self as form, Slashes, Target, TargetError};
use stockade_policy::{Protocol, Request, Terms};

use super::head::Violation;

/// Brings a request into canonical form: the method one that is known, the target one that every server reads alike,
/// no field by which it means another. Returns what is sent, and what is judged.
///
/// # Errors
/// What has no such form.
pub(crate) fn canonical<B>(
    request: &http::Request<B>,
    terms: &Terms,
) -> Result<(http::Request<()>, Request), Violation> {
    let method = form::method(request.method().as_str()).map_err(Violation::Method)?;
    let text = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let slashes = if terms.encoded_slash || !terms.judged { Slashes::Encoded } else { Slashes::Plain };
    let facts = |path: &str, query: &[(String, String)]| Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_vec(),
        headers: if terms.judged || terms.protocol != Protocol::Http { fields(request.headers()) } else { Vec::new() },
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
    let mut sent = http::Request::new(());
    *sent.method_mut() = request.method().clone();
    *sent.uri_mut() = wire.parse().map_err(|_| Violation::Target(TargetError::Control))?;
    *sent.headers_mut() = request.headers().clone();
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
    let names = form::METHOD_OVERRIDES.iter().chain(&form::TARGET_OVERRIDES);
    names.copied().find(|name| headers.contains_key(*name)).map_or(Ok(()), |name| Err(Violation::Override(name)))
}

/// The fields as rules see them.
pub(super) fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

#[cfg(test)]
mod tests;
