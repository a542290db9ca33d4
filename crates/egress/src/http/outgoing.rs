//! Request bodies on their way to an origin.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use stockade_l7::Unreadable;
use stockade_secrets::Stream as Search;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    arriving::Arriving,
    head::Violation,
    message::{Piece, Room},
};
use crate::{door::Bodies, grant::Grant, rescue::Refusal};

/// A request body.
pub(crate) enum Outgoing {
    /// Read as it is sent.
    Streamed(Box<Upload>),
    /// Read whole before, because it says what the request asks for.
    Whole(Held),
}

/// A body in memory, with its place among those that may be.
pub(crate) struct Held {
    bytes: Bytes,
    place: OwnedSemaphorePermit,
}

impl Held {
    pub(crate) fn new(bytes: Bytes, place: OwnedSemaphorePermit) -> Self {
        Self { bytes, place }
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The same place with other bytes.
    pub(crate) fn change<E>(self, change: impl FnOnce(Bytes) -> Result<Bytes, E>) -> Result<Self, E> {
        Ok(Self { bytes: change(self.bytes)?, place: self.place })
    }
}

/// A body that is streamed as long as the grant holds and the endpoint's bound is not reached.
pub(crate) struct Upload {
    inner: Arriving,
    grant: Grant,
    passed: Arc<Bodies>,
    /// Bytes that may still come.
    left: Option<u64>,
    /// Looks for placeholders in it.
    search: Option<Box<Search>>,
    /// For a chunk of it that must be whole before it goes on.
    piece: Option<(Piece, Room)>,
    /// What was searched and may go on.
    ready: VecDeque<Frame<Bytes>>,
    /// Whether all of it was read.
    ended: bool,
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
    pub(crate) fn new(inner: Incoming, grant: Grant, passed: Arc<Bodies>, most: Option<u64>) -> (Self, Progress) {
        let progress = Progress::default();
        let ended = inner.is_end_stream();
        let upload = Self {
            inner: Arriving::new(inner),
            grant,
            passed,
            left: most,
            search: None,
            piece: None,
            ready: VecDeque::new(),
            ended,
            progress: progress.clone(),
        };
        upload.note_end();
        (upload, progress)
    }

    /// The same, looked through as it passes.
    pub(crate) fn searched(mut self, search: Search, room: &Room) -> Self {
        self.search = Some(Box::new(search));
        self.piece = Some((Piece::default(), room.clone()));
        self
    }

    /// Reads all of it, within a bound.
    pub(crate) async fn collect(self, most: usize) -> Result<Bytes, Refusal> {
        let progress = self.progress.clone();
        let mut body = Outgoing::Streamed(Box::new(self));
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Err(progress.stopped().unwrap_or(Violation::Line("no body").into())) };
            let Some(data) = frame.data_ref() else { continue };
            if read.len() + data.len() > most {
                return Err(Refusal::Unreadable(Unreadable::TooLarge));
            }
            read.extend_from_slice(data);
        }
        Ok(read.freeze())
    }

    fn is_over(&self) -> bool {
        self.ended && self.ready.is_empty()
    }

    fn note_end(&self) {
        if self.is_over() {
            self.progress.0.complete.store(true, Ordering::Relaxed);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadStopped>>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.note_end();
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.ended {
                self.note_end();
                return Poll::Ready(None);
            }
            let taken = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => self.finish(),
                Some(Ok(frame)) => self.take(frame),
                // The client broke off, or broke framing, which its guard remembers.
                Some(Err(_)) => return Poll::Ready(Some(Err(UploadStopped))),
            };
            if let Err(refusal) = taken {
                return Poll::Ready(Some(Err(self.progress.stop(refusal))));
            }
        }
    }

    /// Counts and searches a frame.
    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Refusal> {
        self.grant.check()?;
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.trailers(frame),
        };
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(data.len() as u64)
                .ok_or_else(|| Refusal::BodyTooLarge(self.grant.permit().shared_terms()))?;
        }
        self.passed.out.fetch_add(data.len() as u64, Ordering::Relaxed);
        let data = match &mut self.search {
            Some(search) => {
                let data = search.pass(data)?;
                if let Some((piece, room)) = &mut self.piece {
                    piece.holds(search.held(), room)?;
                }
                data
            }
            None => data,
        };
        if !data.is_empty() {
            self.ready.push_back(Frame::data(data));
        }
        if self.inner.is_end_stream() { self.finish() } else { Ok(()) }
    }

    fn trailers(&mut self, frame: Frame<Bytes>) -> Result<(), Refusal> {
        let Ok(mut trailers) = frame.into_trailers() else { return Ok(()) };
        self.finish()?;
        if let Some(search) = &self.search {
            search.trailers(&mut trailers)?;
        }
        self.ready.push_back(Frame::trailers(trailers));
        Ok(())
    }

    /// Nothing more comes but what was held back.
    fn finish(&mut self) -> Result<(), Refusal> {
        if let (Some(search), false) = (&mut self.search, self.ended) {
            let rest = search.finish()?;
            if !rest.is_empty() {
                self.ready.push_back(Frame::data(rest));
            }
        }
        self.ended = true;
        Ok(())
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = UploadStopped;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadStopped>>> {
        match &mut *self {
            Self::Whole(held) if held.bytes.is_empty() => Poll::Ready(None),
            Self::Whole(held) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut held.bytes))))),
            Self::Streamed(upload) => upload.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(held) => held.bytes.is_empty(),
            Self::Streamed(upload) => upload.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(held) => SizeHint::with_exact(held.bytes.len() as u64),
            // What searching holds back comes later; nothing gets longer.
            Self::Streamed(upload) => upload.inner.size_hint(),
        }
    }
}
