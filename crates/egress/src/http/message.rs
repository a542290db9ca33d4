//! Requests whose body says what they ask for: read whole, within a bound, before a byte of them is sent.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use stockade_l7::{
    Head, Operation, Reading, Unreadable,
    protocol::{self, Kind},
};
use stockade_policy::{Protocol, Request, Terms};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{arriving::Arriving, outgoing::Held};
use crate::{config::Timers, rescue::Refusal};

/// Bodies held at once, over all connections. With [`protocol::MAX_BODY`] a bound on memory.
const HELD: usize = 64;

/// What is read piece by piece has a place only once this much of a piece waits for the rest.
const UNCOUNTED: usize = 64 * 1024;

/// Room for bodies that are held.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// The place of what is read piece by piece: of a message, of a chunk.
#[derive(Default)]
pub(crate) struct Piece(Option<OwnedSemaphorePermit>);

impl Piece {
    /// Takes a place for so many bytes, or gives it back. Nobody waits here: others might wait for what is held.
    pub(crate) fn holds(&mut self, bytes: usize, room: &Room) -> Result<(), Refusal> {
        if bytes <= UNCOUNTED {
            self.0 = None;
        } else if self.0.is_none() {
            self.0 = Some(Arc::clone(&room.0).try_acquire_owned().map_err(|_| Refusal::Busy)?);
        }
        Ok(())
    }
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(HELD)))
    }
}

impl Room {
    /// A place for one body, if one becomes free in time.
    pub(crate) async fn take(&self, timers: &Timers) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = timeout(timers.opening, Arc::clone(&self.0).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or(Refusal::Busy)
    }
}

/// The reader of an endpoint's requests, where they have a reader.
pub(crate) fn kind(protocol: Protocol) -> Option<Kind> {
    match protocol {
        Protocol::Grpc => Some(Kind::Grpc),
        Protocol::Graphql => Some(Kind::GraphQl),
        Protocol::JsonRpc => Some(Kind::JsonRpc),
        Protocol::Mcp => Some(Kind::Mcp),
        Protocol::Http | Protocol::Tcp => None,
    }
}

/// What a request asks for; and its body, where it had to be read for that.
pub(crate) async fn read(
    kind: Kind,
    request: &Request,
    terms: &Terms,
    body: &mut Option<Incoming>,
    (room, timers): (&Room, &Timers),
) -> Result<(Vec<Operation>, Option<Held>), Refusal> {
    let max_body = terms.limits.request_body.and_then(|m| usize::try_from(m).ok()).unwrap_or(usize::MAX);
    let max_body = max_body.min(protocol::MAX_BODY);
    let head = Head {
        method: &request.method,
        path: &request.path,
        query: &request.query,
        fields: &request.headers,
        max_body,
    };
    let mut reader = match protocol::reader(kind, &head)? {
        Reading::Decided(operations) => return Ok((operations, None)),
        Reading::Body(reader) => reader,
    };
    let place = room.take(timers).await?;
    let Some(body) = body.take() else { return Err(Unreadable::Shape.into()) };
    let bytes = timeout(timers.response, whole(Arriving::new(body), max_body, |bytes| reader.feed(bytes))).await;
    let bytes = bytes.unwrap_or(Err(Unreadable::TooLarge.into()))?;
    Ok((reader.finish()?, Some(Held::new(bytes, place))))
}

async fn whole(
    mut body: Arriving,
    most: usize,
    mut feed: impl FnMut(&[u8]) -> Result<(), Unreadable>,
) -> Result<Bytes, Refusal> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // The client broke off: nobody reads the answer.
        let Ok(frame) = frame else { return Err(Unreadable::Shape.into()) };
        let Some(data) = frame.data_ref() else { continue };
        if read.len() + data.len() > most {
            return Err(Unreadable::TooLarge.into());
        }
        feed(data)?;
        read.extend_from_slice(data);
    }
    Ok(read.freeze())
}
