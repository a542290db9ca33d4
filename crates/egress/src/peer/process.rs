//! A process of the sandbox as seen from outside: a handle that never names another one, and what it runs.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Mutex, OnceLock, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::Stat,
    process::{Pid, PidfdFlags, pidfd_open},
};
use stockade_sys::notify;

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
}

/// Which file, and whether it was touched: equal states mean equal contents, because no program of the sandbox can set
/// the change time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileState {
    pub(super) id: FileId,
    size: i64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl FileState {
    /// What is no file.
    pub(super) const NONE: Self = Self { id: FileId { dev: 0, ino: 0 }, size: -1, changed: (0, 0), modified: (0, 0) };

    pub(super) fn of(stat: &Stat) -> Self {
        #[allow(clippy::unnecessary_cast, reason = "the widths of these fields differ between architectures")]
        Self {
            id: FileId { dev: stat.st_dev as u64, ino: stat.st_ino as u64 },
            size: stat.st_size as i64,
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        }
    }
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    /// In the supervisor's pid namespace.
    pub(super) pid: u32,
    /// Keeps its meaning when the pid is given to another process.
    handle: OwnedFd,
    inside: OnceLock<u32>,
    begun: OnceLock<u64>,
    /// Of the executable that it ran last. A file that gets another name is touched.
    path: Mutex<Option<(FileState, String)>>,
}

impl Process {
    /// The process that `pid` names now.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let handle = pidfd_open(raw, PidfdFlags::empty())?;
        Ok(Self { pid, handle, inside: OnceLock::new(), begun: OnceLock::new(), path: Mutex::default() })
    }

    /// The process that a thread belongs to.
    pub(super) fn of_thread(tid: u32) -> io::Result<Self> {
        Self::open(tid).or_else(|_| Self::open(status(tid, "Tgid:")?))
    }

    /// Whether it has not ended. What was read of its `/proc` entries before this call was its own, because a pid is
    /// given away only after that.
    pub(super) fn alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }

    /// What it runs.
    pub(super) fn exe(&self) -> io::Result<FileState> {
        exe(self.pid)
    }

    /// The path of what it runs, as inside. Evidence: the file is what counts.
    pub(super) fn path(&self) -> String {
        let read = fs::read_link(format!("/proc/{}/exe", self.pid));
        read.map_or_else(|_| String::new(), |p| p.to_string_lossy().into_owned())
    }

    /// The same for a process known to run `exe`.
    pub(super) fn path_of(&self, exe: &FileState) -> String {
        let mut known = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, path)) = known.as_ref().filter(|(of, _)| of == exe) {
            return path.clone();
        }
        let path = self.path();
        // Remembered only if it was not that of another, executed meanwhile.
        if self.exe().is_ok_and(|now| now == *exe) {
            *known = Some((*exe, path.clone()));
        }
        path
    }

    /// Whether descriptor `fd` of it is the socket with this inode.
    pub(super) fn has(&self, fd: i32, inode: u32) -> bool {
        socket(self.pid, fd) == Some(inode)
    }

    /// Whether any of its descriptors is the socket.
    pub(super) fn holds(&self, inode: u32) -> bool {
        let wanted = link(inode);
        let Ok(dir) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return false };
        dir.filter_map(Result::ok)
            .any(|e| fs::read_link(e.path()).is_ok_and(|l| l.as_os_str().as_encoded_bytes() == wanted.as_bytes()))
    }

    /// The pid of its parent.
    pub(super) fn parent(&self) -> io::Result<u32> {
        notify::parent(self.handle.as_fd()).or_else(|_| status(self.pid, "PPid:"))
    }

    /// When it was made, in the ticks of [`ticks`].
    pub(super) fn begun(&self) -> io::Result<u64> {
        if let Some(begun) = self.begun.get() {
            return Ok(*begun);
        }
        let text = fs::read(format!("/proc/{}/stat", self.pid))?;
        // After the name, which may contain anything, this is the twentieth field: proc_pid_stat(5).
        let name = text.iter().rposition(|b| *b == b')').ok_or(io::ErrorKind::InvalidData)?;
        let rest = String::from_utf8_lossy(text.get(name + 1..).unwrap_or_default()).into_owned();
        let found = rest.split_ascii_whitespace().nth(19).and_then(|ticks| ticks.parse().ok());
        match found {
            Some(ticks) if self.alive() => Ok(*self.begun.get_or_init(|| ticks)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Its pid inside the sandbox. What `/proc` says of the handle is much shorter than what it says of the process.
    pub(super) fn inside(&self) -> io::Result<u32> {
        if let Some(inside) = self.inside.get() {
            return Ok(*inside);
        }
        let path = format!("/proc/self/fdinfo/{}", self.handle.as_raw_fd());
        let found: Option<u32> = field(&fs::read_to_string(path)?, "NSpid:");
        found.map(|pid| *self.inside.get_or_init(|| pid)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Ticks of a second in `/proc`, whatever the kernel's own are: include/asm-generic/param.h.
const USER_HZ: u64 = 100;

/// Now, in the unit and from the beginning of what `/proc` says of a process's start.
pub(super) fn ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let [seconds, part] = [now.tv_sec, now.tv_nsec].map(|n| u64::try_from(n).unwrap_or_default());
    seconds.saturating_mul(USER_HZ).saturating_add(part.saturating_mul(USER_HZ) / 1_000_000_000)
}

/// What the process of a thread runs.
pub(super) fn exe(tid: u32) -> io::Result<FileState> {
    Ok(FileState::of(&rustix::fs::stat(format!("/proc/{tid}/exe"))?))
}

/// The inode of the socket behind a descriptor.
pub(super) fn socket(tid: u32, fd: i32) -> Option<u32> {
    let mut buffer = [0; 32];
    let len = rustix::fs::readlinkat_raw(rustix::fs::CWD, format!("/proc/{tid}/fd/{fd}"), &mut buffer[..]).ok()?;
    inode(buffer.get(..len)?)
}

/// The inode in the text of a link to a socket.
pub(super) fn inode(link: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn link(inode: u32) -> String {
    format!("socket:[{inode}]")
}

fn status(pid: u32, line: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    field(&text, line).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The last number of a line: of `NSpid:`, the pid in the innermost namespace.
fn field(text: &str, line: &str) -> Option<u32> {
    text.lines().find_map(|l| l.strip_prefix(line)?.split_ascii_whitespace().next_back()?.parse().ok())
}
