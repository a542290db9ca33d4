//! Sends prepared bytes to HTTP servers and says what came back: a client that any other could be mistaken for.
//! End-to-end tests run it inside the sandbox, and without one.
//!
//! `caller FILE`: each line of FILE is a [`Call`] in JSON. They are made many at a time; each is answered by a line of
//! JSON: its `id`, what came back in hexadecimal, how the connection ended and how long it took, in milliseconds.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fmt::Write as _,
    fs, io,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};

/// Calls at once.
const WORKERS: usize = 48;
/// How long the first byte of an answer may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long nothing comes behind an answer, unless the call says.
const QUIET: Duration = Duration::from_millis(250);
/// Most of an answer that is kept.
const MOST: usize = 64 * 1024;

/// What to send, and where.
struct Call {
    id: String,
    /// `proxy` (the bytes go to the proxy itself), `tunnel` (through a CONNECT) or `direct`.
    door: String,
    host: String,
    port: u16,
    /// Protocols to offer in TLS; `null` for none.
    tls: Option<Vec<String>>,
    /// Segments, and how long to wait after each.
    send: Vec<(Vec<u8>, Duration)>,
    quiet: Duration,
    /// Streams of HTTP/2 that are to end; 0 for HTTP/1.
    ends: usize,
}

/// How it ended.
struct Ended {
    answer: Vec<u8>,
    how: String,
}

fn main() {
    let path = std::env::args().nth(1).expect("a file of calls");
    let text = fs::read_to_string(&path).expect("reading the calls");
    let calls: Vec<Call> = text.lines().map(|line| Call::parse(line).unwrap_or_else(|| panic!("{line}"))).collect();
    let roots = Arc::new(roots());
    let queue = Mutex::new(calls.into_iter().rev().collect::<Vec<_>>());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(call) = queue.lock().unwrap().pop() else { return };
                    let began = Instant::now();
                    let ended = call.make(&roots);
                    let hex = ended.answer.iter().fold(String::new(), |mut out, b| {
                        write!(out, "{b:02x}").unwrap();
                        out
                    });
                    let ms = u64::try_from(began.elapsed().as_millis()).unwrap();
                    println!("{}", json!({"id": call.id, "answer": hex, "end": ended.how, "ms": ms}));
                }
            });
        }
    });
}

/// The authorities that the environment names; without TLS in the calls there may be none.
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let file = std::env::var_os("SSL_CERT_FILE").filter(|f| Path::new(f).exists());
    for certificate in file.iter().flat_map(|f| CertificateDer::pem_file_iter(f).expect("a bundle")) {
        roots.add(certificate.expect("a certificate")).ok();
    }
    roots
}

impl Call {
    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let segment = |v: &Value| {
            let bytes = unhex(v[0].as_str()?)?;
            Some((bytes, Duration::from_millis(v[1].as_u64()?)))
        };
        let names = |v: &Value| v.as_array()?.iter().map(|n| n.as_str().map(str::to_owned)).collect();
        Some(Self {
            id: text("id")?,
            door: text("door")?,
            host: text("host")?,
            port: value["port"].as_u64()?.try_into().ok()?,
            tls: names(&value["tls"]),
            send: value["send"].as_array()?.iter().map(segment).collect::<Option<_>>()?,
            ends: value["ends"].as_u64().map_or(0, |n| usize::try_from(n).unwrap()),
            quiet: value["quiet"].as_u64().map_or(QUIET, Duration::from_millis),
        })
    }

    fn make(&self, roots: &Arc<RootCertStore>) -> Ended {
        let mut answer = Vec::new();
        let how = match self.try_make(roots, &mut answer) {
            Ok(()) => "closed".to_owned(),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => "open".to_owned(),
            Err(e) => e.to_string(),
        };
        Ended { answer, how }
    }

    fn try_make(&self, roots: &Arc<RootCertStore>, answer: &mut Vec<u8>) -> io::Result<()> {
        let stream = self.connect()?;
        match &self.tls {
            None => self.talk(stream, |s| s, answer),
            Some(alpn) => {
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
                let config = config.map_err(io::Error::other)?.with_root_certificates(Arc::clone(roots));
                let mut config = config.with_no_client_auth();
                config.alpn_protocols = alpn.iter().map(|p| p.clone().into_bytes()).collect();
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                let tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(tls, stream);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                self.talk(stream, |s| &mut s.sock, answer)
            }
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let authority = format!("{}:{}", self.host, self.port);
        let mut stream = match &*self.door {
            "direct" => TcpStream::connect(&*authority)?,
            _ => TcpStream::connect(proxy()?)?,
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        if self.door == "tunnel" {
            stream.write_all(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            if !head.starts_with(b"HTTP/1.1 200 ") {
                return Err(io::Error::other(format!("no tunnel: {}", String::from_utf8_lossy(&head))));
            }
        }
        Ok(stream)
    }

    /// Sends all, then reads until the end, or until nothing comes any more.
    fn talk<S: Read + Write>(
        &self,
        mut stream: S,
        socket: impl Fn(&mut S) -> &mut TcpStream,
        answer: &mut Vec<u8>,
    ) -> io::Result<()> {
        for (bytes, pause) in &self.send {
            // A server that has refused already reads no more; what it said is still there to be read.
            if stream.write_all(bytes).and_then(|()| stream.flush()).is_err() {
                break;
            }
            thread::sleep(*pause);
        }
        let mut chunk = [0; 4096];
        while answer.len() < MOST {
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                n => answer.extend(&chunk[..n]),
            }
            if self.ends > 0 && ended(answer) >= self.ends {
                return Ok(());
            }
            socket(&mut stream).set_read_timeout(Some(self.quiet))?;
        }
        Ok(())
    }
}

/// How many streams of HTTP/2 a server has ended.
fn ended(mut frames: &[u8]) -> usize {
    const END_STREAM: u8 = 1;
    let mut count = 0;
    while let Some((head, rest)) = frames.split_first_chunk::<9>() {
        let [a, b, c, kind, flags, ..] = *head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let last = match kind {
            0 | 1 => flags & END_STREAM != 0,
            // Reset, or the whole connection given up.
            3 | 7 => true,
            _ => false,
        };
        count += usize::from(last);
        frames = rest.get(length..).unwrap_or_default();
    }
    count
}

/// The proxy's address, from the environment.
fn proxy() -> io::Result<String> {
    let url = std::env::var("http_proxy").map_err(io::Error::other)?;
    Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}
