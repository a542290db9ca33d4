//! The stream under the HTTP server: bytes pass only after the head they belong to was checked.
//!
//! The server sees one complete, well-formed head, then exactly the body that head announced, then the next head.
//! After a CONNECT nothing more passes: the server's connection ends and the tunnel takes the stream.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    chunked::Chunked,
    head::{self, Framing, Surface, Violation},
    stream::Stream,
};
use crate::config::{HeadLimits, Timers};

/// Bytes read at once while a head or chunked framing is looked at.
const STEP: usize = 4096;
/// First byte of a SOCKS4, SOCKS5 or TLS greeting: told apart before a whole line came.
const GREETINGS: [u8; 3] = [4, 5, 0x16];
/// First line of HTTP/2 with prior knowledge. It passes for an HTTP/1 head.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// What guard and session tell each other across the server between them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    fault: Mutex<Option<Violation>>,
    /// Whether that is in the body of a request that is being served, and whether its answer tells of it.
    in_body: AtomicBool,
    reported: AtomicBool,
    in_flight: AtomicUsize,
    /// Upgrades that were answered with something else than a change of protocol.
    declined: AtomicBool,
    /// Who waits for that, or for the end of the request being served.
    waiting: Mutex<Option<Waker>>,
}

impl Link {
    /// The first violation, if there was one.
    pub(crate) fn fault(&self) -> Option<Violation> {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_fault(&self, violation: Violation, in_body: bool) {
        self.0.in_body.store(in_body, Ordering::Release);
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(violation);
    }

    /// What is wrong with the body of the request being served: for its answer, which tells of it.
    pub(crate) fn broken_body(&self) -> Option<Violation> {
        let violation = self.fault().filter(|_| self.0.in_body.load(Ordering::Acquire))?;
        self.0.reported.store(true, Ordering::Release);
        Some(violation)
    }

    /// The violation that no answer told of, and whether one is due: what is no request has none of its own.
    pub(crate) fn untold(&self) -> Option<(Violation, bool)> {
        let violation = self.fault().filter(|_| !self.0.reported.load(Ordering::Acquire))?;
        Some((violation, !self.0.in_body.load(Ordering::Acquire)))
    }

    /// Whether a violation waits for the answer to the request before it.
    fn poll_held_back(&self, cx: &Context<'_>) -> bool {
        *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        !self.0.in_body.load(Ordering::Acquire) && self.busy()
    }

    fn wake(&self) {
        if let Some(waker) = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    /// The upgrade that was asked for does not happen: the next request may be read.
    pub(crate) fn decline_upgrade(&self) {
        self.0.declined.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether that was said since it was last asked.
    fn poll_declined(&self, cx: &Context<'_>) -> bool {
        *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.0.declined.swap(false, Ordering::AcqRel)
    }

    /// Marks a request as being served until the value is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Whether a request is being served.
    pub(crate) fn busy(&self) -> bool {
        self.0.in_flight.load(Ordering::Relaxed) > 0
    }
}

/// A request being served, its response body included.
#[derive(Debug)]
pub(crate) struct InFlight(Link);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.wake();
    }
}

/// What the next byte belongs to.
#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunked),
    /// A WebSocket was asked for: what follows is a request only if it is declined.
    Upgrade,
    /// A CONNECT passed; or a violation, and nothing passes ever again.
    Closed,
}

/// The checked stream.
#[derive(Debug)]
pub(crate) struct Guard {
    stream: Stream,
    surface: Surface,
    limits: HeadLimits,
    timers: Timers,
    state: State,
    /// Read from the stream, not yet given to the server.
    pending: BytesMut,
    /// How much of `pending` was checked.
    passed: usize,
    /// How much of `pending` was searched for the end of a head.
    searched: usize,
    /// Before the first head; a fresh connection has the head's time, a kept one may rest longer.
    fresh: bool,
    timer: Pin<Box<Sleep>>,
    /// Last byte in either direction.
    active: Instant,
    link: Link,
}

impl Guard {
    /// Guards a stream of which `first` was read already.
    pub(crate) fn new(stream: Stream, first: &[u8], surface: Surface, limits: HeadLimits, timers: Timers) -> Self {
        let deadline = Instant::now() + limits.time;
        Self {
            stream,
            surface,
            limits,
            timers,
            state: State::Head,
            pending: BytesMut::from(first),
            passed: 0,
            searched: 0,
            fresh: true,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            active: Instant::now(),
            link: Link::default(),
        }
    }

    /// What the session shares with this guard.
    pub(crate) fn link(&self) -> Link {
        self.link.clone()
    }

    /// The stream, and what was read behind the last byte that passed.
    pub(crate) fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.pending)
    }

    fn fail(&mut self, violation: Violation) -> io::Error {
        self.link.set_fault(violation, !matches!(self.state, State::Head));
        self.state = State::Closed;
        io::Error::new(io::ErrorKind::InvalidData, violation)
    }

    /// Looks for a complete head in `pending` and checks it.
    fn try_head(&mut self) -> Result<(), Violation> {
        let greeting = self.pending.first().is_some_and(|b| GREETINGS.contains(b));
        if self.fresh && greeting && matches!(self.surface, Surface::Proxy) {
            return Err(Violation::NotHttp);
        }
        // RFC 9112, section 2.2: an empty line before a request is skipped.
        while self.searched == 0 && self.pending.starts_with(b"\r\n") {
            self.pending.advance(2);
        }
        if self.pending.starts_with(PREFACE) {
            let proxy = matches!(self.surface, Surface::Proxy);
            return Err(if proxy { Violation::NotHttp } else { Violation::H2c });
        }
        let Some(end) = self.find_end()? else {
            return if self.pending.len() >= self.limits.bytes {
                Err(Violation::TooLarge(self.limits.bytes))
            } else {
                Ok(())
            };
        };
        if end > self.limits.bytes {
            return Err(Violation::TooLarge(self.limits.bytes));
        }
        let checked = head::check(self.pending.get(..end).unwrap_or_default(), &self.surface, self.limits.fields)?;
        self.state = match checked {
            Framing::Length(0) => State::Head,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Chunked(Chunked::new()),
            Framing::Tunnel => State::Closed,
            Framing::Upgrade => State::Upgrade,
        };
        (self.passed, self.searched, self.fresh) = (end, 0, false);
        Ok(())
    }

    /// The end of the first head in `pending`. A lone line feed is refused at once: waiting for CR LF CR LF after it
    /// would only run into the clock.
    fn find_end(&mut self) -> Result<Option<usize>, Violation> {
        while let Some(at) = self.pending.get(self.searched..).and_then(|p| p.iter().position(|b| *b == b'\n')) {
            let line_end = self.searched + at + 1;
            let seen = self.pending.get(..line_end).unwrap_or_default();
            if !seen.ends_with(b"\r\n") {
                return Err(Violation::Framing("a line feed without carriage return"));
            }
            self.searched = line_end;
            if seen.ends_with(b"\r\n\r\n") {
                return Ok(Some(line_end));
            }
        }
        Ok(None)
    }

    /// When to give up, were nothing to happen any more.
    fn deadline(&self) -> Instant {
        let patience = match self.state {
            _ if self.link.busy() => self.timers.idle,
            State::Head if self.fresh || !self.pending.is_empty() => self.limits.time,
            State::Head => self.timers.keep_alive,
            State::Length(_) | State::Chunked(_) | State::Upgrade | State::Closed => self.timers.idle,
        };
        self.active + patience
    }

    /// Gives up when it is time. In a head the clock runs from its first byte: more bytes do not extend it.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Result<(), io::Error> {
        loop {
            let deadline = self.deadline();
            if self.timer.deadline() != deadline {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let silent = matches!(self.state, State::Head) && self.pending.is_empty() && !self.fresh;
                return Err(if silent { io::ErrorKind::TimedOut.into() } else { self.fail(Violation::Slow) });
            }
        }
    }

    /// Reads more into `pending`. `true` at the end of the stream.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let at = self.pending.len();
        let in_head = matches!(self.state, State::Head) && (self.fresh || at > 0);
        self.pending.resize(at + STEP, 0);
        let mut space = ReadBuf::new(self.pending.get_mut(at..).unwrap_or_default());
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut space);
        let got = space.filled().len();
        self.pending.truncate(at + got);
        match polled {
            Poll::Pending => {
                if at == 0 && got == 0 {
                    self.pending = BytesMut::new();
                }
                self.poll_patience(cx)?;
                Poll::Pending
            }
            Poll::Ready(result) => {
                result?;
                if got > 0 && !in_head {
                    self.active = Instant::now();
                }
                Poll::Ready(Ok(got == 0))
            }
        }
    }

    /// Reads body bytes straight into the server's buffer, and not one more than the body has.
    fn poll_body(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>, left: u64) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(out.remaining());
        let mut part = ReadBuf::new(out.initialize_unfilled_to(most));
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        if polled.is_pending() {
            self.poll_patience(cx)?;
            return Poll::Pending;
        }
        let got = part.filled().len();
        ready!(polled)?;
        out.advance(got);
        self.active = Instant::now();
        self.state = match left - got as u64 {
            0 => State::Head,
            left => State::Length(left),
        };
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Guard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.passed > 0 {
                let n = this.passed.min(out.remaining());
                out.put_slice(this.pending.get(..n).unwrap_or_default());
                this.pending.advance(n);
                this.passed -= n;
                this.active = Instant::now();
                return Poll::Ready(Ok(()));
            }
            let waiting = this.pending.len();
            match &mut this.state {
                State::Closed if this.link.fault().is_some() => {
                    if this.link.poll_held_back(cx) {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                // The tunnel, or the end of the connection, comes next; neither is for the server to read.
                State::Closed => return Poll::Pending,
                State::Upgrade if this.link.poll_declined(cx) => {
                    this.state = State::Head;
                    continue;
                }
                State::Upgrade => {
                    this.poll_patience(cx)?;
                    return Poll::Pending;
                }
                State::Length(left) if waiting > 0 => {
                    let n = waiting.min(usize::try_from(*left).unwrap_or(usize::MAX));
                    this.passed = n;
                    let left = *left - n as u64;
                    this.state = if left == 0 { State::Head } else { State::Length(left) };
                    continue;
                }
                State::Length(left) => {
                    let left = *left;
                    return this.poll_body(cx, out, left);
                }
                State::Chunked(body) if waiting > 0 => match body.feed(&this.pending) {
                    Err(violation) => return Poll::Ready(Err(this.fail(violation))),
                    Ok(n) => {
                        this.passed = n;
                        if body.done() {
                            this.state = State::Head;
                        }
                        continue;
                    }
                },
                State::Chunked(_) => {}
                State::Head => {
                    if waiting > 0 {
                        if let Err(violation) = this.try_head() {
                            this.fail(violation);
                            continue;
                        }
                        if this.passed > 0 {
                            continue;
                        }
                    }
                }
            }
            if ready!(this.poll_more(cx))? {
                // A torn head is not shown to the server.
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Guard {
    /// A client that does not read its response is given as long as a connection without traffic.
    fn wrote(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if polled.is_pending() {
            if Instant::now() >= self.active + self.timers.idle {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let deadline = self.active + self.timers.idle;
            self.timer.as_mut().reset(deadline);
            if self.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        } else {
            self.active = Instant::now();
        }
        polled
    }
}
