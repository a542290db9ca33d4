//! Signals to the supervisor, read one by one by a thread instead of interrupting whatever runs.

use std::{io, thread};

use nix::sys::{
    signal::{SigSet, Signal, kill},
    signalfd::{SfdFlags, SignalFd},
};
use nix::unistd::Pid;

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
pub(crate) fn block() -> io::Result<SigSet> {
    let mut set = SigSet::empty();
    HANDLED.into_iter().for_each(|s| set.add(s));
    set.thread_block()?;
    Ok(set)
}

/// Stops `target` (this process, or its group with pid 0) with SIGTSTP, whose default action the kernel withholds from
/// a group that no shell could continue; SIGSTOP would stop it for ever. Returns when continued, or at once then.
pub(crate) fn stop(target: Pid) {
    let mut tstp = SigSet::empty();
    tstp.add(Signal::SIGTSTP);
    // Every other thread blocks it, so the default action happens in this call. A failure only means no stop.
    let _ = tstp.thread_unblock().and_then(|()| kill(target, Signal::SIGTSTP)).and_then(|()| tstp.thread_block());
}

/// Starts the thread that hands each signal to `deliver` until it returns `false`.
///
/// # Errors
/// When the descriptor or the thread cannot be made.
pub(crate) fn listen(set: &SigSet, deliver: impl Fn(Signal) -> bool + Send + 'static) -> io::Result<()> {
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
