//! A request's body as it arrives.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{runtime::Handle, time::timeout};

/// How much is read of a body that nobody wants any more, and how long that may take.
const DRAINED: usize = 256 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// How long a client of HTTP/2 has to read the answer: on a machine that is busy with uploads, a second is soon over.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A body that may be let go of before its end. Clients that are cut off while they send do not look for an answer (curl
/// says 92 and shows none): so some more of it is read, beside the answer.
#[derive(Debug)]
pub(crate) struct Arriving(Option<Incoming>);

impl Arriving {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        // None while everything ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { timeout(ANSWER_TIME, leave(body)).await });
        }
    }
}

/// Reads some more, then no more, and lets go after the time that is left.
async fn leave(mut body: Incoming) {
    if !read_some(&mut body).await {
        std::future::pending::<()>().await;
    }
}

/// Reads what a client sends behind a refused head, if it is little and comes soon: the connection can then be used
/// for the next request.
pub(crate) async fn drain(mut body: Incoming) {
    timeout(DRAIN_TIME, read_some(&mut body)).await.ok();
}

/// Whether that was all.
async fn read_some(body: &mut Incoming) -> bool {
    let mut left = DRAINED;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return false;
        }
    }
    true
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
