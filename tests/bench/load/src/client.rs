//! One HTTPS connection, by way of whatever stands between.

use std::{
    collections::HashMap,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where requests go and how.
pub(crate) struct Target {
    name: String,
    port: u16,
    proxy: Option<SocketAddr>,
    address: Option<SocketAddr>,
    tls: TlsConnector,
    http2: TlsConnector,
}

impl Target {
    pub(crate) fn new(options: &HashMap<&str, &str>) -> Result<Self, Error> {
        let option = |name: &str| options.get(name).copied().ok_or_else(|| format!("--{name} is missing"));
        let proxy = match options.get("proxy") {
            None => None,
            Some(&"env") => Some(std::env::var("https_proxy").map_err(|_| "https_proxy is not set")?),
            Some(addr) => Some((*addr).to_owned()),
        };
        let proxy = proxy.map(|p| resolve(p.trim_start_matches("http://").trim_end_matches('/'))).transpose()?;
        let mut roots = RootCertStore::empty();
        // An intercepting sandbox names its own bundle; it is not known before the sandbox is made.
        let ca = match option("ca")? {
            "env" => std::env::var("SSL_CERT_FILE").map_err(|_| "SSL_CERT_FILE is not set")?,
            file => file.to_owned(),
        };
        for certificate in CertificateDer::pem_file_iter(ca)? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.resumption = Resumption::disabled();
        let mut http2 = tls.clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            name: option("name")?.to_owned(),
            port: option("port")?.parse()?,
            proxy,
            address: options.get("address").map(|a| resolve(a)).transpose()?,
            tls: TlsConnector::from(Arc::new(tls)),
            http2: TlsConnector::from(Arc::new(http2)),
        })
    }

    pub(crate) async fn open(&self) -> Result<Connection, Error> {
        let (stream, authority) = self.dial(&self.tls).await?;
        Ok(Connection { stream, authority, buffer: vec![0; 256 * 1024] })
    }

    /// An HTTP/2 connection, to be shared.
    pub(crate) async fn open_http2(&self) -> Result<Http2, Error> {
        let (stream, authority) = self.dial(&self.http2).await?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
        let (sender, connection) = builder.handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Http2 { sender, authority })
    }

    async fn dial(&self, tls: &TlsConnector) -> Result<(TlsStream<TcpStream>, String), Error> {
        let authority = format!("{}:{}", self.name, self.port);
        let address = match self.proxy.or(self.address) {
            Some(address) => address,
            None => tokio::net::lookup_host(&authority).await?.next().ok_or("the name has no address")?,
        };
        let mut tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        if self.proxy.is_some() {
            let head = connect(&mut tcp, &authority).await?;
            if status(&head) != Some("200") {
                return Err(format!("CONNECT: {}", head.lines().next().unwrap_or_default()).into());
            }
        }
        let name = ServerName::try_from(self.name.clone())?;
        Ok((tls.connect(name, tcp).await?, authority))
    }

    /// A CONNECT that must be answered with 403.
    pub(crate) async fn denied(&self, authority: &str) -> Result<u64, Error> {
        let mut tcp = TcpStream::connect(self.proxy.ok_or("no proxy")?).await?;
        tcp.set_nodelay(true)?;
        let head = connect(&mut tcp, authority).await?;
        match status(&head) {
            Some("403") => Ok(0),
            _ => Err(format!("wanted 403: {}", head.lines().next().unwrap_or_default()).into()),
        }
    }
}

/// A TCP connect that must be refused.
pub(crate) async fn refused(address: &str) -> Result<u64, Error> {
    let attempt = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(address));
    match attempt.await.map_err(|_| "no answer within two seconds")? {
        Ok(_) => Err("the connection was accepted".into()),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(0),
        Err(e) => Err(e.into()),
    }
}

fn resolve(addr: &str) -> Result<SocketAddr, Error> {
    addr.to_socket_addrs()?.next().ok_or_else(|| format!("{addr} has no address").into())
}

fn status(head: &str) -> Option<&str> {
    head.strip_prefix("HTTP/1.")?.split(' ').nth(1)
}

/// Sends a CONNECT and reads the head of its answer. No TLS byte comes before our own.
async fn connect(tcp: &mut TcpStream, authority: &str) -> Result<String, Error> {
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match tcp.read(&mut chunk).await? {
            0 => return Err("closed in the answer to CONNECT".into()),
            n => head.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A shared HTTP/2 connection to the upstream.
#[derive(Clone)]
pub(crate) struct Http2 {
    sender: h2::client::SendRequest<bytes::Bytes>,
    authority: String,
}

impl Http2 {
    /// One GET; the length of its body.
    pub(crate) async fn get(&mut self, path: &str) -> Result<u64, Error> {
        let request = http::Request::get(format!("https://{}{path}", self.authority)).body(())?;
        let mut sender = self.sender.clone().ready().await?;
        let (response, _) = sender.send_request(request, true)?;
        let response = response.await?;
        if response.status() != 200 {
            return Err(format!("upstream: {}", response.status()).into());
        }
        let (mut body, mut length) = (response.into_body(), 0);
        while let Some(data) = body.data().await {
            let data = data?;
            length += data.len() as u64;
            body.flow_control().release_capacity(data.len())?;
        }
        Ok(length)
    }
}

/// An open TLS connection to the upstream.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    authority: String,
    buffer: Vec<u8>,
}

impl Connection {
    /// One GET; the length of its body.
    pub(crate) async fn get(&mut self, path: &str) -> Result<u64, Error> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.authority);
        self.stream.write_all(request.as_bytes()).await?;
        let mut have = 0;
        let end = loop {
            have += self.more(have).await?;
            if let Some(at) = self.buffer[..have].windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = std::str::from_utf8(&self.buffer[..end])?;
        if status(head) != Some("200") {
            return Err(format!("upstream: {}", head.lines().next().unwrap_or_default()).into());
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length:")).ok_or("no Content-Length")?;
        let length: u64 = length.trim().parse()?;
        let mut got = (have - end) as u64;
        while got < length {
            got += self.more(0).await? as u64;
        }
        Ok(length)
    }

    async fn more(&mut self, from: usize) -> Result<usize, Error> {
        match self.stream.read(&mut self.buffer[from..]).await? {
            0 => Err("closed in an answer".into()),
            n => Ok(n),
        }
    }

    pub(crate) async fn get_and_close(mut self, path: &str) -> Result<u64, Error> {
        let length = self.get(path).await?;
        tokio::time::timeout(Duration::from_millis(500), self.stream.shutdown()).await.ok();
        Ok(length)
    }
}
