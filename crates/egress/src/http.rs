//! HTTP: the proxy's own requests, and those inside permitted connections. One session per connection, one pipeline
//! for all.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::Instant};

use crate::{
    door::Shared,
    linger::linger,
    record,
    rescue::Refusal,
    tunnel::{self, Tunnel},
};

mod arriving;
pub(crate) mod body;
mod canonical;
mod chunked;
mod exchange;
mod extended;
pub(crate) mod forward;
pub(crate) mod frames;
pub(crate) mod guard;
pub(crate) mod head;
pub(crate) mod message;
pub(crate) mod outgoing;
pub(crate) mod rate;
pub(crate) mod session;
mod socket;
pub(crate) mod stream;

pub use chunked::chunked_length;
use frames::Watched;
use guard::{Guard, Link};
pub use head::{Framing, request_framing};
use session::{Front, Opened, Session};
use socket::Socket;
use stream::Stream;

/// Bytes the server may buffer besides a head: room for one whole head, and hyper's own minimum.
const SLACK: usize = 8 * 1024;
/// How far over its bound an HTTP/2 head may be to be answered by the session, with a reason. The HTTP server ends the
/// connection for a larger one.
const ANSWERED: usize = 4;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// Bytes that a client may send on one HTTP/2 stream, and on all of a connection, before they are passed on.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What a connection turned into.
enum End {
    /// Nothing more to do.
    Over(Guard),
    /// A CONNECT was answered with 200.
    Tunnel(Guard, bytes::Bytes, Box<Tunnel>),
    /// A WebSocket was asked for and answered with 101.
    Socket(Guard, bytes::Bytes, Box<Socket>),
}

/// Serves one HTTP/1 connection: requests, and the tunnel that one of them may open. `first` was read already.
pub(crate) async fn serve(shared: Arc<Shared>, stream: Stream, first: &[u8], front: Front) {
    let guard = Guard::new(stream, first, front.surface(), shared.config.head, shared.config.timers);
    let session = Arc::new(Session::new(Arc::clone(&shared), front, guard.link()));
    // Each phase has a box of its own, so that a tunnel at rest does not keep the HTTP server's room.
    match Box::pin(requests(&session, guard)).await {
        Some(End::Tunnel(guard, read, tunnel)) => {
            drop(session);
            let (stream, first) = unread(guard, read);
            Box::pin(tunnel::run(shared, stream, first, *tunnel)).await;
        }
        Some(End::Socket(guard, read, opened)) => {
            drop(session);
            let (stream, rest) = guard.into_parts();
            let first = [&read[..], &rest].concat().into();
            Box::pin(socket::carry(&shared, stream, first, *opened)).await;
        }
        Some(End::Over(guard)) => {
            let refused = session.closing_refusal();
            let (stream, _) = guard.into_parts();
            let word = refused.map_or_else(Vec::new, |(refusal, due)| {
                let generation = shared.policy().generation();
                shared.count_refusal();
                shared.audit.emit(record::request_refusal(session.facts(generation), None, &refusal));
                if due { refusal.raw_response(generation) } else { Vec::new() }
            });
            linger(stream.end(&word).await).await;
        }
        None => {}
    }
}

/// The stream of a connection that became a tunnel, and what came behind the CONNECT.
fn unread(guard: Guard, read: bytes::Bytes) -> (TcpStream, Vec<u8>) {
    let (stream, rest) = guard.into_parts();
    (stream.into_tcp(), [&read[..], &rest].concat())
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<body::Body>, Infallible>> + Send>>;

/// Drives the HTTP/1 server until the connection ends or becomes a tunnel.
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
        // An error means that the client is gone, that a response was cut off, or that the guard found a fault, which
        // it remembers.
        _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => {}
        () = tokio::time::sleep(lifetime) => {
            return None;
        }
    }
    let parts = connection.into_parts();
    let guard = parts.io.into_inner();
    Some(match session.take_opened() {
        Some(Opened::Tunnel(tunnel)) => End::Tunnel(guard, parts.read_buf, tunnel),
        Some(Opened::Socket(socket)) => End::Socket(guard, parts.read_buf, socket),
        None => End::Over(guard),
    })
}

/// Serves one HTTP/2 connection.
pub(crate) async fn serve_http2(shared: Arc<Shared>, stream: Stream, front: Front) {
    let (limits, timers) = (shared.config.head, shared.config.timers);
    let session = Arc::new(Session::new(shared, front, Link::default()));
    let serving = Arc::clone(&session);
    let service = service_fn(move |request: Request<Incoming>| -> Answer {
        let session = Arc::clone(&serving);
        Box::pin(async move { Ok(session.handle(request).await) })
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.bytes * ANSWERED).unwrap_or(u32::MAX))
        .max_send_buf_size(STREAM_WINDOW as usize);
    let (told, telling) = (Arc::new(AtomicBool::new(false)), Arc::clone(&session));
    let saying = Arc::clone(&told);
    let stream = Watched::new(stream, move |fault| {
        saying.store(true, Ordering::Relaxed);
        telling.unframed(fault);
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let end = Instant::now() + timers.lifetime;
    let mut asked = false;
    loop {
        let rested = session.resting();
        tokio::select! {
            // An error is the client's: its streams are reset, its requests dropped with their upstreams.
            ended = connection.as_mut() => {
                // What does not even begin like HTTP/2 is answered with nothing that could have told of it.
                if !told.load(Ordering::Relaxed) && ended.is_err_and(|e| frames::broken(&e)) {
                    session.unframed(frames::Fault::Connection(frames::Code::PROTOCOL));
                }
                return;
            }
            () = tokio::time::sleep_until(end) => return,
            () = tokio::time::sleep(timers.keep_alive) => {
                if rested && session.resting() {
                    // Who was asked to go and rests on, or never began, is not waited for.
                    if asked {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    asked = true;
                }
            }
        }
    }
}

/// Answers a connection that is refused before any request of it was read.
pub(crate) async fn refuse(stream: TcpStream, refusal: &Refusal, generation: stockade_types::Generation) {
    linger(Stream::Tcp(stream).end(&refusal.raw_response(generation)).await).await;
}
