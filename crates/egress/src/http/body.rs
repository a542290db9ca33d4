//! Response bodies: streamed, with a clock on the upstream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{forward::UpstreamError, guard::InFlight};

/// A refusal, or what the upstream sends.
pub(crate) type Body = Either<Full<Bytes>, Streamed>;

/// An upstream body that fails when nothing comes for too long. Holds the request's mark: it counts as being served
/// until its last byte.
pub(crate) struct Streamed {
    inner: Incoming,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    _in_flight: InFlight,
}

impl Streamed {
    pub(crate) fn new(inner: Incoming, idle: Duration, in_flight: InFlight) -> Self {
        Self { inner, idle, timer: Box::pin(tokio::time::sleep(idle)), _in_flight: in_flight }
    }
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.timer.as_mut().reset(Instant::now() + this.idle);
            return Poll::Ready(frame.map(|f| f.map_err(|e| UpstreamError::of(&e))));
        }
        ready!(this.timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(UpstreamError::Timeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
