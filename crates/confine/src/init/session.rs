//! Programs that run inside: how each is started and what init knows of it.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{OpenOptionsExt, fchown},
    },
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::{Pid, getpgid},
};
use rustix::{
    fs::OFlags,
    pty::OpenptFlags,
    termios::{InputModes, OptionalActions, Winsize},
};
use stockade_sys::{channel::Channel, process::Status};

use super::{build::Site, spawn_step as step};
use crate::message::{Launch, Outcome, Progress, Report, SessionId, Size, Spawn, SpawnError, Stdio, recv, send};

/// One program, from its launch to its end.
pub(super) struct Session {
    /// The child of init: the program, or the leader of its terminal session.
    child: i32,
    /// The program's process group, once it is sealed.
    group: Option<i32>,
    /// To the starting child, and with a terminal to its leader. Dropped when the other end closes.
    progress: Option<Channel>,
    /// The pty's master end until it is handed to the supervisor.
    master: Option<OwnedFd>,
    /// The end was reported.
    over: bool,
}

impl Session {
    /// Has the launcher make the child. It seals itself and waits; see [`Sessions::progress`].
    pub(super) fn start(site: &mut Site<'_>, spawn: Spawn, fds: Vec<OwnedFd>) -> Result<Self, SpawnError> {
        let terminal = spawn.stdio.contains(&Stdio::Terminal);
        let pty =
            if terminal { Some(open_pty(site, spawn.size).map_err(|e| step("open a terminal", e))?) } else { None };
        let mut given = fds.into_iter();
        let mut stdio = Vec::with_capacity(3);
        for kind in spawn.stdio {
            stdio.push(match (kind, &pty) {
                (Stdio::Terminal, Some((_, slave))) => slave.try_clone().map_err(|e| step("copy the terminal", e))?,
                _ => given.next().ok_or_else(|| step("spawn", "a descriptor is missing"))?,
            });
        }
        let stdio: [OwnedFd; 3] = stdio.try_into().map_err(|_| step("spawn", "stdio is incomplete"))?;
        let (child, progress) = site.launching.launch(&Launch { spawn, terminal }, &stdio)?;
        Ok(Self { child, group: None, progress: Some(progress), master: pty.map(|(master, _)| master), over: false })
    }

    /// What the child said, as a report; the flag is whether it must be told to go on.
    fn heard(&mut self, id: SessionId, said: Progress) -> Option<Report> {
        match said {
            Progress::Sealed(pid, layers) => {
                self.group = Some(pid);
                Some(Report::Spawned(id, pid, layers))
            }
            Progress::Failed(e) => (!std::mem::replace(&mut self.over, true)).then_some(Report::NotSpawned(id, e)),
            Progress::Stopped(signal) => Some(Report::Stopped(id, signal)),
            Progress::Ended(outcome) => {
                (!std::mem::replace(&mut self.over, true)).then_some(Report::Ended(id, outcome))
            }
        }
    }
}

/// A new terminal from the sandbox's own devpts: the host's terminals have no name in here.
fn open_pty(site: &Site<'_>, size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlags::NOCTTY | OFlags::CLOEXEC).bits().cast_signed())
        .open("/dev/pts/ptmx")?;
    let master = OwnedFd::from(flags);
    rustix::pty::unlockpt(&master)?;
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    // Line editing in the kernel erases whole characters.
    let mut modes = rustix::termios::tcgetattr(&slave)?;
    modes.input_modes |= InputModes::IUTF8;
    rustix::termios::tcsetattr(&slave, OptionalActions::Now, &modes)?;
    let owner = &site.plan.identity;
    fchown(&slave, Some(owner.uid), Some(owner.gid))?;
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size)?;
    Ok((master, slave))
}

/// Every program init knows of, by the supervisor's number for it.
#[derive(Default)]
pub(super) struct Sessions(BTreeMap<SessionId, Session>);

impl Sessions {
    pub(super) fn insert(&mut self, id: SessionId, session: Session) {
        self.0.insert(id, session);
    }

    /// Which session this child of init belongs to.
    pub(super) fn owner(&self, pid: i32) -> Option<SessionId> {
        self.0.iter().find(|(_, s)| s.child == pid).map(|(id, _)| *id)
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = (SessionId, BorrowedFd<'_>)> {
        self.0.iter().filter_map(|(id, s)| s.progress.as_ref().map(|p| (*id, p.as_fd())))
    }

    /// Signals the program's group; a program that is not there any more is no error.
    pub(super) fn signal(&self, id: SessionId, signal: i32) {
        let Some(session) = self.0.get(&id) else { return };
        let Ok(signal) = Signal::try_from(signal) else { return };
        if let Some(program) = session.group.map(Pid::from_raw) {
            let _ = kill(Pid::from_raw(-program.as_raw()), signal);
            // On a terminal it may have moved itself to another group and left somebody in this one. Whether it moves
            // just now does not matter to KILL.
            if signal == Signal::SIGKILL || getpgid(Some(program)) != Ok(program) {
                let _ = kill(program, signal);
            }
        }
        // The leader of its terminal reports its end, which one that the program has stopped does not. Without one this
        // is the program itself, and a second KILL or CONT changes nothing.
        if matches!(signal, Signal::SIGKILL | Signal::SIGCONT) {
            let _ = kill(Pid::from_raw(session.child), signal);
        }
    }

    /// Everything the session's child has said so far, as reports with the descriptor each carries. A sealed child is
    /// told to go on.
    pub(super) fn progress(&mut self, id: SessionId) -> Vec<(Report, Option<OwnedFd>)> {
        let mut reports = Vec::new();
        let Some(session) = self.0.get_mut(&id) else { return reports };
        while let Some(channel) = session.progress.take() {
            if !readable(&channel) {
                session.progress = Some(channel);
                break;
            }
            // End of file or an error: the other end is gone, and so is our use for the channel.
            let Ok(Some((said, _))) = recv::<Progress>(&channel) else { break };
            let sealed = matches!(said, Progress::Sealed(..));
            if let Some(report) = session.heard(id, said) {
                let master = if sealed { session.master.take() } else { None };
                reports.push((report, master));
            }
            if sealed && send(&channel, &(), &[]).is_err() {
                break;
            }
            session.progress = Some(channel);
        }
        reports
    }

    /// The child of init ended: what the supervisor should hear.
    pub(super) fn ended(&mut self, id: SessionId, status: Status) -> Option<Report> {
        let outcome = Outcome::from(status);
        let session = self.0.remove(&id)?;
        match (session.over, session.group.is_some()) {
            (true, _) => None,
            (false, true) => Some(Report::Ended(id, outcome)),
            (false, false) => {
                let detail = format!("the child ended before it was sealed ({outcome:?})");
                Some(Report::NotSpawned(id, step("start", detail)))
            }
        }
    }
}

fn readable(channel: &Channel) -> bool {
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
}
