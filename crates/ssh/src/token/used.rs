//! Handshakes that were used, for as long as they could be used again.

use std::collections::{BTreeSet, HashSet};

use super::Fault;
use crate::limits::{TOKEN_SKEW, TOKENS};

/// Bounded in number, and in time by what a handshake is good for.
#[derive(Debug, Default)]
pub(super) struct Used {
    nonces: HashSet<String>,
    /// When each may be forgotten.
    until: BTreeSet<(u64, String)>,
    /// The latest time seen: what was forgotten by then could be replayed to a clock that is set back.
    latest: u64,
}

impl Used {
    /// Remembers a nonce until a time.
    pub(super) fn insert(&mut self, nonce: &str, until: u64, now: u64) -> Result<(), Fault> {
        let skew = TOKEN_SKEW.as_secs();
        self.latest = self.latest.max(now);
        if now.saturating_add(skew) < self.latest {
            return Err(Fault::Clock);
        }
        // One skew longer than needed covers a clock that goes back by as much.
        while let Some((_, old)) = self.until.first().filter(|(t, _)| t.saturating_add(skew) < self.latest).cloned() {
            self.nonces.remove(&old);
            self.until.pop_first();
        }
        if self.nonces.contains(nonce) {
            return Err(Fault::Replay);
        }
        // Forgetting one early would let it be used again: rather no further one comes in for a while.
        if self.nonces.len() >= TOKENS {
            return Err(Fault::Full);
        }
        self.nonces.insert(nonce.to_owned());
        self.until.insert((until, nonce.to_owned()));
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nonces.len().max(self.until.len())
    }
}
