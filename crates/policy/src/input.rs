//! The input document, version 1: `docs/rego-input.md` is its description.

use std::collections::BTreeSet;

use regorus::Value;
use stockade_types::Host;

use crate::{
    decision::{Door, Intent, Mode, Protocol, TlsMode},
    index::PatternRef,
    model::Endpoint,
    snapshot::{PortSets, object},
};

/// The version of the document.
pub(crate) const VERSION: u64 = 1;

/// Values of one endpoint, made once.
#[derive(Debug)]
pub(crate) struct Parts {
    name: Value,
    ports: Value,
}

impl Parts {
    pub(crate) fn new(endpoint: &Endpoint, shared: &mut PortSets) -> Self {
        let ports: Vec<u16> = endpoint.ports.iter().map(|p| p.get()).collect();
        let ports = shared.entry(ports).or_insert_with_key(|ports| {
            let set: BTreeSet<Value> = ports.iter().map(|p| Value::from(u64::from(*p))).collect();
            Value::from(set)
        });
        Self { name: endpoint.name.as_str().into(), ports: ports.clone() }
    }

    /// A row of `input.candidates`.
    pub(crate) fn candidate(&self, pattern: PatternRef<'_>) -> Value {
        let (name, ports) = (self.name.clone(), self.ports.clone());
        let wildcard = |word: &str, parent: &str| {
            object([
                ("endpoint", self.name.clone()),
                ("ports", self.ports.clone()),
                ("wildcard", word.into()),
                ("suffix", format!(".{parent}").into()),
                ("labels", labels(parent).into()),
            ])
        };
        match pattern {
            PatternRef::Exact(host) => object([("endpoint", name), ("ports", ports), ("host", text(host))]),
            PatternRef::One(parent) => wildcard("one", parent),
            PatternRef::Many(parent) => wildcard("many", parent),
        }
    }
}

/// The whole document, with `candidates` for the base policy or `endpoint` for user modules.
pub(crate) fn document(intent: &Intent, (key, value): (&str, Value)) -> Value {
    let (kind, count) = match &intent.host {
        Host::Name(name) => ("name", labels(name.as_str())),
        Host::Addr(_) => ("address", 0),
    };
    let destination = object([
        ("host", text(&intent.host)),
        ("kind", kind.into()),
        ("labels", count.into()),
        ("port", u64::from(intent.port.get()).into()),
    ]);
    object([
        ("version", VERSION.into()),
        ("kind", "connect".into()),
        ("door", door(intent.door).into()),
        ("destination", destination),
        (key, value),
    ])
}

/// `input.endpoint` of user modules.
pub(crate) fn endpoint(endpoint: &Endpoint) -> Value {
    object([
        ("name", endpoint.name.as_str().into()),
        ("protocol", protocol(endpoint.protocol).into()),
        ("tls", tls(endpoint.tls).into()),
        ("mode", mode(endpoint.mode).into()),
    ])
}

/// The plainest input there is: modules are tried with it when they are loaded.
pub(crate) fn plainest() -> Value {
    let destination = object([
        ("host", "example.com".into()),
        ("kind", "name".into()),
        ("labels", 2u64.into()),
        ("port", 443u64.into()),
    ]);
    let endpoint = object([
        ("name", "example".into()),
        ("protocol", protocol(Protocol::Http).into()),
        ("tls", tls(TlsMode::Passthrough).into()),
        ("mode", mode(Mode::Enforce).into()),
    ]);
    object([
        ("version", VERSION.into()),
        ("kind", "connect".into()),
        ("door", door(Door::Connect).into()),
        ("destination", destination),
        ("endpoint", endpoint),
    ])
}

fn text(host: &Host) -> Value {
    match host {
        Host::Name(name) => name.as_str().into(),
        Host::Addr(addr) => addr.to_string().into(),
    }
}

fn labels(name: &str) -> u64 {
    name.split('.').count() as u64
}

pub(crate) fn door(door: Door) -> &'static str {
    match door {
        Door::Connect => "connect",
        Door::Forward => "forward",
        Door::Transparent => "transparent",
    }
}

pub(crate) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
    }
}

pub(crate) fn tls(tls: TlsMode) -> &'static str {
    match tls {
        TlsMode::Inspect => "inspect",
        TlsMode::Passthrough => "passthrough",
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    }
}
