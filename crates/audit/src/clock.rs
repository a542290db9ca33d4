//! Time as an argument: wall time stamps events, monotonic time drives windows (a clock set back must not matter).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells both times.
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch.
    fn wall_ms(&self) -> u64;
    /// Time since some fixed point, never set back.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the machine.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}
