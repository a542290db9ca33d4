//! Why a connection is allowed or denied: every endpoint that covers the host, what matched, what decided.

mod callers;
mod request;

use std::fmt;

pub use callers::CallersExplained;
pub use request::{RequestExplanation, RuleExplained};
use serde::Serialize;
use stockade_types::{Generation, Host};

use crate::{
    caller::claim::Shown,
    decision::{Denial, Door, Intent, Protocol, TlsMode},
    denial::list,
    diagnostic::distance,
    index::PatternRef,
    model::{Endpoint, HostPattern, Origin},
    snapshot::{Outcome, Snapshot},
};

/// Names shown that are near to the one asked for.
const MAX_NEAR: usize = 3;
/// Endpoints shown.
const MAX_SHOWN: usize = 50;

/// An answer with its reasons.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The front door.
    pub door: Door,
    /// `host:port` as asked.
    pub authority: String,
    /// Who asks, if that was said.
    pub caller: Option<String>,
    /// Endpoints that cover the host, most specific first.
    pub candidates: Vec<CandidateExplained>,
    /// Hosts of the policy that look like the one asked for, where none covers it.
    pub near: Vec<String>,
    /// Whether the connection would be opened.
    pub allowed: bool,
    /// The endpoint that names the terms.
    pub endpoint: Option<String>,
    /// What would flow.
    pub protocol: Option<Protocol>,
    /// What happens to TLS.
    pub tls: Option<TlsMode>,
    /// The denial, or the one that audit or learning would record.
    pub denial: Option<Denial>,
    /// The snapshot that decided.
    pub generation: Generation,
}

/// One endpoint and why it matches or not.
#[derive(Debug, Clone, Serialize)]
pub struct CandidateExplained {
    /// The endpoint.
    pub endpoint: String,
    /// Where it is written.
    pub origin: Option<Origin>,
    /// The pattern that covers the host.
    pub pattern: String,
    /// Whether the port is one of its ports.
    pub port: bool,
    /// Its ports, as the policy writes them.
    pub ports: String,
    /// Who may use it, if not everybody.
    pub callers: Option<CallersExplained>,
}

impl Snapshot {
    /// Says what [`Snapshot::authorize`] answers and why.
    #[must_use]
    pub fn explain(&self, intent: &Intent) -> Explanation {
        let candidates = self.index.candidates(&intent.host);
        let (terms, denial) = match self.decide(intent, &candidates) {
            Ok(Outcome::Allow { terms, would_deny }) => (Some(terms), would_deny.map(|d| (*d).clone())),
            Ok(Outcome::Deny(denial)) => (None, Some((*denial).clone())),
            Err(error) => (None, Some(self.engine_error(&error))),
        };
        let explained = candidates.iter().take(MAX_SHOWN).filter_map(|c| {
            let endpoint = self.endpoints.get(c.endpoint as usize)?;
            Some(self.candidate(endpoint, c.pattern, intent))
        });
        Explanation {
            door: intent.door,
            authority: format!("{}:{}", intent.host, intent.port),
            caller: intent.caller.as_ref().map(|caller| Shown(caller).to_string()),
            candidates: explained.collect(),
            near: if candidates.is_empty() { near(&self.endpoints, &intent.host) } else { Vec::new() },
            allowed: terms.is_some(),
            endpoint: terms.as_ref().map(|t| t.endpoint.clone()),
            protocol: terms.as_ref().map(|t| t.protocol),
            tls: terms.as_ref().map(|t| t.tls),
            denial,
            generation: self.generation,
        }
    }

    fn candidate(&self, endpoint: &Endpoint, pattern: PatternRef<'_>, intent: &Intent) -> CandidateExplained {
        CandidateExplained {
            endpoint: endpoint.name.clone(),
            origin: endpoint.origin.clone(),
            pattern: match pattern {
                PatternRef::Exact(host) => host.to_string(),
                PatternRef::One(parent) => format!("*.{parent}"),
                PatternRef::Many(parent) => format!("**.{parent}"),
            },
            port: endpoint.ports.contains(&intent.port),
            ports: list(&endpoint.ports),
            callers: endpoint.callers.as_ref().map(|c| self.callers(c, intent.caller.as_deref())),
        }
    }
}

/// Patterns that a person may have meant: a slip away, or a wildcard's own parent.
fn near(endpoints: &[Endpoint], host: &Host) -> Vec<String> {
    let asked = host.to_string();
    let letters: Vec<char> = asked.chars().collect();
    let mut found: Vec<(usize, String)> = Vec::new();
    for pattern in endpoints.iter().flat_map(|e| &e.hosts) {
        let (own, exact) = match pattern {
            HostPattern::Exact(host) => (host.to_string(), true),
            HostPattern::One(parent) | HostPattern::Many(parent) => (parent.to_string(), false),
        };
        let related = own.strip_suffix(&asked).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            || asked.strip_suffix(&own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let away = if related { 0 } else { distance(&letters, &own.chars().collect::<Vec<_>>()) };
        if away <= asked.len() / 5 && (exact || related) {
            found.push((away, pattern.to_string()));
        }
    }
    found.sort();
    found.dedup();
    found.into_iter().take(MAX_NEAR).map(|(_, name)| name).collect()
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = if self.allowed { "allowed" } else { "denied" };
        let by = self.caller.as_ref().map(|caller| format!(" by {caller}")).unwrap_or_default();
        write!(f, "{} ({}){by}: {answer}", self.authority, crate::input::door(self.door))?;
        if let (Some(endpoint), Some(protocol), Some(tls)) = (&self.endpoint, self.protocol, self.tls) {
            let (protocol, tls) = (crate::input::protocol(protocol), crate::input::tls(tls));
            write!(f, " by endpoint `{endpoint}` (protocol {protocol}, tls {tls})")?;
        }
        writeln!(f, ", generation {}", self.generation)?;
        for c in &self.candidates {
            let port = if c.port { "port matches" } else { "port does not match" };
            let origin = c.origin.as_ref().map(|o| format!(" at {o}")).unwrap_or_default();
            write!(f, "  endpoint `{}`{origin}: {} covers the host; {port} {}", c.endpoint, c.pattern, c.ports)?;
            c.callers.iter().try_for_each(|callers| write!(f, "; {callers}"))?;
            writeln!(f)?;
        }
        if self.candidates.is_empty() {
            writeln!(f, "  no endpoint covers the host")?;
        }
        if !self.near.is_empty() {
            writeln!(f, "  near: {}", self.near.join(", "))?;
        }
        if let Some(denial) = &self.denial {
            let would = if self.allowed { "would be denied: " } else { "" };
            writeln!(f, "  {would}{} ({}): {}", denial.reason, denial.rule, denial.detail)?;
            if let Some(suggestion) = &denial.suggestion {
                writeln!(f, "  to allow it:\n{suggestion}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use stockade_types::{Authority, Generation};

    use super::*;
    use crate::{Claim, Policy, Posture, Source};

    fn explained(authority: &str) -> Explanation {
        let text = "version: 1\nnetwork:\n  endpoints:\n    \
            api: {hosts: [api.example.org], tls: passthrough}\n    \
            all: {hosts: ['**.example.org'], ports: [22], protocol: tcp}\n";
        let policy = Policy::parse(&[Source::new("p.yaml", text)]).unwrap();
        let snapshot = Snapshot::compile(&policy, &[], Generation(7), Posture::Enforce).unwrap();
        let Authority { host, port } = Authority::parse(authority, None).unwrap();
        snapshot.explain(&Intent::new(Door::Connect, host, port))
    }

    #[test]
    fn allowed() {
        let text = explained("api.example.org:443").to_string();
        let want = "api.example.org:443 (connect): allowed by endpoint `api` (protocol http, tls passthrough), generation 7\n  \
            endpoint `api` at p.yaml:4:5: api.example.org covers the host; port matches [443]\n  \
            endpoint `all` at p.yaml:5:5: **.example.org covers the host; port does not match [22]\n";
        assert_eq!(text, want);
    }

    #[test]
    fn for_a_program() {
        let text = "version: 1\nnetwork:\n  endpoints:\n    \
            any: {hosts: ['*.test.example']}\n    \
            git:\n      hosts: [a.test.example]\n      binaries: [/usr/bin/git]\n    \
            pip:\n      hosts: [b.test.example]\n      \
            binaries: {any: [/usr/bin/python3, /bin/sh], ancestors: true, scripts: [/usr/bin/pip]}\n";
        let policy = Policy::parse(&[Source::new("p.yaml", text)]).unwrap();
        let snapshot = Snapshot::compile(&policy, &[], Generation(7), Posture::Enforce).unwrap();
        let explained = |authority: &str, claim: Option<Claim>| {
            let Authority { host, port } = Authority::parse(authority, None).unwrap();
            let caller = claim.map(|claim| std::sync::Arc::new(snapshot.claimed(&claim, &|a, b| a == b)));
            snapshot.explain(&Intent { caller, ..Intent::new(Door::Connect, host, port) })
        };
        let program = |exe: &str| Claim { exe: exe.into(), ..Claim::default() };
        let (git, any) = (
            "  endpoint `git` at p.yaml:5:5: a.test.example covers the host; port matches [443]; for /usr/bin/git",
            "  endpoint `any` at p.yaml:4:5: *.test.example covers the host; port matches [443]\n",
        );
        let terms = "(protocol http, tls inspect), generation 7\n";
        assert_eq!(
            explained("a.test.example:443", Some(program("/usr/bin/git"))).to_string(),
            format!(
                "a.test.example:443 (connect) by /usr/bin/git: allowed by endpoint `git` {terms}{git}: the caller fits\n{any}"
            )
        );
        assert_eq!(
            explained("a.test.example:443", Some(program("/usr/bin/curl"))).to_string(),
            format!(
                "a.test.example:443 (connect) by /usr/bin/curl: allowed by endpoint `any` {terms}{git}: the caller does \
                 not fit: binaries\n{any}"
            )
        );
        assert_eq!(
            explained("a.test.example:443", None).to_string(),
            format!(
                "a.test.example:443 (connect): allowed by endpoint `any` {terms}{git}: nobody is known to ask\n{any}"
            )
        );
        let pip = Claim {
            ancestors: vec!["/bin/sh".into(), "/usr/bin/make".into()],
            script: Some("/usr/bin/pip".into()),
            ..program("/usr/bin/python3")
        };
        let answer = explained("b.test.example:443", Some(pip.clone()));
        let first =
            "b.test.example:443 (connect) by /usr/bin/python3 /usr/bin/pip below /bin/sh, /usr/bin/make: allowed";
        assert!(answer.to_string().starts_with(first), "{answer}");
        let unfit = |claim: Claim| {
            let answer = explained("b.test.example:443", Some(claim));
            (answer.endpoint.unwrap(), answer.candidates[0].callers.clone().unwrap().unfit)
        };
        assert_eq!(unfit(pip.clone()), ("any".to_owned(), vec!["ancestors"]));
        let shell = Claim { ancestors: vec!["/bin/sh".into()], ..pip.clone() };
        assert_eq!(unfit(shell), ("pip".to_owned(), vec![]));
        assert_eq!(unfit(program("/usr/bin/python3")), ("any".to_owned(), vec!["scripts"]));
        let json = serde_json::to_value(explained("b.test.example:443", Some(pip))).unwrap();
        assert_eq!(json["candidates"][0]["callers"]["unfit"], serde_json::json!(["ancestors"]));
        assert_eq!(json["caller"], "/usr/bin/python3 /usr/bin/pip below /bin/sh, /usr/bin/make");
    }

    #[test]
    fn a_request() {
        let text = "version: 1\nnetwork:\n  endpoints:\n    api:\n      hosts: [a.test.example]\n      \
            allow:\n        - {methods: [GET], paths: [/a/**]}\n        - {headers: {x: y}}\n      deny: [{paths: [/a/b]}]\n";
        let policy = Policy::parse(&[Source::new("p.yaml", text)]).unwrap();
        let snapshot = Snapshot::compile(&policy, &[], Generation(7), Posture::Enforce).unwrap();
        let Authority { host, port } = Authority::parse("a.test.example:443", None).unwrap();
        let intent = Intent::new(Door::Connect, host, port);
        let asked = |method: &str, path: &str| {
            let request = crate::Request {
                method: method.to_owned(),
                path: path.to_owned(),
                query: Vec::new(),
                headers: Vec::new(),
                operations: Vec::new(),
            };
            snapshot.explain_request(&intent, &request)
        };
        let on = "on a.test.example:443 (connect): allowed by endpoint `api` (protocol http, tls inspect), generation 7\n  \
            endpoint `api` at p.yaml:4:5: a.test.example covers the host; port matches [443]\n";
        let rules = "network.endpoints.api";
        let want = format!(
            "GET /a/c: allowed by {rules}.allow[0]\n  {rules}.deny[0]: does not apply: paths\n  {rules}.allow[0]: applies\n  \
             {rules}.allow[1]: does not apply: headers\n{on}"
        );
        assert_eq!(asked("GET", "/a/c").to_string(), want);
        let text = asked("POST", "/c").to_string();
        let part = format!(
            "{rules}.allow[0]: does not apply: methods, paths\n  {rules}.allow[1]: does not apply: headers\n  \
             l7 ({rules}.allow): no rule in `allow` of endpoint `api` covers POST /c; `allow[1]` does, but for its header `x`\n"
        );
        assert!(text.contains(&part), "{text}");
        let json = serde_json::to_value(asked("GET", "/a/b")).unwrap();
        assert_eq!((&json["allowed"], &json["denial"]["reason"]), (&false.into(), &"policy_deny".into()));
    }

    #[test]
    fn denied() {
        let text = explained("api.exmaple.org:443").to_string();
        let want = "api.exmaple.org:443 (connect): denied, generation 7\n  no endpoint covers the host\n  near: api.example.org\n  \
            no_policy (default): no endpoint of the policy covers api.exmaple.org\n  to allow it:\nnetwork:\n  endpoints:\n    \
            api.exmaple.org: {hosts: [api.exmaple.org], ports: [443]}\n";
        assert_eq!(text, want);
        assert_eq!(explained("example.org:22").near, ["**.example.org", "api.example.org"]);
        let json = serde_json::to_value(explained("api.example.org:80")).unwrap();
        assert_eq!((&json["allowed"], &json["denial"]["reason"]), (&false.into(), &"no_policy".into()));
    }
}
