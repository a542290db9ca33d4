//! Last: the command runs and ends, and nothing is left behind.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use stockade_audit::{Event as AuditEvent, Lifecycle, ProcessActivity};
use stockade_confine::{
    limits::{Cgroup, Usage},
    message::{Order, Outcome, Size, Spawn, SpawnError, send},
};
use stockade_telemetry::Phase;
use stockade_types::{Escaped, Layer, LayerStatus, Reason};

use super::{FLUSH, Finished, serve::Serving};
use crate::{
    config::Voice,
    error::Error,
    held,
    inside::{Inside, Surroundings},
    missing,
    observer::{self, Recorder},
    prepare::{self, Decided},
    reaper::Reaper,
    running::{self, COMMAND, End, Event, Running},
    signals, sockets, ssh, stdio, watch as files,
};

/// How long the door may take to close: a little more than it gives to what is open.
const CLOSING: Duration = Duration::from_secs(2);
/// Exit code for a command that was ended by `--timeout`.
const EXIT_TIMED_OUT: i32 = 124;

impl Serving<'_> {
    pub(super) fn launch(mut self) -> Result<Finished, Error> {
        if self.config.voice >= Voice::Notices {
            self.decided.notices.iter().for_each(|n| crate::say(format_args!("stockade: {}", Escaped(n))));
        }
        if self.config.voice >= Voice::Everything {
            self.sandbox.notes.iter().for_each(|n| crate::say(format_args!("stockade: note: {}", Escaped(n))));
        }
        let (events, inbox) = self.events.take().unwrap_or_else(|| mpsc::sync_channel(running::EVENTS));
        let inside = self.inside()?;
        let stopped = running::listen(&self.sandbox.channel, events.clone(), inside.clone())
            .map_err(Error::io("listen to init"))?;
        let deliver = events.clone();
        signals::listen(&self.signals, move |s| deliver.send(Event::Signal(s)).is_ok())
            .map_err(Error::io("listen for signals"))?;
        self.watch_policy(events)?;
        let recorder = Recorder {
            config: self.config,
            audit: self.audit.clone(),
            policy: self.policy.clone(),
            callers: self.callers.clone(),
            started_with: self.decided.policy.clone(),
            uid: self.decided.account.identity.uid,
            layers: self.sandbox.layers.clone(),
            pid: None,
            secrets: self.secrets.take(),
            operator: self.operator.clone(),
            held: self.decided.held.clone(),
        };
        recorder.loaded();
        self.decided.outer.iter().for_each(|weak| recorder.finding(Reason::OuterWeak, 4, weak.clone()));
        sockets::report(&self.decided.plan.view, self.audit.clone()).map_err(Error::io("search for sockets"))?;
        let ready = self.ssh.take();
        let (end, recorder) = {
            let mut running = Running::new(&self.sandbox.channel, inbox, recorder);
            running.stopped = stopped;
            running.timeout = self.config.timeout;
            running.entrypoint = self.config.duty.entrypoint;
            let usual = if running.entrypoint { running::ENTRYPOINT_GRACE } else { running.grace };
            running.grace = self.config.grace.unwrap_or(usual);
            running.hidden_required = self.decided.plan.require.contains(&Layer::Hidden);
            self.spawn(&mut running.outputs, inside.surroundings())?;
            let (audit, policy) = (self.audit.clone(), self.policy.subscribe());
            self.publishing = self.published.take().and_then(|p| p.serve(&self.runtime, inside.clone(), audit, policy));
            let _ssh = ready.map(|ready| self.serve_ssh(ready, inside)).transpose()?;
            running.wait()
        };
        self.operator.health().enter(Phase::Ending);
        let (layers, pid) = (recorder.layers.clone(), recorder.pid);
        drop(recorder);
        self.finish(end, layers, pid)
    }

    /// From now on somebody may come in.
    fn serve_ssh(&self, (ready, root): (ssh::Ready, Option<OwnedFd>), inside: Inside) -> Result<ssh::Serving, Error> {
        if self.config.voice >= Voice::Notices {
            ready.notices().iter().for_each(|n| crate::say(format_args!("stockade: {}", Escaped(n))));
        }
        let serving = ready.serve(inside, root, self.audit.clone(), self.runtime.handle())?;
        self.operator.watch_ssh(Arc::clone(&serving.counts));
        Ok(serving)
    }

    fn spawn(&self, outputs: &mut Vec<JoinHandle<()>>, surroundings: &Surroundings) -> Result<(), Error> {
        let terminal = stdio::wants_terminal(self.config.terminal);
        let layout = stdio::layout(terminal)?;
        outputs.extend(layout.outputs);
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout())
            .map_or(Size { rows: 24, cols: 80 }, |s| Size { rows: s.ws_row, cols: s.ws_col });
        let spawn = Spawn {
            argv: prepare::argv(self.config),
            env: surroundings.environment(),
            cwd: surroundings.cwd.as_os_str().as_bytes().to_vec(),
            stdio: layout.kinds,
            size,
        };
        let fds: Vec<_> = layout.given.iter().map(AsFd::as_fd).collect();
        send(&self.sandbox.channel, &Order::Spawn(COMMAND, spawn), &fds).map_err(Error::io("order the command"))
    }

    /// What else runs inside, from now on.
    fn inside(&self) -> Result<Inside, Error> {
        let surroundings = Surroundings {
            environment: self.decided.environment.clone(),
            policy: self.policy.subscribe(),
            cwd: self.decided.cwd.clone(),
            uid: self.decided.account.identity.uid,
            door_ports: self.decided.plan.door_ports(),
        };
        let (runtime, audit, callers) = (self.runtime.handle().clone(), self.audit.clone(), self.callers.clone());
        Inside::start(&self.sandbox.channel, runtime, surroundings, audit, callers).map_err(Error::io("order init"))
    }

    /// Policy files are watched only where the command cannot write; the others are reloaded by SIGHUP, from a person.
    fn watch_policy(&self, events: mpsc::SyncSender<Event>) -> Result<(), Error> {
        let grants = &self.decided.plan.view.grants;
        let safe: Vec<_> = self
            .decided
            .steering
            .ways
            .iter()
            .filter(|w| !held::writable(grants, &w.end))
            .flat_map(|w| [(w.end.clone(), w.seen), (w.given.clone(), w.seen)])
            .collect();
        if safe.is_empty() {
            return Ok(());
        }
        files::start(safe, move || events.send(Event::PolicyChanged).is_ok()).map_err(Error::io("watch the policy"))
    }

    fn finish(mut self, end: End, layers: Vec<LayerStatus>, pid: Option<i32>) -> Result<Finished, Error> {
        // The sandbox is gone once init is reaped; its last refusals can still be read.
        drop(self.sandbox.channel);
        self.sandbox.init.wait();
        if let Some(refusals) = self.refusals.take() {
            refusals.finish();
        }
        if let Some(publishing) = self.publishing.take() {
            self.runtime.block_on(publishing.close());
        }
        // What was sent last may still be on its way out; whoever sent it is gone.
        drop(self.open.take());
        let _ = self.runtime.block_on(async { tokio::time::timeout(CLOSING, &mut self.door).await });
        let usage = self.cgroup.as_ref().map_or_else(Usage::of_children, Cgroup::usage);
        let (code, detail) = match &end {
            End::Command(outcome) => (outcome.code(), describe(*outcome)),
            End::TimedOut => (EXIT_TIMED_OUT, "the command's time was up".to_owned()),
            End::NotStarted(e) => (125, e.to_string()),
            End::Lost => (125, lost(&self.reaper)),
            End::Door(why) => (125, format!("the proxy failed: {why}")),
            End::Bare(what) => (125, format!("a hidden path lay bare: {what}")),
        };
        if let Some(pid) = pid.and_then(|p| u32::try_from(p).ok()) {
            let uid = self.decided.account.identity.uid;
            let argv = observer::argv(self.config);
            self.audit.emit(AuditEvent::Process(ProcessActivity { launched: false, pid, argv, uid, exit: Some(code) }));
        }
        let phase =
            if matches!(end, End::Lost | End::NotStarted(_) | End::Door(_) | End::Bare(_)) { "fail" } else { "stop" };
        let reason = match &end {
            End::NotStarted(SpawnError::Unmet(failure)) => Some(failure.reason()),
            End::Bare(_) => Some(Reason::LayerUnavailable),
            _ => None,
        };
        self.audit.emit(AuditEvent::Lifecycle(Lifecycle { phase, reason, layers: Vec::new(), detail }));
        // Whatever could not be written in time is counted in the log itself.
        let _ = self.audit.flush(FLUSH);
        self.runtime.block_on(self.operator.flush_traces());
        self.runtime.shutdown_timeout(Duration::from_millis(200));
        let written = self.writer.close(FLUSH);
        let log_failing = !written || self.audit.failing();
        if matches!(end, End::TimedOut) && self.config.voice >= Voice::Notices {
            crate::say(format_args!("stockade: the command was ended: its time (--timeout) was up"));
        }
        match end {
            End::NotStarted(e) => {
                let Decided { plan, cwd, environment, .. } = &self.decided;
                let inside =
                    missing::Inside { view: &plan.view, cwd, environment, policy: !self.config.policy.is_empty() };
                let text = missing::text(&e, &inside);
                return Err(Error::Spawn(e, text));
            }
            End::Lost => return Err(Error::Lost),
            End::Door(why) => return Err(Error::Door(why)),
            End::Bare(what) => return Err(Error::Bare(what)),
            End::Command(_) | End::TimedOut => {}
        }
        let learned = self.learned.as_ref().map(|(recording, output)| recording.write(output)).transpose()?;
        let code = u8::try_from(code).unwrap_or(u8::MAX);
        Ok(Finished { code, summary: self.summary, usage, layers, head: self.head, learned, log_failing })
    }
}

/// How init ended: memory that ran out is the usual reason.
fn lost(reaper: &Reaper) -> String {
    match reaper.init_killed_by() {
        Some(signal) => format!("init was killed by signal {signal}"),
        None => "init ended unexpectedly".to_owned(),
    }
}

fn describe(outcome: Outcome) -> String {
    match outcome {
        Outcome::Exited(code) => format!("the command ended with exit code {code}"),
        Outcome::Signaled(signal) => format!("the command was ended by signal {signal}"),
    }
}
