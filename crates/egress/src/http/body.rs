//! Response bodies: streamed, with a clock on the origin and an eye on the permission.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use stockade_policy::RequestPermit;
use stockade_secrets::{Response as Scrub, Scrubber};
use tokio::time::{Instant, Sleep};

use super::{guard::InFlight, outgoing::Progress};
use crate::{
    door::{Bodies, Shared},
    grant::Grant,
    record::{self, Asked},
    rescue::Refusal,
    upstream::{Connection, UpstreamError},
};

/// A refusal, or what the upstream sends.
pub(crate) type Body = Either<Full<Bytes>, Streamed>;

/// A response was cut off. The client sees that it is not complete; the log says why.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the response was cut off")]
pub(crate) struct CutOff;

/// What a request was, until its answer is complete.
pub(crate) struct Held {
    pub(crate) shared: Arc<Shared>,
    pub(crate) grant: Grant,
    pub(crate) permit: RequestPermit,
    pub(crate) asked: Asked,
    in_flight: InFlight,
}

/// The same with the connection that it was answered on.
pub(crate) struct Answering {
    held: Held,
    connection: Connection,
    upload: Progress,
}

impl Held {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        (grant, permit): (Grant, RequestPermit),
        asked: Asked,
        in_flight: InFlight,
    ) -> Self {
        Self { shared: Arc::clone(shared), grant, permit, asked, in_flight }
    }

    /// Says that the request was let through and answered.
    pub(crate) fn answered(&self, status: StatusCode) {
        let event = record::request(self.grant.facts(), &self.permit, self.asked.clone(), status.as_u16());
        self.shared.audit.emit(event);
    }

    /// Says that the answer held values of credentials, which were taken out.
    pub(crate) fn shown(&self, count: u64) {
        self.shared.audit.emit(record::shown(self.grant.permit().host(), count));
    }

    pub(crate) fn on(self, connection: Connection, upload: Progress) -> Box<Answering> {
        Box::new(Answering { held: self, connection, upload })
    }
}

/// An upstream body. It ends when nothing comes for too long or when the policy takes the permission back. Read to
/// its end, its connection may carry the next request; dropped before, the connection ends with it.
pub(crate) struct Streamed {
    inner: Incoming,
    answering: Option<Box<Answering>>,
    /// Takes values of credentials out.
    scrubber: Option<Scrubber>,
    scrub: Option<Scrub>,
    /// What was taken out besides.
    taken_out: u64,
    /// An answer that has no content: what an origin sends as such over HTTP/2 is nobody's.
    bodiless: bool,
    /// What may go on.
    ready: VecDeque<Frame<Bytes>>,
    passed: Arc<Bodies>,
    idle: Duration,
    lost: Pin<Box<dyn Future<Output = Refusal> + Send>>,
    timer: Pin<Box<Sleep>>,
}

impl Streamed {
    pub(crate) fn new(
        inner: Incoming,
        answering: Box<Answering>,
        (scrub, scrubber): (Option<Scrub>, Option<Scrubber>),
        bodiless: bool,
    ) -> Self {
        let idle = answering.held.shared.config.timers.idle;
        let (timer, passed) = (Box::pin(tokio::time::sleep(idle)), Arc::clone(&answering.held.shared.bodies));
        let mut watcher = answering.held.grant.clone();
        let lost = Box::pin(async move { watcher.lost().await });
        let (answering, ready) = (Some(answering), VecDeque::new());
        Self { inner, answering, scrubber, scrub, taken_out: 0, bodiless, ready, passed, idle, lost, timer }
    }

    /// Says that values were taken out, if any were, however the answer ended.
    fn say_taken_out(&mut self, held: &Held) {
        let count = std::mem::take(&mut self.taken_out) + self.scrubber.take().map_or(0, |s| s.places());
        if count > 0 {
            held.shown(count);
        }
    }

    fn complete(&mut self) {
        let Some(answering) = self.answering.take() else { return };
        let Answering { held, connection, upload } = *answering;
        if let Some(scrubber) = &mut self.scrubber {
            let mut rest = Vec::new();
            scrubber.finish(&mut rest);
            if !rest.is_empty() {
                self.ready.push_back(Frame::data(rest.into()));
            }
        }
        self.say_taken_out(&held);
        // An origin that answered before it had the whole request is not asked for anything on that connection.
        if upload.complete() {
            held.shared.origins.keep(connection);
        }
    }

    fn cut(&mut self, refusal: &Refusal) -> CutOff {
        if let Some(answering) = self.answering.take() {
            self.say_taken_out(&answering.held);
            let Held { shared, grant, asked, in_flight, .. } = answering.held;
            shared.count_refusal();
            shared.audit.emit(record::request_refusal(grant.facts(), Some(asked), refusal));
            drop(in_flight);
        }
        CutOff
    }

    fn take(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(_) if self.bodiless => {}
            Ok(data) => {
                let data = match &mut self.scrubber {
                    Some(scrubber) => {
                        let mut out = Vec::with_capacity(data.len());
                        scrubber.feed(&data, &mut out);
                        out.into()
                    }
                    None => data,
                };
                if !data.is_empty() {
                    self.ready.push_back(Frame::data(data));
                }
            }
            Err(frame) => {
                let Ok(mut trailers) = frame.into_trailers() else { return };
                if let Some(scrub) = &self.scrub {
                    self.taken_out += scrub.fields(&mut trailers) as u64;
                }
                self.complete();
                self.ready.push_back(Frame::trailers(trailers));
            }
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // A body without a byte is never asked for one.
        if self.inner.is_end_stream() {
            self.complete();
        }
        // Nobody read it to its end.
        if let Some(answering) = self.answering.take() {
            self.say_taken_out(&answering.held);
        }
    }
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let this = &mut *self;
        loop {
            if let Some(frame) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if this.answering.is_none() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(refusal) = this.lost.as_mut().poll(cx) {
                return Poll::Ready(Some(Err(this.cut(&refusal))));
            }
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.timer.as_mut().reset(Instant::now() + this.idle);
                    let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                    this.passed.back.fetch_add(bytes, Ordering::Relaxed);
                    this.take(frame);
                    if this.inner.is_end_stream() {
                        this.complete();
                    }
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Some(Err(this.cut(&UpstreamError::of(&e).into())))),
                Poll::Ready(None) => this.complete(),
                Poll::Pending => {
                    ready!(this.timer.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(this.cut(&UpstreamError::Timeout.into()))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && (self.answering.is_none() || (self.scrubber.is_none() && self.inner.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
