//! Batches of spans to a collector: one connection each, for there is one every few seconds.

use std::{future::Future, io, net::IpAddr, pin::Pin, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    otlp::{Request, Response},
    settings::{Protocol, Settings},
};

/// Bytes of a collector's answer that are read.
const ANSWER: usize = 64 * 1024;

/// A name's addresses, on their way.
pub type Lookup = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, String>> + Send>>;
/// Looks names up, as the supervisor does.
pub type Lookups = Arc<dyn Fn(String) -> Lookup + Send + Sync>;

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The collector cannot be reached.
    #[error("the collector of traces {0} cannot be reached: {1}")]
    Connect(String, String),
    /// It does not speak as it should.
    #[error("the collector of traces {0} did not answer: {1}")]
    Speak(String, String),
    /// It took too long.
    #[error("the collector of traces {0} did not answer in time")]
    Timeout(String),
    /// It said no.
    #[error("the collector of traces {0} refused the spans: {1}")]
    Refused(String, String),
    /// It asks to be tried again.
    #[error("the collector of traces {0} cannot take spans now: {1}")]
    Busy(String, String),
}

impl SendError {
    /// Whether another try may help.
    pub(super) fn passes(&self) -> bool {
        !matches!(self, Self::Refused(..))
    }
}

pub(super) struct Sender {
    settings: Settings,
    lookups: Lookups,
    tls: Option<Arc<rustls::ClientConfig>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Sender {
    pub(super) fn new(settings: Settings, lookups: Lookups, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self { settings, lookups, tls }
    }

    /// Sends one batch; how many of its spans the collector rejected.
    pub(super) async fn send(&self, request: &Request) -> Result<u64, SendError> {
        match timeout(self.settings.timeout, self.post(request)).await {
            Ok(done) => done,
            Err(_) => Err(SendError::Timeout(self.name())),
        }
    }

    /// The collector, for messages.
    fn name(&self) -> String {
        self.settings.endpoint.authority().map(ToString::to_string).unwrap_or_default()
    }

    async fn post(&self, request: &Request) -> Result<u64, SendError> {
        let stream = TokioIo::new(self.connect().await.map_err(|e| SendError::Connect(self.name(), e.to_string()))?);
        let speak = |e: hyper::Error| SendError::Speak(self.name(), e.to_string());
        let message = request.encode_to_vec();
        match self.settings.protocol {
            Protocol::Http => {
                let (mut sender, connection) = http1::handshake(stream).await.map_err(speak)?;
                let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
                let response = sender.send_request(self.http(message)?).await.map_err(speak)?;
                self.answered(response).await
            }
            Protocol::Grpc => {
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.map_err(speak)?;
                let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
                let response = sender.send_request(self.grpc(&message)?).await.map_err(speak)?;
                self.answered_grpc(response).await
            }
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let uri = &self.settings.endpoint;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let standard = if self.settings.is_https() { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(standard);
        let addrs = match host.parse::<IpAddr>() {
            Ok(addr) => vec![addr],
            Err(_) => (self.lookups)(host.clone()).await.map_err(io::Error::other)?,
        };
        let mut last = io::Error::other("the name has no address");
        for addr in addrs {
            let stream = match TcpStream::connect((addr, port)).await {
                Ok(stream) => stream,
                Err(e) => {
                    last = e;
                    continue;
                }
            };
            stream.set_nodelay(true)?;
            return match (&self.tls, self.settings.is_https()) {
                (_, false) => Ok(Box::new(stream)),
                (Some(tls), true) => {
                    let name = ServerName::try_from(host).map_err(io::Error::other)?;
                    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
                    Ok(Box::new(connector.connect(name, stream).await?))
                }
                (None, true) => Err(io::Error::other("no TLS here")),
            };
        }
        Err(last)
    }

    fn http(&self, message: Vec<u8>) -> Result<http::Request<Full<Bytes>>, SendError> {
        let uri = self.settings.endpoint.path_and_query().map_or("/", |p| p.as_str());
        let mut request = self.request(uri.parse().ok(), Bytes::from(message))?;
        if let Ok(host) = HeaderValue::try_from(self.name()) {
            request.headers_mut().insert(header::HOST, host);
        }
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok(request)
    }

    fn grpc(&self, message: &[u8]) -> Result<http::Request<Full<Bytes>>, SendError> {
        let mut framed = BytesMut::with_capacity(message.len() + 5);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        framed.put_slice(message);
        let mut request = self.request(Some(self.settings.endpoint.clone()), framed.freeze())?;
        let fields = request.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
        Ok(request)
    }

    fn request(&self, uri: Option<Uri>, body: Bytes) -> Result<http::Request<Full<Bytes>>, SendError> {
        let uri = uri.ok_or_else(|| SendError::Speak(self.name(), "its URL has no path".to_owned()))?;
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let agent = HeaderValue::from_static(concat!("stockade/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        request.headers_mut().extend(self.settings.headers.clone());
        Ok(request)
    }

    async fn answered(&self, response: http::Response<Incoming>) -> Result<u64, SendError> {
        let status = response.status();
        if status.is_success() {
            let (body, _) = self.read(response).await?;
            return Ok(rejected(&body));
        }
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(SendError::Busy(self.name(), status.to_string())),
            _ => Err(SendError::Refused(self.name(), status.to_string())),
        }
    }

    async fn answered_grpc(&self, response: http::Response<Incoming>) -> Result<u64, SendError> {
        let code = |fields: &HeaderMap| {
            fields.get("grpc-status").and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u32>().ok())
        };
        let (status, early) = (response.status(), code(response.headers()));
        if !status.is_success() {
            return Err(SendError::Refused(self.name(), status.to_string()));
        }
        let (body, trailers) = self.read(response).await?;
        match early.or_else(|| trailers.as_ref().and_then(code)) {
            Some(0) => Ok(rejected(body.get(5..).unwrap_or_default())),
            // Those that the protocol calls retryable: cancelled, too late, exhausted, aborted, out of range,
            // unavailable, lost.
            Some(n @ (1 | 4 | 8 | 10 | 11 | 14 | 15)) => Err(SendError::Busy(self.name(), format!("gRPC status {n}"))),
            Some(n) => Err(SendError::Refused(self.name(), format!("gRPC status {n}"))),
            None => Err(SendError::Speak(self.name(), "no gRPC status".to_owned())),
        }
    }

    async fn read(&self, response: http::Response<Incoming>) -> Result<(Bytes, Option<HeaderMap>), SendError> {
        let read = Limited::new(response.into_body(), ANSWER).collect().await;
        let read = read.map_err(|e| SendError::Speak(self.name(), e.to_string()))?;
        let trailers = read.trailers().cloned();
        Ok((read.to_bytes(), trailers))
    }
}

/// Spans that were rejected. An answer that cannot be read rejects none.
fn rejected(body: &[u8]) -> u64 {
    let answer = Response::decode(body).unwrap_or_default();
    answer.partial_success.and_then(|p| u64::try_from(p.rejected_spans).ok()).unwrap_or(0)
}

/// A connection, driven as long as this lives.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
