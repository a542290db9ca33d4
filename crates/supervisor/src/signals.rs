//! Signals to the supervisor, read one by one by a thread instead of interrupting whatever runs.

use std::{io, thread};

use nix::sys::{
    signal::{SigSet, Signal, kill, raise},
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
    // Keys are read only in the foreground; should that change under the reader, it gets an error instead of a stop.
    let mut background = SigSet::empty();
    background.add(Signal::SIGTTIN);
    background.thread_block()?;
    Ok(set)
}

/// Stops `target` (this process, or its group with pid 0) soon; see [`listen`] for how this process stops.
pub(crate) fn stop(target: Pid) {
    // A failure only means no stop.
    let _ = kill(target, Signal::SIGTSTP);
}

/// Stops this process with SIGTSTP, whose default action the kernel withholds from a group that no shell could
/// continue; SIGSTOP would stop it for ever. Returns when continued, or at once then.
fn stop_here() {
    let mut tstp = SigSet::empty();
    tstp.add(Signal::SIGTSTP);
    // To this thread alone, where the default action happens in this call.
    let _ = tstp.thread_unblock().and_then(|()| raise(Signal::SIGTSTP)).and_then(|()| tstp.thread_block());
}

/// Whether this process can be stopped: the kernel withholds that from the first process of a pid namespace.
pub(crate) fn can_stop() -> bool {
    !stockade_sys::process::is_pid_one()
}

/// Starts the thread that hands each signal to `deliver` until it returns `false`. Our own SIGTSTP ([`stop`]) is carried
/// out here, where nobody else can take it, and SIGCONT is delivered after it whether there was a stop or not.
///
/// # Errors
/// When the descriptor or the thread cannot be made.
pub(crate) fn listen(set: &SigSet, deliver: impl Fn(Signal) -> bool + Send + 'static) -> io::Result<()> {
    let fd = SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC)?;
    thread::Builder::new().name("signals".to_owned()).stack_size(128 * 1024).spawn(move || {
        while let Ok(Some(info)) = fd.read_signal() {
            let mut signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
            if signal == Some(Signal::SIGTSTP) && info.ssi_pid == std::process::id() {
                stop_here();
                signal = Some(Signal::SIGCONT);
            }
            if signal.is_some_and(|s| !deliver(s)) {
                return;
            }
        }
    })?;
    Ok(())
}
