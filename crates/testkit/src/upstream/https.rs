//! An HTTPS origin with a certificate authority of its own: HTTP/1.1 and HTTP/2, requests recorded.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
    time::Sleep,
};
use tokio_rustls::TlsAcceptor;

use super::Request;

/// A certificate authority for origins. The supervisor is told to trust it; the command is not.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes one, valid for a day.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test origins");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        span(&mut params, Duration::ZERO);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate and its key for these names, as PEM: for nginx and other servers.
    ///
    /// # Panics
    /// On a name that is none.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        let (params, key) = leaf(names, Duration::ZERO);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn config(&self, origin: &Options) -> ServerConfig {
        let (params, key) = leaf(&origin.names.iter().map(String::as_str).collect::<Vec<_>>(), origin.expired_for);
        let certificate = if origin.self_signed {
            params.self_signed(&key).unwrap()
        } else {
            params.signed_by(&key, &self.issuer).unwrap()
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        config.alpn_protocols = origin.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }
}

fn leaf(names: &[&str], expired_for: Duration) -> (CertificateParams, KeyPair) {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    span(&mut params, expired_for);
    (params, KeyPair::generate().unwrap())
}

fn span(params: &mut CertificateParams, expired_for: Duration) {
    const DAY: Duration = Duration::from_secs(86_400);
    let now = SystemTime::now() - expired_for;
    params.not_before = (now - 2 * DAY).into();
    params.not_after = if expired_for.is_zero() { (now + DAY).into() } else { now.into() };
}

/// How an origin presents itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// The names in its certificate.
    pub names: Vec<String>,
    /// What it speaks, best first; empty: it knows no ALPN.
    pub alpn: Vec<String>,
    /// Whether its certificate is signed by itself.
    pub self_signed: bool,
    /// How long ago its certificate ended; zero: it did not.
    pub expired_for: Duration,
}

impl Options {
    /// An origin for these names that speaks HTTP/2 and HTTP/1.1.
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            alpn: vec!["h2".into(), "http/1.1".into()],
            self_signed: false,
            expired_for: Duration::ZERO,
        }
    }

    /// What it speaks.
    #[must_use]
    pub fn speaking(mut self, alpn: &[&str]) -> Self {
        self.alpn = alpn.iter().map(|p| (*p).to_owned()).collect();
        self
    }
}

/// What the origin answers: a body in pieces, each after a pause.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Fields.
    pub headers: Vec<(String, String)>,
    /// Pieces, and how long before each nothing comes.
    pub pieces: Vec<(Duration, Vec<u8>)>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
}

impl Reply {
    /// 200 with this text.
    #[must_use]
    pub fn ok(text: &str) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            pieces: vec![(Duration::ZERO, text.as_bytes().to_vec())],
            trailers: Vec::new(),
        }
    }

    /// With a field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// An HTTPS origin, or one of plain HTTP in the same form.
#[derive(Debug)]
pub struct Https {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicU64>,
    upgraded: Arc<Mutex<Vec<u8>>>,
    _runtime: Runtime,
}

/// What an origin's connections share.
struct Seen {
    requests: Arc<Mutex<Vec<Request>>>,
    upgraded: Arc<Mutex<Vec<u8>>>,
    respond: Respond,
}

type Respond = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

impl Https {
    /// Serves `hello from upstream` for these names.
    pub fn hello(addr: &str, authority: &Authority, names: &[&str]) -> Self {
        Self::start(addr, authority, &Options::of(names), |_| Reply::ok("hello from upstream\n"))
    }

    /// Serves what `respond` says. Behind a 101, what comes is sent back.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn start(
        addr: &str,
        authority: &Authority,
        options: &Options,
        respond: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(addr, Some(TlsAcceptor::from(Arc::new(authority.config(options)))), Box::new(respond))
    }

    /// The same without TLS.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn plain(addr: &str, respond: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(addr, None, Box::new(respond))
    }

    fn serve(addr: &str, acceptor: Option<TlsAcceptor>, respond: Respond) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(addr)).unwrap_or_else(|e| panic!("{addr}: {e}"));
        let addr = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicU64>::default());
        let (upgraded, count) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::clone(&connections));
        let seen = Arc::new(Seen { requests: Arc::clone(&requests), upgraded: Arc::clone(&upgraded), respond });
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                stream.set_nodelay(true).ok();
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    match acceptor {
                        None => carry(stream, connection, seen).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            carry(stream, connection, seen).await;
                        }
                    }
                });
            }
        });
        Self { addr, requests, connections, upgraded, _runtime: runtime }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The requests so far, in the order in which they were complete.
    ///
    /// # Panics
    /// When a responder panicked.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The bytes that came behind a 101, on all connections.
    ///
    /// # Panics
    /// Never: nothing panics while it holds them.
    #[must_use]
    pub fn upgraded(&self) -> Vec<u8> {
        self.upgraded.lock().unwrap().clone()
    }

    /// How many connections were opened to it, handshake done or not.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Serves one connection. What a client does to it is the test's business.
async fn carry<S>(stream: S, connection: u64, seen: Arc<Seen>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let seen = Arc::clone(&seen);
        async move { answer(request, connection, &seen).await }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
}

async fn answer(
    mut request: http::Request<Incoming>,
    connection: u64,
    seen: &Seen,
) -> Result<http::Response<Paced>, hyper::Error> {
    let stream = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let text = |v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let mut headers: Vec<(String, String)> =
        parts.headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect();
    if let Some(authority) = parts.uri.authority() {
        headers.push((":authority".to_owned(), authority.to_string()));
    }
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let line = format!("{} {target} {:?}", parts.method, parts.version);
    let body = body.collect().await?.to_bytes().to_vec();
    let request = Request { line, headers, body, connection };
    let reply = (seen.respond)(&request);
    seen.requests.lock().unwrap().push(request);
    if reply.status == 101 {
        tokio::spawn(echo(stream, Arc::clone(&seen.upgraded)));
    }
    let mut response = http::Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    let trailers = (!reply.trailers.is_empty()).then(|| map(&reply.trailers));
    Ok(response.body(Paced { pieces: reply.pieces.into(), pause: None, trailers }).unwrap())
}

/// Sends back what comes, and remembers it.
async fn echo(stream: OnUpgrade, seen: Arc<Mutex<Vec<u8>>>) {
    let Ok(stream) = stream.await else { return };
    let (mut stream, mut buffer) = (TokioIo::new(stream), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        seen.lock().unwrap().extend(&buffer[..n]);
        if stream.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    stream.shutdown().await.ok();
}

/// A body in pieces, each after its pause.
struct Paced {
    pieces: VecDeque<(Duration, Vec<u8>)>,
    pause: Option<Pin<Box<Sleep>>>,
    trailers: Option<HeaderMap>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some((pause, _)) = self.pieces.front() else {
            return Poll::Ready(self.trailers.take().map(|t| Ok(Frame::trailers(t))));
        };
        if !pause.is_zero() {
            let pause = *pause;
            let sleep = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(sleep.as_mut().poll(cx));
        }
        self.pause = None;
        Poll::Ready(self.pieces.pop_front().map(|(_, piece)| Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.trailers, self.pieces.len()) {
            (None, 0 | 1) => SizeHint::with_exact(self.pieces.iter().map(|(_, p)| p.len() as u64).sum()),
            _ => SizeHint::default(),
        }
    }
}

fn map(fields: &[(String, String)]) -> HeaderMap {
    let field = |(n, v): &(String, String)| -> (HeaderName, HeaderValue) { (n.parse().unwrap(), v.parse().unwrap()) };
    fields.iter().map(field).collect()
}
