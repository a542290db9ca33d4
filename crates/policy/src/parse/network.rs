//! `network`: the part that may change while the command runs.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use stockade_types::{AddressClass, Cidr, Host, Port};

use super::{
    Located, MAX_HOSTS, MAX_ITEMS,
    fields::{Fields, Reader, Trail, says_nothing},
    rules,
};
use crate::{
    decision::{Mode, Protocol, TlsMode},
    diagnostic::shown,
    host,
    model::{Endpoint, HostPattern, Origin, Unmatched},
    yaml::{Key, Node},
};

/// `network` of one file.
#[derive(Debug, Default)]
pub(crate) struct NetworkDraft {
    pub(crate) unmatched: Option<Located<Unmatched>>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Endpoints and rules met so far.
    pub(crate) items: usize,
    /// Hosts met so far.
    pub(crate) hosts: usize,
}

const ENDPOINT_KEYS: [&str; 12] = [
    "hosts",
    "ports",
    "binaries",
    "protocol",
    "tls",
    "mode",
    "allow",
    "deny",
    "ask",
    "private_addresses",
    "limits",
    "credentials",
];

/// The protocol as written; those that are not available yet are known words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Now(Protocol),
    Later(&'static str),
}

pub(crate) fn network(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, file: &Arc<str>) -> NetworkDraft {
    let mut draft = NetworkDraft::default();
    let Some(fields) = r.fields(trail, node, &["unmatched", "endpoints"]) else { return draft };
    if let Some(node) = fields.get("unmatched") {
        let trail = Trail::Key(trail, "unmatched");
        let words = [("deny", Some(Unmatched::Deny)), ("ask", None)];
        match r.word(&trail, node, "word", &words) {
            Some(Some(word)) => draft.unmatched = Some(Located::new(word, node.at)),
            Some(None) => r.unavailable(&trail, node.at, "`unmatched: ask`", Some("write `unmatched: deny`")),
            None => {}
        }
    }
    let Some(endpoints) = fields.get("endpoints") else { return draft };
    let trail = Trail::Key(trail, "endpoints");
    for (key, node) in r.map(&trail, endpoints).unwrap_or_default() {
        let trail = Trail::Key(&trail, &key.text);
        draft.items += 1;
        if draft.items > MAX_ITEMS {
            r.error(&trail, key.at, format!("more than {MAX_ITEMS} endpoints and rules"), None);
        }
        if draft.items > MAX_ITEMS || r.report.is_full() {
            return draft;
        }
        let origin = Origin { file: Arc::clone(file), at: key.at };
        if let Some(endpoint) = endpoint(r, &trail, (key, node), origin, &mut draft) {
            draft.endpoints.push(endpoint);
        }
    }
    draft
}

fn endpoint(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    (key, node): (&Key, &Node),
    origin: Origin,
    draft: &mut NetworkDraft,
) -> Option<Endpoint> {
    let name = r.name(trail, key);
    let fields = r.fields(trail, node, &ENDPOINT_KEYS)?;
    let hosts = hosts(r, trail, (key, fields), draft);
    let written = protocol(r, trail, fields);
    let tls = fields.get("tls").and_then(|node| {
        let words = [("inspect", TlsMode::Inspect), ("passthrough", TlsMode::Passthrough)];
        r.word(&Trail::Key(trail, "tls"), node, "word for tls", &words)
    });
    let ports = ports(r, trail, (key, fields), written);
    let mode = fields.get("mode").map_or(Some(Mode::Enforce), |node| {
        r.word(&Trail::Key(trail, "mode"), node, "mode", &[("enforce", Mode::Enforce), ("audit", Mode::Audit)])
    });
    let private_addresses = private_addresses(r, trail, fields);
    private_literals(r, trail, fields, &hosts, &private_addresses);
    later_keys(r, trail, fields, (written, tls), draft);
    let Some(Written::Now(protocol)) = written else { return None };
    let tls = terms(r, trail, (key, fields), (protocol, tls), &ports);
    Some(Endpoint { name: name?, hosts, ports, protocol, tls, mode: mode?, private_addresses, origin: Some(origin) })
}

fn hosts(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    (key, fields): (&Key, Fields<'_>),
    draft: &mut NetworkDraft,
) -> Vec<HostPattern> {
    let trail_hosts = Trail::Key(trail, "hosts");
    let Some(node) = fields.get("hosts") else {
        r.error(trail, key.at, "an endpoint without `hosts`", Some("name at least one host".to_owned()));
        return Vec::new();
    };
    let items = r.list(&trail_hosts, node);
    draft.hosts += items.len();
    if draft.hosts > MAX_HOSTS {
        r.error(&trail_hosts, node.at, format!("more than {MAX_HOSTS} hosts"), None);
        return Vec::new();
    }
    let mut found = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let trail = Trail::Item(&trail_hosts, i);
        let Some(text) = r.text(&trail, item) else { continue };
        match host::pattern(text) {
            Ok(pattern) => found.push(pattern),
            Err(why) => r.error(&trail, item.at, format!("{}: {why}", shown(text)), why.help()),
        }
    }
    if says_nothing(node) {
        r.error(&trail_hosts, node.at, "an endpoint without hosts", Some("name at least one host".to_owned()));
    }
    found
}

fn protocol(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>) -> Option<Written> {
    let Some(node) = fields.get("protocol") else { return Some(Written::Now(Protocol::Http)) };
    let trail = Trail::Key(trail, "protocol");
    let words = [
        ("http", Written::Now(Protocol::Http)),
        ("tcp", Written::Now(Protocol::Tcp)),
        ("grpc", Written::Later("grpc")),
        ("graphql", Written::Later("graphql")),
        ("jsonrpc", Written::Later("jsonrpc")),
        ("mcp", Written::Later("mcp")),
    ];
    let written = r.word(&trail, node, "protocol", &words);
    if let Some(Written::Later(word)) = written {
        let help = "write `protocol: http`; requests are then not judged one by one";
        r.unavailable(&trail, node.at, &format!("`protocol: {word}`"), Some(help));
    }
    written
}

fn ports(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    (key, fields): (&Key, Fields<'_>),
    protocol: Option<Written>,
) -> BTreeSet<Port> {
    let Some(node) = fields.get("ports") else {
        if protocol == Some(Written::Now(Protocol::Tcp)) {
            let help = "name them, such as `ports: [22]`".to_owned();
            r.error(trail, key.at, "an endpoint with `protocol: tcp` must name its ports", Some(help));
        }
        return BTreeSet::from([Port::HTTPS]);
    };
    let trail = Trail::Key(trail, "ports");
    if says_nothing(node) {
        r.error(&trail, node.at, "an endpoint without ports", Some("name at least one port".to_owned()));
    }
    let read = |r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node| {
        let number = r.number(trail, node, 1..=i64::from(u16::MAX))?;
        u16::try_from(number).ok().and_then(Port::new)
    };
    r.each(&trail, node, read).into_iter().collect()
}

fn private_addresses(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>) -> Vec<Cidr> {
    let Some(node) = fields.get("private_addresses") else { return Vec::new() };
    r.each(&Trail::Key(trail, "private_addresses"), node, |r, trail, node| {
        r.parsed(trail, node, |text| {
            let block: Cidr = text.parse().map_err(|e: stockade_types::address::CidrError| e.to_string())?;
            host::forbidden_block(&block).map_or(Ok(block), Err)
        })
    })
}

/// A private address as host says nothing by itself: it must be listed too, as for a name that resolves to it.
fn private_literals(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>, hosts: &[HostPattern], blocks: &[Cidr]) {
    let Some(node) = fields.get("hosts") else { return };
    for host in hosts {
        let HostPattern::Exact(Host::Addr(addr)) = host else { continue };
        if AddressClass::of(*addr) == AddressClass::Private && !blocks.iter().any(|b| b.contains(*addr)) {
            let bits = if matches!(addr, IpAddr::V4(_)) { 32 } else { 128 };
            let help = format!("add `private_addresses: [{addr}/{bits}]`");
            let trail = Trail::Key(trail, "hosts");
            r.error(&trail, node.at, format!("{addr} is a private address and would be refused"), Some(help));
        }
    }
}

/// Keys that nothing acts on yet: validated, then refused where they would matter.
fn later_keys(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    fields: Fields<'_>,
    (protocol, tls): (Option<Written>, Option<TlsMode>),
    draft: &mut NetworkDraft,
) {
    let opaque = match (protocol, tls) {
        (Some(Written::Now(Protocol::Tcp)), _) => Some("`protocol: tcp`"),
        (_, Some(TlsMode::Passthrough)) => Some("`tls: passthrough`"),
        _ => None,
    };
    let refuse = |r: &mut Reader<'_>, key: &'static str, what: &str| {
        let Some((at, _)) = fields.entry(key) else { return };
        let trail = Trail::Key(trail, key);
        match opaque {
            Some(why) => r.error(&trail, at.at, format!("{what} cannot work with {why}: its bytes are not read"), None),
            None => r.unavailable(&trail, at.at, what, None),
        }
    };
    for key in ["allow", "deny", "ask"] {
        let Some(node) = fields.get(key) else { continue };
        draft.items += rules::request_rules(r, &Trail::Key(trail, key), node);
        // An empty `allow` allows nothing, so it matters; an empty `deny` or `ask` says nothing.
        if key == "allow" || !says_nothing(node) {
            refuse(r, key, "request rules");
        }
    }
    if let Some(node) = fields.get("credentials") {
        let trail = Trail::Key(trail, "credentials");
        r.each(&trail, node, |r, trail, node| r.text(trail, node).map(|_| ()));
        if !says_nothing(node) {
            refuse(r, "credentials", "credentials");
        }
    }
    if let Some((key, node)) = fields.entry("limits") {
        let trail = Trail::Key(trail, "limits");
        rules::endpoint_limits(r, &trail, node);
        if !says_nothing(node) {
            r.unavailable(&trail, key.at, "limits of an endpoint", None);
        }
    }
    if let Some((key, node)) = fields.entry("binaries") {
        let trail = Trail::Key(trail, "binaries");
        r.each(&trail, node, rules::binary);
        if !says_nothing(node) {
            r.unavailable(&trail, key.at, "rules for executables", None);
        }
    }
}

/// What happens to TLS, where protocol, ports and `tls` agree.
fn terms(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    (key, fields): (&Key, Fields<'_>),
    (protocol, tls): (Protocol, Option<TlsMode>),
    ports: &BTreeSet<Port>,
) -> TlsMode {
    let at = fields.entry("tls").map_or(key.at, |(key, _)| key.at);
    match protocol {
        Protocol::Tcp => {
            if tls == Some(TlsMode::Inspect) {
                let help = "leave `tls` out, or write `protocol: http`".to_owned();
                r.error(trail, at, "`tls: inspect` cannot work with `protocol: tcp`", Some(help));
            }
            TlsMode::Passthrough
        }
        Protocol::Http => {
            let mode = tls.unwrap_or(TlsMode::Inspect);
            // A word for tls that nobody knows has been reported; the default must not be blamed for it.
            let misspelt = tls.is_none() && fields.get("tls").is_some();
            if mode == TlsMode::Inspect && !misspelt && ports.iter().any(|p| *p != Port::HTTP) {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let what = format!(
                    "`tls: inspect`{} on port {}",
                    if tls.is_none() { " (the default)" } else { "" },
                    ports.join(", ")
                );
                r.unavailable(trail, at, &what, Some("add the line `tls: passthrough` to this endpoint"));
            }
            mode
        }
    }
}
