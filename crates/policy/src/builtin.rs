//! Policies without a file: the built-in one, and `--allow`.

use std::collections::BTreeSet;

use stockade_types::{AddressClass, Cidr, Host, Port};

use crate::{
    decision::Protocol,
    denial::WEB_PORTS,
    diagnostic::{Position, Rejected, Source, shown},
    host,
    model::{Endpoint, HostPattern, Policy},
    parse::{MAX_ITEMS, digest},
};

const BUILTIN: &str = include_str!("../../../policies/builtin.yaml");

impl Policy {
    /// The policy of a run without one: the workspace is writable, nothing can be reached.
    ///
    /// # Errors
    /// None in a program whose tests passed: the text is part of it.
    pub fn builtin() -> Result<Self, Rejected> {
        Self::parse(&[Source::new("built-in policy", BUILTIN)])
    }

    /// Adds an endpoint for each `HOST[:PORT]`, as `--allow` gives them. A host alone means ports 80 and 443; other
    /// ports than those of the web are opaque TCP. Nothing is decrypted. What an endpoint of the policy covers already
    /// keeps that endpoint's terms.
    ///
    /// # Errors
    /// Everything that is wrong with the texts; the policy is then unchanged.
    pub fn allow_endpoints(&mut self, texts: &[String]) -> Result<(), Rejected> {
        let mut wrong = Vec::new();
        let mut added = Vec::new();
        for text in texts {
            match parse(text) {
                Ok((pattern, ports)) => added.push((pattern, ports)),
                Err((message, help)) => {
                    let message = format!("{}: {message}", shown(text));
                    wrong.extend(Rejected::one("--allow", Position::default(), message, help).0);
                }
            }
        }
        if self.network.endpoints.len() + added.len() > MAX_ITEMS {
            let message = format!("more than {MAX_ITEMS} endpoints");
            wrong.extend(Rejected::one("--allow", Position::default(), message, None).0);
        }
        if !wrong.is_empty() {
            return Err(Rejected(wrong));
        }
        for (pattern, ports) in added {
            self.allow(pattern, ports);
        }
        let sources = [Source::new("", self.digest.as_str()), Source::new("", texts.join("\n"))];
        self.digest = digest(&sources);
        Ok(())
    }

    fn allow(&mut self, pattern: HostPattern, mut ports: BTreeSet<Port>) {
        for endpoint in self.network.endpoints.iter().filter(|e| e.hosts.contains(&pattern)) {
            ports.retain(|port| !endpoint.ports.contains(port));
        }
        if ports.is_empty() {
            return;
        }
        let mut name = format!("--allow {pattern}");
        while self.network.endpoints.iter().any(|e| e.name == name) {
            name.push('+');
        }
        let web = ports.iter().all(|p| WEB_PORTS.contains(&p.get()));
        let private_addresses = private(&pattern);
        let protocol = if web { Protocol::Http } else { Protocol::Tcp };
        let plain = Endpoint::plain(name, vec![pattern], ports, protocol);
        self.network.endpoints.push(Endpoint { private_addresses, ..plain });
    }
}

/// A private address that is itself what was allowed.
fn private(pattern: &HostPattern) -> Vec<Cidr> {
    match pattern {
        HostPattern::Exact(Host::Addr(addr)) if AddressClass::of(*addr) == AddressClass::Private => {
            let bits = if addr.is_ipv4() { 32 } else { 128 };
            format!("{addr}/{bits}").parse().into_iter().collect()
        }
        HostPattern::Exact(_) | HostPattern::One(_) | HostPattern::Many(_) => Vec::new(),
    }
}

type Wrong = (String, Option<String>);

fn parse(text: &str) -> Result<(HostPattern, BTreeSet<Port>), Wrong> {
    if text.contains("://") {
        return Err((host::PatternError::Url.to_string(), Some("write HOST or HOST:PORT".to_owned())));
    }
    let (host, ports) = match text.rsplit_once(':') {
        // `host:port`, unless the colon is one of an IPv6 address.
        Some((host, port)) if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) => {
            let port = port.parse().map_err(|e: stockade_types::AuthorityError| {
                (e.to_string(), Some("write HOST or HOST:PORT".to_owned()))
            })?;
            (host, BTreeSet::from([port]))
        }
        _ => (text, BTreeSet::from([Port::HTTP, Port::HTTPS])),
    };
    host::pattern(host).map(|pattern| (pattern, ports)).map_err(|e| (e.to_string(), e.help()))
}

#[cfg(test)]
mod tests {
    use stockade_types::{Authority, Generation};

    use super::*;
    use crate::{Door, Intent, Posture, Snapshot, TlsMode, Verdict};

    fn verdict(policy: &Policy, authority: &str) -> Verdict {
        let Authority { host, port } = Authority::parse(authority, None).unwrap();
        let snapshot = Snapshot::compile(policy, &[], Generation::FIRST, Posture::Enforce).unwrap();
        snapshot.authorize(&Intent::new(Door::Connect, host, port))
    }

    fn allowing(texts: &[&str]) -> Result<Policy, Rejected> {
        let mut policy = Policy::builtin()?;
        policy.allow_endpoints(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        Ok(policy)
    }

    #[test]
    fn the_builtin_policy_writes_the_workspace_and_reaches_nothing() {
        let policy = Policy::builtin().unwrap();
        let fs = policy.filesystem();
        assert!(fs.baseline && fs.read_only.is_empty());
        assert_eq!(fs.read_write.iter().map(|g| g.path.to_str().unwrap()).collect::<Vec<_>>(), ["."]);
        for path in [".git/hooks", ".git/config", ".envrc", ".claude/settings.json", ".mcp.json", ".vscode/tasks.json"]
        {
            assert!(fs.protected.iter().any(|p| p == std::path::Path::new(path)), "{path}");
        }
        assert!(policy.network().endpoints.is_empty() && policy.process().require_weakened().is_empty());
        assert!(matches!(verdict(&policy, "api.github.com:443"), Verdict::Deny(_)));
    }

    #[test]
    fn allow_opens_what_it_names_and_no_more() {
        let policy = allowing(&[
            "a.example.org",
            "b.example.org:8443",
            "*.c.example.org",
            "d.example.org:22",
            "10.1.2.3:5432",
            "[2001:db8::1]:443",
        ])
        .unwrap();
        for (authority, protocol) in [
            ("a.example.org:80", Protocol::Http),
            ("a.example.org:443", Protocol::Http),
            ("b.example.org:8443", Protocol::Http),
            ("x.c.example.org:443", Protocol::Http),
            ("d.example.org:22", Protocol::Tcp),
            ("10.1.2.3:5432", Protocol::Tcp),
            ("[2001:db8::1]:443", Protocol::Http),
        ] {
            let Verdict::Allow(permit) = verdict(&policy, authority) else { panic!("{authority}") };
            assert_eq!((permit.terms().protocol, permit.terms().tls), (protocol, TlsMode::Passthrough), "{authority}");
        }
        for authority in ["a.example.org:22", "b.example.org:443", "c.example.org:443", "10.1.2.4:5432", "10.1.2.3:443"]
        {
            assert!(matches!(verdict(&policy, authority), Verdict::Deny(_)), "{authority}");
        }
        assert_ne!(policy.digest(), Policy::builtin().unwrap().digest());
    }

    #[test]
    fn the_policy_keeps_its_own_terms() {
        let text = "version: 1\nnetwork: {endpoints: {a: {hosts: [a.example.org], ports: [80]}}}";
        let mut policy = Policy::parse(&[Source::new("p", text)]).unwrap();
        policy.allow_endpoints(&["a.example.org".to_owned(), "a.example.org:80".to_owned()]).unwrap();
        let terms = |authority| match verdict(&policy, authority) {
            Verdict::Allow(permit) => permit.terms().clone(),
            Verdict::Deny(d) => panic!("{d:?}"),
        };
        assert_eq!(
            (terms("a.example.org:80").endpoint.as_str(), terms("a.example.org:80").tls),
            ("a", TlsMode::Inspect)
        );
        assert_eq!(terms("a.example.org:443").endpoint, "--allow a.example.org");
        assert_eq!(policy.network().endpoints.len(), 2);
    }

    #[test]
    fn what_allow_refuses() {
        for (text, want) in [
            ("https://a.example.org/", "`https://a.example.org/`: a URL, not a host"),
            ("https://a.example.org:443", "a URL, not a host"),
            ("a.example.org:", "the port is not a number"),
            ("a.example.org:0", "the port is not a number"),
            ("a.example.org:http", "the port is not a number"),
            ("*", "a wildcard for every host there is"),
            ("*:443", "a wildcard for every host there is"),
            ("*.com", "below the single label `com`"),
            ("localhost:8080", "`localhost` cannot be an endpoint"),
            ("127.0.0.1:8080", "this machine"),
            ("169.254.169.254", "a cloud metadata service"),
            ("2001:db8::1", "an IPv6 address without brackets"),
            ("", "the host is empty"),
            ("a b", "a character that no host name has"),
        ] {
            let text = allowing(&["ok.example.org", text]).unwrap_err().to_string();
            assert!(text.starts_with("--allow: ") && text.contains(want), "{text}");
        }
    }
}
