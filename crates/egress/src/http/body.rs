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
    ) -> Self {
        let idle = answering.held.shared.config.timers.idle;
        let (timer, passed) = (Box::pin(tokio::time::sleep(idle)), Arc::clone(&answering.held.shared.bodies));
        let mut watcher = answering.held.grant.clone();
        let lost = Box::pin(async move { watcher.lost().await });
        Self { inner, answering: Some(answering), scrubber, scrub, ready: VecDeque::new(), passed, idle, lost, timer }
    }

    fn complete(&mut self) {
        let scrubbed = self.scrubber.take();
        let Some(answering) = self.answering.take() else { return };
        let Answering { held, connection, upload } = *answering;
        if let Some(mut scrubber) = scrubbed {
            let mut rest = Vec::new();
            scrubber.finish(&mut rest);
            if !rest.is_empty() {
                self.ready.push_back(Frame::data(rest.into()));
            }
            if scrubber.places() > 0 {
                held.shown(scrubber.places());
            }
        }
        // An origin that answered before it had the whole request is not asked for anything on that connection.
        if upload.complete() {
            held.shared.origins.keep(connection);
        }
    }

    fn cut(&mut self, refusal: &Refusal) -> CutOff {
        if let Some(answering) = self.answering.take() {
            let Held { shared, grant, asked, in_flight, .. } = answering.held;
            shared.count_refusal();
            shared.audit.emit(record::request_refusal(grant.facts(), Some(asked), refusal));
            drop(in_flight);
        }
        CutOff
    }

    fn take(&mut self, frame: Frame<Bytes>) {
        let (Some(scrubber), Some(scrub)) = (&mut self.scrubber, &self.scrub) else {
            self.ready.push_back(frame);
            return;
        };
        match frame.into_data() {
            Ok(data) => {
                let mut out = Vec::with_capacity(data.len());
                scrubber.feed(&data, &mut out);
                if !out.is_empty() {
                    self.ready.push_back(Frame::data(out.into()));
                }
            }
            Err(frame) => {
                let Ok(mut trailers) = frame.into_trailers() else { return };
                scrub.fields(&mut trailers);
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
