//! What the supervisor does about what happens while the command runs: reload, report, record.

use std::{collections::BTreeSet, os::fd::OwnedFd, sync::Arc};

use stockade_audit::{Audit, Config as ConfigEvent, Event, Finding, Lifecycle, ProcessActivity};
use stockade_egress::InForce;
use stockade_policy::{Policy, Posture, Snapshot};
use stockade_telemetry::{Check, Phase};
use stockade_types::{Escaped, EscapedLines, LayerStatus, Reason};
use tokio::sync::watch;

use crate::{
    callers::Callers,
    config::{Config, Voice},
    error::Error,
    held::Held,
    in_force::{self, Secrets},
    operator::Operator,
    prepare,
    running::Observer,
};

/// Findings of this severity are said on stderr unless only failures are to be said.
pub(crate) const LOUD: u8 = 4;
/// Arguments of the command kept for the log.
const MAX_ARGV: usize = 64;

/// See [`Observer`].
pub(crate) struct Recorder<'a> {
    pub(crate) config: &'a Config,
    pub(crate) audit: Audit,
    pub(crate) policy: watch::Sender<Arc<InForce>>,
    pub(crate) callers: Callers,
    /// The policy whose fixed sections are in force.
    pub(crate) started_with: Policy,
    pub(crate) uid: u32,
    pub(crate) layers: Vec<LayerStatus>,
    pub(crate) pid: Option<i32>,
    /// What stands for secrets, over all reloads.
    pub(crate) secrets: Option<Secrets>,
    pub(crate) operator: Operator,
    pub(crate) held: Held,
}

impl Recorder<'_> {
    fn say(&self, least: Voice, text: impl std::fmt::Display) {
        if self.config.voice >= least {
            crate::say(format_args!("stockade: {text}\r"));
        }
    }

    /// From severity [`LOUD`] on the audit's own way to stderr says it.
    pub(crate) fn finding(&self, reason: Reason, severity: u8, detail: String) {
        self.audit.emit(Event::Finding(Finding { reason, severity, detail, count: 1 }));
    }

    /// Compiles the files as they are now; the snapshot in force stays when that fails. Also what is not applied.
    fn compile(&mut self) -> Result<(InForce, String), Error> {
        let (policy, steering) = prepare::policy(self.config)?;
        self.held.check(&steering)?;
        let rest = self.not_applied(&policy) + &recorded_only(&policy);
        let generation = self.policy.borrow().generation().next();
        let posture = self.policy.borrow().posture();
        let Some(secrets) = &mut self.secrets else {
            return Err(Error::Option("the policy cannot be changed any more".to_owned()));
        };
        let policy = in_force::compile(&policy, &steering, generation, posture, secrets)?;
        for notice in self.callers.pin(&policy)? {
            self.say(Voice::Notices, EscapedLines(&notice));
        }
        Ok((policy, rest))
    }

    /// Which of the sections that are fixed at the start have changed.
    fn not_applied(&self, policy: &Policy) -> String {
        let old = &self.started_with;
        let changed: Vec<_> = [
            ("`filesystem`", policy.filesystem() != old.filesystem()),
            ("`process`", policy.process() != old.process()),
            ("`publish`", policy.publish() != old.publish()),
        ]
        .into_iter()
        .filter_map(|(section, changed)| changed.then_some(section))
        .collect();
        if changed.is_empty() {
            return String::new();
        }
        format!("; changes of {} take effect at the next start only", changed.join(" and "))
    }

    /// Records the snapshot that the sandbox starts with.
    pub(crate) fn loaded(&self) {
        let snapshot = self.policy.borrow().clone();
        self.audit.emit(config_event(self.config, &snapshot, format!("loaded{}", recorded_only(&self.started_with))));
        for problem in snapshot.credentials.iter().flat_map(|c| c.problems()) {
            self.say(Voice::Notices, EscapedLines(&problem.to_string()));
        }
        if matches!(snapshot.posture(), Posture::Learn { .. }) {
            let detail = "network decisions are recorded and let through (learn)".to_owned();
            self.audit.emit(Event::Finding(Finding { reason: Reason::OuterWeak, severity: 2, detail, count: 1 }));
        }
    }
}

fn recorded_only(policy: &Policy) -> String {
    prepare::recorded_only(policy).map_or_else(String::new, |said| format!("; {said}"))
}

fn config_event(config: &Config, snapshot: &Snapshot, detail: String) -> Event {
    Event::Config(ConfigEvent {
        accepted: true,
        reason: None,
        generation: snapshot.generation(),
        source: source(config),
        digest: snapshot.digest().to_owned(),
        detail,
    })
}

/// The command as the log has it.
pub(crate) fn argv(config: &Config) -> Vec<String> {
    config.command.iter().take(MAX_ARGV).map(|a| a.to_string_lossy().into_owned()).collect()
}

fn source(config: &Config) -> String {
    let mut parts: Vec<String> = config.policy.iter().map(|p| p.display().to_string()).collect();
    if parts.is_empty() {
        parts.push("built-in".to_owned());
    }
    parts.extend((!config.allow.is_empty()).then(|| "--allow".to_owned()));
    parts.extend(config.duty.environment.iter().cloned());
    parts.join(", ")
}

impl Observer for Recorder<'_> {
    fn launched(&mut self, pid: i32, layers: &[LayerStatus]) {
        self.pid = Some(pid);
        self.operator.started();
        self.callers.started(pid);
        self.layers.extend_from_slice(layers);
        for status in &self.layers {
            self.say(Voice::Everything, format_args!("{}: {}", status.layer, status.enforcement));
        }
        let detail = "the command starts".to_owned();
        self.audit.emit(Event::Lifecycle(Lifecycle {
            phase: "ready",
            reason: None,
            layers: self.layers.clone(),
            detail,
        }));
        let argv = argv(self.config);
        let pid = u32::try_from(pid).unwrap_or_default();
        self.audit.emit(Event::Process(ProcessActivity { launched: true, pid, argv, uid: self.uid, exit: None }));
    }

    fn reload(&mut self) -> Option<BTreeSet<u16>> {
        match self.compile() {
            Ok((snapshot, _)) if snapshot.digest() == self.policy.borrow().digest() => None,
            Ok((snapshot, rest)) => {
                let snapshot = Arc::new(snapshot);
                let (generation, source) = (snapshot.generation(), source(self.config));
                self.say(
                    Voice::Notices,
                    format_args!("policy reloaded from {}, generation {generation}{rest}", Escaped(&source)),
                );
                self.audit.emit(config_event(self.config, &snapshot, format!("reloaded{rest}")));
                let ports = snapshot.transparent_ports().clone();
                self.policy.send_replace(snapshot);
                Some(ports)
            }
            Err(e) => {
                self.say(
                    Voice::Notices,
                    format_args!(
                        "the changed policy is refused, the old one stays in force: {}",
                        EscapedLines(&e.to_string())
                    ),
                );
                let snapshot = self.policy.borrow().clone();
                self.audit.emit(Event::Config(ConfigEvent {
                    accepted: false,
                    reason: Some(Reason::PolicyRejected),
                    generation: snapshot.generation(),
                    source: source(self.config),
                    digest: snapshot.digest().to_owned(),
                    // One event is one line, wherever it is shown.
                    detail: e.to_string().lines().map(str::trim).collect::<Vec<_>>().join("; "),
                }));
                None
            }
        }
    }

    fn ending(&mut self) {
        self.operator.health().enter(Phase::Ending);
    }

    fn fence_drift(&mut self, what: &str) {
        self.operator.health().ill(Check::Fence, format_args!("the fence is not as it was installed: {what}"));
        self.finding(Reason::FenceDrift, 5, format!("the fence is not as it was installed: {what}"));
    }

    fn fence_intact(&mut self) {
        self.operator.health().well(Check::Fence);
    }

    fn masks(&mut self, events: &[String]) {
        for event in events {
            self.finding(Reason::ProtectedWrite, 4, event.clone());
        }
    }

    fn connects(&mut self, listeners: Vec<OwnedFd>) {
        if let Err(why) = self.callers.listen(listeners) {
            self.operator.health().ill(Check::Wall, &why);
            self.finding(Reason::LayerUnavailable, 4, why);
        }
    }

    fn failed_order(&mut self, what: &str) {
        self.operator.health().ill(Check::Wall, what);
        self.finding(Reason::LayerUnavailable, 4, what.to_owned());
    }
}
