//! Init: PID 1 of the sandbox. One thread, no runtime. It builds the sandbox step by step, makes what must be made
//! inside (sockets, terminals, children), reaps, and reports. It asks for nothing and decides nothing.

mod build;
mod launching;
mod session;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal, raise},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::setsid,
};
use stockade_sys::{channel::Channel, process};

use self::{
    build::Site,
    session::{Session, Sessions},
};
use crate::{
    limits::Entry,
    message::{Failure, Order, Report, SessionId, Spawn, SpawnError, recv, send},
    plan::Plan,
    seccomp::Filter,
};

/// Children that are reaped before init looks at its orders again.
const REAP_AT_ONCE: usize = 64;

/// Runs init to its end; the exit code of the process. When init ends, the kernel ends everything in its namespace.
pub(crate) fn run(
    plan: &Plan,
    filter: &Filter,
    cgroup: Option<Entry<'_>>,
    channel: &Channel,
    supervisor: &OwnedFd,
) -> u8 {
    match prepare(channel).map(|signals| signals.map(|s| (s, build::build(plan, filter, cgroup, channel)))) {
        Ok(Some((signals, Ok(site)))) => match Init::start(site, channel, supervisor, signals) {
            Ok(mut init) => init.serve(),
            Err(_) => crate::EXIT_OURS,
        },
        Ok(Some((_, Err(failure)))) => fail(channel, failure),
        // The supervisor is gone, or gave up before the sandbox was built.
        Ok(None) | Err(_) => crate::EXIT_OURS,
    }
}

fn fail(channel: &Channel, failure: Failure) -> u8 {
    // If the supervisor does not hear it, it sees init end.
    let _ = send(channel, &Report::Failed(failure), &[]);
    crate::EXIT_OURS
}

/// Ties init's life to the supervisor's and waits for the word to build.
fn prepare(channel: &Channel) -> io::Result<Option<SignalFd>> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The supervisor's; what is started inside gets another.
    process::wipe_environment()?;
    // A session of its own: no host terminal can signal it or be reached through /dev/tty.
    setsid()?;
    let mut chld = SigSet::empty();
    chld.add(Signal::SIGCHLD);
    SigSet::all().thread_block()?;
    let signals = SignalFd::with_flags(&chld, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    match recv::<Order>(channel)? {
        Some((Order::Go, _)) => Ok(Some(signals)),
        _ => Ok(None),
    }
}

struct Init<'a> {
    site: Site<'a>,
    channel: &'a Channel,
    supervisor: &'a OwnedFd,
    signals: SignalFd,
    sessions: Sessions,
}

/// What woke init up.
enum Wake {
    Order,
    Children,
    SupervisorGone,
    Masks,
    Session(SessionId),
}

impl<'a> Init<'a> {
    fn start(mut site: Site<'a>, channel: &'a Channel, supervisor: &'a OwnedFd, signals: SignalFd) -> io::Result<Self> {
        let (counts, fds) = site.sockets.take();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        send(channel, &Report::Ready(site.layers.clone(), site.notes().to_vec(), counts), &fds)?;
        Ok(Self { site, channel, supervisor, signals, sessions: Sessions::default() })
    }

    fn serve(&mut self) -> u8 {
        loop {
            let woken = match self.wait() {
                Ok(w) => w,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return crate::EXIT_OURS,
            };
            for wake in woken {
                let went = match wake {
                    Wake::SupervisorGone => return crate::EXIT_OURS,
                    Wake::Order => match self.order() {
                        Ok(true) => Ok(()),
                        Ok(false) | Err(_) => return 0,
                    },
                    Wake::Children => self.reap(),
                    Wake::Masks => self.masks(),
                    Wake::Session(id) => self.progress(id),
                };
                if went.is_err() {
                    // Only the channel to the supervisor can fail here: without it nothing may run on.
                    return crate::EXIT_OURS;
                }
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<Wake>> {
        let mut fds = vec![
            PollFd::new(self.channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.supervisor.as_fd(), PollFlags::POLLIN),
        ];
        let mut wakes = vec![Wake::Order, Wake::Children, Wake::SupervisorGone];
        if let Some(fd) = self.site.masks_fd() {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
            wakes.push(Wake::Masks);
        }
        for (id, fd) in self.sessions.channels() {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
            wakes.push(Wake::Session(id));
        }
        poll(&mut fds, PollTimeout::NONE)?;
        let ready: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(true)).collect();
        Ok(wakes.into_iter().zip(ready).filter_map(|(w, r)| r.then_some(w)).collect())
    }

    /// Carries out one order; `false` when init should end.
    fn order(&mut self) -> io::Result<bool> {
        let Some((order, fds)) = recv::<Order>(self.channel)? else { return Ok(false) };
        match order {
            // Both belong to the start.
            Order::Go | Order::Files(_) => {}
            Order::Stop => return Ok(false),
            Order::Spawn(id, spawn) => {
                self.spawn(id, spawn, fds)?;
                for connects in self.site.launching.take_connects() {
                    // Of another launcher: its programs wait in their first connect until somebody listens.
                    send(self.channel, &Report::Connects, &[connects.as_fd()])?;
                }
            }
            Order::Signal(id, signal) => self.sessions.signal(id, signal),
            Order::Connect(id, to) => {
                let dialled = self.site.dial(to);
                let fds: Vec<_> = dialled.iter().map(AsFd::as_fd).collect();
                let answer = dialled.as_ref().map(drop).map_err(ToString::to_string);
                send(self.channel, &Report::Connecting(id, answer), &fds)?;
            }
            Order::Ports(ports) => {
                let set = self.site.fence.set_ports(&ports).map_err(|e| e.to_string());
                self.say(&Report::PortsSet(set))?;
            }
            Order::VerifyFence => {
                let report = self.site.verify_network();
                self.say(&report)?;
            }
        }
        Ok(true)
    }

    fn spawn(&mut self, id: SessionId, spawn: Spawn, fds: Vec<OwnedFd>) -> io::Result<()> {
        match Session::start(&mut self.site, spawn, fds) {
            Ok(session) => {
                self.sessions.insert(id, session);
                Ok(())
            }
            Err(e) => self.say(&Report::NotSpawned(id, e)),
        }
    }

    fn progress(&mut self, id: SessionId) -> io::Result<()> {
        for (report, master) in self.sessions.progress(id) {
            self.before(&report)?;
            let fds: Vec<_> = master.iter().map(AsFd::as_fd).collect();
            send(self.channel, &report, &fds)?;
        }
        Ok(())
    }

    /// Reaps what ended: looks first, hands the status to the session that owns the pid, then takes it.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        for _ in 0..REAP_AT_ONCE {
            let Some((pid, status)) = process::peek()? else { return Ok(()) };
            if let Some(id) = self.sessions.owner(pid) {
                // What the session said before it ended comes first.
                self.progress(id)?;
                if let Some(report) = self.sessions.ended(id, status) {
                    self.before(&report)?;
                    self.say(&report)?;
                }
            } else {
                self.site.launching.ended(pid);
            }
            process::take(pid)?;
        }
        // Orders come in between: the supervisor's must not wait until the command ends fewer than are reaped.
        raise(Signal::SIGCHLD).map_err(Into::into)
    }

    /// What must be said before a program's end: afterwards the supervisor does not listen any more.
    fn before(&self, report: &Report) -> io::Result<()> {
        let created = if matches!(report, Report::Ended(..)) { self.site.created() } else { Vec::new() };
        if created.is_empty() { Ok(()) } else { self.say(&Report::Created(created)) }
    }

    fn masks(&mut self) -> io::Result<()> {
        let events = self.site.check_masks();
        if events.is_empty() { Ok(()) } else { self.say(&Report::Masks(events)) }
    }

    fn say(&self, report: &Report) -> io::Result<()> {
        send(self.channel, report, &[])
    }
}

/// A step of spawning that failed in init.
fn spawn_step(step: &str, e: impl std::fmt::Display) -> SpawnError {
    SpawnError::Step { step: step.to_owned(), detail: e.to_string() }
}
