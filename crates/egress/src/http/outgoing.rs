//! Request bodies on their way to an origin.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::{grant::Grant, rescue::Refusal};

/// A request body.
pub(crate) enum Outgoing {
    /// Read as it is sent.
    Streamed(Upload),
    /// Read whole before, because it says what the request asks for.
    Whole(Held),
}

/// A body in memory, with its place among those that may be.
pub(crate) struct Held {
    body: Full<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Held {
    pub(crate) fn new(bytes: Bytes, place: OwnedSemaphorePermit) -> Self {
        Self { body: Full::new(bytes), _place: place }
    }
}

/// A body that is streamed as long as the grant holds and the endpoint's bound is not reached.
pub(crate) struct Upload {
    inner: Incoming,
    grant: Grant,
    /// Bytes that may still come.
    left: Option<u64>,
    progress: Progress,
}

/// How an upload goes, for whoever sent the request.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<State>);

#[derive(Default)]
struct State {
    complete: AtomicBool,
    stopped: Mutex<Option<Refusal>>,
}

impl Progress {
    /// Of a body that is in memory: the origin may take it as slowly as it likes.
    pub(crate) fn whole() -> Self {
        let progress = Self::default();
        progress.0.complete.store(true, Ordering::Relaxed);
        progress
    }

    /// Why it was stopped, if the door stopped it.
    pub(crate) fn stopped(&self) -> Option<Refusal> {
        self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether its last byte was handed on.
    pub(crate) fn complete(&self) -> bool {
        self.0.complete.load(Ordering::Relaxed)
    }

    fn stop(&self, refusal: Refusal) -> UploadStopped {
        self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refusal);
        UploadStopped
    }
}

/// An upload was stopped; [`Progress`] says why.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the request body was stopped")]
pub(crate) struct UploadStopped;

impl Upload {
    pub(crate) fn new(inner: Incoming, grant: Grant, most: Option<u64>) -> (Self, Progress) {
        let progress = Progress::default();
        let upload = Self { inner, grant, left: most, progress: progress.clone() };
        upload.note_end();
        (upload, progress)
    }

    fn note_end(&self) {
        if self.inner.is_end_stream() {
            self.progress.0.complete.store(true, Ordering::Relaxed);
        }
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, UploadStopped> {
        if let Err(refusal) = self.grant.check() {
            return Err(self.progress.stop(refusal));
        }
        let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) else { return Ok(frame) };
        match left.checked_sub(data.len() as u64) {
            Some(rest) => *left = rest,
            None => return Err(self.progress.stop(Refusal::BodyTooLarge)),
        }
        Ok(frame)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = UploadStopped;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadStopped>>> {
        match &mut *self {
            Self::Whole(held) => {
                Pin::new(&mut held.body).poll_frame(cx).map(|f| f.map(|f| f.map_err(|never| match never {})))
            }
            Self::Streamed(upload) => match Pin::new(&mut upload.inner).poll_frame(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => {
                    upload.progress.0.complete.store(true, Ordering::Relaxed);
                    Poll::Ready(None)
                }
                // The client broke off, or broke framing, which its guard remembers.
                Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(UploadStopped))),
                Poll::Ready(Some(Ok(frame))) => {
                    let passed = upload.pass(frame);
                    upload.note_end();
                    Poll::Ready(Some(passed))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(held) => held.body.is_end_stream(),
            Self::Streamed(upload) => upload.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(held) => held.body.size_hint(),
            Self::Streamed(upload) => upload.inner.size_hint(),
        }
    }
}
