//! Clients that speak TLS to the door, as the command's programs do.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    sync::Arc,
};

use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Bytes,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned, WantsVersions,
    client::EchMode,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use crate::world::{Answer, World};

pub(crate) fn config(ca: &str, alpn: &[&str]) -> Arc<ClientConfig> {
    let config = builder().with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots(ca)).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A client that hides its server name, or seems to.
pub(crate) fn with_ech(ca: &str, mode: EchMode) -> ClientConfig {
    builder().with_ech(mode).unwrap().with_root_certificates(roots(ca)).with_no_client_auth()
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVersions> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

fn roots(ca: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    roots
}

/// HTTP/1.1 in TLS in a tunnel, byte by byte.
pub(crate) struct Raw(StreamOwned<ClientConnection, TcpStream>);

impl Raw {
    /// Connects through the proxy. `name` goes into SNI and is what the certificate must be for.
    #[track_caller]
    pub(crate) fn connect(world: &World, authority: &str, name: &str) -> Self {
        Self::trusting(world, authority, name, &world.ca)
    }

    /// The same with another idea of whom to trust.
    #[track_caller]
    pub(crate) fn trusting(world: &World, authority: &str, name: &str, ca: &str) -> Self {
        Self::over(world.tunnel(authority).0, name, ca)
    }

    /// TLS on a connection that there is.
    pub(crate) fn over(stream: TcpStream, name: &str, ca: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self(StreamOwned::new(ClientConnection::new(config(ca, &[]), name).unwrap(), stream))
    }

    /// Completes the handshake.
    pub(crate) fn shake(&mut self) -> std::io::Result<()> {
        while self.0.conn.is_handshaking() {
            self.0.conn.complete_io(&mut self.0.sock)?;
        }
        Ok(())
    }

    #[track_caller]
    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).unwrap();
        self.0.flush().unwrap();
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        Answer::read(&mut self.0).expect("an answer before the end")
    }

    /// A request and its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: impl AsRef<[u8]>) -> Answer {
        self.send(text);
        self.answer()
    }

    /// Ends TCP and leaves TLS as it is.
    pub(crate) fn cut(mut self) {
        self.0.sock.shutdown(Shutdown::Write).unwrap();
        std::io::copy(&mut self.0.sock, &mut std::io::sink()).ok();
    }

    /// Ends TLS, then sends records that mean nothing any more.
    pub(crate) fn close_and_go_on(mut self, records: usize) {
        self.0.conn.send_close_notify();
        self.0.flush().unwrap();
        for _ in 0..records {
            // The door may be gone.
            self.0.sock.write_all(b"\x15\x03\x03\x00\x02\x01\x00").ok();
        }
        std::io::copy(&mut self.0.sock, &mut std::io::sink()).ok();
    }
}

/// What a client is told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) fields: http::HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: Option<http::HeaderMap>,
}

impl Told {
    pub(crate) fn reason(&self) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        json["reason"].as_str().unwrap().to_owned()
    }
}

/// A request as a browser makes it.
pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    request(Method::GET, uri, "")
}

pub(crate) fn request(method: Method, uri: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(uri).body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

/// Sends requests on one connection through the proxy, in the protocol that is agreed on: with HTTP/2 all at once.
pub(crate) fn browse(
    world: &World,
    authority: &str,
    alpn: &[&str],
    requests: Vec<Request<Full<Bytes>>>,
) -> Vec<Result<Told, hyper::Error>> {
    let host = authority.split(':').next().unwrap().to_owned();
    let tunnel = world.tunnel(authority).0;
    let config = config(&world.ca, alpn);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        tunnel.set_nonblocking(true).unwrap();
        let tunnel = tokio::net::TcpStream::from_std(tunnel).unwrap();
        let name = ServerName::try_from(host.clone()).unwrap();
        let stream = TlsConnector::from(config).connect(name, tunnel).await.expect("a handshake");
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                let sent = requests.into_iter().map(|request| {
                    let mut sender = sender.clone();
                    tokio::spawn(async move { told(sender.send_request(request).await?).await })
                });
                let mut all = Vec::new();
                for task in sent.collect::<Vec<_>>() {
                    all.push(task.await.unwrap());
                }
                all
            }
            _ => {
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                let mut all = Vec::new();
                for mut request in requests {
                    let path = request.uri().path_and_query().unwrap().clone();
                    *request.uri_mut() = path.into();
                    request.headers_mut().insert("host", host.parse().unwrap());
                    let Ok(()) = sender.ready().await else { break };
                    all.push(match sender.send_request(request).await {
                        Ok(response) => told(response).await,
                        Err(e) => Err(e),
                    });
                }
                all
            }
        }
    })
}

async fn told(response: http::Response<hyper::body::Incoming>) -> Result<Told, hyper::Error> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok(Told { status: parts.status.as_u16(), version: parts.version, fields: parts.headers, body, trailers })
}
