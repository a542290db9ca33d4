//! Connections that became a WebSocket: for as long as the permission lasts, and message by message where something
//! must be judged, put in or taken out.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use stockade_l7::{
    protocol::{self, Kind},
    websocket::{Close, Event, Frames, Sender},
};
use stockade_policy::Request;
use stockade_secrets::{Messages, Response as Scrub};
use stockade_types::Reason;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::timeout,
};

use super::{
    message::{Piece, Room},
    stream::Stream,
};
use crate::{
    door::Shared,
    grant::Grant,
    linger::{linger, reset},
    record::{self, Open},
    relay::{Flow, Stop},
    rescue::Refusal,
    upstream::Connection,
};

/// Bytes moved at once.
const STEP: usize = 16 * 1024;
/// Longest message that is read whole.
const MAX_MESSAGE: usize = protocol::MAX_BODY;
/// The close code of a refusal (RFC 6455, section 7.4.1).
const POLICY_VIOLATION: u16 = 1008;
/// Most bytes of a close frame's reason.
const MAX_REASON: usize = 120;
/// How long a last word on a stream of HTTP/2 may take to leave.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The command's side of a WebSocket.
pub(crate) trait Client: AsyncRead + AsyncWrite + Unpin + Send {
    /// Says a last word and ends, as far as the client reads.
    fn end(self, word: Vec<u8>) -> impl Future<Output = ()> + Send;
    /// Ends without one.
    fn cut(self);
}

/// A connection of HTTP/1.1.
impl Client for Stream {
    async fn end(self, word: Vec<u8>) {
        linger(Self::end(self, &word).await).await;
    }

    fn cut(self) {
        reset(self.into_tcp());
    }
}

/// A stream of HTTP/2. Dropped, it is reset.
impl Client for TokioIo<Upgraded> {
    async fn end(mut self, word: Vec<u8>) {
        let ending = async {
            self.write_all(&word).await?;
            self.shutdown().await
        };
        timeout(LAST_WORD, ending).await.ok();
    }

    fn cut(self) {}
}

/// The origin's side of a WebSocket.
pub(crate) struct Socket {
    pub(crate) grant: Grant,
    pub(crate) upstream: TokioIo<Upgraded>,
    /// Held: what drives the connection ends with it.
    pub(crate) connection: Connection,
    /// What must happen to messages; `None`: they pass as bytes.
    pub(crate) watch: Option<Watch>,
}

/// What must happen to messages.
pub(crate) struct Watch {
    /// Their reader, and the request that opened the connection.
    pub(crate) judge: Option<(Kind, Request)>,
    /// Credentials on their way to the origin.
    pub(crate) messages: Option<Messages>,
    /// Credentials that come back.
    pub(crate) scrub: Option<Scrub>,
}

/// Carries a WebSocket. `first` came from the client already.
pub(crate) async fn carry<C: Client>(shared: &Shared, client: C, first: Bytes, socket: Socket) {
    let Socket { mut grant, upstream, connection, watch } = socket;
    let mut open = Open::new(shared.audit.clone(), grant.facts(), grant.addr());
    let (mut client_in, mut client_out) = split(client);
    let (mut upstream_in, mut upstream_out) = split(upstream);
    let shown = AtomicU64::new(0);
    let ended = {
        let flow = Flow::new(&open);
        let mut watcher = grant.clone();
        let both = async {
            let up = async {
                let mut up = Up {
                    watch: watch.as_ref(),
                    frames: Frames::new(Sender::Client, MAX_MESSAGE),
                    piece: Piece::default(),
                    room: &shared.room,
                    grant: &mut grant,
                };
                let first = up.pass(&first)?;
                upstream_out.write_all(&first).await?;
                pump((&mut client_in, &mut upstream_out), |bytes| up.pass(bytes), |n| flow.sent(n)).await?;
                flow.half_closed();
                Ok(())
            };
            let down = async {
                let mut down = Down {
                    scrub: watch.as_ref().and_then(|w| w.scrub.as_ref()),
                    shown: &shown,
                    frames: Frames::new(Sender::Server, MAX_MESSAGE),
                    piece: Piece::default(),
                    room: &shared.room,
                };
                pump((&mut upstream_in, &mut client_out), |bytes| down.pass(bytes), |n| flow.received(n)).await?;
                flow.half_closed();
                Ok(())
            };
            tokio::try_join!(up, down).map(drop)
        };
        tokio::select! {
            done = both => done,
            refusal = watcher.lost() => Err(Stop::Refused(refusal)),
            why = flow.watch(&shared.config.timers) => Err(Stop::Timer(why)),
        }
    };
    let client = client_in.unsplit(client_out);
    if let count @ 1.. = shown.into_inner() {
        shared.audit.emit(record::shown(grant.permit().host(), count));
    }
    drop((upstream_in, upstream_out, connection));
    match ended {
        Ok(()) => return client.end(Vec::new()).await,
        Err(Stop::Io) => {}
        Err(Stop::Timer(why)) => open.because(Reason::Limit, why),
        Err(Stop::Refused(refusal)) => {
            shared.count_refusal();
            open.because(refusal.row().reason, &refusal.to_string());
            grant.report(shared, &refusal);
            return client.end(farewell(&refusal)).await;
        }
    }
    client.cut();
}

/// A refusal as a close frame.
fn farewell(refusal: &Refusal) -> Vec<u8> {
    let mut reason = format!("{}: {refusal}", refusal.row().reason);
    while reason.len() > MAX_REASON {
        reason.pop();
    }
    Event::Close(Some(Close { code: POLICY_VIOLATION, reason })).frame(None)
}

/// The command's direction.
struct Up<'a> {
    watch: Option<&'a Watch>,
    frames: Frames,
    piece: Piece,
    room: &'a Room,
    grant: &'a mut Grant,
}

impl Up<'_> {
    /// What of these bytes goes on, each message with permission.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Stop> {
        self.grant.check().map_err(Stop::Refused)?;
        let Some(watch) = self.watch else { return Ok(bytes.to_vec()) };
        let mut out = Vec::new();
        while let Some(event) = self.frames.next(&mut bytes).map_err(|e| Stop::Refused(e.into()))? {
            let event = watch.message(event, self.grant).map_err(Stop::Refused)?;
            let mut mask = [0; 4];
            // Without randomness from the kernel nothing is sent.
            rustix::rand::getrandom(&mut mask, rustix::rand::GetRandomFlags::empty()).map_err(|_| Stop::Io)?;
            out.extend(event.frame(Some(mask)));
        }
        self.piece.holds(self.frames.held(), self.room).map_err(Stop::Refused)?;
        Ok(out)
    }
}

impl Watch {
    /// Judges a message and puts into it what belongs there.
    fn message(&self, event: Event, grant: &mut Grant) -> Result<Event, Refusal> {
        let bytes = match &event {
            Event::Text(text) => text.as_bytes(),
            Event::Binary(bytes) => bytes,
            Event::Ping(bytes) | Event::Pong(bytes) => {
                return self.plain(bytes).map(|()| event);
            }
            Event::Close(close) => {
                self.plain(close.as_ref().map_or(&[], |c| c.reason.as_bytes()))?;
                return Ok(event);
            }
        };
        if let Some((kind, request)) = &self.judge {
            let operations = protocol::message(*kind, bytes)?;
            if !operations.is_empty() {
                grant.authorize(&Request { operations, ..request.clone() })?;
            }
        }
        let Some(messages) = &self.messages else { return Ok(event) };
        match event {
            Event::Text(text) => Ok(Event::Text(messages.text(&text)?.into_owned())),
            other => self.plain(bytes_of(&other)).map(|()| other),
        }
    }

    /// What holds no credential goes on unless it holds a placeholder.
    fn plain(&self, bytes: &[u8]) -> Result<(), Refusal> {
        Ok(self.messages.as_ref().map_or(Ok(()), |messages| messages.binary(bytes))?)
    }
}

fn bytes_of(event: &Event) -> &[u8] {
    match event {
        Event::Text(text) => text.as_bytes(),
        Event::Binary(bytes) | Event::Ping(bytes) | Event::Pong(bytes) => bytes,
        Event::Close(close) => close.as_ref().map_or(&[], |c| c.reason.as_bytes()),
    }
}

/// The origin's direction.
struct Down<'a> {
    scrub: Option<&'a Scrub>,
    /// Values taken out so far.
    shown: &'a AtomicU64,
    frames: Frames,
    piece: Piece,
    room: &'a Room,
}

impl Down<'_> {
    /// What of these bytes goes on, without values of credentials.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Stop> {
        let Some(scrub) = self.scrub else { return Ok(bytes.to_vec()) };
        let mut out = Vec::new();
        while let Some(mut event) = self.frames.next(&mut bytes).map_err(|e| Stop::Refused(e.into()))? {
            match &mut event {
                Event::Text(text) => self.scrub_text(scrub, text)?,
                Event::Binary(bytes) | Event::Ping(bytes) | Event::Pong(bytes) => self.scrub(scrub, bytes),
                Event::Close(Some(close)) => self.scrub_text(scrub, &mut close.reason)?,
                Event::Close(None) => {}
            }
            out.extend(event.frame(None));
        }
        self.piece.holds(self.frames.held(), self.room).map_err(Stop::Refused)?;
        Ok(out)
    }
}

impl Down<'_> {
    fn scrub(&self, scrub: &Scrub, bytes: &mut [u8]) {
        self.shown.fetch_add(scrub.message(bytes) as u64, Ordering::Relaxed);
    }

    fn scrub_text(&self, scrub: &Scrub, text: &mut String) -> Result<(), Stop> {
        let mut bytes = std::mem::take(text).into_bytes();
        self.scrub(scrub, &mut bytes);
        // What takes a value's place is ASCII, as the value was.
        *text = String::from_utf8(bytes).map_err(|_| Stop::Io)?;
        Ok(())
    }
}

/// Moves bytes one way until their end.
async fn pump<R, W>(
    (from, to): (&mut ReadHalf<R>, &mut WriteHalf<W>),
    mut pass: impl FnMut(&[u8]) -> Result<Vec<u8>, Stop>,
    count: impl Fn(usize),
) -> Result<(), Stop>
where
    R: AsyncRead,
    W: AsyncWrite,
{
    let mut buffer = vec![0; STEP];
    loop {
        // A peer of a WebSocket often leaves without ending TLS: the close frame has said all there is to say.
        let n = match from.read(&mut buffer).await {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            other => other?,
        };
        if n == 0 {
            to.shutdown().await.ok();
            return Ok(());
        }
        let passed = pass(buffer.get(..n).unwrap_or_default())?;
        to.write_all(&passed).await?;
        to.flush().await?;
        count(n);
    }
}
