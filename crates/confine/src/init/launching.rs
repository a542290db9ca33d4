//! Init's side of the launcher: starts it, asks it, and makes another when it is gone or does not answer, because
//! rootless the command may end or stop it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::CloneFlags,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stockade_sys::{channel::Channel, process};
use stockade_types::{Enforcement, Layer};

use super::spawn_step as step;
use crate::{
    landlock,
    launcher::{self, Seal},
    message::{Failure, Launch, Launched, SpawnError, recv, send},
    privileges::OomScore,
};

/// How long the launcher may take to answer. Init does nothing else meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for the first one, beside which nothing hostile runs: a machine under load must not fail a start.
const AT_START: Duration = Duration::from_secs(60);
/// How many launchers are tried for one program. A command that ends each of them in time costs itself a session.
const TRIES: u32 = 3;

/// What every launcher is made of, and the one that runs.
pub(super) struct Launching<'a> {
    seal: Seal<'a>,
    domain: landlock::Plan,
    score: OomScore,
    running: Option<Launcher>,
    /// Where connects of a launcher's programs are reported, on their way to the supervisor.
    connects: Vec<OwnedFd>,
}

struct Launcher {
    channel: Channel,
    pid: i32,
}

impl<'a> Launching<'a> {
    pub(super) fn new(seal: Seal<'a>, domain: landlock::Plan, score: OomScore) -> Self {
        Self { seal, domain, score, running: None, connects: Vec::new() }
    }

    /// Starts a launcher and returns at once; [`Self::ready`] waits for it.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let fail = |e: io::Error| Failure::of(Layer::Landlock, format!("start the launcher: {e}"));
        let (ours, theirs) = Channel::pair().map_err(fail)?;
        // It keeps nothing of init's but its own end of this channel.
        let keep = [theirs.as_fd()];
        let serve = || launcher::serve(&self.seal, &self.domain, &theirs);
        let child = self
            .score
            .offering(|| process::fork_keeping(CloneFlags::empty(), &keep, None, serve))
            .map_err(|e| Failure::of(Layer::Limits, e))?
            .map_err(fail)?;
        self.running = Some(Launcher { channel: ours, pid: child.pid });
        Ok(())
    }

    /// Waits until the first launcher is in its domain.
    pub(super) fn ready(&mut self) -> Result<Enforcement, Failure> {
        self.entered(AT_START)
    }

    /// Where connects of programs are reported that were not reported from before.
    pub(super) fn take_connects(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.connects)
    }

    fn entered(&mut self, patience: Duration) -> Result<Enforcement, Failure> {
        match self.hear(patience) {
            Ok((Launched::Ready(status), fds)) => {
                self.connects.extend(fds);
                Ok(status.enforcement)
            }
            Ok((Launched::Failed(failure), _)) => Err(failure),
            Ok(_) => Err(Failure::of(Layer::Landlock, "the launcher said something else")),
            Err(e) => Err(Failure::of(Layer::Landlock, format!("the launcher ended at once: {e}"))),
        }
    }

    /// Has one child made. Its pid, which is a child of init, and the channel to it.
    pub(super) fn launch(&mut self, launch: &Launch, stdio: &[OwnedFd; 3]) -> Result<(i32, Channel), SpawnError> {
        let mut last = None;
        for _ in 0..TRIES {
            // A channel for each try: a child of a launcher that ended before it answered finds its own closed.
            let (ours, theirs) = Channel::pair().map_err(|e| step("socketpair", e))?;
            match self.attempt(launch, stdio, &theirs) {
                Ok(Launched::Child(pid)) => return Ok((pid, ours)),
                Ok(Launched::NoChild(why)) => return Err(step("fork", why)),
                Ok(_) => last = Some(step("launch", "the launcher said something else")),
                Err(e) => last = Some(e),
            }
            self.end();
        }
        Err(last.unwrap_or_else(|| step("launch", "there is no launcher")))
    }

    fn attempt(&mut self, launch: &Launch, stdio: &[OwnedFd; 3], progress: &Channel) -> Result<Launched, SpawnError> {
        if self.running.is_none() {
            self.start().and_then(|()| self.entered(PATIENCE)).map_err(|e| step("start the launcher again", e))?;
        }
        let Some(Launcher { channel, .. }) = &self.running else { return Err(step("launch", "there is no launcher")) };
        send(channel, launch, &launcher::descriptors(stdio, progress)).map_err(|e| step("ask the launcher", e))?;
        Ok(self.hear(PATIENCE).map_err(|e| step("hear from the launcher", e))?.0)
    }

    fn hear(&self, patience: Duration) -> io::Result<(Launched, Vec<OwnedFd>)> {
        let Some(Launcher { channel, .. }) = &self.running else { return Err(io::ErrorKind::NotConnected.into()) };
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], left) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(recv::<Launched>(channel)?.ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    /// Ends the launcher that runs; it is reaped like everybody else.
    fn end(&mut self) {
        if let Some(launcher) = self.running.take() {
            // Init has not reaped it yet, so the pid is still its own.
            let _ = kill(Pid::from_raw(launcher.pid), Signal::SIGKILL);
        }
    }

    /// A child of init ended. Another launcher is made when one is needed, not before: a command that ends them all the
    /// time costs nobody but its sessions.
    pub(super) fn ended(&mut self, pid: i32) {
        if self.running.as_ref().is_some_and(|l| l.pid == pid) {
            self.running = None;
        }
    }
}
