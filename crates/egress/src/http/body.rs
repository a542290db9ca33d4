//! Response bodies: streamed, with a clock on the origin and an eye on the permission.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{guard::InFlight, outgoing::Progress};
use crate::{
    door::Shared,
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

/// What a response needs until its last byte.
pub(crate) struct Held {
    pub(crate) shared: Arc<Shared>,
    pub(crate) grant: Grant,
    pub(crate) asked: Asked,
    pub(crate) connection: Connection,
    pub(crate) upload: Progress,
    pub(crate) in_flight: InFlight,
}

/// An upstream body. It ends when nothing comes for too long or when the policy takes the permission back. Read to
/// its end, its connection may carry the next request; dropped before, the connection ends with it.
pub(crate) struct Streamed {
    inner: Incoming,
    held: Option<Box<Held>>,
    lost: Pin<Box<dyn Future<Output = Refusal> + Send>>,
    timer: Pin<Box<Sleep>>,
}

impl Streamed {
    pub(crate) fn new(inner: Incoming, held: Held) -> Self {
        let timer = Box::pin(tokio::time::sleep(held.shared.config.timers.idle));
        let mut watcher = held.grant.clone();
        let lost = Box::pin(async move { watcher.lost().await });
        Self { inner, held: Some(Box::new(held)), lost, timer }
    }

    fn complete(&mut self) {
        if let Some(held) = self.held.take() {
            // An origin that answered before it had the whole request is not asked for anything on that connection.
            if held.upload.complete() {
                held.shared.origins.keep(held.connection);
            }
        }
    }

    fn cut(&mut self, refusal: &Refusal) -> CutOff {
        if let Some(held) = self.held.take() {
            held.shared.count_refusal();
            held.shared.audit.emit(record::request_refusal(held.grant.facts(), Some(held.asked), refusal));
            drop(held.in_flight);
        }
        CutOff
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
        let Some(held) = &this.held else { return Poll::Ready(None) };
        let idle = held.shared.config.timers.idle;
        if let Poll::Ready(refusal) = this.lost.as_mut().poll(cx) {
            return Poll::Ready(Some(Err(this.cut(&refusal))));
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.timer.as_mut().reset(Instant::now() + idle);
                if this.inner.is_end_stream() {
                    this.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => Poll::Ready(Some(Err(this.cut(&UpstreamError::of(&e).into())))),
            Poll::Ready(None) => {
                this.complete();
                Poll::Ready(None)
            }
            Poll::Pending if this.timer.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Some(Err(this.cut(&UpstreamError::Timeout.into()))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
