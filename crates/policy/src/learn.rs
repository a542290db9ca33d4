//! Learning: what was seen, as the least policy that allows it.

mod requests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
};

use stockade_types::{AddressClass, Host, Port};

use self::requests::Requests;
use crate::{decision::Request, denial::list, host};

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
    hosts: BTreeMap<Host, BTreeMap<Port, Traffic>>,
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
}

impl Learned {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
        let mut text = String::from("version: 1\nnetwork:\n  endpoints:\n");
        let mut refused = Vec::new();
        let mut written = 0;
        for (host, ports) in &self.hosts {
            if let Err(why) = host::pattern(&host.to_string()) {
                refused.push(format!("# not allowed: {host}: {why}\n"));
                continue;
            }
            for (kind, ports) in kinds(ports) {
                endpoint(&mut text, host, &kind.suffix, ports, &kind.last);
                written += 1;
            }
        }
        if written == 0 {
            text = String::from("version: 1\nnetwork:\n  endpoints: {}\n");
        }
        refused.iter().for_each(|line| text.push_str(line));
        for (host, port) in &self.pinned {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# not learned: {host}:{port}: a program did not accept the sandbox's certificate; {PINNED}"
            );
        }
        if self.dropped > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# {} more connections were not recorded", self.dropped);
        }
        if self.dropped_requests > 0 {
            let _ = writeln!(text, "# {} more requests were not recorded and are not allowed", self.dropped_requests);
        }
        text
    }
}

/// An endpoint of a host: what its name ends in, and what it says.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    suffix: String,
    last: String,
}

/// Ports of one host by what must be said about them.
fn kinds(ports: &BTreeMap<Port, Traffic>) -> Vec<(Kind, BTreeSet<Port>)> {
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
    if let Host::Addr(addr) = host
        && AddressClass::of(*addr) == AddressClass::Private
    {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        let _ = writeln!(text, "      private_addresses: [\"{addr}/{bits}\"]");
    }
}

fn short_hash(text: &str) -> String {
    use sha2::{Digest, Sha256};
    crate::parse::hex(&Sha256::digest(text)).chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stockade_types::Generation;

    use super::*;
    use crate::{Door, Intent, Policy, Posture, Snapshot, Source, Verdict};

    #[test]
    fn the_text_is_stable_and_minimal() {
        let mut learned = Learned::new();
        for (host, port, seen) in [
            ("b.example.org", 443, Seen::Tls),
            ("a.example.org", 80, Seen::Http),
            ("b.example.org", 80, Seen::Http),
            ("b.example.org", 22, Seen::Opaque),
            ("10.0.0.7", 5432, Seen::Opaque),
            ("metadata.google.internal", 80, Seen::Http),
            ("b.example.org", 443, Seen::Tls),
        ] {
            learned.observe(&Host::parse(host).unwrap(), Port::new(port).unwrap(), seen);
        }
        let want = "version: 1\nnetwork:\n  endpoints:\n    \
            a.example.org:\n      hosts: [a.example.org]\n      ports: [80]\n    \
            b.example.org:\n      hosts: [b.example.org]\n      ports: [80, 443]\n      tls: passthrough\n    \
            b.example.org-tcp:\n      hosts: [b.example.org]\n      ports: [22]\n      protocol: tcp\n    \
            10.0.0.7-tcp:\n      hosts: [10.0.0.7]\n      ports: [5432]\n      protocol: tcp\n      private_addresses: [\"10.0.0.7/32\"]\n\
            # not allowed: metadata.google.internal: `metadata.google.internal` cannot be an endpoint: \
            it is a cloud metadata service, which is never reachable\n";
        assert_eq!(learned.to_yaml(), want);
    }

    #[test]
    fn nothing_seen_allows_nothing() {
        assert!(Learned::new().is_empty());
        let policy = Policy::parse(&[Source::new("learned", Learned::new().to_yaml())]).unwrap();
        assert!(policy.network().endpoints.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut learned = Learned::new();
        for i in 0..MAX_HOSTS + 5 {
            learned.observe(&Host::parse(&format!("h{i}.example.org")).unwrap(), Port::HTTPS, Seen::Tls);
        }
        let host = Host::parse("h0.example.org").unwrap();
        (1..=400).for_each(|p| learned.observe(&host, Port::new(p).unwrap(), Seen::Opaque));
        assert_eq!((learned.hosts.len(), learned.hosts[&host].len()), (MAX_HOSTS, MAX_PORTS));
        assert!(learned.to_yaml().ends_with("# 150 more connections were not recorded\n"), "{}", learned.dropped);
    }

    #[test]
    fn pinned_clients_are_named_and_allowed_nothing() {
        let mut learned = Learned::new();
        for i in 0..MAX_HOSTS + 5 {
            learned.see_pinned(&Host::parse(&format!("h{i}.example.org")).unwrap(), Port::HTTPS);
        }
        let text = learned.to_yaml();
        assert_eq!(text.matches("# not learned: ").count(), MAX_HOSTS);
        assert!(text.contains("# not learned: h7.example.org:443: a program did not accept"), "{text:.400}");
        assert!(Policy::parse(&[Source::new("learned", &text)]).unwrap().network().endpoints.is_empty());
    }

    #[test]
    fn requests_become_rules() {
        let mut learned = Learned::new();
        let host = Host::parse("api.example.org").unwrap();
        let port = |n| Port::new(n).unwrap();
        let request = |method: &str, path: &str| Request::parse(method, path, &[]).unwrap();
        for (at, method, path) in
            [(443, "GET", "/a/1"), (443, "GET", "/a/2"), (443, "GET", "/a/3"), (80, "POST", "/b"), (8443, "POST", "/b")]
        {
            learned.observe(&host, port(at), if at == 443 { Seen::Tls } else { Seen::Http });
            learned.see_request(&host, port(at), method, path);
        }
        learned.observe(&host, port(8080), Seen::Tls);
        learned.observe(&host, port(22), Seen::Opaque);
        let text = learned.to_yaml();
        let want = "version: 1\nnetwork:\n  endpoints:\n    \
            api.example.org-443:\n      hosts: [api.example.org]\n      ports: [443]\n      allow:\n        - {methods: [GET], paths: [\"/a/*\"]}\n    \
            api.example.org-80:\n      hosts: [api.example.org]\n      ports: [80, 8443]\n      allow:\n        - {methods: [POST], paths: [/b]}\n    \
            api.example.org-sealed:\n      hosts: [api.example.org]\n      ports: [8080]\n      tls: passthrough\n    \
            api.example.org-tcp:\n      hosts: [api.example.org]\n      ports: [22]\n      protocol: tcp\n";
        assert_eq!(text, want);
        let policy = Policy::parse(&[Source::new("learned", &text)]).unwrap_or_else(|e| panic!("{e}"));
        let snapshot = Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap();
        for (at, method, path, allowed) in [
            (443, "GET", "/a/9", true),
            (443, "POST", "/a/1", false),
            (443, "GET", "/b", false),
            (80, "POST", "/b", true),
            (80, "GET", "/a/1", false),
        ] {
            let Verdict::Allow(permit) = snapshot.authorize(&Intent::new(Door::Connect, host.clone(), port(at))) else {
                panic!("{at}")
            };
            let verdict = snapshot.authorize_request(&permit, &request(method, path));
            assert_eq!(matches!(verdict, crate::RequestVerdict::Allow(_)), allowed, "{at} {method} {path}");
        }
    }

    fn host() -> impl Strategy<Value = Host> {
        let name = prop_oneof![
            "[a-c]{1,2}\\.[xy]\\.test",
            "[a-z][a-z0-9_-]{0,60}[a-z0-9]\\.[a-z]{40,60}\\.example\\.org",
            "(203\\.0\\.113|10\\.0\\.0|8\\.8\\.8)\\.[1-9]",
            "\\[2001:db8::[1-9a-f]{1,4}\\]",
            "[0-9]{1,3}e[0-9]\\.test",
        ];
        name.prop_filter_map("not a host", |text| Host::parse(&text).ok())
    }

    fn seen() -> impl Strategy<Value = (Host, Port, Seen)> {
        let port = prop_oneof![Just(80u16), Just(443), Just(22), 1..=u16::MAX];
        let spoken = prop_oneof![Just(Seen::Http), Just(Seen::Tls), Just(Seen::Opaque)];
        (host(), port.prop_filter_map("port", Port::new), spoken)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_policy_allows_exactly_what_was_seen(all in prop::collection::vec(seen(), 0..12), other in prop::collection::vec(seen(), 0..6)) {
            let mut learned = Learned::new();
            for (host, port, spoken) in &all {
                learned.observe(host, *port, *spoken);
            }
            let text = learned.to_yaml();
            let policy = Policy::parse(&[Source::new("learned", &text)]).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            let snapshot = Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap();
            let hosts = all.iter().chain(&other).map(|s| &s.0);
            for host in hosts {
                for port in all.iter().chain(&other).map(|s| s.1) {
                    let intent = Intent::new(Door::Transparent, host.clone(), port);
                    let allowed = matches!(snapshot.authorize(&intent), Verdict::Allow(_));
                    let observed = all.iter().any(|(h, p, _)| h == host && *p == port);
                    prop_assert_eq!(allowed, observed, "{} {}\n{}", host, port, text);
                }
            }
        }
    }
}
