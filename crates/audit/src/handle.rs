//! The handle that code holds, the queue behind it and the thread that writes.
//!
//! Emitting takes a lock that is only ever held to push or to swap a list, and never waits for a sink. When sinks are
//! slow the queue fills, further events are counted, and the count is written as soon as there is room.

use std::{
    io, mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use stockade_types::SandboxId;

use crate::{
    clock::{Clock, SystemClock},
    event::Event,
    fold::{Stamped, WINDOW},
    sink::Sink,
    writer::Loop,
};

/// Events that may wait for the writer.
pub const QUEUE: usize = 4096;
/// After a batch the writer rests so long: under load it then writes lots, and nobody has to wake it for each event.
const REST: Duration = Duration::from_millis(2);
/// Events that end its rest early.
const LOT: usize = QUEUE / 8;
/// How long dropping the [`Writer`] waits for the queue to drain.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// Why the audit could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread could be made.
    #[error("cannot start the audit writer: {0}; raise the limit on threads (ulimit -u)")]
    Thread(#[source] io::Error),
}

/// What a run's audit is made of.
pub struct Settings {
    /// Binds every line to a sandbox.
    pub sandbox: SandboxId,
    /// Where records go, each in turn.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Settings {
    /// No sinks yet, the machine's clock.
    #[must_use]
    pub fn new(sandbox: SandboxId) -> Self {
        Self { sandbox, sinks: Vec::new(), clock: Arc::new(SystemClock::default()) }
    }

    /// Adds a sink.
    #[must_use]
    pub fn sink(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }
}

/// Takes events from anywhere. Cheap to clone; the last one dropped ends the writer.
#[derive(Clone)]
pub struct Audit(Arc<Producer>);

impl Audit {
    /// Starts the writer, a thread named `audit`.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(settings: Settings) -> Result<(Self, Writer), StartError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
            lost: AtomicU64::new(0),
            lost_in_all: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            clock: settings.clock,
        });
        let reader = Arc::clone(&shared);
        let (sandbox, sinks) = (Arc::new(settings.sandbox), settings.sinks);
        thread::Builder::new()
            .name("audit".into())
            .spawn(move || {
                // Marks the end on a panic of a sink too, so that nobody waits for it.
                let finished = Finished(Arc::clone(&reader));
                Loop::new(reader, sandbox, sinks).run();
                drop(finished);
            })
            .map_err(StartError::Thread)?;
        Ok((Self(Arc::new(Producer(Arc::clone(&shared)))), Writer(shared)))
    }

    /// Queues an event. Never waits; an event that finds the queue full is counted as lost.
    pub fn emit(&self, mut event: Event) {
        event.bound();
        let shared = &self.0.0;
        let stamped = Stamped { time_ms: shared.clock.wall_ms(), event };
        let mut state = shared.lock();
        if state.closed || state.queue.len() >= QUEUE {
            drop(state);
            shared.lost.fetch_add(1, Ordering::Relaxed);
            shared.lost_in_all.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.queue.push(stamped);
        state.taken += 1;
        let wake = mem::take(&mut state.writer_waits) || state.queue.len() == LOT;
        drop(state);
        if wake {
            shared.work.notify_one();
        }
    }

    /// Waits until everything emitted so far is with the sinks, refusals still held back included. `false` when the
    /// deadline passed first.
    #[must_use]
    pub fn flush(&self, within: Duration) -> bool {
        self.0.0.flush(within)
    }

    /// Whether a sink could not write what it got last. It is tried again with the next event.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.0.0.failing.load(Ordering::Relaxed)
    }

    /// Events lost so far because the queue was full, and records that a sink could not write.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.0.lost_in_all.load(Ordering::Relaxed)
    }
}

/// Ends the writer when the last handle goes.
struct Producer(Arc<Shared>);

impl Drop for Producer {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The writing thread. Dropping it closes the queue and waits a second at most for it to drain.
pub struct Writer(Arc<Shared>);

impl Writer {
    /// Closes the queue and waits until all is written. `false` when the deadline passed first: the thread goes on
    /// writing as long as the process lives.
    #[must_use]
    pub fn close(self, within: Duration) -> bool {
        self.0.close();
        self.0.wait_finished(within)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.close();
        self.0.wait_finished(DROP_WAIT);
    }
}

/// What handles and the writer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The writer waits here for events.
    work: Condvar,
    /// Flushers wait here for the writer.
    progress: Condvar,
    /// Lost and not yet reported.
    lost: AtomicU64,
    lost_in_all: AtomicU64,
    /// Whether a sink cannot write at present.
    failing: AtomicBool,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    queue: Vec<Stamped>,
    /// Events ever queued, and how many of them are with the sinks.
    taken: u64,
    done: u64,
    /// Flushes ever asked for, and how many are answered.
    flushes: u64,
    flushed: u64,
    /// The writer is to be woken for the next event.
    writer_waits: bool,
    /// Threads that wait for the writer.
    waiting: usize,
    /// The last batch had events.
    wrote: bool,
    closed: bool,
    finished: bool,
}

impl State {
    /// Somebody waits for what is queued to be written.
    fn hurries(&self) -> bool {
        self.closed || self.flushes > self.flushed
    }
}

/// What the writer finds when it looks.
pub(crate) struct Work {
    /// Write out refusals that are held back.
    pub(crate) flush: bool,
    /// Nothing will follow.
    pub(crate) last: bool,
    taken: u64,
    flushes: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for events, a flush, the end, or (when a window is open) a tick; swaps the queue into `batch`.
    pub(crate) fn next(&self, batch: &mut Vec<Stamped>, window_open: bool) -> Work {
        let mut state = self.lock();
        if mem::take(&mut state.wrote) {
            let rests = |s: &mut State| !s.hurries() && s.queue.len() < LOT;
            state = self.work.wait_timeout_while(state, REST, rests).unwrap_or_else(PoisonError::into_inner).0;
        }
        while state.queue.is_empty() && !state.hurries() {
            state.writer_waits = true;
            if window_open {
                let (woken, timeout) = self.work.wait_timeout(state, WINDOW).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                if timeout.timed_out() {
                    break;
                }
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.writer_waits = false;
        mem::swap(&mut state.queue, batch);
        state.wrote = !batch.is_empty();
        Work { flush: state.flushes > state.flushed, last: state.closed, taken: state.taken, flushes: state.flushes }
    }

    /// Says that what [`Self::next`] gave is with the sinks.
    pub(crate) fn done(&self, work: &Work) {
        let mut state = self.lock();
        state.done = work.taken;
        state.flushed = work.flushes;
        let heard = state.waiting > 0;
        drop(state);
        if heard {
            self.progress.notify_all();
        }
    }

    /// Takes the count of lost events that was not reported yet.
    pub(crate) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Counts records that a sink lost: it says so itself.
    pub(crate) fn count_lost(&self, records: u64) {
        self.lost_in_all.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn flush(&self, within: Duration) -> bool {
        let mut state = self.lock();
        state.flushes += 1;
        let (flush, taken) = (state.flushes, state.taken);
        state.writer_waits = false;
        drop(state);
        self.work.notify_one();
        self.wait(within, |s| s.finished || (s.flushed >= flush && s.done >= taken))
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        drop(state);
        self.work.notify_one();
    }

    fn wait_finished(&self, within: Duration) -> bool {
        self.wait(within, |s| s.finished)
    }

    fn wait(&self, within: Duration, reached: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        while !reached(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state.waiting += 1;
            state = self.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
        true
    }
}

/// Announces the end of the writer when dropped.
struct Finished(Arc<Shared>);

impl Drop for Finished {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.finished = true;
        drop(state);
        self.0.progress.notify_all();
    }
}

#[cfg(test)]
mod tests;
