//! For test harnesses only: a fork that a threaded process may make.

use std::io;

/// Runs `body` in a copy of this process, threads or not, and returns its pid; the child exits with the body's value.
///
/// Test harnesses run each test on a second thread, so [`crate::process::fork`] refuses there. The C library's
/// `fork` takes the allocator's locks first, which is enough for the child to allocate; it must not touch a lock
/// that another thread may have held. Product code has no such excuse: hence the feature gate.
///
/// # Errors
/// What `fork(2)` says.
pub fn fork_threaded(body: impl FnOnce() -> u8) -> io::Result<i32> {
    // SAFETY: the child runs only `body` and leaves by _exit; see above for what it may rely on.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
            // SAFETY: _exit has no preconditions; destructors and atexit handlers belong to the parent.
            unsafe { libc::_exit(code.into()) }
        }
        pid => Ok(pid),
    }
}

/// What the kernel did with a system call made by [`probe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// It succeeded.
    Done,
    /// It failed with this errno.
    Errno(i32),
    /// It ended the process by this signal.
    Killed(i32),
}

/// Makes one raw system call in a child, after `setup`. Whatever the call does to memory or to the process, it does to
/// the child, which runs nothing afterwards.
///
/// # Errors
/// What `fork(2)` or `waitpid(2)` says, or what `setup` said, as text.
pub fn probe(setup: impl FnOnce() -> Result<(), String>, number: i64, args: [u64; 6]) -> io::Result<Probed> {
    in_child(setup, || {
        let [a, b, c, d, e, f] = args;
        // SAFETY: the process is a private copy that exits right after; no memory of anybody else is in reach.
        if unsafe { libc::syscall(number, a, b, c, d, e, f) } == -1 { last_errno() } else { 0 }
    })
}

/// As [`probe`], through the 32-bit gate `int 0x80`, with a 32-bit call number and no arguments.
///
/// # Errors
/// As [`probe`].
#[cfg(target_arch = "x86_64")]
pub fn probe_int80(setup: impl FnOnce() -> Result<(), String>, number: u32) -> io::Result<Probed> {
    in_child(setup, || {
        let mut result = number;
        // SAFETY: as in `probe`; the gate reads and writes registers only. It clobbers r8-r11.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("eax") result, in("ecx") 0, in("edx") 0,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        let result = result.cast_signed();
        if (-4095..0).contains(&result) { -result } else { 0 }
    })
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Errno values fit the exit status; this one does not occur.
const SETUP_FAILED: u8 = 255;

fn in_child(setup: impl FnOnce() -> Result<(), String>, call: impl FnOnce() -> i32) -> io::Result<Probed> {
    let pid = fork_threaded(|| match setup() {
        Ok(()) => u8::try_from(call()).unwrap_or(SETUP_FAILED),
        Err(e) => {
            eprintln!("setup of a probe: {e}");
            SETUP_FAILED
        }
    })?;
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1 {
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(Probed::Done),
        (true, code) if code == i32::from(SETUP_FAILED) => Err(io::Error::other("the probe's setup failed")),
        (true, errno) => Ok(Probed::Errno(errno)),
        (false, _) => Ok(Probed::Killed(libc::WTERMSIG(status))),
    }
}
