//! Traces for OpenTelemetry: a span for every connection and every request that was judged, made from audit events.
//!
//! Spans hold what the policy decided about which host, and nothing of what was said: no path, no query, no header, no
//! body. A `traceparent` that the command sends is never a parent: whoever is watched does not choose where what is
//! said about it appears.

mod otlp;
mod send;
mod settings;
mod span;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use stockade_audit::{Record, Sink};
use tokio::sync::Notify;

use self::{otlp::Span, send::Sender, span::Maker};

pub use send::{Lookup, Lookups, SendError};
pub use settings::{Protocol, Settings, SettingsError};

/// Spans that wait to be sent; more are dropped and counted.
const QUEUE: usize = 2048;
/// Spans sent together.
const BATCH: usize = 512;
/// Longest that a span waits for others.
const EVERY: Duration = Duration::from_secs(5);
/// Tries for one batch.
const TRIES: u32 = 3;
/// Rest before the second try; doubled for each one after it.
const BACK_OFF: Duration = Duration::from_millis(500);

/// Spans of one sandbox on their way out. Clones are the same: one goes to the audit as a sink.
#[derive(Clone)]
pub struct Traces(Arc<Inner>);

struct Inner {
    maker: Maker,
    queue: Mutex<Vec<Span>>,
    /// A batch is full, or nothing more will come.
    due: Notify,
    sent: AtomicU64,
    dropped: AtomicU64,
    sender: Sender,
    /// Held while a batch is on its way.
    sending: tokio::sync::Mutex<()>,
}

/// Spans in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the collector.
    pub sent: u64,
    /// Dropped: the queue was full, or the collector did not take them.
    pub dropped: u64,
}

impl Traces {
    /// Nothing is sent before [`Self::run`].
    #[must_use]
    pub fn new(settings: Settings, lookups: Lookups, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self(Arc::new(Inner {
            maker: Maker::new(&settings),
            queue: Mutex::default(),
            due: Notify::new(),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            sender: Sender::new(settings, lookups, tls),
            sending: tokio::sync::Mutex::default(),
        }))
    }

    /// Sends for ever. `failed` hears the first failure after a success.
    pub async fn run(self, failed: impl Fn(&SendError) + Send) {
        let mut failing = false;
        loop {
            // What is due is what there is after either.
            let _ = tokio::time::timeout(EVERY, self.0.due.notified()).await;
            match self.send_all().await {
                Ok(()) => failing = false,
                Err(_) if failing => {}
                Err(e) => {
                    failing = true;
                    failed(&e);
                }
            }
        }
    }

    /// Sends what there is, within a time.
    pub async fn flush(&self, within: Duration) {
        // What could not be sent in time is lost with the process; the audit log has it.
        let _ = tokio::time::timeout(within, self.send_all()).await;
    }

    /// Spans so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { sent: self.0.sent.load(Ordering::Relaxed), dropped: self.0.dropped.load(Ordering::Relaxed) }
    }

    async fn send_all(&self) -> Result<(), SendError> {
        let alone = self.0.sending.lock().await;
        let mut outcome = Ok(());
        loop {
            let batch: Vec<Span> = {
                let mut queue = self.0.lock();
                let many = queue.len().min(BATCH);
                queue.drain(..many).collect()
            };
            if batch.is_empty() {
                break;
            }
            let count = batch.len() as u64;
            match self.send(batch).await {
                Ok(refused) => {
                    self.0.sent.fetch_add(count.saturating_sub(refused), Ordering::Relaxed);
                    self.0.dropped.fetch_add(refused, Ordering::Relaxed);
                }
                Err(e) => {
                    self.0.dropped.fetch_add(count, Ordering::Relaxed);
                    outcome = Err(e);
                    break;
                }
            }
        }
        drop(alone);
        outcome
    }

    async fn send(&self, batch: Vec<Span>) -> Result<u64, SendError> {
        let request = self.0.maker.request(batch);
        let mut rest = BACK_OFF;
        for _ in 1..TRIES {
            match self.0.sender.send(&request).await {
                Err(e) if e.passes() => tokio::time::sleep(rest).await,
                done => return done,
            }
            rest *= 2;
        }
        self.0.sender.send(&request).await
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Vec<Span>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.counts().fmt(f)
    }
}

impl Sink for Traces {
    fn name(&self) -> String {
        "the traces".into()
    }

    fn record(&mut self, record: &Record) {
        let Some(span) = self.0.maker.span(record) else { return };
        let mut queue = self.0.lock();
        if queue.len() >= QUEUE {
            drop(queue);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.push(span);
        let full = queue.len() >= BATCH;
        drop(queue);
        if full {
            self.0.due.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
