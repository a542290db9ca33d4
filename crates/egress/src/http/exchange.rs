//! One request and its answer: judged, dressed with what the command does not have, sent, and answered.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use stockade_l7::{
    protocol::{self, Kind},
    websocket::Handshake,
};
use stockade_policy::RequestPermit;
use stockade_secrets::{Body as Plan, Messages, Passage, Response as Scrub};
use tokio::time::timeout;

use super::{
    body::{Body, Held, Streamed},
    canonical::{canonical, fields},
    forward,
    guard::InFlight,
    head::Violation,
    message,
    outgoing::{Outgoing, Progress, Upload},
    session::{PLAIN, Refused, Session, lock},
    socket::{Socket, Watch},
};
use crate::{
    door::Shared,
    grant::Grant,
    record::{self, Asked},
    rescue::Refusal,
    upstream::{Connection, Place, Scheme, Speech, UpstreamError, host_field},
};

/// Requests that a connection at rest may have been closed under, before a new one is dialled.
const STALE: usize = 4;

/// A request that may be sent.
struct Judged {
    request: Request<Outgoing>,
    upload: Progress,
    permit: RequestPermit,
    /// What it asks for, if that is a WebSocket.
    socket: Option<Wanted>,
}

/// A WebSocket that is asked for.
struct Wanted {
    handshake: Handshake,
    /// How its messages are judged: their reader, and the request that they belong to.
    judge: Option<(Kind, stockade_policy::Request)>,
}

/// What the credentials of a request have to say about what follows it.
struct Dress {
    messages: Messages,
    scrub: Scrub,
}

/// What the command is answered, and the WebSocket that begins with that answer.
pub(super) type Answer = (Response<Body>, Option<Box<Socket>>);

/// What came of a request.
struct Answered {
    connection: Connection,
    response: Response<Incoming>,
    dress: Option<Dress>,
}

impl Session {
    /// Verdict on the place, canonical form, verdict on the request, upstream, answer. The body is taken out of the
    /// request once it is on its way.
    pub(super) async fn exchange(
        &self,
        request: &mut Request<Option<Incoming>>,
        asked: &mut Asked,
        in_flight: InFlight,
    ) -> Result<Answer, Box<Refused>> {
        let (mut grant, authority, scheme) = self.place(request)?;
        if let Err(refusal) = grant.confirm().await {
            return Err(Refused::granted(grant, refusal));
        }
        let (method, extended) = (request.method().clone(), request.version() == Version::HTTP_2);
        let host = host_field(&authority, scheme);
        let judged = match self.judge(&mut grant, request, asked, &host).await {
            Ok(judged) => judged,
            Err(refusal) => {
                return Err(self.refused(grant, self.link.broken_body().map_or(refusal, Refusal::Request)));
            }
        };
        let Judged { request, upload, permit, socket } = judged;
        let mut watcher = grant.clone();
        let sent = tokio::select! {
            sent = self.send(&mut grant, (&permit, asked), request, scheme) => sent,
            refusal = watcher.lost() => Err(refusal),
        };
        let answered = match sent {
            Ok(answered) => answered,
            // What stopped the upload is why the upstream did not answer.
            Err(refusal) => return Err(self.refused(grant, self.cause(&upload).unwrap_or(refusal))),
        };
        let held = Held::new(&self.shared, (grant, permit), asked.clone(), in_flight);
        let status = answered.response.status();
        let answer = match socket {
            _ if status == StatusCode::SWITCHING_PROTOCOLS => switch(held, answered, socket).await,
            // To an extended CONNECT it would mean that the WebSocket is there; and where messages are what is judged, it
            // answers a question that nobody was allowed to ask.
            Some(wanted) if (extended || wanted.judge.is_some()) && status.is_success() => {
                Err((Box::new(held.grant), UpstreamError::Upgrade.into()))
            }
            _ => stream(held, answered, (upload, &method)).map(|response| (response, None)),
        };
        answer.map_err(|(grant, refusal)| self.refused(*grant, refusal))
    }

    /// Somebody who tries a credential where it does not belong is worth a look, besides the refusal.
    fn refused(&self, grant: Grant, refusal: Refusal) -> Box<Refused> {
        if let Refusal::Credential(why) = &refusal
            && why.is_finding()
        {
            self.shared.audit.emit(record::finding(why.reason(), &why.to_string(), 1));
        }
        Refused::granted(grant, refusal)
    }

    fn cause(&self, upload: &Progress) -> Option<Refusal> {
        upload.stopped().or_else(|| self.link.broken_body().map(Refusal::Request))
    }

    /// Brings a request into the form that is judged, asks the policy, and makes of it what is sent.
    async fn judge(
        &self,
        grant: &mut Grant,
        request: &mut Request<Option<Incoming>>,
        asked: &mut Asked,
        host: &str,
    ) -> Result<Judged, Refusal> {
        let terms = grant.permit().shared_terms();
        let (canonical, mut facts) = canonical(request, &terms, host)?;
        asked.path.clone_from(&facts.path);
        let size = request.body().as_ref().and_then(|body| body.size_hint().exact());
        let most = terms.limits.request_body;
        if most.zip(size).is_some_and(|(most, size)| size > most) {
            return Err(Refusal::BodyTooLarge(terms));
        }
        let (mut held, kind) = (None, message::kind(terms.protocol));
        let mut socket = None;
        let permit = match kind {
            Some(kind @ (Kind::GraphQl | Kind::JsonRpc)) if websocket(request.headers()) => {
                protocol::opening(kind, &facts.query)?;
                let permit = grant.authorize_socket(&facts)?;
                socket = Some(Wanted::of(request, Some((kind, facts)))?);
                permit
            }
            Some(Kind::Grpc | Kind::Mcp) if websocket(request.headers()) => return Err(Violation::UnreadSocket.into()),
            Some(kind) => {
                let bounds = (&self.shared.room, &self.shared.config.timers);
                (facts.operations, held) = message::read(kind, &facts, &terms, request.body_mut(), bounds).await?;
                grant.authorize(&facts)?
            }
            None => grant.authorize(&facts)?,
        };
        if websocket(request.headers()) && socket.is_none() {
            socket = Some(Wanted::of(request, None)?);
        }
        if let Err(wait) = self.shared.rates.take(&terms) {
            // Rounded up: who waits that long is let through.
            return Err(Refusal::RateLimited(terms, wait.as_secs() + 1));
        }
        let (body, upload) = match (held, request.body_mut().take()) {
            (Some(held), _) => {
                self.shared.bodies.out.fetch_add(held.len(), Ordering::Relaxed);
                (Outgoing::Whole(held), Progress::whole())
            }
            (None, Some(body)) => {
                let (body, upload) = Upload::new(body, grant.clone(), Arc::clone(&self.shared.bodies), most);
                (Outgoing::Streamed(Box::new(body)), upload)
            }
            (None, None) => return Err(Violation::Line("no body").into()),
        };
        Ok(Judged { request: canonical.map(|()| body), upload, permit, socket })
    }

    /// Sends on a connection at rest, else on a new one. One that turns out to be closed before anything was sent is
    /// replaced.
    async fn send(
        &self,
        grant: &mut Grant,
        (permit, asked): (&RequestPermit, &Asked),
        request: Request<Outgoing>,
        scheme: Scheme,
    ) -> Result<Answered, Refusal> {
        let failed = lock(&self.failed).take();
        if let Some(refusal) = failed {
            return Err(refusal);
        }
        // A WebSocket takes its whole connection.
        let socket = websocket(request.headers());
        let offered = if socket { PLAIN } else { self.offered };
        let place = Place::new(grant.permit(), scheme);
        let limit = self.shared.config.timers.response;
        let mut connection = self.connection(grant, &place, (scheme, offered), 0).await?;
        let (mut request, dress) = self.dress(grant, permit, &connection, request).await?;
        for stale in 1.. {
            if socket && connection.speech() == Speech::Http2 {
                return Err(UpstreamError::NoSocket.into());
            }
            if let Some(handle) = connection.share() {
                // Other requests need not wait for the end of this one.
                self.shared.origins.keep(handle);
            }
            let unanswered = Unanswered { shared: &self.shared, grant: &*grant, permit, asked };
            let sent = timeout(limit, connection.send(request)).await;
            unanswered.over();
            let (error, back) = match sent {
                Ok(Ok(response)) => return Ok(Answered { connection, response, dress }),
                Ok(Err((error, back))) => (error, back),
                Err(_) => (UpstreamError::Timeout, None),
            };
            match back {
                Some(back) if connection.reused && self.link.fault().is_none() => request = *back,
                _ => return Err(error.into()),
            }
            connection = self.connection(grant, &place, (scheme, offered), stale).await?;
        }
        Err(UpstreamError::Closed.into())
    }

    async fn connection(
        &self,
        grant: &mut Grant,
        place: &Place,
        (scheme, offered): (Scheme, &'static [Speech]),
        stale: usize,
    ) -> Result<Connection, Refusal> {
        let kept = if stale < STALE { self.shared.origins.take(grant, place, offered) } else { None };
        match kept {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.shared, grant, scheme, offered).await,
        }
    }

    /// Puts credentials into a request, last of all, and has the rest of it searched for what stands for them.
    async fn dress(
        &self,
        grant: &Grant,
        permit: &RequestPermit,
        connection: &Connection,
        request: Request<Outgoing>,
    ) -> Result<(Request<Outgoing>, Option<Dress>), Refusal> {
        let Some(credentials) = grant.credentials() else { return Ok((request, None)) };
        let (mut parts, body) = request.into_parts();
        let passage = credentials.request(permit, connection.verified(), &mut parts)?;
        let Passage { body: plan, messages, response: scrub, .. } = passage;
        let body = match (plan, body) {
            (Plan::Stream(search), Outgoing::Streamed(upload)) => {
                Outgoing::Streamed(Box::new(upload.searched(search, &self.shared.room)))
            }
            (Plan::Stream(mut search), Outgoing::Whole(held)) => Outgoing::Whole(held.change(|bytes| {
                let passed = [search.pass(bytes)?, search.finish()?].concat();
                Ok::<_, stockade_secrets::Refusal>(passed.into())
            })?),
            (Plan::Collect(collect), Outgoing::Streamed(upload)) => {
                let place = self.shared.room.take(&self.shared.config.timers).await?;
                let collected = timeout(self.shared.config.timers.response, upload.collect(collect.limit())).await;
                let bytes = collected.unwrap_or(Err(Violation::Slow.into()))?;
                let bytes = collect.finish(&mut parts, bytes)?;
                Outgoing::Whole(super::outgoing::Held::new(bytes, place))
            }
            (Plan::Collect(collect), Outgoing::Whole(held)) => {
                Outgoing::Whole(held.change(|bytes| collect.finish(&mut parts, bytes))?)
            }
        };
        Ok((Request::from_parts(parts, body), Some(Dress { messages, scrub })))
    }
}

/// The origin speaks another protocol from here on, if that was asked for and the answer is one to the question.
async fn switch(held: Held, answered: Answered, wanted: Option<Wanted>) -> Result<Answer, (Box<Grant>, Refusal)> {
    let Answered { connection, mut response, dress } = answered;
    let told = fields(response.headers());
    let Some(wanted) = wanted.filter(|w| w.handshake.response(response.status().as_u16(), &told).is_ok()) else {
        return Err((Box::new(held.grant), UpstreamError::Upgrade.into()));
    };
    let Ok(upgraded) = hyper::upgrade::on(&mut response).await else {
        return Err((Box::new(held.grant), UpstreamError::Closed.into()));
    };
    held.answered(response.status());
    let mut response = forward::rebuild_switch(response).map(|()| Either::Left(Full::new(Bytes::new())));
    let found = dress.as_ref().map_or(0, |dress| dress.scrub.fields(response.headers_mut()));
    if found > 0 {
        held.shown(found as u64);
    }
    // Messages of an origin that is sent no value need not be read.
    let (messages, scrub) = dress.map_or((None, None), |d| (Some(d.messages), d.scrub.holds_any().then_some(d.scrub)));
    let watch = (wanted.judge.is_some() || messages.is_some()).then(|| Watch { judge: wanted.judge, messages, scrub });
    let socket = Socket { grant: held.grant, upstream: TokioIo::new(upgraded), connection, watch };
    Ok((response, Some(Box::new(socket))))
}

/// An answer as it comes, with values that it must not show taken out.
fn stream(
    held: Held,
    answered: Answered,
    (upload, method): (Progress, &Method),
) -> Result<Response<Body>, (Box<Grant>, Refusal)> {
    let Answered { connection, response, dress } = answered;
    let status = response.status();
    let bodiless = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let mut response = forward::rebuild_response(response, method);
    let (scrub, mut scrubber) = (dress.map(|dress| dress.scrub), None);
    if let Some(scrub) = &scrub {
        let found = scrub.fields(response.headers_mut());
        if found > 0 {
            held.shown(found as u64);
        }
        if !bodiless {
            scrubber = match scrub.body(response.headers()) {
                Ok(scrubber) => scrubber,
                Err(e) => return Err((Box::new(held.grant), e.into())),
            };
        }
    }
    held.answered(status);
    Ok(response
        .map(|body| Either::Right(Streamed::new(body, held.on(connection, upload), (scrub, scrubber), bodiless))))
}

/// A request on its way to the origin. What ends before it is answered - its client left, its connection was closed - is
/// recorded all the same: the origin may have seen it.
struct Unanswered<'a> {
    shared: &'a Shared,
    grant: &'a Grant,
    permit: &'a RequestPermit,
    asked: &'a Asked,
}

impl Unanswered<'_> {
    /// Somebody else records what came of it.
    fn over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.shared.audit.emit(record::unanswered(self.grant.facts(), self.permit, self.asked.clone()));
    }
}

impl Wanted {
    fn of<B>(request: &Request<B>, judge: Option<(Kind, stockade_policy::Request)>) -> Result<Self, Refusal> {
        let handshake = Handshake::request(request.method().as_str(), &fields(request.headers()));
        Ok(Self { handshake: handshake.map_err(|_| Violation::Upgrade)?, judge })
    }
}

/// Whether a request asks for a WebSocket. HTTP/1 only: the guard lets no other upgrade pass.
pub(super) fn websocket(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}
