//! `input` of a case: a connection, and the request on it.

use std::sync::Arc;

use stockade_l7::{GraphQl, GraphQlKind, Mcp, Operation, Slashes, Target};
use stockade_types::{Host, Port};

use crate::{
    caller::Claim,
    decision::{Door, Intent, Request},
    parse::{
        absolute,
        fields::{Fields, Reader, Trail},
        sha256,
    },
    snapshot::Snapshot,
    yaml::{Node, Value},
};

/// What a case asks.
pub(super) struct Input {
    pub(super) intent: Intent,
    /// Who asks; nobody known where that is not said.
    pub(super) caller: Option<Claim>,
    pub(super) request: Option<Request>,
}

pub(super) fn input(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<Input> {
    let known = ["door", "host", "port", "caller", "method", "target", "headers", "operations"];
    let fields = r.fields(trail, node, &known)?;
    let doors = [("connect", Door::Connect), ("forward", Door::Forward), ("transparent", Door::Transparent)];
    let door = match fields.get("door") {
        Some(node) => r.word(&Trail::Key(trail, "door"), node, "door", &doors)?,
        None => Door::Connect,
    };
    let (Some(host), Some(port)) = (fields.get("host"), fields.get("port")) else {
        r.error(trail, node.at, "`host` or `port` is missing", None);
        return None;
    };
    let host = r.parsed(&Trail::Key(trail, "host"), host, |t| Host::parse(t).map_err(|e| e.to_string()))?;
    let port = r.number(&Trail::Key(trail, "port"), port, 1..=i64::from(u16::MAX))?;
    let port = u16::try_from(port).ok().and_then(Port::new)?;
    let asked = ["method", "target", "headers", "operations"].iter().any(|key| fields.get(key).is_some());
    let request = if asked { Some(request(r, trail, fields)?) } else { None };
    let caller = match fields.get("caller") {
        Some(node) => Some(caller(r, &Trail::Key(trail, "caller"), node)?),
        None => None,
    };
    Some(Input { intent: Intent::new(door, host, port), caller, request })
}

impl Input {
    /// The intent, in the numbers of a snapshot. Programs are what their paths say: a case is about no machine.
    pub(super) fn intent(&self, snapshot: &Snapshot) -> Intent {
        let claimed = |claim| Arc::new(snapshot.claimed(claim, &|a, b| a == b));
        Intent { caller: self.caller.as_ref().map(claimed), ..self.intent.clone() }
    }
}

/// An absolute path, or a map that says more.
fn caller(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<Claim> {
    if !matches!(node.value, Value::Map(_)) {
        return Some(Claim { exe: r.parsed(trail, node, absolute)?, ..Claim::default() });
    }
    let fields = r.fields(trail, node, &["exe", "sha256", "script", "ancestors"])?;
    let Some(exe) = fields.get("exe") else {
        r.error(trail, node.at, "`exe` is missing", None);
        return None;
    };
    let mut claim = Claim { exe: r.parsed(&Trail::Key(trail, "exe"), exe, absolute)?, ..Claim::default() };
    if let Some(node) = fields.get("sha256") {
        claim.sha256 = Some(r.parsed(&Trail::Key(trail, "sha256"), node, sha256)?);
    }
    if let Some(node) = fields.get("script") {
        claim.script = Some(r.parsed(&Trail::Key(trail, "script"), node, absolute)?);
    }
    if let Some(node) = fields.get("ancestors") {
        claim.ancestors =
            r.each(&Trail::Key(trail, "ancestors"), node, |r, trail, node| r.parsed(trail, node, absolute));
    }
    Some(claim)
}

/// The request in its canonical form: a target that has none is an error of the case.
fn request(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>) -> Option<Request> {
    let method = match fields.get("method") {
        Some(node) => r.text(&Trail::Key(trail, "method"), node)?,
        None => "GET",
    };
    let target = match fields.get("target") {
        Some(node) => r.parsed(&Trail::Key(trail, "target"), node, target)?,
        None => target("/").ok()?,
    };
    let headers = fields.get("headers").map(|node| pairs(r, &Trail::Key(trail, "headers"), node));
    let operations = match fields.get("operations") {
        Some(node) => r.each(&Trail::Key(trail, "operations"), node, operation),
        None => Vec::new(),
    };
    Some(Request {
        method: method.to_owned(),
        path: target.path().to_owned(),
        query: target.pairs().to_vec(),
        headers: headers.unwrap_or_default().into_iter().map(|(k, v)| (k.to_ascii_lowercase(), v)).collect(),
        operations,
    })
}

fn target(text: &str) -> Result<Target, String> {
    match text {
        "*" => Ok(Target::asterisk()),
        _ => Target::parse(text, Slashes::Encoded).map_err(|e| e.to_string()),
    }
}

/// A map from names to a value or a list of values.
fn pairs(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (key, value) in r.map(trail, node).unwrap_or_default() {
        let trail = Trail::Key(trail, &key.text);
        let values = match &value.value {
            Value::List(_) => r.each(&trail, value, |r, trail, item| r.text(trail, item).map(str::to_owned)),
            _ => r.text(&trail, value).map(str::to_owned).into_iter().collect(),
        };
        found.extend(values.into_iter().map(|value| (key.text.clone(), value)));
    }
    found
}

/// `{grpc: {service, method}}`, and so on for each protocol.
fn operation(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<Operation> {
    let fields = r.fields(trail, node, &["grpc", "graphql", "jsonrpc", "mcp"])?;
    let mut about = |key: &'static str, known: &[&str]| {
        let node = fields.get(key)?;
        Some((r.fields(&Trail::Key(trail, key), node, known)?, key))
    };
    let grpc = about("grpc", &["service", "method"]);
    let graphql = about("graphql", &["operation", "name", "fields"]);
    let jsonrpc = about("jsonrpc", &["method"]);
    let mcp = about("mcp", &["method", "tool", "name", "arguments"]);
    let (fields, key) = grpc.or(graphql).or(jsonrpc).or(mcp)?;
    let trail = Trail::Key(trail, key);
    let text = |r: &mut Reader<'_>, key: &str| {
        fields.get(key).and_then(|n| r.text(&Trail::Key(&trail, key), n)).map(str::to_owned)
    };
    Some(match key {
        "grpc" => Operation::Grpc { service: text(r, "service")?, method: text(r, "method")? },
        "graphql" => {
            let words = GraphQlKind::ALL.map(|kind| (kind.word(), kind));
            let kind = match fields.get("operation") {
                Some(node) => r.word(&Trail::Key(&trail, "operation"), node, "operation", &words)?,
                None => GraphQlKind::Query,
            };
            let list = |r: &mut Reader<'_>, node| {
                r.each(&Trail::Key(&trail, "fields"), node, |r, t, n| r.text(t, n).map(str::to_owned))
            };
            let selected = fields.get("fields").map(|node| list(r, node)).unwrap_or_default();
            Operation::GraphQl(GraphQl { kind, name: text(r, "name"), fields: selected })
        }
        "jsonrpc" => Operation::JsonRpc { method: text(r, "method")?, notification: false },
        _ => Operation::Mcp(Mcp {
            method: text(r, "method").unwrap_or_else(|| "tools/call".to_owned()),
            tool: text(r, "tool"),
            name: text(r, "name"),
            arguments: fields
                .get("arguments")
                .map(|node| pairs(r, &Trail::Key(&trail, "arguments"), node))
                .unwrap_or_default(),
        }),
    })
}
