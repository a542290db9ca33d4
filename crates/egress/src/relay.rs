//! Copying bytes between two connections that are permitted to talk, without looking at them.
//!
//! Small flows are copied through the stack; a flow that fills a read goes through a pipe by `splice(2)`, in which
//! case the bytes never enter this process. A connection at rest holds neither buffer nor pipe.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use rustix::{
    net::{Shutdown, shutdown},
    pipe::{SpliceFlags, splice},
};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::{config::Timers, grant::Grant, record::Open, rescue::Refusal};

mod pipes;

pub(crate) use pipes::Pipes;
use pipes::{CAPACITY, Pipe};

/// Bytes copied at once. A read that fills it turns the flow over to a pipe.
const STEP: usize = 16 * 1024;

/// The clock and counts of one relay.
pub(crate) struct Flow<'a> {
    open: &'a Open,
    started: Instant,
    /// Milliseconds after `started` at which a byte last moved.
    moved: AtomicU64,
    half: AtomicBool,
}

impl<'a> Flow<'a> {
    pub(crate) fn new(open: &'a Open) -> Self {
        Self { open, started: Instant::now(), moved: AtomicU64::new(0), half: AtomicBool::new(false) }
    }

    /// Counts bytes that went up before the relay proper.
    pub(crate) fn sent(&self, bytes: usize) {
        self.count(bytes, &self.open.out);
    }

    /// Counts bytes that came down otherwise than by the relay.
    pub(crate) fn received(&self, bytes: usize) {
        self.count(bytes, &self.open.back);
    }

    /// One direction has ended.
    pub(crate) fn half_closed(&self) {
        self.half.store(true, Ordering::Relaxed);
    }

    fn count(&self, bytes: usize, counter: &AtomicU64) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// Waits until a timer has run out.
    pub(crate) async fn watch(&self, timers: &Timers) -> &'static str {
        let end = self.started + timers.lifetime;
        loop {
            let half = self.half.load(Ordering::Relaxed);
            let patience = if half { timers.half_closed } else { timers.idle };
            let idle = self.started + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + patience;
            let now = Instant::now();
            if now >= end {
                return "the connection reached its longest lifetime";
            }
            if now >= idle {
                return "no byte moved for too long";
            }
            // Half of the connection may end meanwhile, and shorten the patience.
            sleep_until(end.min(idle).min(now + timers.half_closed)).await;
        }
    }
}

/// Moves everything from the command to the upstream, as long as the grant holds: it is checked before each step, so
/// that after a reload no byte goes up without permission.
pub(crate) async fn up(
    client: &TcpStream,
    upstream: &TcpStream,
    grant: &mut Grant,
    flow: &Flow<'_>,
    pipes: &Pipes,
) -> Result<(), Stop> {
    Way { from: client, to: upstream, counter: &flow.open.out, flow }.run(pipes, Some(grant)).await
}

/// Moves everything from the upstream to the command.
pub(crate) async fn down(client: &TcpStream, upstream: &TcpStream, flow: &Flow<'_>, pipes: &Pipes) -> Result<(), Stop> {
    Way { from: upstream, to: client, counter: &flow.open.back, flow }.run(pipes, None).await
}

/// Why a direction stopped before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A connection broke.
    Io,
    /// The permission was lost.
    Refused(Refusal),
    /// A timer ran out: which.
    Timer(&'static str),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// One direction: its ends and its count.
struct Way<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    counter: &'a AtomicU64,
    flow: &'a Flow<'a>,
}

impl Way<'_> {
    async fn run(&self, pipes: &Pipes, mut grant: Option<&mut Grant>) -> Result<(), Stop> {
        loop {
            self.from.readable().await?;
            allowed(grant.as_deref_mut())?;
            let moved = match self.copy()? {
                Step::Blocked => continue,
                Step::End => break,
                Step::Moved(n) => n,
                Step::Part(n, rest) => {
                    write_all(self.to, &rest).await?;
                    n
                }
            };
            self.flow.count(moved, self.counter);
            if moved < STEP {
                continue;
            }
            let Some(pipe) = pipes.take() else { continue };
            let Some(ends) = pipe.ends() else { continue };
            let at_end = self.burst(ends, grant.as_deref_mut()).await?;
            pipe.give_back();
            if at_end {
                break;
            }
        }
        self.flow.half_closed();
        // The other end may be gone altogether, which its own direction will notice.
        shutdown(self.to, Shutdown::Write).ok();
        Ok(())
    }

    /// One read and one write, through the stack.
    fn copy(&self) -> io::Result<Step> {
        let mut buffer = [0; STEP];
        let n = match self.from.try_read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Blocked),
            Ok(0) => return Ok(Step::End),
            other => other?,
        };
        let read = buffer.get(..n).unwrap_or_default();
        let written = match self.to.try_write(read) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            other => other?,
        };
        match read.get(written..) {
            None | Some([]) => Ok(Step::Moved(n)),
            Some(rest) => Ok(Step::Part(n, rest.to_vec())),
        }
    }

    /// Through the pipe until nothing more waits; `true` at the end of the stream. The pipe is empty afterwards.
    async fn burst(&self, pipe: &Pipe, mut grant: Option<&mut Grant>) -> Result<bool, Stop> {
        const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
        loop {
            allowed(grant.as_deref_mut())?;
            let fill = || Ok(splice(self.from, None, &pipe.write, None, CAPACITY, FLAGS)?);
            let mut inside = match self.from.try_io(Interest::READABLE, fill) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Ok(0) => return Ok(true),
                other => other?,
            };
            while inside > 0 {
                let drain = || Ok(splice(&pipe.read, None, self.to, None, inside, FLAGS)?);
                match self.to.try_io(Interest::WRITABLE, drain) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.to.writable().await?,
                    Ok(0) => return Err(Stop::Io),
                    Ok(n) => {
                        inside -= n;
                        self.flow.count(n, self.counter);
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            // Neither call above ever lets others run while there is something to move.
            tokio::task::consume_budget().await;
        }
    }
}

/// What one copy did.
enum Step {
    /// Nothing was there after all.
    Blocked,
    /// The stream ended.
    End,
    /// So many bytes are through.
    Moved(usize),
    /// So many were read; these wait for room.
    Part(usize, Vec<u8>),
}

fn allowed(grant: Option<&mut Grant>) -> Result<(), Stop> {
    grant.map_or(Ok(()), Grant::check).map_err(Stop::Refused)
}

/// Writes all, waiting for room.
pub(crate) async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
