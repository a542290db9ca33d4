//! `network`: the part that may change while the command runs.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use stockade_types::{AddressClass, Cidr, Host, Port};

use super::{
    Located, MAX_HOSTS, MAX_ITEMS,
    fields::{Fields, Reader, Trail, says_nothing},
    requests,
};
use crate::{
    availability::Feature,
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

const ENDPOINT_KEYS: [&str; 14] = [
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
    "encoded_slash",
    "upstream",
];

pub(crate) fn network(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, file: &Arc<str>) -> NetworkDraft {
    let mut draft = NetworkDraft::default();
    let Some(fields) = r.fields(trail, node, &["unmatched", "endpoints"]) else { return draft };
    if let Some(node) = fields.get("unmatched") {
        let trail = Trail::Key(trail, "unmatched");
        let words = [("deny", Some(Unmatched::Deny)), ("ask", None)];
        match r.word(&trail, node, "word", &words) {
            Some(Some(word)) => draft.unmatched = Some(Located::new(word, node.at)),
            Some(None) => r.gate(Feature::Ask, &trail, node.at, "`unmatched: ask`"),
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
    let protocol = protocol(r, trail, fields);
    let tls = fields.get("tls").and_then(|node| {
        let words = [("inspect", TlsMode::Inspect), ("passthrough", TlsMode::Passthrough)];
        r.word(&Trail::Key(trail, "tls"), node, "word for tls", &words)
    });
    let ports = ports(r, trail, (key, fields), protocol);
    let mode = fields.get("mode").map_or(Some(Mode::Enforce), |node| {
        r.word(&Trail::Key(trail, "mode"), node, "mode", &[("enforce", Mode::Enforce), ("audit", Mode::Audit)])
    });
    let private_addresses = private_addresses(r, trail, fields);
    private_literals(r, trail, fields, &hosts, &private_addresses);
    let about = requests::requests(r, trail, fields, (protocol, tls), draft);
    let protocol = protocol?;
    let tls = terms(r, trail, (key, fields), (protocol, tls));
    if !about.credentials.is_empty() && ports.iter().all(|p| *p == Port::HTTP) {
        let help = "credentials are put into https requests only; add port 443".to_owned();
        let at = fields.entry("credentials").map_or(key.at, |(key, _)| key.at);
        r.error(&Trail::Key(trail, "credentials"), at, "credentials of an endpoint without https", Some(help));
    }
    Some(Endpoint {
        mode: mode?,
        tls,
        private_addresses,
        rules: about.rules,
        limits: about.limits,
        credentials: about.credentials,
        callers: about.callers,
        encoded_slash: about.encoded_slash,
        upstream: about.upstream,
        origin: Some(origin),
        ..Endpoint::plain(name?, hosts, ports, protocol)
    })
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

fn protocol(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>) -> Option<Protocol> {
    let Some(node) = fields.get("protocol") else { return Some(Protocol::Http) };
    let words = [
        ("http", Protocol::Http),
        ("tcp", Protocol::Tcp),
        ("grpc", Protocol::Grpc),
        ("graphql", Protocol::Graphql),
        ("jsonrpc", Protocol::JsonRpc),
        ("mcp", Protocol::Mcp),
    ];
    r.word(&Trail::Key(trail, "protocol"), node, "protocol", &words)
}

fn ports(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    (key, fields): (&Key, Fields<'_>),
    protocol: Option<Protocol>,
) -> BTreeSet<Port> {
    let Some(node) = fields.get("ports") else {
        if protocol == Some(Protocol::Tcp) {
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

/// What happens to TLS, where protocol and `tls` agree.
fn terms(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    (key, fields): (&Key, Fields<'_>),
    (protocol, tls): (Protocol, Option<TlsMode>),
) -> TlsMode {
    let at = fields.entry("tls").map_or(key.at, |(key, _)| key.at);
    match (protocol, tls) {
        (Protocol::Tcp, Some(TlsMode::Inspect)) => {
            let help = "leave `tls` out, or write `protocol: http`".to_owned();
            r.error(trail, at, "`tls: inspect` cannot work with `protocol: tcp`", Some(help));
            TlsMode::Passthrough
        }
        (Protocol::Tcp, _) => TlsMode::Passthrough,
        (Protocol::Http, tls) => tls.unwrap_or(TlsMode::Inspect),
        (Protocol::Grpc | Protocol::Graphql | Protocol::JsonRpc | Protocol::Mcp, tls) => {
            if tls == Some(TlsMode::Passthrough) {
                let help = "leave `tls` out, or write `protocol: http`".to_owned();
                let what = "`tls: passthrough` cannot work with a protocol whose messages are judged";
                r.error(trail, at, what, Some(help));
            }
            TlsMode::Inspect
        }
    }
}
