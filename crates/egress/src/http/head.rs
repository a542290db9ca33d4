//! Whether a request head is one that can be judged: a strict check in front of the HTTP server.
//!
//! hyper repairs or tolerates some of what two parsers could read in two ways: a length beside chunked framing,
//! bare line feeds, folded lines. Such heads are refused here, before hyper sees a byte of them. What passes has one
//! reading. Field splitting is httparse's, as in hyper itself.

use http::StatusCode;
use stockade_l7::http::{MethodError, TargetError};
use stockade_types::{Authority, AuthorityError, Reason};

use super::frames::Fault;
use crate::upstream::Scheme;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// Over the bound on bytes.
    #[error("the request head is larger than {0} bytes; send fewer or shorter fields")]
    TooLarge(usize),
    /// Over the bound on fields.
    #[error("the request has more than {0} fields; send fewer")]
    TooManyFields(usize),
    /// Not complete in time.
    #[error("the request head did not arrive in time")]
    Slow,
    /// Not HTTP at all.
    #[error("this is an HTTP proxy, and the first bytes are not HTTP/1")]
    NotHttp,
    /// HTTP/2 without TLS.
    #[error("HTTP/2 without TLS is not served")]
    H2c,
    /// A request that would change the protocol.
    #[error(
        "a connection can be upgraded to a WebSocket, by a GET of HTTP/1.1 without a body or an extended CONNECT of \
         HTTP/2, and to nothing else"
    )]
    Upgrade,
    /// A WebSocket whose messages no reader knows, to an endpoint whose protocol is read from bodies.
    #[error("the endpoint's protocol has no WebSocket form: what is asked for over one could not be judged")]
    UnreadSocket,
    /// CONNECT where requests are for one host already.
    #[error("CONNECT is not a request that this host's endpoint allows")]
    ConnectInside,
    /// The request line.
    #[error("bad request: {0}")]
    Line(&'static str),
    /// Framing that two readers could read differently.
    #[error("ambiguous framing: {0}")]
    Framing(&'static str),
    /// The authority.
    #[error("bad authority: {0}")]
    Authority(#[from] AuthorityError),
    /// `Host` and target disagree.
    #[error("the request names another host than the one it is sent to; Host, URL and connection must agree")]
    Mismatch,
    /// No method that may be sent.
    #[error("{0}")]
    Method(MethodError),
    /// No canonical target.
    #[error("{0}")]
    Target(TargetError),
    /// HTTP/2 that the server refused by itself.
    #[error(transparent)]
    Frames(#[from] Fault),
    /// A field that makes a request mean another one.
    #[error("the field {0} would defeat the endpoint's rules; send the request that is meant")]
    Override(&'static str),
}

impl Violation {
    /// Status and stable code.
    #[must_use]
    pub(crate) fn row(self) -> (StatusCode, Reason) {
        match self {
            Self::TooLarge(_) | Self::TooManyFields(_) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Reason::Limit),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, Reason::Limit),
            Self::NotHttp => (StatusCode::BAD_REQUEST, Reason::UnknownProtocol),
            Self::H2c => (StatusCode::FORBIDDEN, Reason::H2c),
            Self::Upgrade | Self::UnreadSocket => (StatusCode::FORBIDDEN, Reason::Upgrade),
            Self::ConnectInside => (StatusCode::FORBIDDEN, Reason::L7),
            Self::Line(_) => (StatusCode::BAD_REQUEST, Reason::BadRequest),
            Self::Framing(_) => (StatusCode::BAD_REQUEST, Reason::Framing),
            Self::Frames(Fault::Connection(_) | Fault::Request(_)) => (StatusCode::BAD_REQUEST, Reason::Framing),
            Self::Frames(Fault::Head) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Reason::Limit),
            Self::Frames(Fault::Bound(_)) => (StatusCode::TOO_MANY_REQUESTS, Reason::Limit),
            Self::Authority(_) => (StatusCode::BAD_REQUEST, Reason::BadAuthority),
            Self::Mismatch => (StatusCode::MISDIRECTED_REQUEST, Reason::AuthorityMismatch),
            Self::Method(MethodError::NotToken) => (StatusCode::BAD_REQUEST, Reason::BadRequest),
            Self::Method(_) | Self::Override(_) => (StatusCode::FORBIDDEN, Reason::L7),
            Self::Target(TargetError::TooLong) => (StatusCode::URI_TOO_LONG, Reason::Limit),
            Self::Target(_) => (StatusCode::BAD_REQUEST, Reason::Path),
        }
    }
}

/// Which requests a connection carries.
#[derive(Debug, Clone)]
pub(crate) enum Surface {
    /// Requests to a proxy: CONNECT, or a target in absolute form.
    Proxy,
    /// Requests to one host: a target in origin form.
    Host(Authority, Scheme),
}

/// How the body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// So many bytes; none is 0.
    Length(u64),
    /// Chunks.
    Chunked,
    /// CONNECT: whatever follows is no request.
    Tunnel,
    /// No body, and what follows depends on the answer: a WebSocket, or the next request.
    Upgrade,
}

/// Checks one complete head, the empty line included.
///
/// # Errors
/// What is wrong first.
pub(crate) fn check(head: &[u8], surface: &Surface, max_fields: usize) -> Result<Framing, Violation> {
    lines(head)?;
    let mut fields = vec![httparse::EMPTY_HEADER; max_fields];
    let mut request = httparse::Request::new(&mut fields);
    let (method, target) = request_line(head)?;
    let authority = destination(method, target, surface)?;
    match request.parse(head) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(Violation::Framing("the head ends early")),
        Err(httparse::Error::TooManyHeaders) => return Err(Violation::TooManyFields(max_fields)),
        Err(httparse::Error::Version) => return Err(Violation::Line("the version is not HTTP/1.0 or HTTP/1.1")),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(Violation::Framing("malformed field"));
        }
        Err(_) => return Err(Violation::Line("malformed request line")),
    }
    let version = request.version.unwrap_or_default();
    let facts = Fields::collect(request.headers)?;
    facts.host((method, version), surface, &authority)?;
    facts.framing(method, version)
}

/// Whether a head passes on a connection to one host over TLS, and how its body is framed: what fuzzing looks at.
#[must_use]
pub fn request_framing(head: &[u8], own: &Authority) -> Option<Framing> {
    check(head, &Surface::Host(own.clone(), Scheme::Https), 128).ok()
}

/// Every line ends with CR LF, and neither byte is anywhere else; no line continues the one before.
fn lines(head: &[u8]) -> Result<(), Violation> {
    let mut previous = 0;
    let mut first = true;
    for &byte in head {
        match (previous, byte) {
            (b'\r', b'\n') => first = false,
            (_, b'\n') => return Err(Violation::Framing("a line feed without carriage return")),
            (b'\r', _) => return Err(Violation::Framing("a carriage return without line feed")),
            (b'\n', b' ' | b'\t') if !first => return Err(Violation::Framing("a folded field")),
            _ => {}
        }
        previous = byte;
    }
    Ok(())
}

/// Method and target, with exactly one space around the target.
fn request_line(head: &[u8]) -> Result<(&str, &str), Violation> {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let method = line.split(|b| *b == b' ').next().unwrap_or_default();
    let method = std::str::from_utf8(method).map_err(|_| Violation::NotHttp)?;
    if method.is_empty() || !method.bytes().all(token) {
        return Err(Violation::NotHttp);
    }
    let rest = line.get(method.len() + 1..).unwrap_or_default();
    let target = match rest.strip_suffix(b" HTTP/1.1").or_else(|| rest.strip_suffix(b" HTTP/1.0")) {
        Some(target) => target,
        None if rest.windows(5).any(|w| w == b"HTTP/") => {
            return Err(Violation::Line("the version is not HTTP/1.0 or HTTP/1.1"));
        }
        None => return Err(Violation::NotHttp),
    };
    match std::str::from_utf8(target) {
        Ok(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) => Ok((method, text)),
        _ if method == "CONNECT" || in_authority(target) => Err(AuthorityError::BadCharacter.into()),
        _ => Err(Violation::Line("the target has a character that no URL has")),
    }
}

/// Whether the first character that no URL has stands in the authority of an absolute target.
fn in_authority(target: &[u8]) -> bool {
    let Some(rest) = target.strip_prefix(b"http://") else { return false };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    rest.iter().position(|b| !b.is_ascii_graphic()).is_some_and(|bad| bad < end)
}

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Where a request wants to go.
fn destination(method: &str, target: &str, surface: &Surface) -> Result<Authority, Violation> {
    match surface {
        Surface::Proxy if method == "CONNECT" => Ok(Authority::parse(target, None)?),
        Surface::Host(..) if method == "CONNECT" => Err(Violation::ConnectInside),
        Surface::Proxy => match absolute(target, Scheme::Http)? {
            Some(authority) => Ok(authority),
            None => Err(Violation::Line("a proxy needs an absolute http:// URL, or CONNECT")),
        },
        Surface::Host(own, _) if target.starts_with('/') || (method == "OPTIONS" && target == "*") => Ok(own.clone()),
        Surface::Host(own, scheme) => match absolute(target, *scheme)? {
            Some(authority) if authority == *own => Ok(authority),
            Some(_) => Err(Violation::Mismatch),
            None => Err(Violation::Line("the target is not a path")),
        },
    }
}

/// The authority of an absolute target.
fn absolute(target: &str, own: Scheme) -> Result<Option<Authority>, Violation> {
    let Some((scheme, rest)) = target.split_once("://") else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(own.name()) {
        return Err(match own {
            Scheme::Http => Violation::Line("the URL's scheme is not http; https goes through CONNECT"),
            Scheme::Https => Violation::Line("the URL's scheme is not https, and the connection is"),
        });
    }
    if rest.contains('#') {
        return Err(AuthorityError::BadCharacter.into());
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Ok(Some(Authority::parse(rest.get(..end).unwrap_or_default(), Some(own.default_port()))?))
}

/// The fields that decide where a request goes and where it ends.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    websocket: bool,
}

impl<'a> Fields<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, Violation> {
        let mut facts = Self::default();
        for field in headers {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("host") {
                if facts.host.replace(field.value).is_some() {
                    return Err(Violation::Framing("more than one Host"));
                }
            } else if is("content-length") {
                if facts.length.replace(length(field.value)?).is_some() {
                    return Err(Violation::Framing("more than one Content-Length"));
                }
            } else if is("transfer-encoding") {
                if facts.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::Framing("a Transfer-Encoding other than one `chunked`"));
                }
                facts.chunked = true;
            } else if is("upgrade") {
                if facts.websocket || !field.value.eq_ignore_ascii_case(b"websocket") {
                    return Err(upgrade(field.value));
                }
                facts.websocket = true;
            }
        }
        Ok(facts)
    }

    /// `Host` names the request's destination. It is required, but of CONNECT, where clients leave it out, and of HTTP/1.0
    /// whose target names the destination.
    fn host(&self, (method, version): (&str, u8), surface: &Surface, own: &Authority) -> Result<(), Violation> {
        let Some(host) = self.host else {
            let may = method == "CONNECT" || (version == 0 && matches!(surface, Surface::Proxy));
            return if may { Ok(()) } else { Err(Violation::Line("the Host field is missing")) };
        };
        let text = std::str::from_utf8(host).map_err(|_| AuthorityError::BadCharacter)?;
        let named = Authority::parse(text, Some(own.port))?;
        if named == *own { Ok(()) } else { Err(Violation::Mismatch) }
    }

    fn framing(&self, method: &str, version: u8) -> Result<Framing, Violation> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Violation::Framing("both Content-Length and Transfer-Encoding")),
            (_, true) if version == 0 => Err(Violation::Framing("Transfer-Encoding in HTTP/1.0")),
            (Some(1..), _) | (_, true) if method == "CONNECT" => Err(Violation::Framing("CONNECT with a body")),
            (Some(1..), _) | (_, true) if self.websocket => Err(Violation::Upgrade),
            _ if self.websocket && (method != "GET" || version == 0) => Err(Violation::Upgrade),
            _ if self.websocket => Ok(Framing::Upgrade),
            _ if method == "CONNECT" => Ok(Framing::Tunnel),
            (None, true) => Ok(Framing::Chunked),
            (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

fn length(value: &[u8]) -> Result<u64, Violation> {
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|t| t.parse().ok()).ok_or(Violation::Framing("Content-Length is not a number"))
}

fn upgrade(value: &[u8]) -> Violation {
    let h2c = value.split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"h2c"));
    if h2c { Violation::H2c } else { Violation::Upgrade }
}

#[cfg(test)]
mod tests;
