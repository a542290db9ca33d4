//! The requests of one connection, each judged alone.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use stockade_policy::{Door, Intent};
use stockade_types::{Authority, Generation, Port};
use tokio::{net::TcpStream, sync::Notify, time::timeout};

use super::{
    body::{Body, Streamed},
    forward::{self, Upstream, UpstreamError},
    guard::{InFlight, Link},
    head::{Surface, Violation},
};
use crate::{
    door::Shared,
    grant::Grant,
    intent,
    record::{self, Asked, Facts},
    rescue::Refusal,
    tunnel::Tunnel,
};

/// Which requests a session serves.
pub(crate) enum Front {
    /// Requests to the proxy.
    Proxy,
    /// Plain HTTP inside a connection that was permitted for one host.
    Host(Box<Inside>),
}

/// A permitted connection whose client speaks plain HTTP.
pub(crate) struct Inside {
    pub(crate) grant: Grant,
    /// The name the client knows the host by: the only one its requests may carry.
    pub(crate) authority: Authority,
    /// Dialled already, where the door had to.
    pub(crate) upstream: Option<TcpStream>,
}

impl Front {
    pub(crate) fn surface(&self) -> Surface {
        match self {
            Self::Proxy => Surface::Proxy,
            Self::Host(inside) => Surface::Host(inside.authority.clone()),
        }
    }
}

/// One connection.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    door: Door,
    /// Where the connection may only go to one host.
    pinned: Option<(Intent, Authority)>,
    link: Link,
    /// The upstream of the last request, kept for the next one to the same host.
    upstream: tokio::sync::Mutex<Option<Upstream>>,
    /// Dialled by the door for the first request.
    dialled: Mutex<Option<(TcpStream, Grant)>>,
    /// Opened by a CONNECT that was just answered.
    tunnel: Mutex<Option<Tunnel>>,
    /// The grant of the response being streamed.
    current: Mutex<Option<Grant>>,
    granted: Notify,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, front: Front, link: Link) -> Self {
        let (door, pinned, dialled) = match front {
            Front::Proxy => (Door::Forward, None, None),
            Front::Host(inside) => {
                let Inside { grant, authority, upstream } = *inside;
                let intent = grant.intent().clone();
                (intent.door, Some((intent, authority)), upstream.map(|u| (u, grant)))
            }
        };
        Self {
            shared,
            door,
            pinned,
            link,
            upstream: tokio::sync::Mutex::default(),
            dialled: Mutex::new(dialled),
            tunnel: Mutex::default(),
            current: Mutex::default(),
            granted: Notify::new(),
        }
    }

    /// What is known when there is no request to name.
    pub(crate) fn facts(&self, generation: Generation) -> Facts<'_> {
        Facts { door: self.door, intent: self.pinned.as_ref().map(|(intent, _)| intent), permit: None, generation }
    }

    /// The tunnel that a CONNECT opened.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        lock(&self.tunnel).take()
    }

    /// Why the connection ends without an answer to what came last: said instead of the server, which saw nothing.
    pub(crate) fn closing_refusal(&self) -> Option<Refusal> {
        (!self.link.busy()).then(|| self.link.fault().map(Refusal::Request)).flatten()
    }

    /// Waits until the response being streamed loses its permission.
    pub(crate) async fn lost(&self) -> Refusal {
        loop {
            let current = lock(&self.current).clone();
            let granted = self.granted.notified();
            match current {
                None => granted.await,
                Some(mut grant) => tokio::select! {
                    refusal = grant.lost() => if self.link.busy() { return refusal },
                    () = granted => {}
                },
            }
        }
    }

    /// Says that the response being streamed was cut off.
    pub(crate) fn report_lost(&self, refusal: &Refusal) {
        self.shared.count_refusal();
        if let Some(grant) = &*lock(&self.current) {
            grant.report(&self.shared, refusal);
        }
    }

    /// Serves one request. Every way out has an event.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let in_flight = self.link.begin();
        let connect = request.method() == Method::CONNECT;
        let asked = Asked {
            method: request.method().to_string(),
            path: if connect { String::new() } else { request.uri().path().to_owned() },
        };
        let served =
            if connect { self.connect(&request).await } else { self.forward(request, asked.clone(), in_flight).await };
        served.unwrap_or_else(|refused| self.refuse(*refused, asked, connect))
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
        if connect {
            // What follows a CONNECT is not a request, so nothing more can be read from this connection.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// CONNECT: verdict, then name, then address, then `200`.
    async fn connect(&self, request: &Request<Incoming>) -> Result<Response<Body>, Box<Refused>> {
        let text = request.uri().authority().map_or("", |a| a.as_str());
        let authority = Authority::parse(text, None).map_err(|e| Refused::early(Violation::from(e)))?;
        let mut grant = self.ask(Door::Connect, authority.clone())?;
        let dialled = grant.dial(&self.shared).await.map_err(Refusal::from);
        match dialled.and_then(|upstream| grant.check().map(|()| upstream)) {
            Ok(upstream) => *lock(&self.tunnel) = Some(Tunnel { grant, authority, upstream }),
            Err(refusal) => return Err(Refused::granted(grant, refusal)),
        }
        Ok(Response::new(Either::Left(Full::new(Bytes::new()))))
    }

    fn ask(&self, door: Door, authority: Authority) -> Result<Grant, Box<Refused>> {
        let intent = intent::of(door, authority, &self.shared.pool).map_err(Refused::asked)?;
        Grant::ask(&self.shared, intent).map_err(Refused::asked)
    }

    /// Any other request: verdict, upstream, answer.
    async fn forward(
        &self,
        request: Request<Incoming>,
        asked: Asked,
        in_flight: InFlight,
    ) -> Result<Response<Body>, Box<Refused>> {
        let authority = self.authority(&request)?;
        let grant = match &self.pinned {
            Some((intent, _)) => Grant::ask(&self.shared, intent.clone()).map_err(Refused::asked)?,
            None => self.ask(Door::Forward, authority.clone())?,
        };
        let method = request.method().clone();
        let request = forward::rebuild(request, &authority);
        let mut watcher = grant.clone();
        let sent = tokio::select! {
            sent = self.send(grant, request) => sent,
            refusal = watcher.lost() => Err(Refused::granted(watcher.clone(), refusal)),
        };
        let (grant, response) = match sent {
            Ok(sent) => sent,
            Err(refused) => {
                // What was sent may still be answered: the connection is of no more use.
                *self.upstream.lock().await = None;
                return Err(refused);
            }
        };
        self.shared.audit.emit(record::request(grant.facts(), asked, response.status().as_u16()));
        *lock(&self.current) = Some(grant);
        self.granted.notify_one();
        let idle = self.shared.config.timers.idle;
        Ok(forward::rebuild_response(response, &method).map(|body| Either::Right(Streamed::new(body, idle, in_flight))))
    }

    fn authority(&self, request: &Request<Incoming>) -> Result<Authority, Box<Refused>> {
        if let Some((_, authority)) = &self.pinned {
            return Ok(authority.clone());
        }
        let text = request.uri().authority().map_or("", |a| a.as_str());
        Authority::parse(text, Some(Port::HTTP)).map_err(|e| Refused::early(Violation::from(e)))
    }

    /// Sends on the kept connection where it serves, else on a new one. A kept connection that turns out to be
    /// closed before anything was sent is replaced once.
    async fn send(
        &self,
        mut grant: Grant,
        mut request: Request<Incoming>,
    ) -> Result<(Grant, Response<Incoming>), Box<Refused>> {
        let mut kept = self.upstream.lock().await;
        let limit = self.shared.config.timers.response;
        loop {
            let reused = kept.as_ref().is_some_and(|u| u.serves(grant.permit()));
            if !reused {
                *kept = None;
                *kept = Some(self.open(&mut grant).await.map_err(|e| Refused::granted(grant.clone(), e))?);
            }
            let Some(upstream) = kept.as_mut() else { continue };
            let (error, back) = match timeout(limit, upstream.send(request)).await {
                Ok(Ok(response)) => return Ok((grant, response)),
                Ok(Err((error, back))) => (error, back),
                Err(_) => (UpstreamError::Timeout, None),
            };
            *kept = None;
            match (reused, back, self.link.fault()) {
                (_, _, Some(violation)) => return Err(Refused::granted(grant, violation)),
                (true, Some(back), None) => request = *back,
                _ => return Err(Refused::granted(grant, error)),
            }
        }
    }

    async fn open(&self, grant: &mut Grant) -> Result<Upstream, Refusal> {
        let dialled = lock(&self.dialled).take();
        let stream = match dialled {
            Some((stream, mut first)) => {
                first.check()?;
                stream
            }
            None => grant.dial(&self.shared).await?,
        };
        Ok(Upstream::new(stream, grant.permit().clone()).await?)
    }
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
