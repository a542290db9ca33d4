//! Opening: what the file may be, and where its chain stands.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, statat, unlinkat};

use super::{FileError, NEXT, suffixed};
use crate::{
    chain::{self, MAX_LINE},
    directory,
    event::Torn,
    ocsf::NO_PREV,
};

/// Tries, when the file is rotated away between opening and locking it.
const TRIES: usize = 3;

fn io_error(path: &Path, what: &'static str) -> impl Fn(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { path: path.clone(), what, source }
}

/// Opens the file by its name in its directory and locks it.
pub(super) fn by_path(path: &Path) -> Result<(OwnedFd, OsString, File), FileError> {
    let name = path.file_name().ok_or_else(|| FileError::NoName(path.to_owned()))?;
    let dir = directory::parent(path).map_err(|source| FileError::Directory { path: path.to_owned(), source })?;
    finish_rotation(&dir, name).map_err(io_error(path, "finish its rotation"))?;
    for _ in 0..TRIES {
        let file = open_at(&dir, name, OFlags::CREATE).map_err(|e| match e {
            rustix::io::Errno::LOOP => FileError::Symlink(path.to_owned()),
            rustix::io::Errno::ISDIR | rustix::io::Errno::NXIO => FileError::NotRegular(path.to_owned()),
            e => io_error(path, "open it")(e.into()),
        })?;
        check(&file, path)?;
        lock(&file, path)?;
        let ours = file.metadata().map_err(io_error(path, "look at it"))?;
        let there = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|s| s.st_ino == ours.ino() && s.st_dev == ours.dev()) {
            return Ok((dir, name.to_owned(), file));
        }
    }
    Err(FileError::Busy(path.to_owned()))
}

/// A crash between the last two renames of a rotation leaves the new file under its first name.
fn finish_rotation(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => rename_if_there(dir, &suffixed(name, NEXT), name),
        _ => Ok(()),
    }
}

/// Never follows a link, never waits for the other end of a pipe.
fn open_at(dir: &OwnedFd, name: &OsStr, extra: OFlags) -> rustix::io::Result<File> {
    let flags =
        OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | extra;
    openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Makes the file that a rotation goes on in. One left behind by a crash is replaced.
pub(super) fn fresh(dir: &OwnedFd, name: &OsStr) -> io::Result<File> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let file = open_at(dir, name, OFlags::CREATE | OFlags::EXCL)?;
    file.try_lock().map_err(io::Error::from)?;
    Ok(file)
}

pub(super) fn rename_if_there(dir: &OwnedFd, from: &OsStr, to: &OsStr) -> io::Result<()> {
    match renameat(dir, from, dir, to) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Removes a file that a failed rotation made. What stays is replaced by the next rotation.
pub(super) fn discard(place: &Option<(OwnedFd, OsString)>, name: &OsStr) {
    if let Some((dir, _)) = place {
        let _ = unlinkat(dir, name, AtFlags::empty());
    }
}

/// Refuses what others could have put there or can write.
pub(super) fn check(file: &File, path: &Path) -> Result<(), FileError> {
    let meta = file.metadata().map_err(io_error(path, "look at it"))?;
    let us = rustix::process::geteuid().as_raw();
    if !meta.is_file() {
        Err(FileError::NotRegular(path.to_owned()))
    } else if meta.uid() != us {
        Err(FileError::Owner { path: path.to_owned(), owner: meta.uid(), us })
    } else if meta.mode() & 0o022 != 0 {
        Err(FileError::Mode { path: path.to_owned(), mode: meta.mode() & 0o7777 })
    } else if meta.nlink() > 1 {
        Err(FileError::HardLink(path.to_owned()))
    } else {
        Ok(())
    }
}

/// One writer per file, or the chain forks.
pub(super) fn lock(file: &File, path: &Path) -> Result<(), FileError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(FileError::Busy(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error(path, "lock it")(source)),
    }
}

/// Where the chain of an existing file stands.
pub(super) struct Tail {
    pub(super) sequence: u64,
    pub(super) hash: String,
    pub(super) len: u64,
    pub(super) torn: Option<Torn>,
}

/// Reads and checks the last line. Only an end without line feed counts as the work of a crash; a whole line that
/// does not verify was changed, and nothing is written behind it.
pub(super) fn tail(file: &File, path: &Path) -> Result<Tail, FileError> {
    let len = file.metadata().map_err(io_error(path, "look at it"))?.len();
    if len == 0 {
        return Ok(Tail { sequence: 0, hash: NO_PREV.into(), len, torn: None });
    }
    let bad = |why: String| FileError::BadTail { path: path.to_owned(), why };
    // Room for one line, what was torn, and the line feed before them.
    let window = len.min(2 * MAX_LINE as u64 + 2);
    let mut bytes = vec![0; usize::try_from(window).unwrap_or(0)];
    file.read_exact_at(&mut bytes, len - window).map_err(io_error(path, "read its end"))?;
    let whole = bytes.iter().rposition(|&b| b == b'\n').ok_or_else(|| bad("it is no line of an audit log".into()))?;
    let (lines, rest) = bytes.split_at(whole);
    let fragment = rest.get(1..).unwrap_or_default();
    let start = lines.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let link = chain::open(lines.get(start..).unwrap_or_default()).map_err(|flaw| bad(flaw.to_string()))?;
    let torn =
        (!fragment.is_empty()).then(|| Torn { bytes: fragment.len() as u64, sha256: chain::sha256(&[fragment]) });
    Ok(Tail { sequence: link.sequence, hash: link.hash, len, torn })
}
