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
