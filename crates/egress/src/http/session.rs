//! The requests of one connection, each judged alone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use stockade_policy::{Door, Intent, RequestPermit};
use stockade_types::{Authority, Generation, Port};
use tokio::{net::TcpStream, time::timeout};

use super::{
    body::{Body, Held, Streamed},
    canonical::canonical,
    forward,
    guard::{InFlight, Link},
    head::{Surface, Violation},
    message,
    outgoing::{Outgoing, Progress, Upload},
    socket::Socket,
};
use crate::{
    door::Shared,
    grant::Grant,
    intent,
    record::{self, Asked, Facts},
    rescue::Refusal,
    tunnel::Tunnel,
    upstream::{Connection, Place, Scheme, Speech, UpstreamError},
};

/// Requests that a connection at rest may have been closed under, before a new one is dialled.
const STALE: usize = 4;
/// How much of a refused request's body is read, and for how long.
const DRAINED: usize = 256 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// What is spoken without TLS.
const PLAIN: &[Speech] = &[Speech::Http1];

/// Which requests a session serves.
pub(crate) enum Front {
    /// Requests to the proxy.
    Proxy,
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
            Self::Proxy => Surface::Proxy,
            Self::Host(inside) => Surface::Host(inside.authority.clone(), inside.scheme),
        }
    }
}

/// One connection.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    door: Door,
    /// Where the connection may only go to one host.
    pinned: Option<Pinned>,
    offered: &'static [Speech],
    link: Link,
    /// What the request that was just answered opened.
    opened: Mutex<Option<Opened>>,
    /// See [`Inside::failed`].
    failed: Mutex<Option<Refusal>>,
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
        let (door, pinned, offered, failed) = match front {
            Front::Proxy => (Door::Forward, None, PLAIN, None),
            Front::Host(inside) => {
                let Inside { grant, authority, scheme, offered, failed } = *inside;
                let intent = grant.intent().clone();
                (intent.door, Some(Pinned { intent, authority, scheme }), offered, failed)
            }
        };
        Self { shared, door, pinned, offered, link, opened: Mutex::default(), failed: Mutex::new(failed) }
    }

    /// What is known when there is no request to name.
    pub(crate) fn facts(&self, generation: Generation) -> Facts<'_> {
        Facts { door: self.door, intent: self.pinned.as_ref().map(|p| &p.intent), permit: None, generation }
    }

    /// What the last request opened.
    pub(crate) fn take_opened(&self) -> Option<Opened> {
        lock(&self.opened).take()
    }

    /// Why the connection ends without an answer to what came last: said instead of the server, which saw nothing.
    pub(crate) fn closing_refusal(&self) -> Option<Refusal> {
        (!self.link.busy()).then(|| self.link.fault().map(Refusal::Request)).flatten()
    }

    /// Since when nothing was being served; `None` while something is.
    pub(crate) fn resting(&self) -> bool {
        !self.link.busy()
    }

    /// Serves one request. Every way out has an event.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let in_flight = self.link.begin();
        let connect = request.method() == Method::CONNECT;
        let mut asked = Asked {
            method: request.method().to_string(),
            path: if connect { String::new() } else { request.uri().path().to_owned() },
        };
        if connect {
            return self.connect(&request).await.unwrap_or_else(|refused| self.refuse(*refused, asked, true));
        }
        let mut request = request.map(Some);
        let exchanged = self.exchange(&mut request, &mut asked, in_flight).await;
        if websocket(request.headers()) && !matches!(&exchanged, Ok(r) if r.status() == StatusCode::SWITCHING_PROTOCOLS)
        {
            self.link.decline_upgrade();
        }
        match exchanged {
            Ok(response) => response,
            Err(refused) => {
                if let Some(body) = request.body_mut().take()
                    && request.version() != http::Version::HTTP_2
                    && !request.headers().contains_key(header::EXPECT)
                {
                    drain(body).await;
                }
                self.refuse(*refused, asked, false)
            }
        }
    }

    fn refuse(&self, refused: Refused, asked: Asked, connect: bool) -> Response<Body> {
        let Refused { intent, grant, refusal } = refused;
        let generation = self.shared.policy().generation();
        let door = if connect { Door::Connect } else { self.door };
        let facts = match &grant {
            Some(grant) => grant.facts(),
            None => Facts { door, intent: intent.as_ref(), permit: None, generation },
        };
        self.shared.count_refusal();
        self.shared.audit.emit(record::request_refusal(facts, Some(asked), &refusal));
        let mut response = refusal.response(generation).map(|body| Either::Left(Full::new(body)));
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
            self.shared.tls.interceptor.server_config(grant.permit().host(), None)?;
            return Ok(None);
        }
        Ok(Some(grant.dial(&self.shared).await?))
    }

    fn ask(&self, door: Door, authority: Authority) -> Result<Grant, Box<Refused>> {
        let intent = intent::of(door, authority, &self.shared.pool).map_err(Refused::asked)?;
        Grant::ask(&self.shared, intent).map_err(Refused::asked)
    }

    /// Any other request: verdict on the place, canonical form, verdict on the request, upstream, answer. The body is
    /// taken out of the request once it is on its way.
    async fn exchange(
        &self,
        request: &mut Request<Option<Incoming>>,
        asked: &mut Asked,
        in_flight: InFlight,
    ) -> Result<Response<Body>, Box<Refused>> {
        let (mut grant, authority, scheme) = self.place(request)?;
        let (method, key) = (request.method().clone(), socket_key(request.headers()));
        let Judged { request, upload, permit } = match self.judge(&mut grant, request, asked).await {
            Ok(judged) => judged,
            Err(refusal) => return Err(Refused::granted(grant, refusal)),
        };
        let mut watcher = grant.clone();
        let sent = tokio::select! {
            sent = self.send(&mut grant, request, (&authority, scheme)) => sent,
            refusal = watcher.lost() => Err(refusal),
        };
        let (connection, response) = match sent {
            Ok(sent) => sent,
            // What stopped the upload is why the upstream did not answer.
            Err(refusal) => return Err(Refused::granted(grant, self.cause(&upload).unwrap_or(refusal))),
        };
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return match self.switch((grant, &permit), (connection, response), key, asked).await {
                Ok(response) => Ok(response),
                Err((grant, refusal)) => Err(Refused::granted(*grant, refusal)),
            };
        }
        self.shared.audit.emit(record::request(grant.facts(), &permit, asked.clone(), status.as_u16()));
        let held =
            Held { shared: Arc::clone(&self.shared), grant, asked: asked.clone(), connection, upload, in_flight };
        let response = forward::rebuild_response(response, &method);
        Ok(response.map(|body| Either::Right(Streamed::new(body, held))))
    }

    /// The origin speaks another protocol from here on, if that was asked for and the answer is one to the question.
    async fn switch(
        &self,
        (grant, permit): (Grant, &RequestPermit),
        (connection, mut response): (Connection, Response<Incoming>),
        key: Option<HeaderValue>,
        asked: &Asked,
    ) -> Result<Response<Body>, (Box<Grant>, Refusal)> {
        let answered = key.is_some_and(|key| forward::accepts(&key, response.headers()));
        if !answered {
            return Err((Box::new(grant), UpstreamError::Upgrade.into()));
        }
        let Ok(upgraded) = hyper::upgrade::on(&mut response).await else {
            return Err((Box::new(grant), UpstreamError::Closed.into()));
        };
        self.shared.audit.emit(record::request(grant.facts(), permit, asked.clone(), response.status().as_u16()));
        let response = forward::rebuild_switch(response).map(|()| Either::Left(Full::new(Bytes::new())));
        let socket = Socket { grant, upstream: TokioIo::new(upgraded), connection };
        *lock(&self.opened) = Some(Opened::Socket(Box::new(socket)));
        Ok(response)
    }

    fn cause(&self, upload: &Progress) -> Option<Refusal> {
        upload.stopped().or_else(|| self.link.fault().map(Refusal::Request))
    }

    /// Where a request goes, if the policy in force allows a connection to it.
    fn place<B>(&self, request: &Request<B>) -> Result<(Grant, Authority, Scheme), Box<Refused>> {
        if let Some(pinned) = &self.pinned {
            pinned.named_by(request)?;
            let grant = Grant::ask(&self.shared, pinned.intent.clone()).map_err(Refused::asked)?;
            return Ok((grant, pinned.authority.clone(), pinned.scheme));
        }
        let text = request.uri().authority().map_or("", |a| a.as_str());
        let authority = Authority::parse(text, Some(Port::HTTP)).map_err(|e| Refused::early(Violation::from(e)))?;
        let grant = self.ask(Door::Forward, authority.clone())?;
        Ok((grant, authority, Scheme::Http))
    }

    /// Brings a request into the form that is judged, asks the policy, and makes of it what is sent.
    async fn judge(
        &self,
        grant: &mut Grant,
        request: &mut Request<Option<Incoming>>,
        asked: &mut Asked,
    ) -> Result<Judged, Refusal> {
        let terms = grant.permit().shared_terms();
        let (canonical, mut facts) = canonical(request, &terms)?;
        asked.path.clone_from(&facts.path);
        let size = request.body().as_ref().and_then(|body| hyper::body::Body::size_hint(body).exact());
        let most = terms.limits.request_body;
        if most.zip(size).is_some_and(|(most, size)| size > most) {
            return Err(Refusal::BodyTooLarge);
        }
        let mut held = None;
        if let Some(kind) = message::kind(terms.protocol) {
            let bounds = (&self.shared.room, &self.shared.config.timers);
            (facts.operations, held) = message::read(kind, &facts, &terms, request.body_mut(), bounds).await?;
        }
        let permit = grant.authorize(&facts)?;
        if !self.shared.rates.take(&terms) {
            return Err(Refusal::RateLimited);
        }
        let (body, upload) = match (held, request.body_mut().take()) {
            (Some(held), _) => (Outgoing::Whole(held), Progress::whole()),
            (None, Some(body)) => {
                let (body, upload) = Upload::new(body, grant.clone(), most);
                (Outgoing::Streamed(body), upload)
            }
            (None, None) => return Err(Violation::Line("no body").into()),
        };
        Ok(Judged { request: forward::rebuild(canonical.map(|()| body)), upload, permit })
    }

    /// Sends on a connection at rest, else on a new one. One that turns out to be closed before anything was sent is
    /// replaced.
    async fn send(
        &self,
        grant: &mut Grant,
        mut request: Request<Outgoing>,
        (authority, scheme): (&Authority, Scheme),
    ) -> Result<(Connection, Response<Incoming>), Refusal> {
        let failed = lock(&self.failed).take();
        if let Some(refusal) = failed {
            return Err(refusal);
        }
        let place = Place::new(grant.permit(), scheme);
        // A WebSocket takes its whole connection.
        let offered = if websocket(request.headers()) { PLAIN } else { self.offered };
        let limit = self.shared.config.timers.response;
        let mut stale = 0;
        loop {
            let kept = if stale < STALE { self.shared.origins.take(grant, &place, offered) } else { None };
            let mut connection = match kept {
                Some(connection) => connection,
                None => Connection::open(&self.shared, grant, scheme, offered).await?,
            };
            if let Some(handle) = connection.share() {
                // Other requests need not wait for the end of this one.
                self.shared.origins.keep(handle);
            }
            let (error, back) = match timeout(limit, connection.send(request, authority)).await {
                Ok(Ok(response)) => return Ok((connection, response)),
                Ok(Err((error, back))) => (error, back),
                Err(_) => (UpstreamError::Timeout, None),
            };
            match back {
                Some(back) if connection.reused && self.link.fault().is_none() => request = *back,
                _ => return Err(error.into()),
            }
            stale += 1;
        }
    }
}

/// A request that may be sent.
struct Judged {
    request: Request<Outgoing>,
    upload: Progress,
    permit: RequestPermit,
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

/// Whether a request asks for a WebSocket. HTTP/1 only: the guard lets no other upgrade pass.
fn websocket(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

fn socket_key(headers: &HeaderMap) -> Option<HeaderValue> {
    websocket(headers).then(|| headers.get(header::SEC_WEBSOCKET_KEY).cloned()).flatten()
}

/// Reads what a client sends behind a refused head, if it is little and comes soon: the connection can then be used
/// for the next request.
async fn drain(mut body: Incoming) {
    let read = async {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    timeout(DRAIN_TIME, read).await.ok();
}

/// A refusal and what is known about what was refused.
struct Refused {
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

    fn granted(grant: Grant, refusal: impl Into<Refusal>) -> Box<Self> {
        Box::new(Self { intent: None, grant: Some(grant), refusal: refusal.into() })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No value behind these locks is ever half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
