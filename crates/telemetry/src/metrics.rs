//! Prometheus metrics: counted from audit events, or read when somebody asks.
//!
//! Every label is a word of Stockade's own (a reason, a door, an outcome), so the number of series is bounded whatever
//! the command does. `docs/operations.md` lists them all.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::Counter, family::Family},
    registry::Registry,
};
use stockade_audit::{Action, Event, Finding, Http, Network, Record, Sink};
use stockade_types::Reason;

use crate::health::Health;

/// What kind of number a reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes both ways.
    Gauge,
}

/// Numbers of one name that are read when somebody asks.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Without `stockade_`, and without the `_total` of counters.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What kind.
    pub kind: Kind,
    /// The values, told apart by one label where there are several.
    pub values: Vec<(Option<(&'static str, &'static str)>, f64)>,
}

impl Reading {
    /// A single number.
    #[must_use]
    pub fn one(kind: Kind, name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, kind, values: vec![(None, value)] }
    }

    /// Numbers told apart by `label`.
    #[must_use]
    pub fn by<const N: usize>(
        label: &'static str,
        (kind, name, help): (Kind, &'static str, &'static str),
        values: [(&'static str, f64); N],
    ) -> Self {
        Self { name, help, kind, values: values.map(|(value, n)| (Some((label, value)), n)).to_vec() }
    }
}

/// Reads numbers; must not wait.
pub type Source = Box<dyn Fn() -> Vec<Reading> + Send + Sync>;

/// All metrics of one sandbox. Clones share them: one goes to the audit as a sink, another to who shows them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    events: Events,
}

/// What is counted from events.
#[derive(Debug, Default)]
struct Events {
    connections: Family<Verdict, Counter>,
    requests: Family<Verdict, Counter>,
    responses: Family<Status, Counter>,
    dns_refused: Family<Why, Counter>,
    fence_refused: Family<Protocol, Counter>,
    relayed: Family<Direction, Counter>,
    findings: Family<Found, Counter>,
    reloads: Family<Accepted, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    door: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Protocol {
    protocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Found {
    reason: &'static str,
    severity: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Accepted {
    result: &'static str,
}

impl Metrics {
    /// What [`Self::text`] is.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Nothing counted yet; `source` is read whenever somebody asks.
    #[must_use]
    pub fn new(health: Health, source: Source) -> Self {
        let mut registry = Registry::with_prefix("stockade");
        let events = Events::default();
        events.register(&mut registry);
        registry.register_collector(Box::new(Readings { health, source }));
        Self(Arc::new(Inner { registry, events }))
    }

    /// All of them, in the text format of OpenMetrics.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let mut out = String::with_capacity(8 * 1024);
        text::encode(&mut out, &self.0.registry).ok().map(|()| out)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Sink for Metrics {
    fn name(&self) -> String {
        "the metrics".into()
    }

    fn record(&mut self, record: &Record) {
        self.0.events.count(&record.event);
    }
}

impl Events {
    fn register(&self, to: &mut Registry) {
        to.register("connections", "Connections by door and verdict", self.connections.clone());
        to.register("requests", "Requests by door and verdict", self.requests.clone());
        to.register("responses", "Answers to permitted requests by class of status", self.responses.clone());
        to.register("dns_refused", "DNS questions without an address, by reason", self.dns_refused.clone());
        to.register("fence_refused", "Packets that the fence refused, by protocol", self.fence_refused.clone());
        to.register("tunnel_bytes", "Bytes of relayed connections that have closed", self.relayed.clone());
        to.register("findings", "Findings by reason and severity", self.findings.clone());
        to.register("policy_loads", "Policies that took effect or were refused", self.reloads.clone());
    }

    fn count(&self, event: &Event) {
        match event {
            Event::Network(e) => self.network(e),
            Event::Http(e) => self.http(e),
            Event::Finding(e) => self.finding(e),
            Event::Config(e) => {
                let result = if e.accepted { "accepted" } else { "refused" };
                self.reloads.get_or_create(&Accepted { result }).inc();
            }
            Event::Ssh(_) | Event::Process(_) | Event::Lifecycle(_) | Event::Log(_) => {}
        }
    }

    fn network(&self, e: &Network) {
        let count = e.suppressed.saturating_add(1);
        match (e.door, e.action) {
            (_, Action::Closed) => {
                for (direction, bytes) in [("out", e.bytes_out), ("in", e.bytes_in)] {
                    self.relayed.get_or_create(&Direction { direction }).inc_by(bytes);
                }
            }
            ("dns", _) => {
                self.dns_refused.get_or_create(&Why { reason: reason(e.reason) }).inc_by(count);
            }
            ("fence", _) => {
                let protocol = protocol(e.protocol);
                self.fence_refused.get_or_create(&Protocol { protocol }).inc_by(count);
            }
            _ => {
                self.connections.get_or_create(&verdict(e)).inc_by(count);
            }
        }
    }

    fn http(&self, e: &Http) {
        let count = e.network.suppressed.saturating_add(1);
        self.requests.get_or_create(&verdict(&e.network)).inc_by(count);
        if e.network.action == Action::Allowed {
            self.responses.get_or_create(&Status { class: class(e.status) }).inc_by(count);
        }
    }

    fn finding(&self, e: &Finding) {
        let found = Found { reason: e.reason.code(), severity: e.severity };
        self.findings.get_or_create(&found).inc();
        if e.reason == Reason::Bypass {
            // What the kernel could only count.
            self.fence_refused.get_or_create(&Protocol { protocol: "unreported" }).inc_by(e.count);
        }
    }
}

fn verdict(e: &Network) -> Verdict {
    let outcome = match e.action {
        Action::Allowed if e.audited => "audited",
        Action::Allowed => "allowed",
        Action::Denied => "denied",
        Action::Failed => "failed",
        Action::Closed => "closed",
    };
    Verdict { door: e.door, outcome, reason: reason(e.reason) }
}

/// Absent is a label too: series of one name have the same labels.
fn reason(reason: Option<Reason>) -> &'static str {
    reason.map_or("none", Reason::code)
}

fn protocol(number: u8) -> &'static str {
    match number {
        6 => "tcp",
        17 => "udp",
        1 | 58 => "icmp",
        _ => "other",
    }
}

fn class(status: u16) -> &'static str {
    match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        // Ended before it was answered.
        _ => "none",
    }
}

/// What is read when somebody asks.
struct Readings {
    health: Health,
    source: Source,
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readings")
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let readiness = self.health.readiness();
        let number = |yes: bool| if yes { 1.0 } else { 0.0 };
        let ready = Reading::one(Kind::Gauge, "ready", "Whether /readyz is 200", number(readiness.ready));
        let checks = Reading {
            name: "check",
            help: "Each check of /readyz, 1 when it is well",
            kind: Kind::Gauge,
            values: readiness.checks.iter().map(|c| (Some(("check", c.check)), number(c.ok))).collect(),
        };
        let readings = [ready, checks].into_iter().chain((self.source)());
        for reading in readings {
            let kind = match reading.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let help = format!("{}.", reading.help);
            let mut metric = encoder.encode_descriptor(reading.name, &help, None, kind)?;
            for (label, value) in reading.values {
                match label {
                    Some(label) => encode(reading.kind, value, &mut metric.encode_family(&[label])?)?,
                    None => encode(reading.kind, value, &mut metric)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(kind: Kind, value: f64, to: &mut MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Kind::Counter => to.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        Kind::Gauge => to.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests;
