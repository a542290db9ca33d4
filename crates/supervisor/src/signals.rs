//! Signals to the supervisor, read one by one by a thread instead of interrupting whatever runs.

use std::{io, thread};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

/// What the supervisor handles itself or forwards. SIGCHLD is waited for elsewhere.
const HANDLED: [Signal; 10] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGALRM,
];

/// Blocks the handled signals in this thread and all that it starts from now on.
///
/// # Errors
/// What `pthread_sigmask(3)` says.
pub fn block() -> io::Result<SigSet> {
    let mut set = SigSet::empty();
    HANDLED.into_iter().for_each(|s| set.add(s));
    set.thread_block()?;
    Ok(set)
}

/// Starts the thread that hands each signal to `deliver` until it returns `false`.
///
/// # Errors
/// When the descriptor or the thread cannot be made.
pub fn listen(set: &SigSet, deliver: impl Fn(Signal) -> bool + Send + 'static) -> io::Result<()> {
    let fd = SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC)?;
    thread::Builder::new().name("signals".to_owned()).stack_size(128 * 1024).spawn(move || {
        while let Ok(Some(info)) = fd.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
            if signal.is_some_and(|s| !deliver(s)) {
                return;
            }
        }
    })?;
    Ok(())
}
