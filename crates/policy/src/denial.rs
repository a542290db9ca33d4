//! Denials that help: what, which rule, and the smallest YAML that would allow it.

mod request;

pub(crate) use request::{by_rule, no_rule, quoted, shown};

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

use stockade_types::{AddressClass, Escaped, Generation, Host, HostName, Port, Reason};

use crate::{
    decision::{Denial, Door, Intent},
    host,
    index::Candidate,
    model::Endpoint,
    snapshot::Snapshot,
};

/// Ports on which TLS or HTTP is spoken, as far as anyone can tell.
pub const WEB_PORTS: [u16; 6] = [80, 443, 3000, 8000, 8080, 8443];

impl Snapshot {
    /// The smallest lines that would allow a connection past the proxy, where any can.
    #[must_use]
    pub fn line_for(&self, host: Host, port: Port) -> Option<String> {
        new_endpoint(self, &Intent::new(Door::Transparent, host, port))
    }
}

/// A denial of the base policy.
pub(crate) fn by_base(
    snapshot: &Snapshot,
    intent: &Intent,
    candidates: &[Candidate<'_>],
    (rule, reason): (String, Reason),
) -> Denial {
    if matches!(reason, Reason::IdentityUnresolved | Reason::IdentityNoMatch) {
        return by_identity(snapshot.generation, intent, (rule, reason));
    }
    let near = candidates.first().and_then(|c| snapshot.endpoints.get(c.endpoint as usize));
    let Intent { host, port, .. } = intent;
    let (detail, suggestion) = match (reason, near) {
        (Reason::NoPolicy, Some(endpoint)) => (
            format!("endpoint `{}` covers {host}, but not port {port}", endpoint.name),
            Some(with_port(endpoint, *port)),
        ),
        (Reason::NoPolicy, None) => {
            (format!("no endpoint of the policy covers {host}"), new_endpoint(snapshot, intent))
        }
        _ => (format!("{host} is a reserved name that no policy can allow"), None),
    };
    Denial { reason, rule, detail, suggestion, generation: snapshot.generation }
}

/// A denial because of who asks. `rule` is the endpoint that covers host and port for others.
fn by_identity(generation: Generation, intent: &Intent, (endpoint, reason): (String, Reason)) -> Denial {
    let Intent { host, port, caller, .. } = intent;
    let who = match caller {
        Some(caller) => format!("{} is none of them, or not as the endpoint wants it", Escaped(&caller.exe)),
        None => "which one asks is not known".to_owned(),
    };
    Denial {
        reason,
        rule: format!("network.endpoints.{endpoint}.binaries"),
        detail: format!("endpoint `{endpoint}` opens {host}:{port} to certain executables, and {who}"),
        suggestion: None,
        generation,
    }
}

/// A denial by `deny` of a user module.
pub(crate) fn by_custom(generation: Generation, what: &str, messages: &[String]) -> Denial {
    let detail = format!("a Rego rule denies {what}: {}", messages.join("; "));
    Denial { reason: Reason::CustomDeny, rule: "rego.deny".to_owned(), detail, suggestion: None, generation }
}

/// A denial because nobody can be asked yet.
pub(crate) fn asked(generation: Generation, what: &str, messages: &[String]) -> Denial {
    let why = messages.join("; ");
    let detail = format!("a Rego rule asks a person about {what}, which is not available yet: {why}");
    Denial { reason: Reason::NotAvailable, rule: "rego.ask".to_owned(), detail, suggestion: None, generation }
}

/// The denial of a name that no endpoint can claim, in any spelling.
pub(crate) fn reserved_name(generation: Generation, host: &Host) -> Option<Denial> {
    let Err(host::PatternError::Reserved { why, .. }) = host::pattern(&host.to_string()) else { return None };
    Some(Denial {
        reason: Reason::DnsNoPolicy,
        rule: "reserved".to_owned(),
        detail: format!("{host} is a reserved name: {why}"),
        suggestion: None,
        generation,
    })
}

/// The denial of a DNS question.
pub(crate) fn unknown_name(snapshot: &Snapshot, name: &HostName) -> Denial {
    let intent = Intent::new(Door::Connect, Host::Name(name.clone()), Port::HTTPS);
    Denial {
        reason: Reason::DnsNoPolicy,
        rule: "default".to_owned(),
        detail: format!("no endpoint of the policy covers {name}"),
        suggestion: new_endpoint(snapshot, &intent),
        generation: snapshot.generation,
    }
}

/// The endpoint with one port more.
fn with_port(endpoint: &Endpoint, port: Port) -> String {
    let mut ports: BTreeSet<Port> = endpoint.ports.clone();
    ports.insert(port);
    format!("network:\n  endpoints:\n    {}:\n      ports: {}", endpoint.name, list(&ports))
}

/// A new endpoint for one host and port, or nothing where no endpoint may have that host.
fn new_endpoint(snapshot: &Snapshot, intent: &Intent) -> Option<String> {
    let host = intent.host.to_string();
    host::pattern(&host).ok()?;
    let mut name: String =
        host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).take(60).collect();
    if name.is_empty() || snapshot.has_endpoint(&name) {
        name.push_str("-2");
    }
    Some(format!("network:\n  endpoints:\n    {name}: {}", flow(intent)))
}

fn flow(intent: &Intent) -> String {
    let Intent { door, host, port, .. } = intent;
    let quoted = match host {
        Host::Addr(IpAddr::V6(_)) => format!("\"{host}\""),
        Host::Addr(IpAddr::V4(_)) | Host::Name(_) => host.to_string(),
    };
    let mut text = format!("{{hosts: [{quoted}], ports: [{port}]");
    let web = *door == Door::Forward || WEB_PORTS.contains(&port.get());
    if !web {
        text.push_str(", protocol: tcp");
    }
    if let Host::Addr(addr) = host
        && AddressClass::of(*addr) == AddressClass::Private
    {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        // Writing to a String cannot fail.
        let _ = write!(text, ", private_addresses: [\"{addr}/{bits}\"]");
    }
    text.push('}');
    text
}

/// `[80, 443]`.
pub(crate) fn list(ports: &BTreeSet<Port>) -> String {
    format!("[{}]", ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}
