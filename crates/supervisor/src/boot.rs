//! From a plan to a running command, as types: each step consumes the one before and holds what it made.
//!
//! [`Prepared`] → [`Isolated`] (the sandbox stands) → [`Serving`] (the door answers) → the command runs.

use std::{
    collections::BTreeSet,
    io,
    os::fd::AsFd,
    sync::{Arc, mpsc},
    time::Duration,
};

use caps::Capability;
use stockade_audit::{
    Audit, Event as AuditEvent, FileSink, HeadHandle, Lifecycle, LineSink, ProcessActivity, Rotation, Settings,
    Summary, Tap, Writer,
};
use stockade_confine::{
    limits::{self, Cgroup, Usage},
    message::{Order, Outcome, Size, Spawn, send},
    plan::Mode,
    privileges,
    sandbox::{Sandbox, Starting},
    seccomp::{Arch, Filter},
};
use stockade_egress::{Config as DoorConfig, Deps, Listeners, resolver};
use stockade_policy::{Posture as PolicyPosture, Snapshot, WEB_PORTS};
use stockade_types::{Enforcement, Generation, Layer, LayerStatus, SandboxId};
use tokio::sync::watch;

use crate::{
    config::{Config, Posture, Voice},
    error::Error,
    learn,
    observer::Recorder,
    prepare::{self, Decided},
    refusals::Refusals,
    running::{self, COMMAND, End, Event, Running},
    signals, stdio, watch as files,
};

/// How long the last audit events may take to reach the disk.
const FLUSH: Duration = Duration::from_secs(2);
/// Caught while learning, besides the web's ports.
const SSH_PORT: u16 = 22;
/// Exit code for a command that was ended by `--timeout`.
const EXIT_TIMED_OUT: i32 = 124;

/// How a run ended.
#[derive(Debug)]
pub struct Finished {
    /// The code to exit with.
    pub code: u8,
    /// What was blocked.
    pub summary: Summary,
    /// What the command used.
    pub usage: Usage,
    /// Layers as they were enforced.
    pub layers: Vec<LayerStatus>,
    /// Newest line of the audit log, where there is one.
    pub head: Option<HeadHandle>,
}

/// Runs one command in one sandbox. The caller must be single-threaded.
///
/// # Errors
/// [`Error`]; unless it is [`Error::Lost`], nothing was run.
pub fn run(config: &Config) -> Result<Finished, Error> {
    Prepared::new(config)?.isolate()?.serve()?.launch()
}

/// Everything is read and decided; the process still has one thread.
pub(crate) struct Prepared<'a> {
    config: &'a Config,
    decided: Decided,
    id: SandboxId,
    log: Option<FileSink>,
    learned: Option<learn::Output>,
}

/// The sandbox stands, empty.
pub(crate) struct Isolated<'a> {
    before: Prepared<'a>,
    pub(crate) sandbox: Sandbox,
    cgroup: Option<Cgroup>,
    snapshot: Arc<Snapshot>,
}

/// The door answers.
struct Serving<'a> {
    config: &'a Config,
    decided: Decided,
    sandbox: Sandbox,
    cgroup: Option<Cgroup>,
    runtime: tokio::runtime::Runtime,
    audit: Audit,
    writer: Writer,
    summary: Summary,
    head: Option<HeadHandle>,
    learned: Option<(learn::Recording, learn::Output)>,
    policy: watch::Sender<Arc<Snapshot>>,
    refusals: Option<Refusals>,
    signals: nix::sys::signal::SigSet,
    /// Everything that can happen while the command runs arrives here.
    events: Option<(mpsc::Sender<Event>, mpsc::Receiver<Event>)>,
    /// Ends the door when dropped.
    open: Option<tokio::sync::oneshot::Sender<()>>,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(config: &'a Config) -> Result<Self, Error> {
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| Error::Io { step: "getrandom", source: e.into() })?;
        let id = SandboxId::from_random(seed);
        // Opened first: a log that lies in the workspace must exist to be protected.
        let mut log = match &config.audit_log {
            Some(path) => {
                Some(FileSink::open(path, &id, Rotation::default()).map_err(|e| Error::Audit(e.to_string()))?)
            }
            None => None,
        };
        let learned = match &config.posture {
            Posture::Learn(path) => Some(learn::Output::open(path)?),
            Posture::Enforce => None,
        };
        let decided = prepare::decide(config, "stockade")?;
        let place = config.audit_log.as_ref().and_then(|p| std::fs::canonicalize(p).ok());
        if place.is_some_and(|p| prepare::writable(&decided.plan.view.grants, &p))
            && let Some(log) = &mut log
        {
            log.keep_in_one_file();
        }
        Ok(Self { config, decided, id, log, learned })
    }

    /// Whether the sandbox is made by root, without a user namespace.
    pub(crate) fn is_root(&self) -> bool {
        self.decided.plan.mode == Mode::Root
    }

    /// Gives up what the supervisor does not need once init is forked. Before the first thread: capabilities and
    /// filters belong to threads.
    fn reduce(&self) -> Result<(), Error> {
        let own = |e: &dyn std::fmt::Display| Error::Own(e.to_string());
        privileges::harden_supervisor().map_err(|e| own(&e))?;
        if self.is_root() {
            // For what is removed and made later: cgroups, whose parent directories nobody may write, a rotated log.
            privileges::drop_supervisor(&[Capability::CAP_DAC_OVERRIDE]).map_err(|e| own(&e))?;
        } else {
            rustix::thread::set_no_new_privs(true).map_err(|e| own(&e))?;
        }
        raise_descriptors().map_err(|e| own(&e))?;
        let filter = Arch::native().and_then(Filter::compile_supervisor).map_err(|e| own(&e))?;
        filter.apply().map(drop).map_err(|e| own(&e))
    }

    pub(crate) fn isolate(mut self) -> Result<Isolated<'a>, Error> {
        self.decided.plan.fence.transparent_ports = endpoint_ports(&self.decided, &self.config.posture);
        let plan = &mut self.decided.plan;
        let limits = limits::establish(&self.id, &self.decided.limits, plan.mode == Mode::Rootless);
        if let Some(unmet) = limits.unmet() {
            return Err(Error::Limits(unmet));
        }
        plan.rlimits = limits.rlimits;
        let starting = Starting::fork(plan, &self.decided.filter, limits.cgroup.as_ref())?;
        starting.go(plan)?;
        self.reduce()?;
        // Init builds meanwhile.
        let posture = match self.config.posture {
            Posture::Enforce => PolicyPosture::Enforce,
            Posture::Learn(_) => PolicyPosture::Learn,
        };
        let modules = &self.decided.steering.modules;
        let snapshot = Snapshot::compile(&self.decided.policy, modules, Generation::FIRST, posture)?;
        let mut sandbox = starting.ready(&self.decided.plan)?;
        let none = Enforcement::Absent("not available yet".to_owned());
        if self.decided.plan.require.contains(&Layer::Identity) {
            sandbox.layers.push(LayerStatus { layer: Layer::Identity, enforcement: none });
        }
        sandbox.layers.push(LayerStatus { layer: Layer::Limits, enforcement: limits.enforcement() });
        if let Some(failure) = self.decided.plan.unmet(&sandbox.layers) {
            return Err(stockade_confine::sandbox::StartError::Layer(failure).into());
        }
        Ok(Isolated { before: self, sandbox, cgroup: limits.cgroup, snapshot: Arc::new(snapshot) })
    }
}

/// Connections of the command cost descriptors here. init is forked already: the command keeps the caller's limit.
fn raise_descriptors() -> Result<(), rustix::io::Errno> {
    let resource = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(resource);
    rustix::process::setrlimit(resource, rustix::process::Rlimit { current: limit.maximum, ..limit })
}

/// Where direct connections are worth catching: every port of every endpoint, and while learning the usual ones.
fn endpoint_ports(decided: &Decided, posture: &Posture) -> BTreeSet<u16> {
    let ports = decided.policy.network().endpoints.iter().flat_map(|e| e.ports.iter().map(|p| p.get()));
    match posture {
        Posture::Enforce => ports.collect(),
        // No policy says yet what tools that ignore the proxy will dial.
        Posture::Learn(_) => ports.chain(WEB_PORTS).chain([SSH_PORT]).collect(),
    }
}

impl<'a> Isolated<'a> {
    fn serve(self) -> Result<Serving<'a>, Error> {
        let Self { before, mut sandbox, cgroup, snapshot } = self;
        let Prepared { config, decided, id, log, learned } = before;
        // Before the first thread, which inherits it.
        let signals = signals::block().map_err(Error::io("block signals"))?;
        let head = log.as_ref().map(FileSink::head);
        let summary = Summary::new();
        let learned = learned.map(|output| (learn::Recording::default(), output));
        let (audit, writer) = start_audit(config, &id, log, &summary, learned.as_ref().map(|(r, _)| r))?;
        let (policy, reader) = watch::channel(snapshot);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(512 * 1024)
            .enable_all()
            .build()
            .map_err(Error::io("start the proxy's threads"))?;
        let (open, closed) = tokio::sync::oneshot::channel::<()>();
        let deps = Deps {
            policy: reader.clone(),
            audit: audit.clone(),
            resolver: Arc::new(resolver::System::from_host().map_err(|e| Error::Door(e.to_string()))?),
        };
        let listeners = Listeners {
            proxy: sandbox.sockets.proxy.pop().ok_or_else(|| Error::Door("init made no listener".to_owned()))?,
            transparent: std::mem::take(&mut sandbox.sockets.transparent),
            dns_udp: std::mem::take(&mut sandbox.sockets.dns_udp),
            dns_tcp: std::mem::take(&mut sandbox.sockets.dns_tcp),
        };
        let (events, inbox) = mpsc::channel();
        let failed = events.clone();
        let door = DoorConfig::default().build(deps);
        runtime.spawn(async move {
            if let Err(e) = door.serve(listeners, async move { drop(closed.await) }).await {
                // Nobody to tell when the run is over already.
                let _ = failed.send(Event::DoorFailed(e.to_string()));
            }
        });
        let refusals = match sandbox.sockets.nflog.take() {
            Some(fd) => Some(Refusals::listen(fd, audit.clone(), reader).map_err(Error::io("read refused traffic"))?),
            None => None,
        };
        Ok(Serving {
            config,
            decided,
            sandbox,
            cgroup,
            runtime,
            audit,
            writer,
            summary,
            head,
            learned,
            policy,
            refusals,
            signals,
            events: Some((events, inbox)),
            open: Some(open),
        })
    }
}

fn start_audit(
    config: &Config,
    id: &SandboxId,
    log: Option<FileSink>,
    summary: &Summary,
    learned: Option<&learn::Recording>,
) -> Result<(Audit, Writer), Error> {
    let mut settings = Settings::new(id.clone()).sink(summary.clone());
    if let Some(file) = log {
        settings = settings.sink(file);
    }
    if config.voice >= Voice::Denials {
        let least = if config.voice == Voice::Everything { 0 } else { 2 };
        settings = settings.sink(LineSink::new(io::stderr(), least));
    }
    if let Some(recording) = learned {
        let recording = recording.clone();
        settings = settings.sink(Tap::new(move |record: &stockade_audit::Record| recording.observe(&record.event)));
    }
    Audit::start(settings).map_err(|e| Error::Audit(e.to_string()))
}

impl Serving<'_> {
    fn launch(mut self) -> Result<Finished, Error> {
        if self.config.voice >= Voice::Notices {
            self.decided.notices.iter().for_each(|n| crate::say(format_args!("stockade: {n}")));
        }
        if self.config.voice >= Voice::Everything {
            self.sandbox.notes.iter().for_each(|n| crate::say(format_args!("stockade: note: {n}")));
        }
        let (events, inbox) = self.events.take().unwrap_or_else(mpsc::channel);
        running::listen(&self.sandbox.channel, events.clone()).map_err(Error::io("listen to init"))?;
        let deliver = events.clone();
        signals::listen(&self.signals, move |s| deliver.send(Event::Signal(s)).is_ok())
            .map_err(Error::io("listen for signals"))?;
        self.watch_policy(events)?;
        let recorder = Recorder {
            config: self.config,
            audit: self.audit.clone(),
            policy: self.policy.clone(),
            started_with: self.decided.policy.clone(),
            uid: self.decided.account.identity.uid,
            layers: self.sandbox.layers.clone(),
            pid: None,
        };
        recorder.loaded();
        let (end, recorder) = {
            let mut running = Running::new(&self.sandbox.channel, inbox, recorder);
            running.timeout = self.config.timeout;
            running.hidden_required = self.decided.plan.require.contains(&Layer::Hidden);
            self.spawn(&mut running.outputs)?;
            running.wait()
        };
        let (layers, pid) = (recorder.layers.clone(), recorder.pid);
        drop(recorder);
        self.finish(end, layers, pid)
    }

    fn spawn(&self, outputs: &mut Vec<std::thread::JoinHandle<()>>) -> Result<(), Error> {
        let terminal = stdio::wants_terminal(self.config.terminal);
        let layout = stdio::layout(terminal)?;
        outputs.extend(layout.outputs);
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout())
            .map_or(Size { rows: 24, cols: 80 }, |s| Size { rows: s.ws_row, cols: s.ws_col });
        let spawn = Spawn {
            argv: prepare::argv(self.config),
            env: self.decided.environment.clone(),
            cwd: std::os::unix::ffi::OsStrExt::as_bytes(self.decided.cwd.as_os_str()).to_vec(),
            stdio: layout.kinds,
            size,
        };
        let fds: Vec<_> = layout.given.iter().map(AsFd::as_fd).collect();
        send(&self.sandbox.channel, &Order::Spawn(COMMAND, spawn), &fds).map_err(Error::io("order the command"))
    }

    /// Policy files are watched only where the command cannot write; the others are reloaded by SIGHUP, from a person.
    fn watch_policy(&self, events: mpsc::Sender<Event>) -> Result<(), Error> {
        let grants = &self.decided.plan.view.grants;
        let safe: Vec<_> =
            self.decided.steering.paths.iter().filter(|p| !prepare::writable(grants, p)).cloned().collect();
        if safe.is_empty() {
            return Ok(());
        }
        files::start(&safe, move || events.send(Event::PolicyChanged).is_ok()).map_err(Error::io("watch the policy"))
    }

    fn finish(mut self, end: End, layers: Vec<LayerStatus>, pid: Option<i32>) -> Result<Finished, Error> {
        // The sandbox is gone once init is reaped; its last refusals can still be read.
        drop(self.sandbox.channel);
        self.sandbox.init.wait();
        if let Some(refusals) = self.refusals.take() {
            refusals.finish();
        }
        let usage = self.cgroup.as_ref().map_or_else(Usage::of_children, Cgroup::usage);
        let (code, detail) = match &end {
            End::Command(outcome) => (outcome.code(), describe(*outcome)),
            End::TimedOut => (EXIT_TIMED_OUT, "the command's time was up".to_owned()),
            End::NotStarted(e) => (125, e.to_string()),
            End::Lost => (125, "init ended unexpectedly".to_owned()),
            End::Door(why) => (125, format!("the proxy failed: {why}")),
            End::Bare(what) => (125, format!("a hidden path lay bare: {what}")),
        };
        if let Some(pid) = pid.and_then(|p| u32::try_from(p).ok()) {
            let uid = self.decided.account.identity.uid;
            let argv = Vec::new();
            self.audit.emit(AuditEvent::Process(ProcessActivity { launched: false, pid, argv, uid, exit: Some(code) }));
        }
        let phase =
            if matches!(end, End::Lost | End::NotStarted(_) | End::Door(_) | End::Bare(_)) { "fail" } else { "stop" };
        let reason = None;
        self.audit.emit(AuditEvent::Lifecycle(Lifecycle { phase, reason, layers: Vec::new(), detail }));
        drop(self.open.take());
        self.runtime.shutdown_timeout(Duration::from_millis(200));
        // Whatever could not be written in time is counted in the log itself.
        let _ = self.audit.flush(FLUSH);
        let _ = self.writer.close(FLUSH);
        match end {
            End::NotStarted(e) => return Err(Error::Spawn(e)),
            End::Lost => return Err(Error::Lost),
            End::Door(why) => return Err(Error::Door(why)),
            End::Bare(what) => return Err(Error::Bare(what)),
            End::Command(_) | End::TimedOut => {}
        }
        if let Some((recording, output)) = &self.learned {
            recording.write(output)?;
        }
        let code = u8::try_from(code).unwrap_or(u8::MAX);
        Ok(Finished { code, summary: self.summary, usage, layers, head: self.head })
    }
}

fn describe(outcome: Outcome) -> String {
    match outcome {
        Outcome::Exited(code) => format!("the command ended with exit code {code}"),
        Outcome::Signaled(signal) => format!("the command was ended by signal {signal}"),
    }
}
