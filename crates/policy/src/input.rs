//! The input document, version 1: `docs/rego-input.md` is its description.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use stockade_types::Host;

use crate::{
    caller::{Ancestor, Binaries, Caller, Callers},
    decision::{Door, Intent, Mode, Protocol, Request, TlsMode},
    facts,
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
    callers: Option<Value>,
}

impl Parts {
    pub(crate) fn new(endpoint: &Endpoint, binaries: &Binaries, shared: &mut PortSets) -> Self {
        let ports: Vec<u16> = endpoint.ports.iter().map(|p| p.get()).collect();
        let ports = shared.entry(ports).or_insert_with_key(|ports| {
            let set: BTreeSet<Value> = ports.iter().map(|p| Value::from(u64::from(*p))).collect();
            Value::from(set)
        });
        let callers = endpoint.callers.as_ref().map(|c| callers(c, &binaries.ids(c)));
        Self { name: endpoint.name.as_str().into(), ports: ports.clone(), callers }
    }

    /// A row of `input.candidates`.
    pub(crate) fn candidate(&self, pattern: PatternRef<'_>) -> Value {
        let mut row = vec![("endpoint", self.name.clone()), ("ports", self.ports.clone())];
        row.extend(self.callers.clone().map(|callers| ("callers", callers)));
        let mut wildcard = |word: &str, parent: &str| {
            row.push(("wildcard", word.into()));
            row.push(("suffix", format!(".{parent}").into()));
            row.push(("labels", labels(parent).into()));
        };
        match pattern {
            PatternRef::Exact(host) => row.push(("host", text(host))),
            PatternRef::One(parent) => wildcard("one", parent),
            PatternRef::Many(parent) => wildcard("many", parent),
        }
        fields(row)
    }
}

/// Who may use an endpoint: `callers` of a row.
fn callers(callers: &Callers, ids: &[u32]) -> Value {
    let mut row = vec![("binaries", set(ids.iter().map(|id| u64::from(*id).into())))];
    if callers.ancestors {
        row.push(("ancestors", true.into()));
    }
    if !callers.scripts.is_empty() {
        row.push(("scripts", set(callers.scripts.iter().map(|s| s.to_string_lossy().as_ref().into()))));
    }
    fields(row)
}

/// `input.caller`.
fn caller(caller: &Caller) -> Value {
    let ids = |ids: &[u32]| Value::from(ids.iter().map(|id| u64::from(*id).into()).collect::<Vec<_>>());
    let mut row = vec![("exe", caller.exe.as_str().into()), ("matched", ids(&caller.matched))];
    row.extend(caller.sha256.map(|hash| ("sha256", crate::parse::hex(&hash).into())));
    row.extend(caller.script.as_deref().map(|script| ("script", script.into())));
    row.extend(caller.ancestors.as_ref().map(|chain| {
        let process = |a: &Ancestor| object([("exe", a.exe.as_str().into()), ("matched", ids(&a.matched))]);
        ("ancestors", chain.iter().map(process).collect::<Vec<_>>().into())
    }));
    fields(row)
}

/// A Rego object of fields some of which may be absent.
pub(crate) fn fields(fields: Vec<(&str, Value)>) -> Value {
    Value::from(fields.into_iter().map(|(k, v)| (Value::from(k), v)).collect::<BTreeMap<_, _>>())
}

fn set(values: impl Iterator<Item = Value>) -> Value {
    Value::from(values.collect::<BTreeSet<_>>())
}

/// The whole document for a connection, with `candidates` for the base policy or `endpoint` for user modules.
pub(crate) fn document(intent: &Intent, last: (&'static str, Value)) -> Value {
    let mut all = common("connect", intent);
    all.push(last);
    fields(all)
}

/// What documents of all kinds begin with.
fn common(what: &str, intent: &Intent) -> Vec<(&'static str, Value)> {
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
    let mut all = vec![
        ("version", VERSION.into()),
        ("kind", what.into()),
        ("door", door(intent.door).into()),
        ("destination", destination),
    ];
    all.extend(intent.caller.as_deref().map(|c| ("caller", caller(c))));
    all
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

/// The document of user modules for a request.
pub(crate) fn request(intent: &Intent, on: &Endpoint, request: &Request) -> Value {
    let text = |t: &String| Value::from(t.as_str());
    let pairs = |pairs: &[(String, String)]| -> Value {
        pairs.iter().map(|(k, v)| Value::from(vec![text(k), text(v)])).collect::<Vec<_>>().into()
    };
    let segments = crate::glob::split(&request.path).into_iter().map(|s| Value::from(&*s)).collect::<Vec<_>>();
    let asked = object([
        ("method", text(&request.method)),
        ("path", text(&request.path)),
        ("segments", segments.into()),
        ("query", pairs(&request.query)),
        ("headers", pairs(&request.headers)),
        ("operations", request.operations.iter().map(facts::document).collect::<Vec<_>>().into()),
    ]);
    let mut all = common("request", intent);
    all.extend([("endpoint", endpoint(on)), ("request", asked)]);
    fields(all)
}

/// The plainest inputs there are, a connection and a request: modules are tried with them when they are loaded.
pub(crate) fn plainest() -> [(&'static str, Value); 2] {
    let destination = object([
        ("host", "example.com".into()),
        ("kind", "name".into()),
        ("labels", 2u64.into()),
        ("port", 443u64.into()),
    ]);
    let endpoint = object([
        ("name", "example".into()),
        ("protocol", protocol(Protocol::Http).into()),
        ("tls", tls(TlsMode::Inspect).into()),
        ("mode", mode(Mode::Enforce).into()),
    ]);
    let request = object([
        ("method", "GET".into()),
        ("path", "/".into()),
        ("segments", vec![Value::from("")].into()),
        ("query", Value::from(Vec::<Value>::new())),
        ("headers", Value::from(Vec::<Value>::new())),
        ("operations", Value::from(Vec::<Value>::new())),
    ]);
    let common = |kind: &str| {
        vec![
            ("version", VERSION.into()),
            ("kind", kind.into()),
            ("door", door(Door::Connect).into()),
            ("destination", destination.clone()),
            ("endpoint", endpoint.clone()),
        ]
    };
    let mut asked = common("request");
    asked.push(("request", request));
    [("a connection to example.com:443", fields(common("connect"))), ("GET https://example.com/", fields(asked))]
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
        Protocol::Grpc => "grpc",
        Protocol::Graphql => "graphql",
        Protocol::JsonRpc => "jsonrpc",
        Protocol::Mcp => "mcp",
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
