//! First: everything is read and decided, and the sandbox is built.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use caps::Capability;
use stockade_audit::{Audit, Event, FileSink, Lifecycle, Rotation, Settings};
use stockade_confine::{
    limits::{self, Cgroup},
    plan::Mode,
    privileges,
    sandbox::{Sandbox, StartError, Starting},
    seccomp::{Arch, Filter},
};
use stockade_egress::InForce;
use stockade_policy::{Posture as PolicyPosture, WEB_PORTS};
use stockade_types::{Enforcement, Generation, Layer, LayerStatus, SandboxId};

use super::FLUSH;
use crate::{
    callers,
    config::{Config, Posture},
    error::Error,
    held,
    in_force::{self, Secrets},
    learn,
    operator::Operator,
    prepare::{self, Decided},
    publish::Published,
    trust::Trust,
};

/// Caught while learning, besides the web's ports.
const SSH_PORT: u16 = 22;

/// Everything is read and decided; the process still has one thread.
pub(crate) struct Prepared<'a> {
    pub(super) config: &'a Config,
    pub(super) decided: Decided,
    pub(super) id: SandboxId,
    pub(super) log: Option<FileSink>,
    pub(super) learned: Option<learn::Output>,
    pub(super) operator: Operator,
    pub(super) published: Published,
}

/// Init builds the sandbox; nobody has waited for it yet.
pub(crate) struct Building<'a> {
    pub(super) before: Prepared<'a>,
    begun: Begun,
}

struct Begun {
    starting: Starting,
    cgroup: Option<Cgroup>,
    limits: Enforcement,
    policy: Arc<InForce>,
    trust: Trust,
    secrets: Secrets,
}

/// The sandbox stands, empty.
pub(crate) struct Isolated<'a> {
    pub(super) before: Prepared<'a>,
    pub(crate) sandbox: Sandbox,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) policy: Arc<InForce>,
    pub(super) trust: Trust,
    pub(super) secrets: Secrets,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(config: &'a Config) -> Result<Self, Error> {
        let began = Instant::now();
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
            Posture::Learn { output, .. } => Some(learn::Output::open(output)?),
            Posture::Enforce => None,
        };
        let decided = match prepare::decide(config, "stockade") {
            Ok(decided) => decided,
            Err(e) => return Err(not_started(e, &id, log)),
        };
        let place = config.audit_log.as_ref().and_then(|p| std::fs::canonicalize(p).ok());
        if place.is_some_and(|p| held::granted(&decided.plan.view.grants, &p))
            && let Some(log) = &mut log
        {
            log.keep_in_one_file();
        }
        // Before anything is built: a taken port is no reason to build it.
        let (operator, published) = match listen(config, &decided, began) {
            Ok(listening) => listening,
            Err(e) => return Err(not_started(e, &id, log)),
        };
        Ok(Self { config, decided, id, log, learned, operator, published })
    }

    /// Whether the sandbox is made by root, without a user namespace.
    pub(crate) fn is_root(&self) -> bool {
        self.decided.plan.mode == Mode::Root
    }

    /// With a limit of every kind, none of them insisted on: which of them could be had shows.
    pub(crate) fn with_every_limit(mut self) -> Self {
        let limits = &mut self.decided.limits;
        limits.best_effort = true;
        limits.memory.get_or_insert(1 << 32);
        // No group gets more than the one above it.
        limits.cpus.get_or_insert(0.5);
        self
    }

    /// Gives up what the supervisor does not need once init is forked. Before the first thread: capabilities and
    /// filters belong to threads.
    fn reduce(&self) -> Result<(), Error> {
        let own = |e: &dyn std::fmt::Display| Error::Own(e.to_string());
        privileges::harden_supervisor().map_err(|e| own(&e))?;
        if rustix::process::geteuid().is_root() {
            // For what is removed and made later: cgroups, whose parent directories nobody may write, a rotated log.
            privileges::drop_supervisor(&[Capability::CAP_DAC_OVERRIDE]).map_err(|e| own(&e))?;
        } else {
            rustix::thread::set_no_new_privs(true).map_err(|e| own(&e))?;
        }
        raise_descriptors().map_err(|e| own(&e))?;
        let filter = Arch::native().and_then(Filter::compile_supervisor).map_err(|e| own(&e))?;
        filter.apply().map(drop).map_err(|e| own(&e))
    }

    /// What is weak around the sandbox.
    pub(crate) fn outer(&self) -> &[String] {
        &self.decided.outer
    }

    pub(crate) fn build(mut self) -> Result<Building<'a>, Error> {
        match self.begin() {
            Ok(begun) => Ok(Building { before: self, begun }),
            Err(e) => Err(not_started(e, &self.id, self.log)),
        }
    }

    fn begin(&mut self) -> Result<Begun, Error> {
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
        // Init builds meanwhile. The CA's key is made only now: init has no copy, and no other process may look.
        let (trust, files) = Trust::establish(&self.config.upstream_ca, self.config.timeout)?;
        starting.files(files)?;
        let posture = match self.config.posture {
            Posture::Enforce => PolicyPosture::Enforce,
            Posture::Learn { inspect, .. } => PolicyPosture::Learn { inspect },
        };
        let mut secrets = Secrets::new()?;
        let Decided { policy, steering, .. } = &self.decided;
        let policy = in_force::compile(policy, steering, Generation::FIRST, posture, &mut secrets)?;
        let enforcement = limits.enforcement();
        Ok(Begun { starting, cgroup: limits.cgroup, limits: enforcement, policy: Arc::new(policy), trust, secrets })
    }
}

impl<'a> Building<'a> {
    /// Waits until the sandbox stands.
    pub(crate) fn ready(self) -> Result<Isolated<'a>, Error> {
        let Self { mut before, begun: Begun { starting, cgroup, limits, policy, trust, secrets } } = self;
        let plan = &before.decided.plan;
        let mut sandbox = starting.ready(plan)?;
        sandbox.notes.extend(trust.notes.iter().cloned());
        before.decided.notices.extend(trust.notice.clone());
        if let Some(enforcement) = callers::enforcement(&before.decided.plan, &before.decided.filter) {
            sandbox.layers.push(LayerStatus { layer: Layer::Identity, enforcement });
        }
        sandbox.layers.push(LayerStatus { layer: Layer::Limits, enforcement: limits });
        if let Some(failure) = plan.unmet(&sandbox.layers) {
            return Err(StartError::Layer(failure).into());
        }
        Ok(Isolated { before, sandbox, cgroup, policy, trust, secrets })
    }
}

/// What listens outside the sandbox.
fn listen(config: &Config, decided: &Decided, began: Instant) -> Result<(Operator, Published), Error> {
    let named = decided.policy.publish().iter().chain(&config.operations.publish);
    let published = Published::open(&named.copied().collect::<Vec<_>>(), &decided.plan)?;
    Ok((Operator::open(&config.operations, began)?, published))
}

/// A start that fails is in the log too. Whatever was built is gone already; init, if it ran, was waited for.
fn not_started(e: Error, id: &SandboxId, log: Option<FileSink>) -> Error {
    if let Some(log) = log
        && let Ok((audit, writer)) = Audit::start(Settings::new(id.clone()).sink(log))
    {
        let (reason, detail) = (e.reason(), e.to_string());
        audit.emit(Event::Lifecycle(Lifecycle { phase: "fail", reason, layers: Vec::new(), detail }));
        drop(audit);
        // The failure itself matters more than a log that is too slow for it.
        let _ = writer.close(FLUSH);
    }
    e
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
        Posture::Learn { .. } => ports.chain(WEB_PORTS).chain([SSH_PORT]).collect(),
    }
}
