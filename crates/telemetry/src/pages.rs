//! `/livez`, `/readyz` and `/metrics` on listeners outside the sandbox.

use std::{convert::Infallible, io, net, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use crate::{health::Health, metrics::Metrics};

/// Connections at once.
const CONNECTIONS: usize = 32;
/// One request, from its connection to the end of its answer.
const TIME: Duration = Duration::from_secs(5);
/// Bytes of a request's head; no page takes a body.
const HEAD: usize = 16 * 1024;
/// Rest before accepting again when the machine has no descriptor or memory left.
const RECOVERY: Duration = Duration::from_millis(100);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} for {what}: {source}; choose another address or end what listens there")]
pub struct BindError {
    /// Where.
    pub addr: net::SocketAddr,
    /// The option.
    pub what: &'static str,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// A listener, and what it shows.
#[derive(Debug)]
pub struct Bound {
    listener: net::TcpListener,
    health: bool,
    metrics: bool,
}

impl Bound {
    /// Opens the listeners for `--health` and `--metrics`: one, where both name the same address.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn open(health: Option<net::SocketAddr>, metrics: Option<net::SocketAddr>) -> Result<Vec<Self>, BindError> {
        let bind = |addr, what| net::TcpListener::bind(addr).map_err(|source| BindError { addr, what, source });
        match (health, metrics) {
            (Some(h), Some(m)) if h == m => {
                Ok(vec![Self { listener: bind(h, "--health and --metrics")?, health: true, metrics: true }])
            }
            (health, metrics) => {
                let health = health.map(|a| Ok(Self { listener: bind(a, "--health")?, health: true, metrics: false }));
                let metrics =
                    metrics.map(|a| Ok(Self { listener: bind(a, "--metrics")?, health: false, metrics: true }));
                health.into_iter().chain(metrics).collect()
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> Option<net::SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers until dropped.
    ///
    /// # Errors
    /// When the socket cannot be served.
    pub async fn serve(self, pages: Pages) -> io::Result<()> {
        self.listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(self.listener)?;
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let pages = Arc::new(Shown { pages, health: self.health, metrics: self.metrics });
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(RECOVERY).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
            let pages = Arc::clone(&pages);
            tokio::spawn(async move {
                let answer = service_fn(|request| {
                    let response = pages.answer(&request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut server = http1::Builder::new();
                let served = server.keep_alive(false).max_buf_size(HEAD).serve_connection(TokioIo::new(stream), answer);
                // What went wrong is the asker's own doing, and it knows.
                let _ = timeout(TIME, served).await;
                drop(place);
            });
        }
    }
}

/// What is shown.
#[derive(Debug, Clone)]
pub struct Pages {
    /// `/livez` and `/readyz`.
    pub health: Health,
    /// `/metrics`.
    pub metrics: Option<Metrics>,
}

struct Shown {
    pages: Pages,
    health: bool,
    metrics: bool,
}

impl Shown {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, JSON, r#"{"error":"only GET and HEAD"}"#);
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match (request.uri().path(), &self.pages.metrics) {
            // Alive is who answers.
            ("/livez", _) if self.health => page(StatusCode::OK, JSON, r#"{"live":true}"#),
            ("/readyz", _) if self.health => self.readiness(),
            ("/metrics", Some(metrics)) if self.metrics => match metrics.text() {
                Some(text) => page(StatusCode::OK, HeaderValue::from_static(Metrics::CONTENT_TYPE), text),
                None => page(StatusCode::INTERNAL_SERVER_ERROR, JSON, r#"{"error":"the metrics cannot be written"}"#),
            },
            _ => page(StatusCode::NOT_FOUND, JSON, r#"{"error":"not here: /livez, /readyz or /metrics"}"#),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let readiness = self.pages.health.readiness();
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        match serde_json::to_string(&readiness) {
            Ok(text) => page(status, JSON, text),
            Err(_) => page(StatusCode::SERVICE_UNAVAILABLE, JSON, r#"{"ready":false}"#),
        }
    }
}

fn page(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, kind);
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::{
        ask,
        health::{Check, Phase},
    };

    fn served(health: bool, metrics: bool) -> (tokio::runtime::Runtime, net::SocketAddr, Health) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let any = |wanted: bool| wanted.then(|| "127.0.0.1:0".parse().unwrap());
        let mut bound = Bound::open(any(health), any(metrics)).unwrap();
        let bound = bound.remove(0);
        let (addr, state) = (bound.addr().unwrap(), Health::default());
        let pages = Pages { health: state.clone(), metrics: Some(Metrics::new(state.clone(), Box::new(Vec::new))) };
        runtime.spawn(bound.serve(pages));
        (runtime, addr, state)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn readiness_is_a_status_and_says_what_fails() {
        let (_runtime, addr, health) = served(true, true);
        let (status, body) = ask(addr, "/readyz", LONG).unwrap();
        assert_eq!(status, 503);
        assert!(body.contains(r#"{"check":"door","ok":false,"detail":"the door does not serve yet"}"#), "{body}");
        assert_eq!(ask(addr, "/livez", LONG).unwrap(), (200, r#"{"live":true}"#.to_owned()));
        health.enter(Phase::Running);
        health.well(Check::Door);
        let (status, body) = ask(addr, "/readyz", LONG).unwrap();
        assert!(status == 200 && body.starts_with(r#"{"ready":true"#), "{status} {body}");
    }

    #[test]
    fn each_listener_shows_what_it_was_opened_for() {
        let (_runtime, addr, _) = served(true, false);
        assert_eq!(ask(addr, "/metrics", LONG).unwrap().0, 404);
        assert_eq!(ask(addr, "/../etc/passwd", LONG).unwrap().0, 404);
        let (_runtime, addr, _) = served(false, true);
        assert_eq!(ask(addr, "/readyz", LONG).unwrap().0, 404);
        let (status, text) = ask(addr, "/metrics", LONG).unwrap();
        assert!(status == 200 && text.ends_with("# EOF\n"), "{status} {text}");
    }

    #[test]
    fn who_is_slow_or_rude_holds_nobody_up() {
        let (_runtime, addr, _) = served(true, false);
        let silent: Vec<TcpStream> = (0..CONNECTIONS).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut rude = TcpStream::connect(addr).unwrap();
        let _ = rude.write_all(&[b'A'; HEAD * 4]);
        let mut rest = Vec::new();
        let _ = rude.read_to_end(&mut rest);
        let until = std::time::Instant::now() + LONG;
        let mut answered = None;
        while answered.is_none() && std::time::Instant::now() < until {
            answered = ask(addr, "/livez", LONG).ok();
        }
        assert_eq!(answered.map(|(status, _)| status), Some(200), "silent connections end, others are answered");
        drop(silent);
        let mut post = TcpStream::connect(addr).unwrap();
        post.write_all(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        post.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    }

    #[test]
    fn one_address_for_both_is_one_listener_and_a_taken_one_is_named() {
        let both = Bound::open(Some("127.0.0.1:0".parse().unwrap()), Some("127.0.0.1:0".parse().unwrap())).unwrap();
        assert_eq!(both.len(), 1);
        let taken = both[0].addr().unwrap();
        let refused = Bound::open(None, Some(taken)).unwrap_err().to_string();
        assert!(refused.contains(&taken.to_string()) && refused.contains("--metrics"), "{refused}");
    }
}
