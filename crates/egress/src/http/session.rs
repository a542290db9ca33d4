//! The requests of one connection, each judged alone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use stockade_policy::{Door, Intent};
use stockade_types::{Authority, Generation, Port};
use tokio::net::TcpStream;

use super::{
    arriving::{Arriving, drain},
    body::Body,
    exchange::websocket,
    extended,
    frames::Fault,
    guard::Link,
    head::{Surface, Violation},
    socket::Socket,
};
use crate::{
    config::HeadLimits,
    door::Shared,
    grant::Grant,
    intent, intercept,
    peer::Client,
    record::{self, Asked, Facts},
    rescue::Refusal,
    tunnel::Tunnel,
    upstream::{Scheme, Speech},
};

/// What is spoken without TLS.
pub(super) const PLAIN: &[Speech] = &[Speech::Http1];

/// Which requests a session serves.
pub(crate) enum Front {
    /// Requests to the proxy.
    Proxy(Client),
    /// Requests inside a connection that was permitted for one host.
    Host(Box<Inside>),
}

/// A permitted connection whose client speaks HTTP.
pub(crate) struct Inside {
    pub(crate) grant: Grant,
    /// The name the client knows the host by: the only one its requests may carry.
    pub(crate) authority: Authority,
    pub(crate) scheme: Scheme,
    /// What origins are offered for this client, best first.
    pub(crate) offered: &'static [Speech],
    /// Why the origin could not be reached, if that was tried already: the answer to the first request.
    pub(crate) failed: Option<Refusal>,
}

impl Inside {
    /// Plain HTTP.
    pub(crate) fn plain(grant: Grant, authority: Authority) -> Self {
        Self { grant, authority, scheme: Scheme::Http, offered: PLAIN, failed: None }
    }
}

impl Front {
    pub(crate) fn surface(&self) -> Surface {
        match self {
            Self::Proxy(_) => Surface::Proxy,
            Self::Host(inside) => Surface::Host(inside.authority.clone(), inside.scheme),
        }
    }
}

/// One connection.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    client: Client,
    door: Door,
    /// Where the connection may only go to one host.
    pinned: Option<Pinned>,
    pub(super) offered: &'static [Speech],
    pub(super) link: Link,
    /// What the request that was just answered opened.
    pub(super) opened: Mutex<Option<Opened>>,
    /// See [`Inside::failed`].
    pub(super) failed: Mutex<Option<Refusal>>,
}

/// What a connection becomes.
pub(crate) enum Opened {
    /// After a CONNECT.
    Tunnel(Box<Tunnel>),
    /// After an upgrade.
    Socket(Box<Socket>),
}

struct Pinned {
    intent: Intent,
    authority: Authority,
    scheme: Scheme,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, front: Front, link: Link) -> Self {
        let (client, door, pinned, offered, failed) = match front {
            Front::Proxy(client) => (client, Door::Forward, None, PLAIN, None),
            Front::Host(inside) => {
                let Inside { grant, authority, scheme, offered, failed } = *inside;
                let (client, intent) = (grant.client().clone(), grant.intent().clone());
                (client, intent.door, Some(Pinned { intent, authority, scheme }), offered, failed)
            }
        };
        Self { shared, client, door, pinned, offered, link, opened: Mutex::default(), failed: Mutex::new(failed) }
    }

    /// What is known when there is no request to name.
    pub(crate) fn facts(&self, generation: Generation) -> Facts<'_> {
        let intent = self.pinned.as_ref().map(|p| &p.intent);
        Facts { door: self.door, intent, permit: None, client: Some(&self.client), generation }
    }

    /// What the last request opened.
    pub(crate) fn take_opened(&self) -> Option<Opened> {
        lock(&self.opened).take()
    }

    /// Why the connection ends, if nothing said so yet, and whether that is for the client to hear: said instead of the
    /// server, which saw nothing.
    pub(crate) fn closing_refusal(&self) -> Option<(Refusal, bool)> {
        let untold = (!self.link.busy()).then(|| self.link.untold()).flatten();
        untold.map(|(violation, due)| (violation.into(), due))
    }

    /// Records what the HTTP/2 server refused by itself: no request of this session's told of it.
    pub(crate) fn unframed(&self, fault: Fault) {
        let facts = self.facts(self.shared.policy().generation());
        self.shared.count_refusal();
        self.shared.audit.emit(record::request_refusal(facts, None, &Violation::Frames(fault).into()));
    }

    /// Whether no request is being served.
    pub(crate) fn resting(&self) -> bool {
        !self.link.busy()
    }

    /// Serves one request. Every way out has an event.
    pub(crate) async fn handle(&self, mut request: Request<Incoming>) -> Response<Body> {
        let in_flight = self.link.begin();
        let translated = extended::translate(&mut request);
        let connect = request.method() == Method::CONNECT;
        let path = if request.uri().path_and_query().is_some() { request.uri().path() } else { "" };
        let mut asked = Asked { method: request.method().to_string(), path: path.to_owned(), begun: Instant::now() };
        let stream = match translated {
            Ok(stream) => stream,
            Err(violation) => return self.refuse(*Refused::early(violation), asked, Answer::Http),
        };
        // Who asks for a WebSocket reads an answer of HTTP, whatever content type it names.
        let grpc = stream.is_none() && grpc(request.headers());
        if connect {
            return self
                .connect(&request)
                .await
                .unwrap_or_else(|refused| self.refuse(*refused, asked, Answer::Connect));
        }
        let mut request = request.map(Some);
        let exchanged = self.exchange(&mut request, &mut asked, in_flight).await;
        if websocket(request.headers()) && !matches!(&exchanged, Ok((_, Some(_)))) {
            self.link.decline_upgrade();
        }
        match (exchanged, stream) {
            (Ok((response, None)), _) => response,
            (Ok((response, Some(socket))), None) => {
                *lock(&self.opened) = Some(Opened::Socket(socket));
                response
            }
            (Ok((response, Some(socket))), Some(stream)) => {
                extended::carry(Arc::clone(&self.shared), self.link.begin(), stream, socket);
                extended::granted(response)
            }
            (Err(refused), _) => {
                if let Some(body) = request.body_mut().take() {
                    match request.version() {
                        http::Version::HTTP_2 => drop(Arriving::new(body)),
                        _ if request.headers().contains_key(header::EXPECT) => {}
                        _ => drain(body).await,
                    }
                    // The answer is to the request; what its body is worth does not matter any more.
                    self.link.broken_body();
                }
                self.refuse(*refused, asked, if grpc { Answer::Grpc } else { Answer::Http })
            }
        }
    }

    fn refuse(&self, refused: Refused, asked: Asked, answer: Answer) -> Response<Body> {
        let Refused { intent, grant, refusal } = refused;
        let generation = self.shared.policy().generation();
        let connect = answer == Answer::Connect;
        let facts = match &grant {
            Some(grant) => grant.facts(),
            None => {
                let known = self.facts(generation);
                let door = if connect && self.pinned.is_none() { Door::Connect } else { known.door };
                Facts { door, intent: intent.as_ref().or(known.intent), ..known }
            }
        };
        self.shared.count_refusal();
        self.shared.audit.emit(record::request_refusal(facts, Some(asked), &refusal));
        let response = match answer {
            Answer::Grpc => refusal.grpc_response(generation),
            Answer::Connect | Answer::Http => refusal.response(generation),
        };
        let mut response = response.map(|body| Either::Left(Full::new(body)));
        if connect && self.pinned.is_none() {
            // What follows a CONNECT is not a request, so nothing more can be read from this connection.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// CONNECT: verdict, then name, then address, then `200`. Where requests will be judged, the origin is dialled
    /// when it is known that one comes.
    async fn connect(&self, request: &Request<Incoming>) -> Result<Response<Body>, Box<Refused>> {
        if self.pinned.is_some() {
            return Err(Refused::early(Violation::ConnectInside));
        }
        let text = request.uri().authority().map_or("", |a| a.as_str());
        let authority = Authority::parse(text, None).map_err(|e| Refused::early(Violation::from(e)))?;
        let mut grant = self.ask(Door::Connect, authority.clone())?;
        if let Err(refusal) = grant.confirm().await {
            return Err(Refused::granted(grant, refusal));
        }
        let upstream = match self.reach(&mut grant).await.and_then(|upstream| grant.check().map(|()| upstream)) {
            Ok(upstream) => upstream,
            Err(refusal) => return Err(Refused::granted(grant, refusal)),
        };
        *lock(&self.opened) = Some(Opened::Tunnel(Box::new(Tunnel { grant, authority, upstream })));
        Ok(Response::new(Either::Left(Full::new(Bytes::new()))))
    }

    async fn reach(&self, grant: &mut Grant) -> Result<Option<TcpStream>, Refusal> {
        if grant.intercepts() {
            // A client that is told `200` finds a certificate.
            intercept::certificate(&self.shared, grant.permit().host(), None)?;
            return Ok(None);
        }
        Ok(Some(grant.dial(&self.shared).await?))
    }

    fn ask(&self, door: Door, authority: Authority) -> Result<Grant, Box<Refused>> {
        let intent = intent::of(door, authority, &self.shared.pool).map_err(Refused::asked)?;
        Grant::ask(&self.shared, &self.client, intent).map_err(Refused::asked)
    }

    /// Where a request goes, if the policy in force allows a connection to it.
    pub(super) fn place<B>(&self, request: &Request<B>) -> Result<(Grant, Authority, Scheme), Box<Refused>> {
        if let Some(pinned) = &self.pinned {
            if request.version() == http::Version::HTTP_2 {
                measure(request, self.shared.config.head)?;
            }
            pinned.named_by(request)?;
            one_length(request)?;
            let grant = Grant::ask(&self.shared, &self.client, pinned.intent.clone()).map_err(Refused::asked)?;
            return Ok((grant, pinned.authority.clone(), pinned.scheme));
        }
        let text = request.uri().authority().map_or("", |a| a.as_str());
        let authority = Authority::parse(text, Some(Port::HTTP)).map_err(|e| Refused::early(Violation::from(e)))?;
        let grant = self.ask(Door::Forward, authority.clone())?;
        Ok((grant, authority, Scheme::Http))
    }
}

impl Pinned {
    /// HTTP/2 has its authority in the request itself, and may have it twice. HTTP/1 was compared by the guard.
    fn named_by<B>(&self, request: &Request<B>) -> Result<(), Box<Refused>> {
        if request.version() != http::Version::HTTP_2 {
            return Ok(());
        }
        let target = request.uri().authority().map(|a| a.as_str());
        let hosts = request.headers().get_all(header::HOST).iter().map(|h| h.to_str().unwrap_or(""));
        let mut names = target.into_iter().chain(hosts).peekable();
        if names.peek().is_none() {
            return Err(Refused::early(Violation::Line("the authority is missing")));
        }
        let scheme = request.uri().scheme_str().unwrap_or(self.scheme.name());
        if scheme != self.scheme.name() {
            return Err(Refused::early(Violation::Mismatch));
        }
        for name in names {
            let named = Authority::parse(name, Some(self.authority.port));
            let named = named.map_err(|e| Refused::early(Violation::from(e)))?;
            if named != self.authority {
                return Err(Refused::early(Violation::Mismatch));
            }
        }
        Ok(())
    }
}

/// The bounds of a head, where no guard has looked at it. Fields count as in RFC 9113, section 6.5.2.
fn measure<B>(request: &Request<B>, limits: HeadLimits) -> Result<(), Box<Refused>> {
    const OVERHEAD: usize = 32;
    let fields = request.headers();
    let bytes: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + OVERHEAD).sum();
    let line = request.method().as_str().len() + request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    if bytes + line > limits.bytes {
        return Err(Refused::early(Violation::TooLarge(limits.bytes)));
    }
    if fields.len() > limits.fields {
        return Err(Refused::early(Violation::TooManyFields(limits.fields)));
    }
    Ok(())
}

/// HTTP/2 frames its bodies itself, and lets a length be said twice. A server behind may not, or believe another one.
fn one_length<B>(request: &Request<B>) -> Result<(), Box<Refused>> {
    match request.headers().get_all(header::CONTENT_LENGTH).iter().count() {
        0 | 1 => Ok(()),
        _ => Err(Refused::early(Violation::Framing("more than one Content-Length"))),
    }
}

/// What a refusal answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Connect,
    Http,
    Grpc,
}

/// Whether a request is a call of gRPC. What its relatives for browsers send is read by other clients.
fn grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// A refusal and what is known about what was refused.
pub(super) struct Refused {
    intent: Option<Intent>,
    grant: Option<Grant>,
    refusal: Refusal,
}

impl Refused {
    fn early(violation: Violation) -> Box<Self> {
        Box::new(Self { intent: None, grant: None, refusal: violation.into() })
    }

    fn asked((intent, refusal): (Intent, Refusal)) -> Box<Self> {
        Box::new(Self { intent: Some(intent), grant: None, refusal })
    }

    pub(super) fn granted(grant: Grant, refusal: impl Into<Refusal>) -> Box<Self> {
        Box::new(Self { intent: None, grant: Some(grant), refusal: refusal.into() })
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No value behind these locks is ever half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
