//! HTTP/1.1: the proxy's own requests, and plain HTTP inside permitted connections. One session per connection, one
//! pipeline for both.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    door::Shared,
    linger::linger,
    record,
    rescue::Refusal,
    tunnel::{self, Tunnel},
};

pub(crate) mod body;
mod chunked;
pub(crate) mod forward;
pub(crate) mod guard;
pub(crate) mod head;
pub(crate) mod session;

use guard::Guard;
use session::{Front, Session};

/// Bytes the server may buffer besides a head: room for one whole head, and hyper's own minimum.
const SLACK: usize = 8 * 1024;

/// What a connection turned into.
enum End {
    /// Nothing more to do.
    Over(Guard),
    /// A CONNECT was answered with 200.
    Tunnel(Guard, bytes::Bytes, Box<Tunnel>),
}

/// Serves one connection: requests, and the tunnel that one of them may open. `first` was read already.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, first: &[u8], front: Front) {
    let guard = Guard::new(stream, first, front.surface(), shared.config.head, shared.config.timers);
    let session = Arc::new(Session::new(Arc::clone(&shared), front, guard.link()));
    // Each phase has a box of its own, so that a tunnel at rest does not keep the HTTP server's room.
    match Box::pin(requests(&session, guard)).await {
        Some(End::Tunnel(guard, read, tunnel)) => {
            drop(session);
            let (stream, first) = unread(guard, read);
            Box::pin(tunnel::run(shared, stream, first, *tunnel)).await;
        }
        Some(End::Over(guard)) => {
            let refused = session.closing_refusal();
            let (stream, _) = guard.into_parts();
            if let Some(refusal) = refused {
                let generation = shared.policy().generation();
                shared.audit.emit(record::request_refusal(session.facts(generation), None, &refusal));
                say(&stream, &refusal.raw_response(generation)).await;
            }
            linger(stream).await;
        }
        None => {}
    }
}

/// The stream of a connection that became a tunnel, and what came behind the CONNECT.
fn unread(guard: Guard, read: bytes::Bytes) -> (TcpStream, Vec<u8>) {
    let (stream, rest) = guard.into_parts();
    (stream, [&read[..], &rest].concat())
}

async fn say(stream: &TcpStream, bytes: &[u8]) {
    // A socket that just became quiet has room for a refusal; one that has not, has a client that does not read.
    if stream.writable().await.is_ok() {
        stream.try_write(bytes).ok();
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<body::Body>, Infallible>> + Send>>;

/// Drives the HTTP server until the connection ends, becomes a tunnel, or loses its permission.
async fn requests(session: &Arc<Session>, guard: Guard) -> Option<End> {
    let limits = session.shared.config.head;
    let serving = Arc::clone(session);
    let service = service_fn(move |request: Request<Incoming>| -> Answer {
        let session = Arc::clone(&serving);
        Box::pin(async move { Ok(session.handle(request).await) })
    });
    let mut connection = http1::Builder::new()
        .half_close(true)
        .auto_date_header(false)
        .max_headers(limits.fields)
        .max_buf_size(limits.bytes + SLACK)
        .serve_connection(TokioIo::new(guard), service);
    let lifetime = session.shared.config.timers.lifetime;
    tokio::select! {
        // An error means that the client is gone, or that the guard found a fault, which it remembers.
        _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => {}
        refusal = session.lost() => {
            session.report_lost(&refusal);
            return None;
        }
        () = tokio::time::sleep(lifetime) => {
            return None;
        }
    }
    let parts = connection.into_parts();
    let guard = parts.io.into_inner();
    Some(match session.take_tunnel() {
        Some(tunnel) => End::Tunnel(guard, parts.read_buf, Box::new(tunnel)),
        None => End::Over(guard),
    })
}

/// Answers a connection that is refused before any request of it was read.
pub(crate) async fn refuse(stream: TcpStream, refusal: &Refusal, generation: stockade_types::Generation) {
    say(&stream, &refusal.raw_response(generation)).await;
    linger(stream).await;
}
