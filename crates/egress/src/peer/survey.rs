//! Who holds a socket now: every descriptor of every process of the sandbox, looked at once for all connections.
//!
//! It sees what is there while it looks. Programs that work together can hide a socket from it (on its way through a
//! Unix socket, or passed on behind its back), which is why it never decides who opened a connection.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, openat, readlinkat_raw, statat},
    io::Errno,
};

use super::process::{self, FileState};

/// How long a survey speaks for a connection, at least.
const VALID: Duration = Duration::from_millis(20);
/// Share of a processor that surveys may take, as a divisor.
const SHARE: u32 = 10;
/// Descriptors looked at in one survey.
const MAX_DESCRIPTORS: usize = 1_000_000;
/// `PF_FORKNOEXEC` of linux/sched.h: made by fork, never executed anything.
const NEVER_EXECUTED: u64 = 0x40;

/// Who was found with a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// A process that runs this file, in this state.
    Runs(FileState),
    /// A process that cannot be looked into: it may hold anything.
    Hidden,
}

type Found = HashMap<u32, BTreeSet<Holder>>;

/// The surveyor.
#[derive(Debug)]
pub(super) struct Surveyor {
    /// The sandbox's own `/proc`: it shows no process outside.
    proc: Arc<OwnedFd>,
    /// Sockets of open connections, with the number of these.
    watched: Mutex<BTreeMap<u32, usize>>,
    last: tokio::sync::Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    began: Instant,
    took: Duration,
    found: Arc<Found>,
}

/// Keeps a socket among those that surveys look for.
#[derive(Debug)]
pub(super) struct Watch {
    inode: u32,
    surveyor: Arc<Surveyor>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.surveyor.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = watched.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                watched.remove(&self.inode);
            }
        }
    }
}

impl Surveyor {
    /// Opens `/proc` below the root of the sandbox's view.
    pub(super) fn new(root: BorrowedFd<'_>) -> io::Result<Self> {
        let proc = openat(root, "proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let last = Last { began: Instant::now(), took: Duration::ZERO, found: Arc::default() };
        Ok(Self { proc: Arc::new(proc), watched: Mutex::default(), last: tokio::sync::Mutex::new(last) })
    }

    pub(super) fn watch(self: &Arc<Self>, inode: u32) -> Watch {
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner).entry(inode).or_default() += 1;
        Watch { inode, surveyor: Arc::clone(self) }
    }

    /// Who holds the socket, as a survey found that still speaks; a new one looks where none does. `None` for a
    /// connection so young, made at `known`, that none is needed.
    pub(super) async fn holders(&self, watch: &Watch, known: Instant) -> io::Result<Option<BTreeSet<Holder>>> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        let valid = VALID.max(last.took * SHARE);
        // Whoever waited here takes what was found meanwhile.
        let speaks = last.began >= asked || last.began + valid > asked;
        if !(speaks && last.found.contains_key(&watch.inode)) {
            if known + valid > asked {
                return Ok(None);
            }
            let watched: Found = {
                let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
                watched.keys().map(|inode| (*inode, BTreeSet::new())).collect()
            };
            let (proc, began) = (Arc::clone(&self.proc), Instant::now());
            let survey = tokio::task::spawn_blocking(move || look(proc.as_fd(), watched));
            let found = survey.await.map_err(io::Error::other)??;
            *last = Last { began, took: began.elapsed(), found: Arc::new(found) };
        }
        Ok(last.found.get(&watch.inode).cloned())
    }
}

/// Looks at every process.
fn look(proc: BorrowedFd<'_>, mut found: Found) -> io::Result<Found> {
    let mut left = MAX_DESCRIPTORS;
    for name in numbers(open(proc, c".")?)? {
        match process(proc, &name, &mut found, &mut left) {
            Ok(()) => {}
            // Ended meanwhile.
            Err(e) if e == Errno::NOENT || e == Errno::SRCH => {}
            Err(e) if (e == Errno::ACCESS || e == Errno::PERM) && ours(proc, &name) => {}
            Err(e) if e == Errno::ACCESS || e == Errno::PERM => {
                for holders in found.values_mut() {
                    holders.insert(Holder::Hidden);
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

fn process(proc: BorrowedFd<'_>, name: &CStr, found: &mut Found, left: &mut usize) -> Result<(), Errno> {
    let dir = open(proc, name)?;
    match statat(&dir, "exe", AtFlags::empty()) {
        Ok(stat) => descriptors(dir.as_fd(), FileState::of(&stat), found, left),
        // A leader that ended before its threads has no file table any more; they have it.
        Err(Errno::NOENT) => {
            let tasks = open(dir.as_fd(), c"task")?;
            for task in numbers(open(tasks.as_fd(), c".")?)? {
                let Ok(task) = open(tasks.as_fd(), &task) else { continue };
                if let Ok(stat) = statat(&task, "exe", AtFlags::empty()) {
                    descriptors(task.as_fd(), FileState::of(&stat), found, left)?;
                }
            }
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// The descriptors of a thread, which are those of its process: the command cannot separate them.
fn descriptors(dir: BorrowedFd<'_>, exe: FileState, found: &mut Found, left: &mut usize) -> Result<(), Errno> {
    let fds = open(dir, c"fd")?;
    let mut buffer = [0; 32];
    for entry in Dir::read_from(&fds)? {
        let entry = entry?;
        if !entry.file_name().to_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        *left = left.checked_sub(1).ok_or(Errno::NOSPC)?;
        let Ok(len) = readlinkat_raw(&fds, entry.file_name(), &mut buffer[..]) else { continue };
        let inode = buffer.get(..len).and_then(process::inode);
        if let Some(holders) = inode.and_then(|inode| found.get_mut(&inode)) {
            holders.insert(Holder::Runs(exe));
        }
    }
    Ok(())
}

/// Whether a process that cannot be looked into is a part of the sandbox's own machinery, which never executes
/// anything and holds none of the command's sockets: init, the launcher, a leader of a terminal session, a program
/// about to start.
fn ours(proc: BorrowedFd<'_>, name: &CStr) -> bool {
    let read = || -> Option<u64> {
        let dir = open(proc, name).ok()?;
        let file = openat(&dir, "stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let text = io::read_to_string(std::fs::File::from(file)).ok()?;
        // After the name, which may contain anything: state, ppid, pgrp, session, tty, tpgid, flags.
        text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().nth(6)?.parse().ok()
    };
    read().is_some_and(|flags| flags & NEVER_EXECUTED != 0)
}

fn open(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Entries that are numbers.
fn numbers(dir: OwnedFd) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::new(dir)? {
        let entry = entry?;
        if entry.file_name().to_bytes().first().is_some_and(u8::is_ascii_digit) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::{fd::AsRawFd, linux::fs::MetadataExt},
        process::{Command, Stdio},
    };

    use super::*;

    fn surveyor() -> Arc<Surveyor> {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Arc::new(Surveyor::new(root.as_fd()).unwrap())
    }

    #[tokio::test]
    async fn every_holder_is_found_and_the_answer_speaks_for_a_while() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let inode = u32::try_from(std::fs::metadata(&link).unwrap().st_ino()).unwrap();
        let own = Holder::Runs(process::exe(std::process::id()).unwrap());
        let surveyor = surveyor();
        let watch = surveyor.watch(inode);
        let long_ago = Instant::now() - Duration::from_secs(60);
        let holders = surveyor.holders(&watch, long_ago).await.unwrap().unwrap();
        assert!(holders.contains(&own));
        let stdin: OwnedFd = socket.try_clone().unwrap().into();
        let mut other = Command::new("/bin/sleep").arg("60").stdin(Stdio::from(stdin)).spawn().unwrap();
        let sleep = Holder::Runs(FileState::of(&rustix::fs::stat("/bin/sleep").unwrap()));
        let began = Instant::now();
        loop {
            let holders = surveyor.holders(&watch, long_ago).await.unwrap().unwrap();
            if holders.contains(&sleep) && holders.contains(&own) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{holders:?}");
            tokio::time::sleep(VALID).await;
        }
        // Once that survey speaks no more, a connection that is known to be young needs no other.
        let valid = VALID.max(surveyor.last.lock().await.took * SHARE);
        tokio::time::sleep(valid + VALID).await;
        let young = Instant::now() + Duration::from_secs(3600);
        assert!(surveyor.holders(&watch, young).await.unwrap().is_none(), "known already");
        other.kill().unwrap();
        other.wait().unwrap();
        drop(watch);
        assert!(surveyor.watched.lock().unwrap().is_empty());
    }
}
