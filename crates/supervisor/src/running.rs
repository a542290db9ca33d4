//! The command runs: one thread listens to everything that can happen and answers it, until the end.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use stockade_confine::message::{Order, Outcome, Report, SessionId, SpawnError, recv, send};
use stockade_sys::channel::Channel;
use stockade_types::LayerStatus;

use crate::{
    inside::Inside,
    memory, signals,
    terminal::{self, Terminal},
};

/// The session of the command itself.
pub(crate) const COMMAND: SessionId = 0;
/// Events that wait; whoever has another one waits too.
pub(crate) const EVENTS: usize = 256;
/// Between the first TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);
/// The same for an entrypoint: container engines send KILL after ten seconds, and the log is still to be written.
pub(crate) const ENTRYPOINT_GRACE: Duration = Duration::from_secs(8);
/// Between KILL and the end of the whole sandbox, where the command's own was not heard of.
const DEAD: Duration = Duration::from_secs(2);
/// Between two read-backs of the fence.
const VERIFY_EVERY: Duration = Duration::from_secs(30);
/// The same while it is not what was installed.
const VERIFY_AGAIN: Duration = Duration::from_secs(5);
/// After the start of the command: most of what starts are made of has been used by then.
const SETTLE: Duration = Duration::from_secs(1);
/// How long the command's last output may take to reach a slow reader after its end.
const DRAIN: Duration = Duration::from_secs(5);

/// What can happen while the command runs.
pub(crate) enum Event {
    /// Init said something.
    Init(Report, Vec<OwnedFd>),
    /// Init is gone.
    InitGone,
    /// A signal to the supervisor.
    Signal(Signal),
    /// A policy file changed.
    PolicyChanged,
    /// The door cannot serve any more.
    DoorFailed(String),
}

/// What the loop tells the rest of the supervisor about.
pub(crate) trait Observer {
    /// The command is sealed and about to run.
    fn launched(&mut self, pid: i32, layers: &[LayerStatus]);
    /// Reload the policy; the new set of transparent ports when it changed.
    fn reload(&mut self) -> Option<std::collections::BTreeSet<u16>>;
    /// The command was asked to end.
    fn ending(&mut self);
    /// The fence is not what was installed.
    fn fence_drift(&mut self, what: &str);
    /// The fence is what was installed, as it should be.
    fn fence_intact(&mut self);
    /// Something happened to a hidden path.
    fn masks(&mut self, events: &[String]);
    /// A new launcher: connects of what it starts are reported on this descriptor.
    fn connects(&mut self, listener: Vec<OwnedFd>);
    /// An order to init had no effect.
    fn failed_order(&mut self, what: &str);
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The command ended.
    Command(Outcome),
    /// Its time was up; it was ended.
    TimedOut,
    /// It was never started.
    NotStarted(SpawnError),
    /// Init ended first.
    Lost,
    /// A hidden path lay bare and `hidden` is required; the command was ended.
    Bare(String),
    /// The door failed; the command was ended with it.
    Door(String),
}

/// Reads init's reports on a thread of its own; those of sessions go to `inside`. Says whether a stop of the command
/// waits to be handled: until then there is no second, for the command can stop itself faster than that is answered.
pub(crate) fn listen(channel: &Channel, events: SyncSender<Event>, inside: Inside) -> io::Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&stopped);
    let channel = Channel::from(channel.as_fd().try_clone_to_owned()?);
    thread::Builder::new().name("init-reports".to_owned()).stack_size(256 * 1024).spawn(move || {
        loop {
            let event = match recv::<Report>(&channel) {
                Ok(Some((report, fds))) => match inside.heard(report, fds) {
                    Some((Report::Stopped(..), _)) if waits.swap(true, Ordering::AcqRel) => continue,
                    Some((report, fds)) => Event::Init(report, fds),
                    None => continue,
                },
                Ok(None) | Err(_) => {
                    inside.close();
                    Event::InitGone
                }
            };
            let last = matches!(event, Event::InitGone);
            if events.send(event).is_err() || last {
                return;
            }
        }
    })?;
    Ok(stopped)
}

/// The loop's state.
pub(crate) struct Running<'a, O> {
    pub(crate) channel: &'a Channel,
    pub(crate) events: Receiver<Event>,
    pub(crate) observer: O,
    pub(crate) outputs: Vec<JoinHandle<()>>,
    pub(crate) timeout: Option<Duration>,
    /// Between the first TERM and KILL.
    pub(crate) grace: Duration,
    /// An entrypoint: what is sent to it is meant for the command.
    pub(crate) entrypoint: bool,
    /// `require: [hidden]`: the command ends when a hidden path lay bare.
    pub(crate) hidden_required: bool,
    /// See [`listen`].
    pub(crate) stopped: Arc<AtomicBool>,
    terminal: Option<Terminal>,
    /// Signals that came before there was a command to take them; `None` once there is.
    early: Option<Vec<Signal>>,
    /// There was a controlling terminal at the start.
    controlled: bool,
    /// When the command's time is up.
    deadline: Option<Instant>,
    /// When the command is killed after it was asked to end.
    kill_at: Option<Instant>,
    /// When a command that was killed is taken for dead.
    dead_at: Option<Instant>,
    timed_out: bool,
    verify_at: Instant,
    /// When the memory of the start is given back.
    settle_at: Option<Instant>,
}

impl<'a, O: Observer> Running<'a, O> {
    pub(crate) fn new(channel: &'a Channel, events: Receiver<Event>, observer: O) -> Self {
        Self {
            channel,
            events,
            observer,
            outputs: Vec::new(),
            timeout: None,
            grace: GRACE,
            entrypoint: false,
            hidden_required: false,
            stopped: Arc::default(),
            terminal: None,
            early: Some(Vec::new()),
            controlled: terminal::controlled(),
            deadline: None,
            kill_at: None,
            dead_at: None,
            timed_out: false,
            verify_at: Instant::now() + VERIFY_EVERY,
            settle_at: None,
        }
    }

    /// Waits for the command's end, serving everything else meanwhile; then ends the sandbox.
    pub(crate) fn wait(mut self) -> (End, O) {
        let end = loop {
            // Before every event, for the command can see to it that there always is one.
            if let Some(end) = self.timers() {
                break end;
            }
            match self.events.recv_timeout(self.next_timer()) {
                Ok(event) => {
                    if let Some(end) = self.handle(event) {
                        break end;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break End::Lost,
            }
        };
        // Whatever still runs inside ends now, and with it every writer to the command's output.
        let _ = send(self.channel, &Order::Stop, &[]);
        self.drain();
        drop(self.terminal);
        let end = if self.timed_out && matches!(end, End::Command(_)) { End::TimedOut } else { end };
        (end, self.observer)
    }

    fn next_timer(&self) -> Duration {
        let timers = [self.deadline, self.kill_at, self.dead_at, self.settle_at, Some(self.verify_at)];
        let next = timers.into_iter().flatten().min().unwrap_or(self.verify_at);
        next.saturating_duration_since(Instant::now())
    }

    /// Does what is due; the end, when that is.
    fn timers(&mut self) -> Option<End> {
        let now = Instant::now();
        if self.dead_at.is_some_and(|d| d <= now) {
            // With init ends whatever still runs.
            return Some(End::Command(Outcome::Signaled(Signal::SIGKILL as i32)));
        }
        if self.deadline.is_some_and(|d| d <= now) {
            self.deadline = None;
            self.timed_out = true;
            self.end_command(Signal::SIGTERM);
        }
        if self.kill_at.is_some_and(|k| k <= now) {
            self.kill_at = None;
            self.dead_at.get_or_insert(now + DEAD);
            self.order(&Order::Signal(COMMAND, Signal::SIGKILL as i32));
        }
        if self.settle_at.is_some_and(|s| s <= now) {
            self.settle_at = None;
            memory::settle();
        }
        if self.verify_at <= now {
            self.verify_at = now + VERIFY_EVERY;
            self.order(&Order::VerifyFence);
        }
        None
    }

    fn handle(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Init(report, fds) => return self.report(report, fds),
            Event::InitGone => return Some(End::Lost),
            Event::Signal(signal) => self.signal(signal),
            Event::PolicyChanged => self.reload(),
            Event::DoorFailed(why) => return Some(End::Door(why)),
        }
        None
    }

    fn report(&mut self, report: Report, fds: Vec<OwnedFd>) -> Option<End> {
        match report {
            Report::Spawned(_, pid, layers) => {
                // Later than a clock can say is never.
                self.deadline = self.timeout.and_then(|t| Instant::now().checked_add(t));
                self.settle_at = Some(Instant::now() + SETTLE);
                if let Some(Err(e)) = fds.into_iter().next().map(|master| self.attach(master)) {
                    self.observer.failed_order(&format!("attach the terminal: {e}"));
                }
                self.observer.launched(pid, &layers);
                self.early.take().unwrap_or_default().into_iter().for_each(|signal| self.signal(signal));
            }
            Report::NotSpawned(_, e) => return Some(End::NotStarted(e)),
            Report::Ended(COMMAND, outcome) => return Some(End::Command(outcome)),
            Report::Stopped(COMMAND, _) => {
                // One from now on needs an answer of its own.
                self.stopped.store(false, Ordering::Release);
                self.suspend();
            }
            Report::FenceDrift(what) => {
                // Whoever repairs it need not wait long to see that it is repaired.
                self.verify_at = Instant::now() + VERIFY_AGAIN;
                self.observer.fence_drift(&what);
            }
            Report::PortsSet(Err(why)) => self.observer.failed_order(&format!("change the fence's ports: {why}")),
            Report::Masks(events) => {
                self.observer.masks(&events);
                if self.hidden_required {
                    return Some(End::Bare(events.join("; ")));
                }
            }
            Report::Created(paths) => self.observer.masks(&paths),
            Report::Connects => self.observer.connects(fds),
            Report::FenceIntact => self.observer.fence_intact(),
            Report::Ended(..) | Report::Stopped(..) | Report::PortsSet(Ok(())) => {}
            Report::Ready(..) | Report::Failed(_) | Report::Connecting(..) => {}
        }
        None
    }

    fn attach(&mut self, master: OwnedFd) -> io::Result<()> {
        let (terminal, output) = Terminal::attach(master)?;
        self.outputs.push(output);
        self.terminal = Some(terminal);
        Ok(())
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(early) = &mut self.early {
            // Like the kernel's own: each waits once.
            if !early.contains(&signal) {
                early.push(signal);
            }
            return;
        }
        match signal {
            // From the kernel or the shell, because the terminal closed; from a person, it means the policy.
            Signal::SIGHUP if self.controlled && !terminal::controlled() => self.terminal_closed(),
            Signal::SIGHUP => {
                self.reload();
                if self.entrypoint {
                    self.order(&Order::Signal(COMMAND, Signal::SIGHUP as i32));
                }
            }
            Signal::SIGWINCH => match &self.terminal {
                Some(t) => t.resize(),
                None => self.order(&Order::Signal(COMMAND, Signal::SIGWINCH as i32)),
            },
            Signal::SIGTSTP => self.stop_command(),
            Signal::SIGCONT => self.go_on(),
            Signal::SIGTERM => self.end_command(Signal::SIGTERM),
            other => self.order(&Order::Signal(COMMAND, other as i32)),
        }
    }

    /// Kernel and shell both say so; the second word is no request to hurry.
    fn terminal_closed(&mut self) {
        if self.kill_at.is_none() {
            self.end_command(Signal::SIGHUP);
        }
    }

    /// Asks the command to end; a second request, or the end of the grace period, kills it.
    fn end_command(&mut self, signal: Signal) {
        if self.kill_at.is_some() {
            self.kill_at = Some(Instant::now());
            return;
        }
        self.observer.ending();
        self.kill_at = Some(Instant::now() + self.grace);
        self.order(&Order::Signal(COMMAND, signal as i32));
        // A stopped program acts on TERM only once it runs again.
        self.order(&Order::Signal(COMMAND, Signal::SIGCONT as i32));
    }

    /// Asked to stop. On a terminal of its own the command is asked too, and what it does comes back as
    /// [`Report::Stopped`]. Without one it leads its session, where TSTP has no effect, so it gets STOP.
    fn stop_command(&mut self) {
        if self.terminal.as_ref().is_some_and(Terminal::has_host) {
            self.order(&Order::Signal(COMMAND, Signal::SIGTSTP as i32));
        } else {
            self.order(&Order::Signal(COMMAND, Signal::SIGSTOP as i32));
            if signals::can_stop() {
                signals::stop(nix::unistd::getpid());
            }
        }
    }

    /// The command stopped on its own terminal: give the host's terminal back to the shell that started us and stop as
    /// a job, the whole of it, as it would have without us. A command without a terminal that stops itself stops alone:
    /// its time limit and the door go on.
    fn suspend(&mut self) {
        if let Some(terminal) = self.terminal.as_ref().filter(|t| t.has_host()) {
            terminal.release();
            signals::stop(nix::unistd::Pid::from_raw(0));
        }
    }

    /// Continued after a stop, or never stopped because no shell could have continued us.
    fn go_on(&mut self) {
        // A terminal that closed cannot be taken back, and nobody would read of it.
        if self.terminal.as_ref().is_some_and(|t| t.resume().is_err()) && terminal::controlled() == self.controlled {
            self.observer.failed_order("take the terminal back after a stop");
        }
        self.order(&Order::Signal(COMMAND, Signal::SIGCONT as i32));
    }

    fn reload(&mut self) {
        if let Some(ports) = self.observer.reload() {
            self.order(&Order::Ports(ports));
        }
    }

    fn order(&mut self, order: &Order) {
        if let Err(e) = send(self.channel, order, &[]) {
            self.observer.failed_order(&format!("{order:?}: {e}"));
        }
    }

    /// Lets the output pumps finish.
    fn drain(&mut self) {
        let until = Instant::now() + DRAIN;
        for pump in self.outputs.drain(..) {
            while !pump.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
