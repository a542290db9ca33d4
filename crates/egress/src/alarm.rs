//! Counts by the minute of what is worth a finding when there is very much of it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// One kind of occurrence.
#[derive(Debug)]
pub(crate) struct Alarm {
    started: Instant,
    /// Minute (upper half) and occurrences in it (lower half).
    seen: AtomicU64,
}

impl Alarm {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), seen: AtomicU64::new(0) }
    }

    /// Counts one; says which of this minute it is. Saying something at one certain number says it once a minute.
    pub(crate) fn count(&self) -> u64 {
        let minute = self.started.elapsed().as_secs() / 60;
        let next = |v: u64| if v >> 32 == minute { v.saturating_add(1) } else { minute << 32 | 1 };
        let before = self.seen.try_update(Ordering::Relaxed, Ordering::Relaxed, |v| Some(next(v)));
        before.map_or(0, next) & u64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_minute_is_counted_anew() {
        let alarm = Alarm::new();
        assert_eq!([alarm.count(), alarm.count(), alarm.count()], [1, 2, 3]);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(alarm.count(), 4);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([alarm.count(), alarm.count()], [1, 2]);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(alarm.count(), 1);
    }
}
