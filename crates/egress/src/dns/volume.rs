//! Names below wildcards that are looked up outside. The command chooses them, so each can carry data.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use stockade_types::HostName;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// The different names of a minute, up to the alarm.
#[derive(Default)]
pub(crate) struct Volume {
    hasher: RandomState,
    minute: Mutex<Option<Minute>>,
}

struct Minute {
    began: Instant,
    /// Hashes: who could look in here should not find the names.
    names: HashSet<u64>,
}

impl Volume {
    /// Counts a name. Whether it is the one with which the minute has `alarm` different ones.
    pub(crate) fn reaches(&self, name: &HostName, alarm: u32, now: Instant) -> bool {
        let alarm = usize::try_from(alarm).unwrap_or(usize::MAX);
        let hash = self.hasher.hash_one(name);
        // A set is changed in one step; nothing can be half done.
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = match &mut *minute {
            Some(minute) if now.duration_since(minute.began) < MINUTE => minute,
            stale => stale.insert(Minute { began: now, names: HashSet::new() }),
        };
        minute.names.len() < alarm && minute.names.insert(hash) && minute.names.len() == alarm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_of_a_minute_are_counted_up_to_the_alarm() {
        let (volume, now) = (Volume::default(), Instant::now());
        let name = |n: usize| format!("n{n}.corp.test").parse::<HostName>().unwrap();
        let count = |range: std::ops::Range<usize>, at| range.filter(|n| volume.reaches(&name(*n), 100, at)).count();
        assert_eq!((count(0..99, now), count(0..99, now)), (0, 0), "the same ones again are no more");
        assert_eq!(count(99..300, now + MINUTE / 2), 1, "once");
        assert_eq!(count(300..1000, now + MINUTE / 2), 0, "a minute");
        assert_eq!(volume.minute.lock().unwrap().as_ref().unwrap().names.len(), 100, "and no more are kept");
        assert_eq!(count(0..99, now + MINUTE), 0);
        assert_eq!(count(99..100, now + MINUTE), 1, "the next one counts anew");
    }
}
