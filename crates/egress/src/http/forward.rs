//! Rebuilding messages: what goes on is made from what was judged, without what concerned one connection only.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{self, Entry},
};

/// Fields that concern one connection only (RFC 9110, section 7.6.1, and what proxies are sent by habit). `Trailer` is
/// none of them: without it the server in front sends no trailers.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Rebuilds a request for an authority, given as `Host` has it.
pub(crate) fn rebuild<B>(mut request: Request<B>, host: &str) -> Request<B> {
    let headers = request.headers_mut();
    let (trailers, websocket) = (accepts_trailers(headers), headers.contains_key(header::UPGRADE));
    strip(headers);
    headers.remove(header::HOST);
    if let Ok(host) = host.parse() {
        headers.insert(header::HOST, host);
    }
    // The server in front has answered it already.
    headers.remove(header::EXPECT);
    if trailers {
        // gRPC servers insist on it. HTTP/1 drops it again.
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if websocket {
        upgrade(headers);
    }
    request
}

/// The guard in front lets a request pass that asks for a WebSocket, and for no other protocol.
fn upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    // None is spoken here: messages that must be read would be compressed.
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
}

/// Rebuilds a 101.
pub(crate) fn rebuild_switch<B>(response: Response<B>) -> Response<()> {
    let (mut parts, _) = response.into_parts();
    strip(&mut parts.headers);
    // The origin's reason phrase is one of these: text that nobody looked through.
    parts.extensions.clear();
    parts.headers.remove(header::CONTENT_LENGTH);
    upgrade(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, ())
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case("trailers"))
}

/// Rebuilds a response. Its length is stated anew from how its body was framed, but where it has none to frame.
pub(crate) fn rebuild_response<B>(response: Response<B>, method: &Method) -> Response<B> {
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    // As above.
    parts.extensions.clear();
    // Another protocol, or another place, that the door would not see.
    parts.headers.remove(header::ALT_SVC);
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
            .uri("/b?q=1")
            .header("host", "ignored.test")
            .header("connection", "close, X-Private, content-length")
            .header("x-private", "1")
            .header("keep-alive", "5")
            .header("proxy-connection", "keep-alive")
            .header("proxy-authorization", "Basic c2VjcmV0")
            .header("te", "trailers, deflate")
            .header("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA")
            .header("expect", "100-continue")
            .header("content-length", "2")
            .header("x-forwarded-host", "evil.test")
            .body("ok")
            .unwrap();
        let rebuilt = rebuild(request, "a.test:8080");
        let mut names: Vec<&str> = rebuilt.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "host", "te", "x-forwarded-host"]);
        assert_eq!(rebuilt.headers()["host"], "a.test:8080");
        assert_eq!(rebuilt.headers()["te"], "trailers");
    }

    #[test]
    fn a_response_loses_its_connection_fields_and_its_own_idea_of_its_length() {
        let response = |m: &Method| {
            let r = Response::builder()
                .header("connection", "close")
                .header("transfer-encoding", "chunked")
                .header("content-length", "7")
                .header("etag", "x")
                .header("alt-svc", "h3=\":443\"")
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
