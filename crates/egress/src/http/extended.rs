//! WebSockets of HTTP/2 (RFC 8441): an extended CONNECT is judged, sent and answered as the GET of HTTP/1.1 that means
//! the same. The origin is spoken to in HTTP/1.1.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use rustix::rand::{GetRandomFlags, getrandom};
use stockade_l7::websocket::key;

use super::{
    guard::InFlight,
    head::Violation,
    socket::{self, Socket},
};
use crate::door::Shared;

/// The one protocol that an extended CONNECT may ask for.
const WEBSOCKET: &str = "websocket";

/// Makes the GET out of an extended CONNECT, and returns what the client's stream becomes when that is granted.
/// `None`: it is another request, and untouched.
pub(super) fn translate<B>(request: &mut Request<B>) -> Result<Option<OnUpgrade>, Violation> {
    let Some(protocol) = request.extensions_mut().remove::<Protocol>() else { return Ok(None) };
    if protocol.as_ref() != WEBSOCKET.as_bytes() {
        return Err(Violation::Upgrade);
    }
    // RFC 8441, section 5: the key is not used between the client and the door. It is between the door and the origin.
    let mut random = [0; 16];
    getrandom(&mut random, GetRandomFlags::empty()).map_err(|_| Violation::Upgrade)?;
    let key = HeaderValue::from_str(&key(random)).map_err(|_| Violation::Upgrade)?;
    let stream = hyper::upgrade::on(&mut *request);
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    headers.insert(header::SEC_WEBSOCKET_KEY, key);
    Ok(Some(stream))
}

/// The answer that grants an extended CONNECT, made of the 101.
pub(super) fn granted<B>(mut response: Response<B>) -> Response<B> {
    *response.status_mut() = StatusCode::OK;
    for field in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(field);
    }
    response
}

/// Carries the WebSocket once the answer is on its way. It ends with the connection that the stream belongs to.
pub(super) fn carry(shared: Arc<Shared>, in_flight: InFlight, stream: OnUpgrade, socket: Box<Socket>) {
    tokio::spawn(async move {
        if let Ok(stream) = stream.await {
            socket::carry(&shared, TokioIo::new(stream), Bytes::new(), *socket).await;
        }
        drop(in_flight);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(protocol: Option<&'static str>) -> Request<()> {
        let request = Request::connect("https://a.test/chat?x=1").header("sec-websocket-version", "13");
        let mut request = request.header("sec-websocket-key", "mine").body(()).unwrap();
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        request
    }

    #[test]
    fn an_extended_connect_is_the_get_of_a_websocket() {
        let mut request = connect(Some("websocket"));
        assert!(translate(&mut request).unwrap().is_some());
        assert_eq!((request.method(), request.uri().path()), (&Method::GET, "/chat"));
        let fields = request.headers();
        assert_eq!(
            (&fields["connection"], &fields["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        assert_eq!(fields["sec-websocket-key"].len(), 24, "a key of its own");
        assert!(fields["sec-websocket-key"] != "mine");
    }

    #[test]
    fn another_protocol_is_refused_and_a_plain_connect_left_alone() {
        for other in ["connect-udp", "webtransport", "WebSocket", ""] {
            assert_eq!(translate(&mut connect(Some(other))).unwrap_err(), Violation::Upgrade, "{other}");
        }
        let mut plain = connect(None);
        assert!(translate(&mut plain).unwrap().is_none());
        assert_eq!(plain.method(), Method::CONNECT);
    }

    #[test]
    fn the_101_becomes_a_200() {
        let answer = Response::builder().status(101).header("upgrade", "websocket").header("connection", "upgrade");
        let answer =
            answer.header("sec-websocket-accept", "x").header("sec-websocket-protocol", "chat").body(()).unwrap();
        let answer = granted(answer);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers().keys().collect::<Vec<_>>(), ["sec-websocket-protocol"]);
    }
}
