//! Making, watching and reaping processes.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::sched::CloneFlags;

/// A process made by [`fork`].
#[derive(Debug)]
pub struct Child {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// A pidfd: never names another process.
    pub pidfd: OwnedFd,
}

/// `linux/sched.h`; beyond the width that libc gives it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Runs `body` in a new process that starts with `flags` namespaces and shares nothing but open descriptors. With
/// `parent`, the caller's parent becomes the child's parent (`CLONE_PARENT`) and reaps it.
///
/// The body may allocate and call anything, because the caller must be single-threaded: a copy of a threaded
/// process could hold somebody else's lock for ever. The child never returns from here; it exits with the body's
/// value.
///
/// # Errors
/// `EBUSY` when the caller has more than one thread; else what `clone(2)` says.
pub fn fork(flags: CloneFlags, parent: bool, body: impl FnOnce() -> u8) -> io::Result<Child> {
    clone(flags, if parent { libc::CLONE_PARENT } else { 0 }, None, body)
}

fn clone(
    flags: CloneFlags,
    more: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> u8,
) -> io::Result<Child> {
    if threads()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from((flags.bits() | more | libc::CLONE_PIDFD).cast_unsigned());
    args.pidfd = (&raw mut pidfd).addr() as u64;
    // With CLONE_PARENT the kernel insists on the caller's own exit signal, which is SIGCHLD.
    args.exit_signal = if more & libc::CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child has its own copy of the address space; a null stack means the copied one
    // is used; `args` and `pidfd` outlive the call. One thread, so no lock is held by a thread that is gone.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
            // SAFETY: _exit has no preconditions; destructors and atexit handlers belong to the parent.
            unsafe { libc::_exit(code.into()) }
        }
        pid => {
            // SAFETY: the kernel stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: i32::try_from(pid).map_err(io::Error::other)?, pidfd })
        }
    }
}

/// As [`fork`], and closes every descriptor from 3 on in the child but `keep`. The body must not use a value that owns
/// another one. With `cgroup`, a version 2 directory, the child is born in it (`CLONE_INTO_CGROUP`): moving it later
/// would cost an RCU grace period.
///
/// # Errors
/// As [`fork`].
pub fn fork_keeping(
    flags: CloneFlags,
    keep: &[BorrowedFd<'_>],
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> u8,
) -> io::Result<Child> {
    let mut keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    keep.sort_unstable();
    clone(flags, 0, cgroup, move || {
        let mut first = 3;
        for fd in keep {
            close_range(first, fd - 1);
            first = first.max(fd + 1);
        }
        close_range(first, RawFd::MAX);
        body()
    })
}

fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: called in a new process only, whose body was promised to use none of these descriptors. Closing
        // a range that holds none is no error.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Threads of this process.
fn threads() -> io::Result<usize> {
    match fs::read_dir("/proc/self/task") {
        Ok(dir) => Ok(dir.count()),
        // In a mount view without /proc the count is unknown; such callers were single-threaded by construction.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(e) => Err(e),
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `exit(code)`.
    Exited(i32),
    /// Killed by a signal, which may be a real-time one.
    Signaled(i32),
}

/// What a child did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Stopped by a signal (job control).
    Stopped(i32),
    /// Ended.
    Ended(Status),
}

/// Looks at one child that ended without reaping it (`WNOWAIT`), so that the caller can find its owner first. Stops are
/// not looked at: one that was seen may be gone, and the child with it, before it is taken.
///
/// # Errors
/// What `waitid(2)` says; `ECHILD` means there are no children and is `Ok(None)`.
pub fn peek() -> io::Result<Option<(i32, Status)>> {
    wait_any(libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
}

/// Waits until a child has ended and looks at it without reaping it; `Ok(None)` when there are no children.
///
/// # Errors
/// What `waitid(2)` says, `EINTR` included.
pub fn next() -> io::Result<Option<(i32, Status)>> {
    wait_any(libc::WEXITED | libc::WNOWAIT)
}

/// Reaps `pid`, whose end [`peek`] or [`next`] has shown.
///
/// # Errors
/// What `waitid(2)` says.
pub fn take(pid: i32) -> io::Result<()> {
    waitid(libc::P_PID, u32::try_from(pid).map_err(io::Error::other)?, libc::WEXITED | libc::WNOHANG).map(drop)
}

/// Waits until the child `pid` stops or ends, and takes that.
///
/// # Errors
/// What `waitid(2)` says, `EINTR` included.
pub fn wait(pid: i32) -> io::Result<Change> {
    let id = u32::try_from(pid).map_err(io::Error::other)?;
    let changed = waitid(libc::P_PID, id, libc::WEXITED | libc::WSTOPPED)?;
    changed.map(|(_, change)| change).ok_or_else(|| io::ErrorKind::Interrupted.into())
}

fn wait_any(flags: i32) -> io::Result<Option<(i32, Status)>> {
    match waitid(libc::P_ALL, 0, flags) {
        Ok(Some((pid, Change::Ended(status)))) => Ok(Some((pid, status))),
        // Stops are not asked for here.
        Ok(Some((_, Change::Stopped(_))) | None) => Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(e) => Err(e),
    }
}

fn waitid(kind: libc::idtype_t, id: u32, flags: i32) -> io::Result<Option<(i32, Change)>> {
    // SAFETY: siginfo_t is plain data for which zero is valid, and the kernel fills it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call.
    if unsafe { libc::waitid(kind, id, &raw mut info, flags) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid fills the SIGCHLD members, and leaves them zero when nothing is pending.
    let (pid, code) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let change = match info.si_code {
        libc::CLD_EXITED => Change::Ended(Status::Exited(code)),
        libc::CLD_KILLED | libc::CLD_DUMPED => Change::Ended(Status::Signaled(code)),
        // CLD_STOPPED and CLD_TRAPPED; nobody asks for CLD_CONTINUED.
        _ => Change::Stopped(code),
    };
    Ok(Some((pid, change)))
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// What `close_range(2)` says.
pub fn cloexec_from(first: RawFd) -> io::Result<()> {
    let first = u32::try_from(first).map_err(io::Error::other)?;
    // SAFETY: close_range with CLOEXEC only sets a flag.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// Puts `fd` at number `target` (0, 1 or 2), inheritable.
///
/// # Errors
/// What `dup2(2)` says.
pub fn install_stdio(fd: impl AsFd, target: RawFd) -> io::Result<()> {
    let fd = fd.as_fd();
    if fd.as_raw_fd() == target {
        // dup2 of a descriptor onto itself would leave close-on-exec set.
        return rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(Into::into);
    }
    // SAFETY: 0-2 are never owned by a value in this workspace; dup2 replaces what was there.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into())
}

/// `execve` without search; returns only on failure.
#[must_use]
pub fn exec(program: &std::ffi::CStr, argv: &[std::ffi::CString], envp: &[std::ffi::CString]) -> io::Error {
    match nix::unistd::execve(program, argv, envp) {
        Ok(never) => match never {},
        Err(e) => e.into(),
    }
}

/// Turns a `-1` result into the last error.
pub(crate) fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives every signal its default action and unblocks all of them: what a program expects to find when it starts.
/// (The Rust runtime ignores SIGPIPE, and ignored signals survive `execve`.)
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no code of ours. SIGKILL, SIGSTOP and the two that libc reserves are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is valid for sigprocmask, and the old mask is not wanted.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Gives SIGCHLD its default action. A parent may have left it ignored, and then the kernel reaps children before
/// anybody learns how they ended, and no signal says that they did.
pub fn heed_children() {
    // SAFETY: SIG_DFL installs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Overwrites the environment, of which a fork has a copy: what a program is started with may be credentials. From here
/// on the calling process has no variables.
///
/// # Errors
/// `EBUSY` when the caller has more than one thread: another could be reading them.
pub fn wipe_environment() -> io::Result<()> {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    if threads()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: one thread, so nobody else reads or changes the list. Its strings end with NUL and are this process's own
    // to write: the kernel put them on its stack, or `setenv` on its heap.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text = *entry;
            (0..libc::strlen(text)).for_each(|at| text.add(at).write_volatile(0));
            *entry = std::ptr::null_mut();
            entry = entry.add(1);
        }
    }
    Ok(())
}

/// Whether the caller is PID 1 of its pid namespace.
#[must_use]
pub fn is_pid_one() -> bool {
    std::process::id() == 1
}
