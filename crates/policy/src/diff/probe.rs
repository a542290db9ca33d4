//! Connections and requests made from the patterns of a policy: at least one for each pattern.

use std::{collections::BTreeSet, fmt, sync::Arc};

use stockade_l7::{GraphQl, GraphQlKind, Mcp, Operation, Slashes, Target};
use stockade_types::{Host, HostName, Port};

use super::MAX_REQUESTS;
use crate::{
    caller::{Binary, Caller},
    decision::{Door, Intent, Protocol, Request},
    glob::Glob,
    model::{Endpoint, HostPattern},
    rule::{Key, Named, Rule},
    snapshot::Snapshot,
};

/// Most different callers.
const MAX_ASKERS: usize = 64;

/// Hosts that a pattern matches.
pub(super) fn hosts(pattern: &HostPattern) -> Vec<Host> {
    let below = |prefix: &str, parent: &HostName| Host::parse(&format!("{prefix}.{parent}")).ok();
    match pattern {
        HostPattern::Exact(host) => vec![host.clone()],
        HostPattern::One(parent) => below("example", parent).into_iter().collect(),
        HostPattern::Many(parent) => {
            below("example", parent).into_iter().chain(below("another.example", parent)).collect()
        }
    }
}

/// Who asks: nobody known, or one of the executables that an endpoint names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Asker {
    Nobody,
    Running { binary: Binary, script: Option<String> },
}

pub(super) fn askers(endpoints: &[Endpoint]) -> Vec<Asker> {
    let mut all = BTreeSet::from([Asker::Nobody]);
    for callers in endpoints.iter().filter_map(|e| e.callers.as_ref()) {
        let scripts = callers.scripts.iter().map(|s| Some(s.to_string_lossy().into_owned())).chain([None]);
        for script in scripts {
            let running = |b: &Binary| Asker::Running { binary: b.clone(), script: script.clone() };
            all.extend(callers.binaries.iter().map(running));
        }
    }
    all.into_iter().take(MAX_ASKERS).collect()
}

impl Asker {
    /// The intent, in the numbers of one snapshot.
    pub(super) fn intent(&self, snapshot: &Snapshot, host: Host, port: Port) -> Intent {
        let caller = match self {
            Self::Nobody => None,
            Self::Running { binary, script } => {
                let is = |own: &Binary| own.path == binary.path && own.sha256.is_none_or(|h| binary.sha256 == Some(h));
                let matched = (0u32..).zip(snapshot.binaries()).filter(|(_, own)| is(own)).map(|(id, _)| id).collect();
                Some(Arc::new(Caller {
                    exe: binary.path.to_string_lossy().into_owned(),
                    sha256: binary.sha256,
                    matched,
                    ancestors: Some(Vec::new()),
                    script: script.clone(),
                }))
            }
        };
        Intent { caller, ..Intent::new(Door::Connect, host, port) }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => Ok(()),
            Self::Running { binary, script: None } => write!(f, " by {}", binary.path.display()),
            Self::Running { binary, script: Some(script) } => write!(f, " by {} {script}", binary.path.display()),
        }
    }
}

/// Requests made from the rules of two endpoints: first what each rule is about, then every mixture.
pub(super) fn requests(endpoints: [&Endpoint; 2]) -> Vec<Request> {
    let rules: Vec<(&Rule, Protocol)> = endpoints
        .iter()
        .flat_map(|e| e.rules.allow.iter().flatten().chain(&e.rules.deny).map(|rule| (rule, e.protocol)))
        .collect();
    let mut all = Requests { seen: BTreeSet::new(), list: Vec::new() };
    let (mut methods, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (rule, protocol) in &rules {
        let (own_methods, own_paths) = (methods_of(rule), paths_of(rule));
        all.add(&own_methods, &own_paths, &About::of(rule, *protocol));
        methods.extend(own_methods);
        paths.extend(own_paths);
    }
    methods.extend(["GET", "POST", "DELETE"].map(str::to_owned));
    paths.extend(["/", "/example"].map(str::to_owned));
    let mut about: Vec<About> = endpoints.iter().map(|e| About::nothing(e.protocol)).collect();
    about.extend(rules.iter().map(|(rule, protocol)| About::of(rule, *protocol)));
    for about in &about {
        if all.list.len() > MAX_REQUESTS {
            break;
        }
        all.add(&methods.iter().cloned().collect::<Vec<_>>(), &paths.iter().cloned().collect::<Vec<_>>(), about);
    }
    all.list
}

/// What a request says besides method and path.
#[derive(Default)]
struct About {
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    /// Each of them alone.
    operations: Vec<Operation>,
}

impl About {
    fn nothing(protocol: Protocol) -> Self {
        Self { operations: operation(protocol, &|_| None, Vec::new()).into_iter().collect(), ..Self::default() }
    }

    fn of(rule: &Rule, protocol: Protocol) -> Self {
        let pairs = |named: &[Named]| -> Vec<(String, String)> {
            let first = |(name, globs): &Named| Some((name.to_string(), globs.first()?.example()));
            named.iter().filter_map(first).collect()
        };
        let longest = rule.operation.iter().map(|(_, globs)| globs.len()).max().unwrap_or(1);
        let nth = |n: usize| {
            let value = move |key: Key| {
                let (_, globs) = rule.operation.iter().find(|(own, _)| *own == key)?;
                globs.get(n % globs.len().max(1)).map(Glob::example)
            };
            operation(protocol, &value, pairs(&rule.arguments))
        };
        let operations = (0..longest).filter_map(nth).collect();
        Self { query: pairs(&rule.query), headers: pairs(&rule.headers), operations }
    }
}

fn operation(
    protocol: Protocol,
    value: &dyn Fn(Key) -> Option<String>,
    arguments: Vec<(String, String)>,
) -> Option<Operation> {
    let or = |key, default: &str| value(key).unwrap_or_else(|| default.to_owned());
    Some(match protocol {
        Protocol::Http | Protocol::Tcp => return None,
        Protocol::Grpc => {
            Operation::Grpc { service: or(Key::Service, "example.Example"), method: or(Key::Method, "Example") }
        }
        Protocol::Graphql => {
            let word = or(Key::Operation, "query");
            Operation::GraphQl(GraphQl {
                kind: GraphQlKind::ALL.into_iter().find(|k| k.word() == word).unwrap_or(GraphQlKind::Query),
                name: value(Key::Name),
                fields: vec![or(Key::Field, "example")],
            })
        }
        Protocol::JsonRpc => Operation::JsonRpc { method: or(Key::Method, "example"), notification: false },
        Protocol::Mcp => {
            let tool = value(Key::Tool);
            let default = if tool.is_some() || !arguments.is_empty() { "tools/call" } else { "example" };
            Operation::Mcp(Mcp { method: or(Key::Method, default), tool, name: value(Key::Name), arguments })
        }
    })
}

fn methods_of(rule: &Rule) -> Vec<String> {
    match &rule.methods {
        Some(methods) => methods.iter().map(ToString::to_string).collect(),
        None => vec!["GET".to_owned()],
    }
}

fn paths_of(rule: &Rule) -> Vec<String> {
    let Some(paths) = &rule.paths else { return vec!["/example".to_owned()] };
    let canonical = |text: String| Some(Target::parse(&text, Slashes::Encoded).ok()?.path().to_owned());
    paths
        .iter()
        .flat_map(|p| ["", "/example", "/example/more"].map(|many| p.example(many)))
        .filter_map(canonical)
        .collect()
}

struct Requests {
    /// Method and path of those that say no more.
    seen: BTreeSet<(String, String)>,
    list: Vec<Request>,
}

impl Requests {
    fn add(&mut self, methods: &[String], paths: &[String], about: &About) {
        for (method, path) in methods.iter().flat_map(|m| paths.iter().map(move |p| (m, p))) {
            if self.list.len() > MAX_REQUESTS {
                return;
            }
            let plain = about.query.is_empty() && about.headers.is_empty() && about.operations.is_empty();
            if plain && !self.seen.insert((method.clone(), path.clone())) {
                continue;
            }
            let request = Request {
                method: method.clone(),
                path: path.clone(),
                query: about.query.clone(),
                headers: about.headers.clone(),
                operations: Vec::new(),
            };
            let each = about.operations.iter().map(|o| Request { operations: vec![o.clone()], ..request.clone() });
            self.list.extend(each);
            if about.operations.is_empty() {
                self.list.push(request);
            }
        }
    }
}

/// A request in a line.
pub(super) fn shown(request: &Request, origin: &str) -> String {
    let mut text = format!("{} {origin}{}", request.method, request.path);
    for (i, (key, value)) in request.query.iter().enumerate() {
        text.push_str(&format!("{}{key}={value}", if i == 0 { '?' } else { '&' }));
    }
    request.headers.iter().for_each(|(key, value)| text.push_str(&format!(" -H '{key}: {value}'")));
    for operation in &request.operations {
        text.push_str(&match operation {
            Operation::Grpc { service, method } => format!(" calling {service}/{method}"),
            Operation::GraphQl(g) => {
                format!(" asking {} {} {{{}}}", g.kind, g.name.as_deref().unwrap_or(""), g.fields.join(" "))
            }
            Operation::JsonRpc { method, .. } => format!(" calling {method}"),
            Operation::Mcp(m) => {
                let arguments: Vec<String> = m.arguments.iter().map(|(k, v)| format!("{k}={v}")).collect();
                let of = m.tool.as_deref().or(m.name.as_deref()).unwrap_or("");
                format!(" calling {} {of} {}", m.method, arguments.join(" ")).trim_end().to_owned()
            }
        });
    }
    stockade_types::Escaped(&text).to_string()
}
