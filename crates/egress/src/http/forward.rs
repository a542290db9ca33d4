//! Forwarding one request: rebuilt from what was judged, sent on the pinned connection, its response streamed back.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{self, Entry},
    uri::PathAndQuery,
};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use stockade_policy::Permit;
use stockade_types::{Authority, Port, Reason};
use tokio::{net::TcpStream, task::AbortHandle};

/// Fields that concern one connection only (RFC 9110, section 7.6.1, and what proxies are sent by habit).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// Fields of a response head.
const MAX_FIELDS: usize = 256;
/// Bytes of a response head.
const MAX_HEAD: usize = 64 * 1024;

/// What an upstream did instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// Not HTTP, or framing that does not add up.
    #[error("the upstream's response is malformed")]
    Framing,
    /// The connection ended first.
    #[error("the upstream closed the connection before its response was complete")]
    Closed,
    /// Nothing in time.
    #[error("the upstream did not answer in time")]
    Timeout,
}

impl UpstreamError {
    /// Status and stable code.
    #[must_use]
    pub(crate) fn row(self) -> (StatusCode, Reason) {
        match self {
            Self::Framing => (StatusCode::BAD_GATEWAY, Reason::UpstreamFraming),
            Self::Closed => (StatusCode::BAD_GATEWAY, Reason::UpstreamConnect),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, Reason::UpstreamConnect),
        }
    }

    pub(crate) fn of(error: &hyper::Error) -> Self {
        if error.is_parse() || error.is_parse_too_large() { Self::Framing } else { Self::Closed }
    }
}

/// A connection to an upstream that requests can be sent on, one after the other.
pub(crate) struct Upstream {
    sender: http1::SendRequest<Incoming>,
    /// Drives the connection; ended when this value goes, so that nothing outlives the client.
    driver: AbortHandle,
    /// What allowed it. Another permit that says the same may use it.
    permit: Permit,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Upstream {
    /// Takes a connection that was dialled under `permit`.
    pub(crate) async fn new(stream: TcpStream, permit: Permit) -> Result<Self, UpstreamError> {
        let mut builder = http1::Builder::new();
        builder.max_headers(MAX_FIELDS).max_buf_size(MAX_HEAD);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| UpstreamError::of(&e))?;
        let driver = tokio::spawn(async move {
            // Its errors reach whoever waits for a response.
            connection.await.ok();
        });
        Ok(Self { sender, driver: driver.abort_handle(), permit })
    }

    /// Whether a request under `permit` may be sent on this connection.
    pub(crate) fn serves(&self, permit: &Permit) -> bool {
        let same = (permit.host(), permit.port(), permit.terms());
        !self.sender.is_closed() && (self.permit.host(), self.permit.port(), self.permit.terms()) == same
    }

    /// Sends a request. One that was certainly not sent comes back.
    pub(crate) async fn send(
        &mut self,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, (UpstreamError, Option<Box<Request<Incoming>>>)> {
        if let Err(e) = self.sender.ready().await {
            return Err((UpstreamError::of(&e), Some(Box::new(request))));
        }
        self.sender.try_send_request(request).await.map_err(|mut e| {
            let back = e.take_message().map(Box::new);
            (UpstreamError::of(e.error()), back)
        })
    }
}

/// Rebuilds a request: origin form, `Host` from the judged authority, nothing that concerned only the way here.
pub(crate) fn rebuild<B>(request: Request<B>, authority: &Authority) -> Request<B> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    parts.version = Version::HTTP_11;
    strip(&mut parts.headers);
    // The server in front has answered it already.
    parts.headers.remove(header::EXPECT);
    if let Ok(host) = HeaderValue::from_str(&host_field(authority)) {
        parts.headers.insert(header::HOST, host);
    }
    Request::from_parts(parts, body)
}

fn host_field(authority: &Authority) -> String {
    if authority.port == Port::HTTP { authority.host.to_string() } else { authority.to_string() }
}

/// Rebuilds a response. Its length is stated anew from how its body was framed, but where it has none to frame.
pub(crate) fn rebuild_response<B>(response: Response<B>, method: &Method) -> Response<B> {
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    let bodiless = *method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED;
    if !bodiless {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, body)
}

/// Removes the fields of this connection: the known ones and those that `Connection` names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        if let Entry::Occupied(field) = headers.entry(name) {
            field.remove_entry_mult();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_rebuilt_from_what_was_judged() {
        let request = Request::builder()
            .method("POST")
            .uri("http://ignored.test/a/../b?q=1")
            .header("host", "ignored.test")
            .header("connection", "close, X-Private, content-length")
            .header("x-private", "1")
            .header("keep-alive", "5")
            .header("proxy-connection", "keep-alive")
            .header("proxy-authorization", "Basic c2VjcmV0")
            .header("te", "trailers")
            .header("expect", "100-continue")
            .header("content-length", "2")
            .header("x-forwarded-host", "evil.test")
            .body("ok")
            .unwrap();
        let authority = Authority::parse("a.test:8080", None).unwrap();
        let rebuilt = rebuild(request, &authority);
        assert_eq!(rebuilt.uri(), "/a/../b?q=1");
        assert_eq!(rebuilt.version(), Version::HTTP_11);
        let mut names: Vec<&str> = rebuilt.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "host", "x-forwarded-host"]);
        assert_eq!(rebuilt.headers()["host"], "a.test:8080");
    }

    #[test]
    fn a_response_loses_its_connection_fields_and_its_own_idea_of_its_length() {
        let response = |m: &Method| {
            let r = Response::builder()
                .header("connection", "close")
                .header("transfer-encoding", "chunked")
                .header("content-length", "7")
                .header("etag", "x")
                .body(())
                .unwrap();
            let r = rebuild_response(r, m);
            let mut names: Vec<String> = r.headers().keys().map(ToString::to_string).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(response(&Method::GET), ["etag"]);
        assert_eq!(response(&Method::HEAD), ["content-length", "etag"]);
    }
}
