//! Whether a file is another than it was.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

/// The clock of a file system is coarse: what changed within this time of being read may change again unseen.
const SETTLED: Duration = Duration::from_secs(2);

/// Tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let data = fs::metadata(path)?;
        Ok(Self {
            file: (data.dev(), data.ino()),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }

    /// Of a file that will show it when it changes: not of one that changed just now.
    pub(crate) fn settled(path: &Path) -> Option<Self> {
        let stamp = Self::of(path).ok()?;
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(stamp.changed.0.try_into().ok()?))?;
        changed.elapsed().is_ok_and(|age| age > SETTLED).then_some(stamp)
    }
}
