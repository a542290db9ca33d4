//! Learning: what was seen, as the least policy that allows it.

mod known;
mod requests;
mod unlearned;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
};

use stockade_types::{AddressClass, Host, Port, Reason};

pub use self::unlearned::Unlearned;
use self::{known::Known, requests::Requests, unlearned::Refusals};
use crate::{decision::Request, denial::list, host, model::Policy};

/// Most hosts remembered, and most ports of one. The command chooses where it connects; this bounds what that costs.
const MAX_HOSTS: usize = 10_000;
const MAX_PORTS: usize = 256;

const PINNED: &str = "learn without --inspect, or write an endpoint with `tls: passthrough` for it";

/// What was spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// HTTP in the clear.
    Http,
    /// TLS.
    Tls,
    /// Neither, or nothing was said.
    Opaque,
}

/// What a learning run saw.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    known: Known,
    hosts: BTreeMap<Host, BTreeMap<Port, Traffic>>,
    refusals: Refusals,
    /// Where clients accepted no certificate but their own; at most [`MAX_HOSTS`].
    pinned: BTreeSet<(Host, Port)>,
    dropped: u64,
    dropped_requests: u64,
}

/// What was seen on one port of a host.
#[derive(Debug, Clone, Default)]
struct Traffic {
    spoken: BTreeSet<Seen>,
    /// Present where requests could be read: nothing was relayed unread there.
    requests: Option<Requests>,
    /// Endpoints of the policy in force that it went by.
    served: BTreeSet<String>,
    /// Whether that was not all they allow.
    widened: bool,
}

/// A learned policy, and what there is to say about it.
#[derive(Debug, Clone)]
pub struct Written {
    /// The policy.
    pub text: String,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Whether it is to be used together with the policy that was in force, which says what no run can show.
    pub beside: bool,
    /// What was refused or failed.
    pub unlearned: Vec<Unlearned>,
}

impl Learned {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing yet, with this policy in force.
    #[must_use]
    pub fn with(policy: &Policy) -> Self {
        Self { known: Known::of(policy), ..Self::default() }
    }

    /// Notes one connection.
    pub fn observe(&mut self, host: &Host, port: Port, seen: Seen) {
        match self.traffic(host, port) {
            Some(traffic) => drop(traffic.spoken.insert(seen)),
            None => self.dropped = self.dropped.saturating_add(1),
        }
    }

    /// Notes one request that was read, in the clear or on an inspected connection.
    pub fn see_request(&mut self, host: &Host, port: Port, method: &str, path: &str) {
        let Some(traffic) = self.traffic(host, port) else {
            self.dropped = self.dropped.saturating_add(1);
            return;
        };
        let requests = traffic.requests.get_or_insert_default();
        let noted = Request::parse(method, path, &[]).is_ok_and(|r| requests.add(&r.method, &r.path));
        if !noted {
            self.dropped_requests = self.dropped_requests.saturating_add(1);
        }
    }

    /// Notes which endpoint of the policy in force something observed went by, and whether only learning let it
    /// through.
    pub fn see_endpoint(&mut self, host: &Host, port: Port, endpoint: &str, audited: bool) {
        if self.known.covers(endpoint, host, port)
            && let Some(traffic) = self.traffic(host, port)
        {
            traffic.served.insert(endpoint.to_owned());
            traffic.widened |= audited;
        }
    }

    /// Notes what was refused, or failed.
    pub fn see_refused(&mut self, place: String, reason: Option<Reason>, detail: &str, count: u64) {
        self.refusals.add(place, reason, detail, count);
    }

    /// Notes that a client did not accept the sandbox's certificate.
    pub fn see_pinned(&mut self, host: &Host, port: Port) {
        if self.pinned.len() < MAX_HOSTS {
            self.pinned.insert((host.clone(), port));
        }
    }

    /// Where to note something, if there is room for it.
    fn traffic(&mut self, host: &Host, port: Port) -> Option<&mut Traffic> {
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(host) {
            return None;
        }
        let ports = self.hosts.entry(host.clone()).or_default();
        let room = ports.len() < MAX_PORTS || ports.contains_key(&port);
        room.then(|| ports.entry(port).or_default())
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The least policy that allows what was seen: hosts as they were named, ports as they were used, and where
    /// requests were read, their methods and paths. The order is that of the names. Hosts that no policy can allow are named in comments.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        self.written().text
    }

    /// The same, with what there is to say about it.
    ///
    /// What the policy in force said of a host is said again, as far as that can be. Where an endpoint that was used
    /// says more, nothing of that policy is repeated: two files must not treat one host differently.
    #[must_use]
    pub fn written(&self) -> Written {
        let more = self.more();
        let mut text = String::new();
        let mut notes = String::new();
        let mut written = 0;
        for (host, ports) in &self.hosts {
            if let Err(why) = host::pattern(&host.to_string()) {
                // Writing to a String cannot fail.
                let _ = writeln!(notes, "# not allowed: {host}: {why}");
                continue;
            }
            let repeated = |traffic: &Traffic| more.is_empty() || traffic.served.is_empty();
            let (new, known): (BTreeMap<Port, &Traffic>, BTreeMap<Port, &Traffic>) =
                ports.iter().map(|(port, traffic)| (*port, traffic)).partition(|(_, traffic)| repeated(traffic));
            // What learning alone let through went to public addresses: it gets no private ones.
            let (inner, outer): (BTreeMap<Port, &Traffic>, BTreeMap<Port, &Traffic>) =
                new.into_iter().partition(|(_, traffic)| !traffic.served.is_empty());
            let apart = if inner.is_empty() || outer.is_empty() { "" } else { "-known" };
            for (part, more) in [(&inner, apart), (&outer, "")] {
                for (kind, ports) in kinds(part) {
                    let last = format!("{}{}", kind.last, self.private(host, &ports, part));
                    endpoint(&mut text, host, &format!("{}{more}", kind.suffix), ports, &last);
                    written += 1;
                }
            }
            known.iter().for_each(|(port, traffic)| notes.push_str(&not_repeated(host, *port, traffic)));
        }
        let begin = match written {
            0 => "version: 1\nnetwork:\n  endpoints: {}\n",
            _ => "version: 1\nnetwork:\n  endpoints:\n",
        };
        let (unlearned, dropped) = self.refusals.all();
        self.note(&mut notes, &unlearned, dropped);
        let text = format!("{}{begin}{text}{notes}", beside(&more));
        Written { text, endpoints: written, beside: !more.is_empty(), unlearned }
    }

    /// What endpoints that were used say and a learned one cannot, by their names.
    fn more(&self) -> BTreeMap<&str, &[String]> {
        let served = self.hosts.values().flat_map(BTreeMap::values).flat_map(|traffic| &traffic.served);
        let said = served.filter_map(|name| Some((name.as_str(), self.known.get(name)?.more.as_slice())));
        said.filter(|(_, more)| !more.is_empty()).collect()
    }

    /// `private_addresses`: of a private address itself, or of the endpoints that a name went by.
    fn private(&self, host: &Host, ports: &BTreeSet<Port>, traffic: &BTreeMap<Port, &Traffic>) -> String {
        let blocks: BTreeSet<String> = match host {
            Host::Addr(addr) if AddressClass::of(*addr) == AddressClass::Private => {
                BTreeSet::from([format!("{addr}/{}", if addr.is_ipv4() { 32 } else { 128 })])
            }
            Host::Addr(_) => BTreeSet::new(),
            Host::Name(_) => {
                let served = ports.iter().filter_map(|port| traffic.get(port)).flat_map(|traffic| &traffic.served);
                let said = served.filter_map(|name| self.known.get(name));
                said.flat_map(|said| &said.blocks).map(ToString::to_string).collect()
            }
        };
        if blocks.is_empty() {
            return String::new();
        }
        let blocks: Vec<String> = blocks.into_iter().map(|block| format!("\"{block}\"")).collect();
        format!("      private_addresses: [{}]\n", blocks.join(", "))
    }

    /// What was seen and is not in the policy.
    fn note(&self, notes: &mut String, unlearned: &[Unlearned], dropped: u64) {
        // Writing to a String cannot fail.
        for (host, port) in &self.pinned {
            let _ = writeln!(
                notes,
                "# not learned: {host}:{port}: a program did not accept the sandbox's certificate; {PINNED}"
            );
        }
        for kind in unlearned {
            let _ = writeln!(notes, "# refused or failed: {kind}");
        }
        if dropped > 0 {
            let _ = writeln!(notes, "# {dropped} more that were refused or failed are not listed");
        }
        if self.dropped > 0 {
            let _ = writeln!(notes, "# {} more connections were not recorded", self.dropped);
        }
        if self.dropped_requests > 0 {
            let _ = writeln!(notes, "# {} more requests were not recorded and are not allowed", self.dropped_requests);
        }
    }
}

/// The first lines of a policy that is not to be used alone.
fn beside(more: &BTreeMap<&str, &[String]>) -> String {
    if more.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "# Use this beside the policy that was in force (`--policy` is taken several times). It says what no run can show:\n",
    );
    for (name, keys) in more {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "#   endpoint `{name}`: {}", keys.join(", "));
    }
    text
}

/// A destination that the policy in force has an endpoint for; with what it does not allow of what was asked.
fn not_repeated(host: &Host, port: Port, traffic: &Traffic) -> String {
    let names: Vec<String> = traffic.served.iter().map(|name| format!("`{name}`")).collect();
    let mut text = format!("# not repeated: {host}:{port} is in endpoint {} of that policy", names.join(", "));
    if traffic.widened {
        text.push_str(", which does not allow all that was asked; add to it what it lacks of\n");
        let rules = traffic.requests.as_ref().map(Requests::rules).unwrap_or_default();
        rules.lines().for_each(|line| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# {line}");
        });
        return text;
    }
    text.push('\n');
    text
}

/// An endpoint of a host: what its name ends in, and what it says.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    suffix: String,
    last: String,
}

/// Ports of one host by what must be said about them.
fn kinds(ports: &BTreeMap<Port, &Traffic>) -> Vec<(Kind, BTreeSet<Port>)> {
    let (mut opaque, mut sealed) = (BTreeSet::new(), BTreeSet::new());
    let mut read: BTreeMap<String, BTreeSet<Port>> = BTreeMap::new();
    let mut clear = true;
    for (port, traffic) in ports {
        match &traffic.requests {
            Some(requests) => drop(read.entry(requests.rules()).or_default().insert(*port)),
            None if traffic.spoken.contains(&Seen::Opaque) => drop(opaque.insert(*port)),
            None => {
                clear &= *port == Port::HTTP && !traffic.spoken.contains(&Seen::Tls);
                sealed.insert(*port);
            }
        }
    }
    let mut kinds = Vec::new();
    let mut add = |suffix: &str, last: String, ports: BTreeSet<Port>| {
        if !ports.is_empty() {
            kinds.push((Kind { suffix: suffix.to_owned(), last }, ports));
        }
    };
    let several = read.len() > 1;
    let beside = if read.is_empty() { "" } else { "-sealed" };
    for (rules, ports) in read {
        let port = ports.first().filter(|_| several).map(|port| format!("-{port}"));
        add(&port.unwrap_or_default(), rules, ports);
    }
    add(beside, if clear { String::new() } else { "      tls: passthrough\n".to_owned() }, sealed);
    add("-tcp", "      protocol: tcp\n".to_owned(), opaque);
    kinds
}

fn endpoint(text: &mut String, host: &Host, suffix: &str, ports: BTreeSet<Port>, last: &str) {
    let (name, quoted) = match host {
        Host::Name(name) => (name.to_string(), name.to_string()),
        Host::Addr(IpAddr::V4(a)) => (a.to_string(), a.to_string()),
        Host::Addr(IpAddr::V6(a)) => (format!("v6-{}", a.to_string().replace(':', "-")), format!("\"[{a}]\"")),
    };
    // Names are at most 64 characters; a long host is cut and told apart by what it hashes to.
    let name = match name.len() + suffix.len() {
        0..=64 => name,
        _ => format!("{}-{}", name.chars().take(40).collect::<String>(), short_hash(&name)),
    };
    // Writing to a String cannot fail.
    let _ = write!(text, "    {name}{suffix}:\n      hosts: [{quoted}]\n      ports: {}\n{last}", list(&ports));
}

fn short_hash(text: &str) -> String {
    use sha2::{Digest, Sha256};
    crate::parse::hex(&Sha256::digest(text)).chars().take(8).collect()
}

#[cfg(test)]
mod tests;
