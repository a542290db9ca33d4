//! Connections to origins: dialled and verified under a permit, kept for the next request to the same place.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, Request, Response, Uri, Version, header};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use stockade_policy::Permit;
use stockade_secrets::VerifiedTls;
use stockade_tls::OriginFault;
use stockade_types::{Authority, Generation, Host, Port};
use tokio::{
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{door::Shared, grant::Grant, http::outgoing::Outgoing, rescue::Refusal};

mod error;
mod kept;

pub(crate) use error::UpstreamError;
pub(crate) use kept::Origins;

/// Fields of a response head.
const MAX_FIELDS: usize = 256;
/// Bytes of a response head.
const MAX_HEAD: usize = 64 * 1024;
/// Bytes that an origin may send on one HTTP/2 stream, and on all of a connection, before they are read.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What a connection speaks. The word of ALPN for it is [`Speech::alpn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Speech {
    /// HTTP/1.1, and HTTP/1.0 where the other end knows no more.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Speech {
    /// The protocol's name in ALPN.
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    pub(crate) fn of_alpn(name: &[u8]) -> Option<Self> {
        [Self::Http1, Self::Http2].into_iter().find(|s| s.alpn() == name)
    }
}

/// Whether an origin is reached through TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// Plain.
    Http,
    /// Through verified TLS.
    Https,
}

impl Scheme {
    pub(crate) fn default_port(self) -> Port {
        match self {
            Self::Http => Port::HTTP,
            Self::Https => Port::HTTPS,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where a connection goes and what allowed it. Connections are shared only within one of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    host: Host,
    port: Port,
    scheme: Scheme,
    endpoint: String,
}

impl Place {
    pub(crate) fn new(permit: &Permit, scheme: Scheme) -> Self {
        let endpoint = permit.terms().endpoint.clone();
        Self { host: permit.host().clone(), port: permit.port(), scheme, endpoint }
    }
}

/// A connection that requests can be sent on.
pub(crate) struct Connection {
    sender: Sender,
    place: Place,
    addr: IpAddr,
    /// Of the policy that it was dialled under. A later one may want the origin verified otherwise.
    generation: Generation,
    /// Proof of whom it reached.
    verified: Option<VerifiedTls>,
    /// What the origin was offered.
    offered: &'static [Speech],
    /// When it last had something to do.
    used: Instant,
    /// Whether it carried a request before.
    pub(crate) reused: bool,
    /// Whether its origin may take it for one user's: another request must not come on it.
    pub(crate) personal: bool,
    /// One of the places for connections to origins; all handles of a connection share one.
    slot: Slot,
}

/// One of the places for connections to origins.
pub(crate) type Slot = Arc<OwnedSemaphorePermit>;

enum Sender {
    /// One request at a time. The driver is ended with the connection, so that nothing outlives a request that was
    /// given up.
    Http1(http1::SendRequest<Outgoing>, #[expect(dead_code, reason = "held for its drop")] Driver),
    /// Shared: this is one of its handles.
    Http2(http2::SendRequest<Outgoing>),
}

struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Dials under the grant, and with TLS verifies whom it reached. `offered` is what the client can speak, best
    /// first.
    pub(crate) async fn open(
        shared: &Shared,
        grant: &mut Grant,
        scheme: Scheme,
        offered: &'static [Speech],
    ) -> Result<Self, Refusal> {
        grant.check()?;
        let slot = shared.origin_slot()?;
        let stream = grant.dial(shared).await?;
        if scheme == Scheme::Http {
            return Self::plain(stream, grant, slot).await;
        }
        match Self::secured(shared, stream, grant, (offered, &slot)).await {
            // The origin speaks only what the client does not: its answers can be translated.
            Err(Refusal::Upstream(UpstreamError::Tls(OriginFault::Protocol))) if offered.len() == 1 => {
                let stream = grant.dial(shared).await?;
                Self::secured(shared, stream, grant, (&[Speech::Http1, Speech::Http2], &slot)).await
            }
            done => done,
        }
    }

    /// Takes a plain connection that was dialled under the grant.
    pub(crate) async fn plain(stream: TcpStream, grant: &Grant, slot: Slot) -> Result<Self, Refusal> {
        let addr = stream.peer_addr().map_err(|_| UpstreamError::Closed)?.ip();
        let sender = http1(stream).await?;
        Ok(Self::new((sender, slot), grant.permit(), (Scheme::Http, &[Speech::Http1]), addr))
    }

    async fn secured(
        shared: &Shared,
        stream: TcpStream,
        grant: &Grant,
        (offered, slot): (&'static [Speech], &Slot),
    ) -> Result<Self, Refusal> {
        let addr = stream.peer_addr().map_err(|_| UpstreamError::Closed)?.ip();
        let alpn: Vec<Vec<u8>> = offered.iter().map(|s| s.alpn().to_vec()).collect();
        let config = shared.tls.connector.config(&alpn, grant.extra());
        let name = server_name(grant.permit().host()).ok_or(UpstreamError::Closed)?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        let stream = match timeout(shared.config.timers.handshake, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(UpstreamError::tls(&e).into()),
            Err(_) => return Err(UpstreamError::Timeout.into()),
        };
        let spoken = stream.get_ref().1.alpn_protocol().map_or(Some(Speech::Http1), Speech::of_alpn);
        let verified = VerifiedTls::of(stream.get_ref().1, grant.permit().host(), grant.permit().port());
        let sender = match spoken {
            Some(Speech::Http1) => http1(stream).await?,
            Some(Speech::Http2) => http2(stream).await?,
            None => return Err(UpstreamError::Framing.into()),
        };
        let sender = (sender, Arc::clone(slot));
        Ok(Self { verified, ..Self::new(sender, grant.permit(), (Scheme::Https, offered), addr) })
    }

    fn new(
        (sender, slot): (Sender, Slot),
        permit: &Permit,
        (scheme, offered): (Scheme, &'static [Speech]),
        addr: IpAddr,
    ) -> Self {
        Self {
            sender,
            place: Place::new(permit, scheme),
            addr,
            generation: permit.generation(),
            verified: None,
            offered,
            used: Instant::now(),
            reused: false,
            personal: false,
            slot,
        }
    }

    /// What the origin speaks.
    pub(crate) fn speech(&self) -> Speech {
        match self.sender {
            Sender::Http1(..) => Speech::Http1,
            Sender::Http2(_) => Speech::Http2,
        }
    }

    /// Proof that the origin is the one that was permitted.
    pub(crate) fn verified(&self) -> Option<&VerifiedTls> {
        self.verified.as_ref()
    }

    /// The origin's address.
    pub(crate) fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Sends a request whose target is a path and whose authority is in `Host`. One that was certainly not sent comes back.
    pub(crate) async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, (UpstreamError, Option<Box<Request<Outgoing>>>)> {
        self.personal |= personal(request.headers(), &header::AUTHORIZATION);
        let response = self.exchange(request).await?;
        self.personal |= personal(response.headers(), &header::WWW_AUTHENTICATE);
        if frames_twice(&response) { Err((UpstreamError::Framing, None)) } else { Ok(response) }
    }

    async fn exchange(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, (UpstreamError, Option<Box<Request<Outgoing>>>)> {
        let request = self.address(request).ok_or((UpstreamError::Framing, None))?;
        let failed = |error: &hyper::Error, back: Option<Request<Outgoing>>| {
            (UpstreamError::of(error), back.map(|r| Box::new(unaddress(r))))
        };
        match &mut self.sender {
            Sender::Http1(sender, _) => {
                if let Err(e) = sender.ready().await {
                    return Err(failed(&e, Some(request)));
                }
                sender.try_send_request(request).await.map_err(|mut e| {
                    let back = e.take_message();
                    failed(e.error(), back)
                })
            }
            Sender::Http2(sender) => {
                if let Err(e) = sender.ready().await {
                    return Err(failed(&e, Some(request)));
                }
                sender.try_send_request(request).await.map_err(|mut e| {
                    let back = e.take_message();
                    failed(e.error(), back)
                })
            }
        }
    }

    /// Gives a request the form of this connection's protocol: HTTP/2 has the authority in the target.
    /// Nothing else than what was judged is ever sent in its place.
    fn address(&self, mut request: Request<Outgoing>) -> Option<Request<Outgoing>> {
        if self.speech() == Speech::Http1 {
            *request.version_mut() = Version::HTTP_11;
            request.headers_mut().remove(header::TE);
            return Some(request);
        }
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(header::HOST);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = self.place.scheme.name().parse().ok();
        parts.authority = host.and_then(|host| host.to_str().ok()?.parse().ok());
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        Some(request)
    }
}

/// Whether a field speaks of a scheme that logs a connection in, not a request (RFC 4559, section 6).
fn personal(headers: &HeaderMap, field: &HeaderName) -> bool {
    let mut words = headers.get_all(field).iter().flat_map(|v| v.as_bytes().split(|b| matches!(b, b' ' | b',')));
    words.any(|word| [b"ntlm".as_slice(), b"negotiate"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme)))
}

/// Whether another reader could find another end of the body than hyper did: two kinds of length, or a transfer coding
/// besides `chunked`, which would also reach the client undone and without its name.
fn frames_twice<B>(response: &Response<B>) -> bool {
    let (headers, coding) = (response.headers(), header::TRANSFER_ENCODING);
    let mut codings = headers.get_all(&coding).iter();
    let only = codings.next().is_none_or(|c| c.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none();
    !only || headers.contains_key(coding) && headers.contains_key(header::CONTENT_LENGTH)
}

/// Takes the form of a protocol from a request that came back.
fn unaddress(mut request: Request<Outgoing>) -> Request<Outgoing> {
    if let Some(host) = request.uri().authority().and_then(|a| a.as_str().parse().ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    request
}

/// An authority as `Host` has it: without the port that the scheme implies.
pub(crate) fn host_field(authority: &Authority, scheme: Scheme) -> String {
    if authority.port == scheme.default_port() { authority.host.to_string() } else { authority.to_string() }
}

/// The name that a certificate must have.
fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned()).ok(),
        Host::Addr(addr) => Some(ServerName::IpAddress((*addr).into())),
    }
}

async fn http1<S>(stream: S) -> Result<Sender, UpstreamError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_headers(MAX_FIELDS).max_buf_size(MAX_HEAD);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| UpstreamError::of(&e))?;
    // Its errors reach whoever waits for a response.
    let driver = tokio::spawn(async move { connection.with_upgrades().await.ok() });
    Ok(Sender::Http1(sender, Driver(driver.abort_handle())))
}

async fn http2<S>(stream: S) -> Result<Sender, UpstreamError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| UpstreamError::of(&e))?;
    // Ends when the last handle of the sender is dropped and the last stream has ended.
    tokio::spawn(async move { connection.await.ok() });
    Ok(Sender::Http2(sender))
}
