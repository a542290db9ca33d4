//! The host's terminal while the command runs: raw in the foreground, untouched in the background. And the command's
//! own, connected to it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{OptionalActions, Termios},
};

use crate::stdio;

/// Longest wait for the output of a command that stopped.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two looks whether there is more of it, and looks without any that end the wait.
const LOOK: Duration = Duration::from_millis(2);
const QUIET_LOOKS: u32 = 5;
/// How long after the shell brings the job back its keys are read again: nothing tells a job that still runs.
const RETURN: Duration = Duration::from_millis(100);

/// The command's terminal, connected to the host's where there is one.
pub(crate) struct Terminal {
    master: OwnedFd,
    host: Option<Arc<HostTerminal>>,
}

impl Terminal {
    /// Connects them; the second value is the pump of the output.
    pub(crate) fn attach(master: OwnedFd) -> io::Result<(Self, JoinHandle<()>)> {
        let host = HostTerminal::find()?.map(Arc::new);
        let this = Self { master, host };
        this.resume()?;
        if let Some(host) = &this.host {
            let keyboard = File::from(rustix::stdio::stdin().try_clone_to_owned()?);
            let host = Arc::clone(host);
            let back = move |to: &File| {
                // A terminal that is gone shows as the end of its keys.
                let _ = host.raw();
                copy_size(to);
            };
            pump_keys("terminal-in", keyboard, File::from(this.master.try_clone()?), back)?;
        }
        let screen = File::from(screen().try_clone_to_owned()?);
        let output = stdio::pump("terminal-out", File::from(this.master.try_clone()?), screen)?;
        Ok((this, output))
    }

    /// Whether a shell outside may stop and continue this job.
    pub(crate) fn has_host(&self) -> bool {
        self.host.is_some()
    }

    /// Gives the host's terminal back, before a stop.
    pub(crate) fn release(&self) {
        self.settle();
        if let Some(host) = &self.host {
            host.restore();
        }
    }

    /// Waits until what the command wrote before it stopped is on the host's terminal: an editor leaves its screen with
    /// its last words, and the shell's prompt must come after them. Bounded, for a reader may be slow.
    fn settle(&self) {
        let until = Instant::now() + SETTLE;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS && Instant::now() < until {
            let mut waiting = [PollFd::new(&self.master, PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            quiet = if matches!(poll(&mut waiting, Some(&now)), Ok(0)) { quiet + 1 } else { 0 };
            thread::sleep(LOOK);
        }
    }

    /// Takes it again.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.resize();
        self.host.as_ref().map_or(Ok(()), |h| h.raw())
    }

    /// Passes on the size of the host's terminal.
    pub(crate) fn resize(&self) {
        copy_size(&self.master);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(host) = &self.host {
            host.leave();
        }
    }
}

/// The terminal on stdin.
struct HostTerminal {
    fd: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// As it was found, while it is raw.
    saved: Option<Termios>,
    /// The command has ended: the terminal is not ours any more.
    over: bool,
}

impl HostTerminal {
    fn find() -> io::Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !rustix::termios::isatty(stdin) {
            return Ok(None);
        }
        Ok(Some(Self { fd: stdin.try_clone_to_owned()?, state: Mutex::default() }))
    }

    /// Raw mode; nothing in the background, where the terminal is somebody else's.
    fn raw(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.over || !foreground(&self.fd) {
            return Ok(());
        }
        let saved = match &state.saved {
            Some(saved) => saved,
            None => state.saved.insert(rustix::termios::tcgetattr(&self.fd)?),
        };
        let mut raw = saved.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&self.fd, OptionalActions::Drain, &raw).map_err(Into::into)
    }

    fn restore(&self) {
        self.put_back(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn leave(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.over = true;
        self.put_back(&mut state);
    }

    fn put_back(&self, state: &mut State) {
        if let Some(saved) = state.saved.take()
            && foreground(&self.fd)
        {
            // A terminal that is gone needs no restoring.
            let _ = rustix::termios::tcsetattr(&self.fd, OptionalActions::Drain, &saved);
        }
    }
}

/// Whether this job may use the terminal. One that does not control our session knows no background.
fn foreground(terminal: impl AsFd) -> bool {
    rustix::termios::tcgetpgrp(terminal).map_or(true, |group| group == rustix::process::getpgrp())
}

/// Whether this process has a controlling terminal that is still there.
pub(crate) fn controlled() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Where the command's terminal is shown: on a terminal, if one of ours is.
fn screen() -> BorrowedFd<'static> {
    let ours = [rustix::stdio::stdout(), rustix::stdio::stderr(), rustix::stdio::stdin()];
    ours.into_iter().find(|fd| rustix::termios::isatty(fd)).unwrap_or_else(rustix::stdio::stdout)
}

fn copy_size(master: impl AsFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(screen()) {
        // A terminal without a size, or one that just closed, keeps what it has.
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

/// Copies what is typed, while this job is in the foreground: in the background it neither reads nor is stopped for
/// trying. `back` is called when it returns from there.
pub(crate) fn pump_keys(
    name: &str,
    mut from: File,
    mut to: File,
    back: impl Fn(&File) + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name(format!("pump-{name}")).stack_size(256 * 1024).spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            if !foreground(&from) {
                while !foreground(&from) {
                    thread::sleep(RETURN);
                }
                back(&to);
            }
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) if to.write_all(buffer.get(..n).unwrap_or_default()).is_err() => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // EIO: the background, or the terminal is gone.
                Err(_) if foreground(&from) => return,
                Err(_) => {}
            }
        }
    })?;
    Ok(())
}
