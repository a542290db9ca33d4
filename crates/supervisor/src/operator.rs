//! What the operator of a sandbox sees of it: health, metrics, and where they are shown.

mod readings;
mod trace;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stockade_audit::{Audit, Event, Finding};
use stockade_egress::{Door, InForce, Resolve, ResolveError, System, resolver::Lookup};
use stockade_telemetry::{AskError, BindError, Bound, Check, Health, Metrics, Pages, Phase, TraceSettings, Traces};
use stockade_types::{Escaped, HostName, Reason};
use tokio::{runtime::Runtime, sync::watch};

use crate::{
    config::{Config, Operations, Voice},
    error::Error,
};

/// How long the last traces may take.
const LAST_TRACES: Duration = Duration::from_secs(2);
/// How often a log that cannot be written is tried again while nothing else is to be written.
const RETRY_LOG: Duration = Duration::from_secs(10);

/// One sandbox, as it is shown. Clones are the same.
#[derive(Clone)]
pub(crate) struct Operator(Arc<Inner>);

struct Inner {
    health: Health,
    metrics: Option<Metrics>,
    bound: Mutex<Vec<Bound>>,
    ports: BTreeSet<u16>,
    began: Instant,
    /// How long the start took.
    took: OnceLock<Duration>,
    subjects: OnceLock<Subjects>,
    ssh: OnceLock<Arc<stockade_ssh::Counts>>,
    traces: OnceLock<Traces>,
}

/// What is looked at once it exists.
pub(crate) struct Subjects {
    pub(crate) door: Door,
    pub(crate) audit: Audit,
    pub(crate) policy: watch::Receiver<Arc<InForce>>,
    pub(crate) lookups: Arc<Lookups>,
    /// Pid of init, as seen from outside.
    pub(crate) init: u32,
}

impl Operator {
    /// Opens the listeners. The caller has one thread still.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub(crate) fn open(wanted: &Operations, began: Instant) -> Result<Self, Error> {
        let bound = Bound::open(wanted.health, wanted.metrics).map_err(|e: BindError| Error::from(e))?;
        let ports = bound.iter().filter_map(Bound::addr).map(|a| a.port()).collect();
        let health = Health::default();
        let shown = wanted.metrics.is_some();
        let inner = Arc::new_cyclic(|inner: &std::sync::Weak<Inner>| {
            let inner = inner.clone();
            let source = move || inner.upgrade().map(|i| i.readings()).unwrap_or_default();
            Inner {
                metrics: shown.then(|| Metrics::new(health.clone(), Box::new(source))),
                health,
                bound: Mutex::new(bound),
                ports,
                began,
                took: OnceLock::new(),
                subjects: OnceLock::new(),
                ssh: OnceLock::new(),
                traces: OnceLock::new(),
            }
        });
        Ok(Self(inner))
    }

    pub(crate) fn health(&self) -> Health {
        self.0.health.clone()
    }

    /// Counts events, where somebody wants to see the counts.
    pub(crate) fn metrics(&self) -> Option<Metrics> {
        self.0.metrics.clone()
    }

    /// Ports that are never dialled from inside.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        self.0.ports.clone()
    }

    /// Traces, where the usual variables of OpenTelemetry ask for them, or why there are none. `resolver` finds the
    /// collector.
    pub(crate) fn traces(&self, config: &Config, resolver: &Arc<System>) -> Result<Option<Traces>, String> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(settings) = TraceSettings::from(variable).map_err(|e| e.to_string())? else { return Ok(None) };
        if config.duty.entrypoint && !config.operations.traces {
            // Who made the image could have what the command tries sent out of the sandbox, by the names that it tries.
            return Err("the OTEL_ variables are not heeded: who made the image may have set them; `--traces` on the \
                        command line does that, and sends the names that the command asks for to the collector"
                .to_owned());
        }
        let traces = trace::start(settings, resolver)?;
        Ok(Some(self.0.traces.get_or_init(|| traces).clone()))
    }

    /// Sends traces from now on, as they come.
    pub(crate) fn send_traces(&self, runtime: &Runtime, voice: Voice) {
        if let Some(traces) = self.0.traces.get() {
            runtime.spawn(traces.clone().run(move |e| {
                if voice >= Voice::Notices {
                    crate::say(format_args!("stockade: {}\r", Escaped(&e.to_string())));
                }
            }));
        }
    }

    /// Sends the last of them.
    pub(crate) async fn flush_traces(&self) {
        if let Some(traces) = self.0.traces.get() {
            traces.flush(LAST_TRACES).await;
        }
    }

    /// Answers from now on.
    pub(crate) fn serve(&self, runtime: &Runtime, audit: &Audit) {
        let health = &self.0.health;
        health.watch(Check::Descriptors, Box::new(readings::descriptor_pressure));
        let log = audit.clone();
        let unwritten = "the audit log cannot be written; the finding `log_unavailable` on stderr says why";
        health.watch(Check::Audit, Box::new(move || log.failing().then(|| unwritten.to_owned())));
        let bound = std::mem::take(&mut *self.0.bound.lock().unwrap_or_else(PoisonError::into_inner));
        if bound.is_empty() {
            return;
        }
        for bound in bound {
            let pages = Pages { health: health.clone(), metrics: self.metrics() };
            runtime.spawn(bound.serve(pages));
        }
        runtime.spawn(retry_log(audit.clone()));
    }

    /// What there is to see from now on.
    pub(crate) fn watch(&self, subjects: Subjects) {
        // Once, because a sandbox is started once.
        let _ = self.0.subjects.set(subjects);
    }

    /// Who comes in over SSH, in numbers.
    pub(crate) fn watch_ssh(&self, counts: Arc<stockade_ssh::Counts>) {
        // Once, as above.
        let _ = self.0.ssh.set(counts);
    }

    /// The command runs.
    pub(crate) fn started(&self) {
        let _ = self.0.took.set(self.0.began.elapsed());
        self.0.health.enter(Phase::Running);
    }
}

/// Who waits for the log before sending work would wait for ever: without work there is nothing to write.
async fn retry_log(audit: Audit) {
    loop {
        tokio::time::sleep(RETRY_LOG).await;
        if audit.failing() {
            let detail = "the audit log is tried again".to_owned();
            audit.emit(Event::Finding(Finding { reason: Reason::LogUnavailable, severity: 1, detail, count: 1 }));
        }
    }
}

/// Lookups of a resolver, in numbers.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    found: AtomicU64,
    absent: AtomicU64,
    failed: AtomicU64,
}

/// A resolver that counts.
pub(crate) struct Counted<R> {
    inner: R,
    lookups: Arc<Lookups>,
}

impl<R> Counted<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, lookups: Arc::default() }
    }

    pub(crate) fn lookups(&self) -> Arc<Lookups> {
        Arc::clone(&self.lookups)
    }
}

impl<R: Resolve> Resolve for Counted<R> {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Lookup<'a> {
        Box::pin(async move {
            let answer = self.inner.resolve(name).await;
            let count = match &answer {
                Ok(_) => &self.lookups.found,
                Err(ResolveError::NoSuchName | ResolveError::NoAddress) => &self.lookups.absent,
                Err(ResolveError::Timeout | ResolveError::Invalid | ResolveError::Failed | ResolveError::NoServer) => {
                    &self.lookups.failed
                }
            };
            count.fetch_add(1, Ordering::Relaxed);
            answer
        })
    }
}

/// What a running sandbox is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Whether it answers.
    Live,
    /// Whether it can do its work.
    Ready,
}

/// Asks the sandbox that shows its health at `addr`: yes or no, and in which words.
///
/// # Errors
/// When there is no answer.
pub fn ask(addr: SocketAddr, what: Ask, within: Duration) -> Result<(bool, String), AskError> {
    let path = match what {
        Ask::Live => "/livez",
        Ask::Ready => "/readyz",
    };
    stockade_telemetry::ask(addr, path, within).map(|(status, text)| (status == 200, text))
}
