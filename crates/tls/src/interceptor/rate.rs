//! How many certificates may be minted.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// A bucket of tokens. A clock that is set back refills nothing and takes nothing away.
#[derive(Debug)]
pub(super) struct Rate {
    burst: u32,
    each: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: u32,
    filled: SystemTime,
}

impl Rate {
    pub(super) fn new(burst: u32, per_second: u32, now: SystemTime) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self { burst, each, state: Mutex::new(State { tokens: burst, filled: now }) }
    }

    /// Whether one more may be minted.
    pub(super) fn take(&self, now: SystemTime) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match now.duration_since(state.filled) {
            Ok(passed) => {
                let new = u32::try_from(passed.as_nanos() / self.each.as_nanos().max(1)).unwrap_or(u32::MAX);
                state.tokens = state.tokens.saturating_add(new).min(self.burst);
                state.filled = if state.tokens == self.burst { now } else { state.filled + self.each * new };
            }
            Err(_) => state.filled = now,
        }
        let got = state.tokens > 0;
        state.tokens = state.tokens.saturating_sub(1);
        got
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_then_the_rate() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let rate = Rate::new(3, 10, start);
        let many = |at: u64| (0..20).filter(|_| rate.take(start + Duration::from_millis(at))).count();
        assert_eq!([many(0), many(99), many(100), many(350), many(100_000)], [3, 0, 1, 2, 3]);
        // Set back by a day: nothing is given, and filling goes on from there.
        let back = start - Duration::from_secs(86_400);
        assert!(!rate.take(back));
        assert!(rate.take(back + Duration::from_millis(100)));
    }
}
