//! Then: threads start, and the door answers.

use std::{
    io,
    os::fd::OwnedFd,
    panic,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use stockade_audit::{
    Audit, Event as AuditEvent, FileSink, HeadHandle, Lifecycle, LineSink, Record, Settings, Summary, Tap, Writer,
};
use stockade_confine::{limits::Cgroup, sandbox::Sandbox};
use stockade_egress::{Config as DoorConfig, Deps, Door, InForce, Listeners, Tls, resolver};
use stockade_telemetry::{Check, Health, Traces};
use stockade_types::{Escaped, Reason};
use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
};

use super::{
    FLUSH,
    isolate::{Building, Isolated, Prepared},
};
use crate::{
    callers::Callers,
    config::{Config, Voice},
    error::Error,
    in_force::Secrets,
    learn,
    observer::LOUD,
    operator::{Counted, Operator, Subjects},
    prepare::Decided,
    publish::{self, Published},
    reaper::Reaper,
    refusals::Refusals,
    running::{self, Event},
    signals, ssh,
    stdio::{LogFormat, say_failure},
};

/// Threads of the runtime that serves the door.
const WORKERS: usize = 2;

/// The door answers.
pub(super) struct Serving<'a> {
    pub(super) config: &'a Config,
    pub(super) decided: Decided,
    pub(super) sandbox: Sandbox,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) runtime: Runtime,
    pub(super) audit: Audit,
    pub(super) writer: Writer,
    pub(super) summary: Summary,
    pub(super) head: Option<HeadHandle>,
    pub(super) learned: Option<(learn::Recording, learn::Output)>,
    pub(super) policy: watch::Sender<Arc<InForce>>,
    /// Goes to whoever reloads the policy.
    pub(super) secrets: Option<Secrets>,
    pub(super) callers: Callers,
    pub(super) ssh: Option<(ssh::Ready, Option<OwnedFd>)>,
    pub(super) refusals: Option<Refusals>,
    pub(super) signals: nix::sys::signal::SigSet,
    pub(super) reaper: Reaper,
    /// Everything that can happen while the command runs arrives here.
    pub(super) events: Option<(mpsc::SyncSender<Event>, mpsc::Receiver<Event>)>,
    pub(super) operator: Operator,
    pub(super) published: Option<Published>,
    /// Published ports, once there is a command.
    pub(super) publishing: Option<publish::Serving>,
    /// Ends the door when dropped.
    pub(super) open: Option<oneshot::Sender<()>>,
    /// Resolves when the door has closed.
    pub(super) door: tokio::task::JoinHandle<()>,
}

/// What does not need the sandbox to stand.
struct Engine {
    signals: nix::sys::signal::SigSet,
    runtime: Runtime,
    audit: Audit,
    writer: Writer,
    summary: Summary,
    head: Option<HeadHandle>,
    learned: Option<(learn::Recording, learn::Output)>,
    resolver: Arc<Counted<Arc<resolver::System>>>,
    ssh: Option<ssh::Ready>,
}

impl Engine {
    fn start(before: &mut Prepared<'_>) -> Result<Self, Error> {
        // Before the first thread, which inherits it.
        let signals = signals::block().map_err(Error::io("block signals"))?;
        let log = before.log.take();
        let head = log.as_ref().map(FileSink::head);
        let summary = Summary::new();
        let learned = before.learned.take().map(|output| (learn::Recording::new(&before.decided.policy), output));
        let system = Arc::new(resolver::System::from_host().map_err(|e| Error::Door(e.to_string()))?);
        let traces = before.operator.traces(before.config, &system).unwrap_or_else(|why| {
            before.decided.notices.push(why);
            None
        });
        let (audit, writer) = start_audit(before, (log, traces), &summary, learned.as_ref().map(|(r, _)| r))?;
        room_for_threads().map_err(Error::Threads)?;
        let runtime = runtime()?;
        before.operator.serve(&runtime, &audit);
        before.operator.send_traces(&runtime, before.config.voice);
        let resolver = Arc::new(Counted::new(system));
        let grants = &before.decided.plan.view.grants;
        let ssh = before.config.ssh.as_ref();
        let ssh = ssh.map(|s| ssh::Ready::new(s, &before.id, grants, runtime.handle())).transpose()?;
        Ok(Self { signals, runtime, audit, writer, summary, head, learned, resolver, ssh })
    }
}

/// The runtime panics where it cannot have its threads, and then waits for ever for those that it has: whoever took their
/// room since ours were tried, it must not come to that.
fn runtime() -> Result<Runtime, Error> {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(|info| {
        let why = info.payload_as_str().unwrap_or("no reason given");
        let error = Error::Threads(io::Error::other(why.to_owned()));
        say_failure(format_args!("stockade: {error}"));
        std::process::exit(i32::from(error.exit_code()));
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_stack_size(512 * 1024)
        .enable_all()
        .build();
    panic::set_hook(usual);
    runtime.map_err(Error::io("start the proxy's threads"))
}

/// Tries threads as the runtime will have them.
fn room_for_threads() -> io::Result<()> {
    let (hold, held) = mpsc::sync_channel::<()>(0);
    let held = Mutex::new(held);
    thread::scope(|scope| {
        let hold = hold;
        // Until nobody can send any more.
        let wait = || held.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap_or(());
        let all: io::Result<Vec<_>> =
            (0..WORKERS).map(|_| thread::Builder::new().stack_size(64 * 1024).spawn_scoped(scope, wait)).collect();
        // They were there at the same time; now they end.
        drop(hold);
        all.map(drop)
    })
}

impl<'a> Building<'a> {
    pub(super) fn serve(mut self) -> Result<Serving<'a>, Error> {
        // All that can be made while init builds is made now.
        let engine = Engine::start(&mut self.before)?;
        // Nobody reads signals before there is a command: until then they end this process, and init with it.
        // But the first process of a container would lose them: it has them wait.
        if signals::can_stop() {
            engine.signals.thread_unblock().map_err(|e| Error::io("unblock signals")(e.into()))?;
        }
        let isolated = self.ready().inspect_err(|e| not_ready(&engine, e))?;
        engine.signals.thread_block().map_err(|e| Error::io("block signals")(e.into()))?;
        let Isolated {
            before: Prepared { config, mut decided, operator, published, .. },
            mut sandbox,
            cgroup,
            policy,
            trust,
            secrets,
        } = isolated;
        let Engine { signals, runtime, audit, writer, summary, head, learned, resolver, ssh } = engine;
        let reaper = Reaper::start(sandbox.init.pid()).map_err(Error::io("wait for children"))?;
        let (policy, reader) = watch::channel(policy);
        let (open, closed) = oneshot::channel::<()>();
        let tls = Tls { interceptor: trust.interceptor, connector: trust.connector };
        let root =
            sandbox.sockets.root.as_ref().map(OwnedFd::try_clone).transpose().map_err(Error::io("keep the root"))?;
        let callers = Callers::start(&mut sandbox)?;
        decided.notices.extend(callers.pin(&policy.borrow())?);
        let lookups = resolver.lookups();
        let deps = Deps { peers: callers.peers(), policy: reader.clone(), audit: audit.clone(), resolver, tls };
        let listeners = listeners(&mut sandbox)?;
        let (events, inbox) = mpsc::sync_channel(running::EVENTS);
        let door = DoorConfig {
            own_ports: operator
                .ports()
                .into_iter()
                .chain(published.ports())
                .chain(ssh.as_ref().and_then(ssh::Ready::port))
                .collect(),
            ..DoorConfig::default()
        }
        .build(deps);
        operator.watch(Subjects {
            door: door.clone(),
            audit: audit.clone(),
            policy: reader.clone(),
            lookups,
            init: sandbox.init.pid(),
        });
        let door = runtime.spawn(keep_open(door, listeners, closed, operator.health(), events.clone()));
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
            secrets: Some(secrets),
            callers,
            ssh: ssh.map(|ready| (ready, root)),
            refusals,
            signals,
            reaper,
            events: Some((events, inbox)),
            operator,
            published: Some(published),
            publishing: None,
            open: Some(open),
            door,
        })
    }
}

fn listeners(sandbox: &mut Sandbox) -> Result<Listeners, Error> {
    let sockets = &mut sandbox.sockets;
    Ok(Listeners {
        proxy: sockets.proxy.pop().ok_or_else(|| Error::Door("init made no listener".to_owned()))?,
        transparent: std::mem::take(&mut sockets.transparent),
        dns_udp: std::mem::take(&mut sockets.dns_udp),
        dns_tcp: std::mem::take(&mut sockets.dns_tcp),
    })
}

/// Serves the door until `closed`. That it cannot is said to the loop, which ends the command.
async fn keep_open(
    door: Door,
    listeners: Listeners,
    closed: oneshot::Receiver<()>,
    health: Health,
    failed: mpsc::SyncSender<Event>,
) {
    health.well(Check::Door);
    if let Err(e) = door.serve(listeners, async move { drop(closed.await) }).await {
        health.ill(Check::Door, &e);
        // Nobody to tell when the run is over already.
        let _ = failed.send(Event::DoorFailed(e.to_string()));
    }
}

/// A start that fails is in the log too.
fn not_ready(engine: &Engine, e: &Error) {
    let (reason, detail) = (e.reason(), e.to_string());
    engine.audit.emit(AuditEvent::Lifecycle(Lifecycle { phase: "fail", reason, layers: Vec::new(), detail }));
    // The failure itself matters more than a log that is too slow for it.
    let _ = engine.audit.flush(FLUSH);
}

fn start_audit(
    before: &Prepared<'_>,
    (log, traces): (Option<FileSink>, Option<Traces>),
    summary: &Summary,
    learned: Option<&learn::Recording>,
) -> Result<(Audit, Writer), Error> {
    let mut settings = Settings::new(before.id.clone()).sink(summary.clone());
    if let Some(traces) = traces {
        settings = settings.sink(traces);
    }
    if let Some(metrics) = before.operator.metrics() {
        settings = settings.sink(metrics);
    }
    if let Some(file) = log {
        settings = settings.sink(file);
    }
    let json = before.config.operations.log_format == LogFormat::Json;
    match before.config.voice {
        Voice::Errors => {}
        // What a person must know of even when denials are kept for the summary: a log that fails, a wall that changed.
        Voice::Notices => {
            let entrypoint = before.config.duty.entrypoint;
            settings = settings.sink(Tap::new(move |record: &Record| say_finding(record, entrypoint)));
        }
        Voice::Denials => settings = settings.sink(LineSink::new(io::stderr(), 2).json(json)),
        Voice::Everything => settings = settings.sink(LineSink::new(io::stderr(), 0).json(json)),
    }
    if let Some(recording) = learned {
        let recording = recording.clone();
        settings = settings.sink(Tap::new(move |record: &Record| recording.observe(&record.event)));
    }
    Audit::start(settings).map_err(|e| Error::Audit(e.to_string()))
}

/// The machine's own weaknesses are the same at every start: the log and `doctor` tell them. An entrypoint says them: who
/// started its container reads what it writes.
fn say_finding(record: &Record, entrypoint: bool) {
    if let AuditEvent::Finding(finding) = &record.event
        && finding.severity >= LOUD
        && (entrypoint || finding.reason != Reason::OuterWeak)
    {
        // The carriage return is for a terminal in raw mode.
        crate::say(format_args!("stockade: {}\r", Escaped(&finding.detail)));
    }
}
