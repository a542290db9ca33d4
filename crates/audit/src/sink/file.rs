//! The audit log: chained JSON lines in a file that only its owner writes.
//!
//! A batch is one `write(2)` to a descriptor opened with `O_APPEND`. When it fails, the file is cut back to the last
//! line that is whole and the chain goes on from there, so a full disk leaves a gap that is reported, not a broken log.

mod open;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    mem,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::renameat;
use stockade_types::SandboxId;

use super::{Sink, SinkError};
use crate::{
    chain,
    clock::{Clock, SystemClock},
    directory::DirectoryError,
    event::{Event, Segment, SegmentKind, Torn},
    ocsf,
    record::Record,
};

/// Bytes gathered before a batch is written early.
const BUFFER: usize = 256 * 1024;

/// Suffix of a new file until the full one is out of the way.
const NEXT: &str = "next";

/// When a file is full and how many full ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A file that would grow beyond this is put aside.
    pub bytes: u64,
    /// Files kept besides the present one: `audit.log.1` is the newest of them. At least one.
    pub keep: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { bytes: 64 << 20, keep: 8 }
    }
}

/// Why a file cannot be the audit log.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A system call failed.
    #[error("audit log {path}: cannot {what}: {source}{}", way_out(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its directory cannot be had, or somebody else may have chosen it.
    #[error("audit log {path}: {source}")]
    Directory {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: DirectoryError,
    },
    /// A symbolic link could lead anywhere.
    #[error("audit log {0} is a symbolic link; name the file itself")]
    Symlink(PathBuf),
    /// A pipe, device, directory or socket.
    #[error("audit log {0} is not a regular file; name another or remove it")]
    NotRegular(PathBuf),
    /// Whoever owns it can change it.
    #[error("audit log {path} belongs to uid {owner}, not to uid {us}; name a file of your own")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user we are.
        us: u32,
    },
    /// Writable for group or others.
    #[error("audit log {path} can be written by others (mode {mode:03o}); run `chmod go-w` on it")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// It has a second name, under which something else may be meant.
    #[error("audit log {0} has a second name (hard link); name another file")]
    HardLink(PathBuf),
    /// Another run holds the lock.
    #[error("audit log {0} is in use by another run; give each run a file of its own")]
    Busy(PathBuf),
    /// Not empty, and its last line is not a good line of a log.
    #[error(
        "audit log {path} cannot be continued, its last line is bad: {why}; `stockade audit verify` says more, and \
         moving the file away starts a new log"
    )]
    BadTail {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The path names no file.
    #[error("audit log {0}: the path does not end in a file name")]
    NoName(PathBuf),
}

fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free space, or name another file",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; name a file where this user may write"
        }
        _ => "",
    }
}

/// The newest line of a log. Kept elsewhere, it shows when lines were cut off the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The file.
    pub path: PathBuf,
    /// Number of the line.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
}

/// Reads the head of a log while and after it is written.
#[derive(Debug, Clone)]
pub struct HeadHandle(Arc<Mutex<Head>>);

impl HeadHandle {
    /// The newest line that is in the file.
    #[must_use]
    pub fn get(&self) -> Head {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where the chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tip {
    sequence: u64,
    hash: String,
    len: u64,
}

/// Writes chained OCSF lines to a file; rotates it by size.
pub struct FileSink {
    path: PathBuf,
    /// The directory and the file's name in it; without, there is no rotation.
    place: Option<(OwnedFd, OsString)>,
    file: File,
    rotation: Rotation,
    /// Length at which rotation is tried, pushed up when it fails.
    rotate_at: u64,
    sandbox: Arc<SandboxId>,
    clock: SystemClock,
    /// What is in the file.
    written: Tip,
    /// What it will be with the buffer.
    ahead: Tip,
    buffer: Vec<u8>,
    /// Where it ends after each record in the buffer.
    held: Vec<Tip>,
    /// Since the last commit.
    committed: u64,
    lost: u64,
    failed: Option<io::Error>,
    head: HeadHandle,
}

impl FileSink {
    /// Opens or makes a log, mode 0600, checks its last line and goes on behind it. The first line of this run is
    /// written at once, so that a log that cannot be written stops the start.
    ///
    /// # Errors
    /// See [`FileError`]; nothing is changed unless the file is good.
    pub fn open(path: &Path, sandbox: &SandboxId, rotation: Rotation) -> Result<Self, FileError> {
        let (dir, name, file) = open::by_path(path)?;
        Self::begin(path, Some((dir, name)), file, sandbox, rotation)
    }

    /// The same for a file that is open for reading and appending. It does not rotate.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn from_file(file: File, sandbox: &SandboxId) -> Result<Self, FileError> {
        let path = PathBuf::from("(descriptor)");
        open::check(&file, &path)?;
        open::lock(&file, &path)?;
        Self::begin(&path, None, file, sandbox, Rotation::default())
    }

    fn begin(
        path: &Path,
        place: Option<(OwnedFd, OsString)>,
        file: File,
        sandbox: &SandboxId,
        rotation: Rotation,
    ) -> Result<Self, FileError> {
        let open::Tail { sequence, hash, len, torn } = open::tail(&file, path)?;
        let head = Head { path: path.to_owned(), sequence, hash: hash.clone() };
        let tip = Tip { sequence, hash, len };
        let mut sink = Self {
            path: path.to_owned(),
            place,
            file,
            rotation,
            rotate_at: rotation.bytes,
            sandbox: Arc::new(sandbox.clone()),
            clock: SystemClock::default(),
            written: tip.clone(),
            ahead: tip,
            buffer: Vec::new(),
            held: Vec::new(),
            committed: 0,
            lost: 0,
            failed: None,
            head: HeadHandle(Arc::new(Mutex::new(head))),
        };
        let kind = match &torn {
            Some(_) => SegmentKind::Repaired,
            None if sink.written.sequence == 0 => SegmentKind::Genesis,
            None => SegmentKind::Restarted,
        };
        if torn.is_some() {
            sink.buffer.push(b'\n');
            sink.ahead.len += 1;
        }
        sink.segment(kind, torn);
        sink.pour();
        match sink.failed.take() {
            None => Ok(sink),
            Some(source) => Err(FileError::Io { path: path.to_owned(), what: "write", source }),
        }
    }

    /// Never rotates: for a log in a directory that the command sees, where a new file would lie open until it is covered.
    pub fn keep_in_one_file(&mut self) {
        self.rotation.bytes = u64::MAX;
        self.rotate_at = u64::MAX;
    }

    /// Reads the head from elsewhere, to show it at exit.
    #[must_use]
    pub fn head(&self) -> HeadHandle {
        self.head.clone()
    }

    fn segment(&mut self, kind: SegmentKind, torn: Option<Torn>) {
        let record = Record {
            sequence: 0,
            time_ms: self.clock.wall_ms(),
            sandbox: Arc::clone(&self.sandbox),
            event: Event::Log(Segment { kind, torn }),
        };
        self.push(&record);
    }

    /// Adds a line to the buffer.
    fn push(&mut self, record: &Record) {
        let from = self.buffer.len();
        let sequence = self.ahead.sequence + 1;
        ocsf::write(record, sequence, Some(&self.ahead.hash), &mut self.buffer);
        let hash = chain::seal(&mut self.buffer, from);
        let grown = self.buffer.len() - from;
        self.ahead = Tip { sequence, hash, len: self.ahead.len + grown as u64 };
    }

    /// Writes the buffer. On failure those of its lines that are not whole in the file are lost, and the chain goes on from
    /// the last that is: what is left of a full disk then has no room for another.
    fn pour(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let cut = self.cut_back();
        let clean = cut.is_ok();
        match cut.and_then(|()| self.file.write_all(&self.buffer)) {
            Ok(()) => {
                self.written = self.ahead.clone();
                self.committed += self.held.len() as u64;
                self.publish();
            }
            Err(error) => {
                // Else it may be longer by what an earlier write left.
                let there = self.file.metadata().ok().filter(|_| clean).map_or(0, |file| file.len());
                let whole = self.held.iter().take_while(|tip| tip.len <= there).count();
                if let Some(tip) = whole.checked_sub(1).and_then(|last| self.held.get(last)) {
                    self.written = tip.clone();
                    self.publish();
                }
                self.committed += whole as u64;
                self.lost += (self.held.len() - whole) as u64;
                self.failed = Some(error);
                self.ahead = self.written.clone();
                // Leaves no half line behind; tried again before the next write if it fails now.
                let _ = self.cut_back();
            }
        }
        self.held.clear();
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER);
    }

    /// Removes what a failed write left behind the last whole line.
    fn cut_back(&self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.written.len { self.file.set_len(self.written.len) } else { Ok(()) }
    }

    /// Puts the full file aside and begins a new one. When that fails, the full one is written on.
    fn rotate(&mut self) {
        self.pour();
        if self.failed.is_some() {
            return;
        }
        match self.next_file() {
            Ok(()) => self.rotate_at = self.rotation.bytes,
            Err(error) => {
                self.failed = Some(error);
                self.rotate_at = self.ahead.len.saturating_add(self.rotation.bytes / 8);
            }
        }
    }

    /// The new file is made and has its first line before anything is renamed.
    fn next_file(&mut self) -> io::Result<()> {
        let Some((dir, name)) = &self.place else { return Ok(()) };
        let next = suffixed(name, NEXT);
        let file = open::fresh(dir, &next)?;
        self.file.sync_data()?;
        let old = mem::replace(&mut self.file, file);
        let before = self.written.clone();
        (self.written.len, self.ahead.len) = (0, 0);
        self.segment(SegmentKind::Rotated, None);
        self.pour();
        let shifted = match self.failed.take() {
            Some(error) => Err(error),
            None => self.shift(&next),
        };
        if shifted.is_err() {
            self.file = old;
            self.written = before.clone();
            self.ahead = before;
            self.publish();
            open::discard(&self.place, &next);
        }
        shifted
    }

    fn publish(&self) {
        let mut head = self.head.0.lock().unwrap_or_else(PoisonError::into_inner);
        head.sequence = self.written.sequence;
        head.hash.clone_from(&self.written.hash);
    }

    /// `log.1` becomes `log.2`, and so on; the oldest is overwritten; `log` becomes `log.1`, `next` becomes `log`.
    fn shift(&self, next: &OsStr) -> io::Result<()> {
        let Some((dir, name)) = &self.place else { return Ok(()) };
        for n in (1..self.rotation.keep.max(1)).rev() {
            open::rename_if_there(dir, &suffixed(name, &n.to_string()), &suffixed(name, &(n + 1).to_string()))?;
        }
        // Absent when an earlier attempt came this far and no further.
        open::rename_if_there(dir, name, &suffixed(name, "1"))?;
        Ok(renameat(dir, next, dir, name)?)
    }
}

fn suffixed(name: &OsStr, suffix: &str) -> OsString {
    let mut out = name.to_owned();
    out.push(".");
    out.push(suffix);
    out
}

impl Sink for FileSink {
    fn name(&self) -> String {
        format!("audit log {}", self.path.display())
    }

    fn record(&mut self, record: &Record) {
        // A file's own lines are written by this sink alone: from elsewhere they would break its chain.
        if matches!(record.event, Event::Log(_)) {
            return;
        }
        if self.place.is_some() && self.ahead.len >= self.rotate_at {
            self.rotate();
        }
        self.push(record);
        self.held.push(self.ahead.clone());
        if self.buffer.len() >= BUFFER {
            self.pour();
        }
    }

    fn commit(&mut self) -> Result<u64, SinkError> {
        self.pour();
        let (lost, committed) = (mem::take(&mut self.lost), mem::take(&mut self.committed));
        self.failed.take().map_or(Ok(committed), |source| Err(SinkError { name: self.name(), lost, source }))
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        self.pour();
        // A crash of the machine right after a clean end should not cost the end of the log.
        let _ = self.file.sync_data();
    }
}

#[cfg(test)]
mod tests;
