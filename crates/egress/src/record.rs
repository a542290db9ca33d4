//! Audit events of the door, built from verdicts and refusals.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use stockade_audit::{Action, Audit, Event, Finding, Http, Network};
use stockade_policy::{Denial, Door, Intent, Permit, Protocol, RequestPermit};
use stockade_types::{AuthorityError, Generation, Host, HostName, Reason};

use crate::{
    destination::{Block, DestinationError},
    peer::Client,
    rescue::Refusal,
};

const UDP: u8 = 17;

/// The name of a front door in events.
fn door(door: Door) -> &'static str {
    match door {
        Door::Connect => "connect",
        Door::Forward => "forward",
        Door::Transparent => "transparent",
    }
}

/// What is known about a connection when something is said about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) door: Door,
    pub(crate) intent: Option<&'a Intent>,
    pub(crate) permit: Option<&'a Permit>,
    pub(crate) client: Option<&'a Client>,
    pub(crate) generation: Generation,
}

impl Facts<'_> {
    fn network(self, action: Action) -> Network {
        let mut network = Network::new(action, door(self.door), self.generation);
        network.process = self.client.and_then(Client::process);
        if let Some(client) = self.client {
            network.connection = client.number();
            network.duration_ms = Some(since(client.accepted()));
        }
        if let Some(intent) = self.intent {
            network.host = Some(intent.host.to_string());
            network.port = Some(intent.port.get());
        }
        if let Some(permit) = self.permit {
            network.endpoint = Some(permit.terms().endpoint.clone());
            network.generation = permit.generation();
            if let Some(would) = permit.would_deny() {
                network.audited = true;
                explain(&mut network, would);
            }
        }
        network
    }
}

fn since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn explain(network: &mut Network, denial: &Denial) {
    network.reason = Some(denial.reason);
    network.rule = Some(denial.rule.clone());
    network.detail = Some(denial.detail.clone());
    network.suggestion.clone_from(&denial.suggestion);
    network.generation = denial.generation;
}

fn refused(facts: Facts<'_>, refusal: &Refusal) -> Network {
    let row = refusal.row();
    let mut network = facts.network(row.action);
    network.audited = false;
    match refusal.denial() {
        Some(denial) => explain(&mut network, denial),
        None => network.detail = Some(refusal.to_string()),
    }
    if let Refusal::Destination(DestinationError::Blocked(block, addr)) = refusal {
        network.addr = *addr;
        network.suggestion = private_line(*block, *addr, facts.permit);
    }
    network.reason = Some(row.reason);
    network
}

/// The line that would let an endpoint reach a private address. For the operator: what a name stands for inside a network
/// is nothing that the command need know.
fn private_line(block: Block, addr: Option<IpAddr>, permit: Option<&Permit>) -> Option<String> {
    let ((Block::Internal, Some(addr)), Some(permit)) = ((block, addr), permit) else { return None };
    let terms = permit.terms();
    let addr = addr.to_canonical();
    let line = format!("private_addresses: [\"{addr}/{}\"]", if addr.is_ipv4() { 32 } else { 128 });
    let (host, port) = (permit.host(), permit.port());
    // An endpoint of the command line has no name that a file could use.
    let endpoint = match terms.endpoint.starts_with('-') {
        false => format!("{}:\n      {line}", terms.endpoint),
        true if terms.protocol == Protocol::Tcp => {
            format!("{host}:\n      {{hosts: [{host}], ports: [{port}], protocol: tcp, {line}}}")
        }
        true => format!("{host}:\n      {{hosts: [{host}], ports: [{port}], {line}}}"),
    };
    Some(format!("network:\n  endpoints:\n    {endpoint}"))
}

/// A connection refused or failed.
pub(crate) fn refusal(facts: Facts<'_>, refusal: &Refusal) -> Event {
    Event::Network(refused(facts, refusal))
}

/// What a request asked for, as far as it may be recorded.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Without the query: queries carry secrets.
    pub(crate) path: String,
    /// When its head had been read.
    pub(crate) begun: Instant,
}

/// A request refused or failed. What concerns the way to the host and not the request is a network event.
pub(crate) fn request_refusal(facts: Facts<'_>, asked: Option<Asked>, why: &Refusal) -> Event {
    let mut network = refused(facts, why);
    match (why, asked) {
        (Refusal::Destination(_) | Refusal::Mapping | Refusal::Busy, _) | (_, None) => Event::Network(network),
        (_, Some(Asked { method, path, begun })) => {
            network.duration_ms = Some(since(begun));
            Event::Http(Http { network, method, path, status: why.row().status.as_u16() })
        }
    }
}

/// A request let through and answered.
pub(crate) fn request(facts: Facts<'_>, permit: &RequestPermit, asked: Asked, status: u16) -> Event {
    let Asked { method, path, begun } = asked;
    let mut network = facts.network(Action::Allowed);
    network.duration_ms = Some(since(begun));
    network.rule = permit.rule().map(str::to_owned);
    if let Some(would) = permit.would_deny() {
        network.audited = true;
        explain(&mut network, would);
    }
    Event::Http(Http { network, method, path, status })
}

/// A request let through whose answer nobody waited for. The status is that of no response.
pub(crate) fn unanswered(facts: Facts<'_>, permit: &RequestPermit, asked: Asked) -> Event {
    let mut event = request(facts, permit, asked, 0);
    if let Event::Http(http) = &mut event {
        http.network.detail.get_or_insert_with(|| "ended before it was answered".to_owned());
    }
    event
}

/// A DNS question for a name that no endpoint knows.
pub(crate) fn unknown_name(name: String, denial: &Denial) -> Event {
    let mut network = Network::new(Action::Denied, "dns", denial.generation);
    explain(&mut network, denial);
    network.reason = Some(Reason::DnsNoPolicy);
    question(network, name)
}

/// A DNS question for what cannot be a host name.
pub(crate) fn malformed_name(name: String, why: AuthorityError, generation: Generation) -> Event {
    let mut network = Network::new(Action::Denied, "dns", generation);
    network.reason = Some(Reason::DnsNoPolicy);
    network.detail = Some(why.to_string());
    question(network, name)
}

/// A DNS question for a permitted name that got no address.
pub(crate) fn pool_exhausted(name: &HostName, generation: Generation) -> Event {
    let mut network = Network::new(Action::Failed, "dns", generation);
    network.reason = Some(Reason::MappingExhausted);
    network.detail = Some("no synthetic address is left; the proxy still serves the name".into());
    question(network, name.to_string())
}

fn question(mut network: Network, name: String) -> Event {
    network.protocol = UDP;
    network.port = Some(53);
    network.host = Some(name);
    Event::Network(network)
}

/// Something for a person to look at.
pub(crate) fn finding(reason: Reason, detail: &str, count: u64) -> Event {
    Event::Finding(Finding { reason, severity: 3, detail: detail.into(), count })
}

/// A host answered with values of credentials.
pub(crate) fn shown(host: &Host, count: u64) -> Event {
    finding(Reason::SecretInResponse, &format!("{host} answered with a credential's value; it was taken out"), count)
}

/// An open connection: says so when made, and how much went through when dropped, however it ends.
pub(crate) struct Open {
    audit: Audit,
    network: Network,
    begun: Instant,
    /// Bytes from the command to the upstream.
    pub(crate) out: AtomicU64,
    /// Bytes from the upstream to the command.
    pub(crate) back: AtomicU64,
}

impl Open {
    pub(crate) fn new(audit: Audit, facts: Facts<'_>, addr: Option<IpAddr>) -> Self {
        let mut network = facts.network(Action::Allowed);
        network.addr = addr;
        audit.emit(Event::Network(network.clone()));
        network.action = Action::Closed;
        let begun = facts.client.map_or_else(Instant::now, Client::accepted);
        Self { audit, network, begun, out: AtomicU64::new(0), back: AtomicU64::new(0) }
    }

    /// Why it ended, where that was not its ends' own wish.
    pub(crate) fn because(&mut self, reason: Reason, detail: &str) {
        self.network.reason = Some(reason);
        self.network.detail = Some(detail.into());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut network = self.network.clone();
        network.bytes_out = self.out.load(Ordering::Relaxed);
        network.bytes_in = self.back.load(Ordering::Relaxed);
        network.duration_ms = Some(since(self.begun));
        self.audit.emit(Event::Network(network));
    }
}
