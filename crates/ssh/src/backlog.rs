//! Input that was received and that no program has read yet: how much of it one connection holds.
//!
//! The SSH library widens a window when data arrives, not when it is used, and has one target for all windows of a
//! connection. So the target is made two bytes while too much is held: the client then stops after what it was granted
//! before, and each two bytes it may still send ask again. Uploads of one connection wait for each other at that point;
//! output does not.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use crate::limits::{BACKLOG, BACKLOG_MOST, SHUT_PAUSE, WINDOW_SHUT, WINDOW_WIDE};

/// The count of one connection.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    held: AtomicUsize,
    less: Notify,
}

/// Bytes that count until they are dropped.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Vec<u8>,
    backlog: Arc<Backlog>,
}

impl Held {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.backlog.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.backlog.less.notify_one();
    }
}

impl Backlog {
    /// Takes bytes in; `None` when the client sends more than all windows together allow.
    pub(crate) fn hold(self: &Arc<Self>, bytes: &[u8]) -> Option<Held> {
        let before = self.held.fetch_add(bytes.len(), Ordering::Relaxed);
        let held = Held { bytes: bytes.to_vec(), backlog: Arc::clone(self) };
        (before <= BACKLOG_MOST).then_some(held)
    }

    /// The window to aim at from now on.
    pub(crate) fn window(&self) -> u32 {
        if self.is_full() { WINDOW_SHUT } else { WINDOW_WIDE }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.held.load(Ordering::Relaxed) > BACKLOG
    }

    /// Slows a client down that knocks at a shut window.
    pub(crate) async fn pause(&self) {
        let _ = tokio::time::timeout(SHUT_PAUSE, self.less.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_bytes_shut_the_window_until_they_are_used() {
        let backlog = Arc::new(Backlog::default());
        let some = backlog.hold(&vec![0; BACKLOG]).unwrap();
        assert_eq!(backlog.window(), WINDOW_WIDE);
        let more = backlog.hold(b"x").unwrap();
        assert_eq!(backlog.window(), WINDOW_SHUT);
        drop(more);
        assert_eq!(backlog.window(), WINDOW_WIDE);
        drop(some);
        assert_eq!(backlog.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn more_than_all_windows_is_not_taken() {
        let backlog = Arc::new(Backlog::default());
        let all: Vec<_> = (0..=64).map(|_| backlog.hold(&vec![0; BACKLOG_MOST / 64])).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(backlog.hold(b"x").is_none());
        drop(all);
        assert!(backlog.hold(b"x").is_some());
    }
}
