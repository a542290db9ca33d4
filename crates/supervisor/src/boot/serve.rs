//! Then: threads start, and the door answers.

use std::{
    io,
    sync::{Arc, mpsc},
};

use stockade_audit::{
    Audit, Event as AuditEvent, FileSink, HeadHandle, Lifecycle, LineSink, Record, Settings, Summary, Tap, Writer,
};
use stockade_confine::{limits::Cgroup, sandbox::Sandbox};
use stockade_egress::{Config as DoorConfig, Deps, InForce, Listeners, Tls, resolver};
use stockade_types::{Escaped, Reason, SandboxId};
use tokio::sync::watch;

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
    prepare::Decided,
    reaper::Reaper,
    refusals::Refusals,
    running::Event,
    signals,
};

/// The door answers.
pub(super) struct Serving<'a> {
    pub(super) config: &'a Config,
    pub(super) decided: Decided,
    pub(super) sandbox: Sandbox,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) audit: Audit,
    pub(super) writer: Writer,
    pub(super) summary: Summary,
    pub(super) head: Option<HeadHandle>,
    pub(super) learned: Option<(learn::Recording, learn::Output)>,
    pub(super) policy: watch::Sender<Arc<InForce>>,
    /// Goes to whoever reloads the policy.
    pub(super) secrets: Option<Secrets>,
    pub(super) callers: Callers,
    pub(super) refusals: Option<Refusals>,
    pub(super) signals: nix::sys::signal::SigSet,
    pub(super) reaper: Reaper,
    /// Everything that can happen while the command runs arrives here.
    pub(super) events: Option<(mpsc::Sender<Event>, mpsc::Receiver<Event>)>,
    /// Ends the door when dropped.
    pub(super) open: Option<tokio::sync::oneshot::Sender<()>>,
}

/// What does not need the sandbox to stand.
struct Engine {
    signals: nix::sys::signal::SigSet,
    runtime: tokio::runtime::Runtime,
    audit: Audit,
    writer: Writer,
    summary: Summary,
    head: Option<HeadHandle>,
    learned: Option<(learn::Recording, learn::Output)>,
    resolver: Arc<resolver::System>,
}

impl Engine {
    fn start(before: &mut Prepared<'_>) -> Result<Self, Error> {
        // Before the first thread, which inherits it.
        let signals = signals::block().map_err(Error::io("block signals"))?;
        let log = before.log.take();
        let head = log.as_ref().map(FileSink::head);
        let summary = Summary::new();
        let learned = before.learned.take().map(|output| (learn::Recording::default(), output));
        let (audit, writer) = start_audit(before.config, &before.id, log, &summary, learned.as_ref().map(|(r, _)| r))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(512 * 1024)
            .enable_all()
            .build()
            .map_err(Error::io("start the proxy's threads"))?;
        let resolver = Arc::new(resolver::System::from_host().map_err(|e| Error::Door(e.to_string()))?);
        Ok(Self { signals, runtime, audit, writer, summary, head, learned, resolver })
    }
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
        let Isolated { before: Prepared { config, mut decided, .. }, mut sandbox, cgroup, policy, trust, secrets } =
            isolated;
        let Engine { signals, runtime, audit, writer, summary, head, learned, resolver } = engine;
        let reaper = Reaper::start(sandbox.init.pid()).map_err(Error::io("wait for children"))?;
        let (policy, reader) = watch::channel(policy);
        let (open, closed) = tokio::sync::oneshot::channel::<()>();
        let tls = Tls { interceptor: trust.interceptor, connector: trust.connector };
        let callers = Callers::start(&mut sandbox)?;
        decided.notices.extend(callers.pin(&policy.borrow())?);
        let deps = Deps { peers: callers.peers(), policy: reader.clone(), audit: audit.clone(), resolver, tls };
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
            secrets: Some(secrets),
            callers,
            refusals,
            signals,
            reaper,
            events: Some((events, inbox)),
            open: Some(open),
        })
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
    match config.voice {
        Voice::Errors => {}
        // What a person must know of even when denials are kept for the summary: a log that fails, a wall that changed.
        Voice::Notices => {
            let entrypoint = config.duty.entrypoint;
            settings = settings.sink(Tap::new(move |record: &Record| say_finding(record, entrypoint)));
        }
        Voice::Denials => settings = settings.sink(LineSink::new(io::stderr(), 2)),
        Voice::Everything => settings = settings.sink(LineSink::new(io::stderr(), 0)),
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
