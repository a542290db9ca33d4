//! The canonical form of a request: method token and target.
//!
//! Servers disagree about what a path means: some decode before they resolve `..`, some merge slashes, some cut `;x` off.
//! A target is therefore brought into a form that all of them read alike, that form is judged, and the same bytes are
//! sent. What cannot be brought into such a form is refused.

mod percent;
mod query;

use std::{borrow::Cow, fmt};

pub use query::Query;

/// Longest request target read, in bytes.
pub const MAX_TARGET: usize = 16 * 1024;
/// Most segments of a path, before dot segments are resolved.
pub const MAX_SEGMENTS: usize = 256;
/// Most parameters of a query.
pub const MAX_PARAMETERS: usize = 512;

/// Fields by which some frameworks let a request name another method. They defeat method rules: strip or refuse them.
pub const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-method-override", "x-http-method"];
/// Fields by which some servers let a request name another path. They defeat path rules: strip or refuse them.
pub const TARGET_OVERRIDES: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// Methods that may be sent on: the registered ones and QUERY, but for CONNECT, TRACE and PRI.
const METHODS: [&str; 39] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "PURGE",
    "NOTIFY",
];

/// Why a method was refused. The texts repeat no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MethodError {
    /// Empty, too long, or with a character that no token has.
    #[error("the method is not a token")]
    NotToken,
    /// A known method in other letters: methods are case-sensitive, but not every server knows.
    #[error("methods are written in capitals")]
    Spelling,
    /// Nobody knows it, so no rule can mean it.
    #[error("the method is unknown")]
    Unknown,
    /// CONNECT inside a connection.
    #[error("CONNECT is not a request that can be sent on")]
    Connect,
    /// TRACE returns the fields of the request, with what was added to them.
    #[error("TRACE would return the credentials of the request")]
    Trace,
}

/// The method, if it is one that may be sent on.
///
/// # Errors
/// See [`MethodError`].
pub fn method(text: &str) -> Result<&'static str, MethodError> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > 32 || !text.bytes().all(token) {
        return Err(MethodError::NotToken);
    }
    let known = METHODS.into_iter().find(|m| m.eq_ignore_ascii_case(text));
    match known {
        Some(known) if known == text => Ok(known),
        Some(_) => Err(MethodError::Spelling),
        None if text.eq_ignore_ascii_case("CONNECT") => Err(MethodError::Connect),
        None if text.eq_ignore_ascii_case("TRACE") => Err(MethodError::Trace),
        None => Err(MethodError::Unknown),
    }
}

/// Whether a percent-encoded slash may stand in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slashes {
    /// Refused: some servers decode it before they split the path.
    #[default]
    Plain,
    /// Kept, as part of its segment: the endpoint says that its server reads it so (`/@scope%2Fname`).
    Encoded,
}

/// Why a target was refused. The texts repeat no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TargetError {
    /// Not a path.
    #[error("the request target does not begin with a slash")]
    NotOrigin,
    /// Over [`MAX_TARGET`].
    #[error("the request target is too long")]
    TooLong,
    /// Over [`MAX_SEGMENTS`].
    #[error("the path has too many segments")]
    TooManySegments,
    /// Over [`MAX_PARAMETERS`].
    #[error("the query has too many parameters")]
    TooManyParameters,
    /// Space or control character, or one of these encoded in the path.
    #[error("the request target has a control character or a space")]
    Control,
    /// `#`: a fragment is never sent.
    #[error("the request target has a fragment")]
    Fragment,
    /// Plain or encoded: a slash to some servers.
    #[error("the path has a backslash")]
    Backslash,
    /// `%` without two hexadecimal digits.
    #[error("the request target has a malformed percent-encoding")]
    BadPercent,
    /// What the percent-encoding holds is not UTF-8, or overlong.
    #[error("the request target is not UTF-8 after decoding")]
    NotUtf8,
    /// `%2F` where the endpoint does not opt in, or one that hides a dot segment.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// `%252E` and its like: a dot, slash, backslash, semicolon, percent or control character to a server that decodes
    /// twice.
    #[error("the path has a percent-encoding that is encoded once more")]
    DoubleEncoded,
    /// `;`: some servers drop it and what follows before they look at the path.
    #[error("the path has a parameter (`;`)")]
    PathParameter,
    /// `;` in the query: a separator to some servers.
    #[error("the query has a semicolon that is not encoded")]
    Semicolon,
}

/// A request target in canonical form. Shown, it is what goes on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    path: String,
    query: Option<Query>,
}

impl Target {
    /// Parses and canonicalises an origin-form target (`/path?query`).
    ///
    /// The path: unreserved characters are decoded, other octets encoded in upper case; `.` and `..` are resolved,
    /// never above the root; runs of slashes become one. The query: see [`Query`]; an empty one is dropped.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn parse(text: &str, slashes: Slashes) -> Result<Self, TargetError> {
        if text.len() > MAX_TARGET {
            return Err(TargetError::TooLong);
        }
        if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(TargetError::Control);
        }
        if text.contains('#') {
            return Err(TargetError::Fragment);
        }
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Query::parse(query)?),
            None => (text, None),
        };
        Ok(Self { path: canonical(path, slashes)?, query })
    }

    /// The target of `OPTIONS *`, which asks about the server and names no path.
    #[must_use]
    pub fn asterisk() -> Self {
        Self { path: "*".into(), query: None }
    }

    /// The path: begins with a slash, has no dot segments and no empty ones but the last. `*` for `OPTIONS *`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The decoded segments of the path: what rules are matched with. See [`segments`].
    pub fn segments(&self) -> impl Iterator<Item = Cow<'_, str>> {
        segments(&self.path)
    }

    /// The query, if it has any parameter.
    #[must_use]
    pub fn query(&self) -> Option<&Query> {
        self.query.as_ref()
    }

    /// The parameters of the query, decoded, in order.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        self.query.as_ref().map_or(&[], Query::pairs)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// The segments of a canonical path, decoded: `/a%21/b` and `/a!/b` are the same to a rule. `/a/` has a last, empty one.
pub fn segments(path: &str) -> impl Iterator<Item = Cow<'_, str>> {
    path.strip_prefix('/').unwrap_or(path).split('/').map(percent::decoded)
}

fn canonical(path: &str, slashes: Slashes) -> Result<String, TargetError> {
    let rest = path.strip_prefix('/').ok_or(TargetError::NotOrigin)?;
    let mut kept: Vec<String> = Vec::new();
    // Whether the path ends in a slash, as `/a/`, `/a/.` and `/a/b/..` do.
    let mut open = true;
    for (i, text) in rest.split('/').enumerate() {
        if i >= MAX_SEGMENTS {
            return Err(TargetError::TooManySegments);
        }
        let (wire, decoded) = segment(text, slashes)?;
        open = matches!(&*decoded, "" | "." | "..");
        match &*decoded {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(wire),
        }
    }
    let mut path = String::with_capacity(path.len() + 1);
    for segment in &kept {
        path.push('/');
        path.push_str(segment);
    }
    if open {
        path.push('/');
    }
    Ok(path)
}

/// One segment as it is sent, and decoded.
fn segment(text: &str, slashes: Slashes) -> Result<(String, String), TargetError> {
    if text.contains('\\') {
        return Err(TargetError::Backslash);
    }
    if text.contains(';') {
        return Err(TargetError::PathParameter);
    }
    let (wire, decoded) = percent::normal(text, |b| b"!$&'()*+,=:@".contains(&b))?;
    if decoded.chars().any(char::is_control) {
        return Err(TargetError::Control);
    }
    if decoded.contains('\\') {
        return Err(TargetError::Backslash);
    }
    if decoded.starts_with(".;") || decoded.starts_with("..;") {
        return Err(TargetError::PathParameter);
    }
    if percent::twice(&decoded) {
        return Err(TargetError::DoubleEncoded);
    }
    // A server that decodes first must find no dot segment that was not resolved here.
    let hides = |d: &str| d.split('/').any(|part| matches!(part, "." | "..") || part.starts_with("..;"));
    if decoded.contains('/') && (slashes == Slashes::Plain || hides(&decoded)) {
        return Err(TargetError::EncodedSlash);
    }
    Ok((wire, decoded))
}

#[cfg(test)]
mod tests;
