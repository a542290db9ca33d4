//! What an endpoint says about requests: rules, limits, credentials, callers.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use super::{
    fields::{Fields, Reader, Trail, says_nothing},
    network::NetworkDraft,
    rules, scalars,
};
use crate::{
    availability::Feature,
    caller::{Binary, Callers},
    decision::{Protocol, TlsMode},
    rule::{RequestLimits, Rules, Upstream},
    yaml::{Node, Value},
};

/// Everything of an endpoint that is about requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) rules: Rules,
    pub(crate) limits: RequestLimits,
    pub(crate) credentials: Vec<String>,
    pub(crate) callers: Option<Arc<Callers>>,
    pub(crate) encoded_slash: bool,
    pub(crate) upstream: Upstream,
}

/// Why nothing can be said about the requests of an endpoint.
fn opaque(protocol: Option<Protocol>, tls: Option<TlsMode>) -> Option<&'static str> {
    match (protocol, tls) {
        (Some(Protocol::Tcp), _) => Some("`protocol: tcp`"),
        (_, Some(TlsMode::Passthrough)) => Some("`tls: passthrough`"),
        _ => None,
    }
}

pub(crate) fn requests(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    fields: Fields<'_>,
    (protocol, tls): (Option<Protocol>, Option<TlsMode>),
    draft: &mut NetworkDraft,
) -> Requests {
    let mut found = Requests::default();
    // A protocol that nobody knows has been reported; its rules cannot be read.
    if let Some(protocol) = protocol {
        let mut list = |r: &mut Reader<'_>, key: &'static str| {
            let node = fields.get(key)?;
            let (rules, count) = rules::request_rules(r, &Trail::Key(trail, key), node, protocol);
            draft.items += count;
            Some(rules)
        };
        found.rules.allow = list(r, "allow");
        found.rules.deny = list(r, "deny").unwrap_or_default();
        list(r, "ask");
    }
    if let Some((key, node)) = fields.entry("ask")
        && !says_nothing(node)
    {
        r.gate(Feature::Ask, &Trail::Key(trail, "ask"), key.at, "`ask`");
    }
    let (limits, credentials) = (limits(r, trail, fields), credentials(r, trail, fields));
    (found.limits, found.credentials) = (limits, credentials);
    found.callers = fields.get("binaries").and_then(|node| callers(r, &Trail::Key(trail, "binaries"), node));
    if let Some(node) = fields.get("encoded_slash") {
        found.encoded_slash = r.flag(&Trail::Key(trail, "encoded_slash"), node).unwrap_or_default();
    }
    if let Some(node) = fields.get("upstream") {
        found.upstream = upstream(r, &Trail::Key(trail, "upstream"), node);
    }
    if let Some(why) = opaque(protocol, tls) {
        sealed(r, trail, fields, why);
    }
    found
}

/// Keys about requests, where no request can be seen.
fn sealed(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>, why: &str) {
    for (key, what) in [
        ("allow", "request rules"),
        ("deny", "request rules"),
        ("ask", "request rules"),
        ("credentials", "credentials"),
        ("limits", "limits of requests"),
        ("encoded_slash", "`encoded_slash`"),
        ("upstream", "`upstream`"),
    ] {
        let Some((at, node)) = fields.entry(key) else { continue };
        // An empty `allow` allows nothing, so it matters; the others say nothing then.
        if key == "allow" || !says_nothing(node) {
            let message = format!("{what} cannot work with {why}: its bytes are not read");
            r.error(&Trail::Key(trail, key), at.at, message, None);
        }
    }
}

fn limits(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>) -> RequestLimits {
    let mut limits = RequestLimits::default();
    let Some(node) = fields.get("limits") else { return limits };
    let trail = Trail::Key(trail, "limits");
    let Some(fields) = r.fields(&trail, node, &["requests_per_minute", "request_body"]) else { return limits };
    if let Some(node) = fields.get("requests_per_minute") {
        let number = r.number(&Trail::Key(&trail, "requests_per_minute"), node, 1..=1_000_000);
        limits.requests_per_minute = number.and_then(|n| u32::try_from(n).ok());
    }
    if let Some(node) = fields.get("request_body") {
        let trail = Trail::Key(&trail, "request_body");
        // A bare number is a number of bytes.
        limits.request_body = match node.value {
            Value::Int(_) => r.number(&trail, node, 0..=i64::MAX).and_then(|n| u64::try_from(n).ok()),
            _ => r.parsed(&trail, node, scalars::size).map(std::num::NonZeroU64::get),
        };
    }
    limits
}

fn credentials(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>) -> Vec<String> {
    let Some(node) = fields.get("credentials") else { return Vec::new() };
    r.each(&Trail::Key(trail, "credentials"), node, |r, trail, node| r.text(trail, node).map(str::to_owned))
}

/// `binaries`: a list of executables, or a map that says more about them.
pub(super) fn callers(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<Arc<Callers>> {
    let mut callers = Callers::default();
    if let Value::Map(_) = node.value {
        let fields = r.fields(trail, node, &["any", "ancestors", "scripts"])?;
        match fields.get("any") {
            Some(node) => callers.binaries = binaries(r, &Trail::Key(trail, "any"), node),
            None => r.error(trail, node.at, "`any` is missing", Some("name the executables".to_owned())),
        }
        if let Some(node) = fields.get("ancestors") {
            callers.ancestors = r.flag(&Trail::Key(trail, "ancestors"), node).unwrap_or_default();
        }
        if let Some(node) = fields.get("scripts") {
            let trail = Trail::Key(trail, "scripts");
            callers.scripts = r.each(&trail, node, |r, trail, node| r.parsed(trail, node, absolute));
            rules::empty_list(r, &trail, node);
        }
    } else {
        callers.binaries = binaries(r, trail, node);
    }
    let mut seen = BTreeSet::new();
    callers.binaries.retain(|b| seen.insert(b.clone()));
    (!callers.binaries.is_empty()).then(|| Arc::new(callers))
}

fn binaries(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Vec<Binary> {
    if says_nothing(node) {
        // Nobody, or anybody: it could be read as either.
        let help = "name an executable, or leave `binaries` out for any".to_owned();
        r.error(trail, node.at, "an empty list", Some(help));
    }
    r.each(trail, node, binary)
}

pub(crate) fn absolute(text: &str) -> Result<PathBuf, String> {
    match scalars::path(text)? {
        path if path.is_absolute() => Ok(path),
        _ => Err("not an absolute path".to_owned()),
    }
}

/// An absolute path, or a map with a pin.
fn binary(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<Binary> {
    if !matches!(node.value, Value::Map(_)) {
        return r.parsed(trail, node, absolute).map(|path| Binary { path, sha256: None });
    }
    let fields = r.fields(trail, node, &["path", "sha256"])?;
    let Some(path) = fields.get("path") else {
        r.error(trail, node.at, "`path` is missing", None);
        return None;
    };
    let path = r.parsed(&Trail::Key(trail, "path"), path, absolute);
    let sha256 = match fields.get("sha256") {
        Some(hash) => Some(r.parsed(&Trail::Key(trail, "sha256"), hash, scalars::sha256)?),
        None => None,
    };
    Some(Binary { path: path?, sha256 })
}

fn upstream(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Upstream {
    let Some(fields) = r.fields(trail, node, &["roots", "certificate", "key"]) else { return Upstream::default() };
    let mut file = |key: &str| fields.get(key).and_then(|node| r.parsed(&Trail::Key(trail, key), node, scalars::path));
    let (roots, certificate, key) = (file("roots"), file("certificate"), file("key"));
    if fields.get("certificate").is_some() != fields.get("key").is_some() {
        r.error(trail, node.at, "`certificate` and `key` go together", None);
    }
    Upstream { roots, identity: certificate.zip(key) }
}
