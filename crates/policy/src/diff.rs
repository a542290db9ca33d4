//! What a change of policy newly allows, and what it no longer does: by rule, each with an example.
//!
//! Both policies are asked about the same connections and requests, made from the patterns of both. What differs is
//! real; that nothing else differs is not proved, for patterns overlap in more ways than there are examples.

mod probe;

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
};

use serde::Serialize;
use stockade_types::Port;

use self::probe::Asker;
use crate::{
    decision::{Denial, Permit, Request, RequestVerdict, TlsMode, Verdict},
    snapshot::Snapshot,
};

/// Most connections asked about, most requests for one pair of endpoints, and most changes shown.
const MAX_CONNECTIONS: usize = 50_000;
const MAX_REQUESTS: usize = 20_000;
const MAX_CHANGES: usize = 1_000;

/// Everything found between an older and a newer policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// What the newer one allows and the older one does not.
    pub newly_allowed: Vec<Change>,
    /// What the older one allows and the newer one does not.
    pub no_longer_allowed: Vec<Change>,
    /// What cannot be said by examples.
    pub notes: Vec<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// What decides in the older policy.
    pub before: String,
    /// What decides in the newer one.
    pub after: String,
    /// A connection or request that it makes a difference to.
    pub example: String,
}

/// What a snapshot says to a question, in words, and whether that is yes.
struct Answer {
    allowed: bool,
    by: String,
}

impl Answer {
    fn no(denial: &Denial) -> Self {
        Self { allowed: false, by: format!("{} ({})", denial.rule, denial.reason) }
    }
}

impl Snapshot {
    /// What `newer` allows that this one does not, and the reverse.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> Diff {
        let mut differ = Differ { older: self, newer, diff: Diff::default(), seen: HashSet::new() };
        differ.connections();
        if self.modules != newer.modules {
            differ.note("the Rego modules differ; what they deny is compared by the examples alone");
        }
        if self.custom.is_some() || newer.custom.is_some() {
            differ.note("Rego modules may decide by more than these examples show");
        }
        differ.diff
    }
}

struct Differ<'s> {
    older: &'s Snapshot,
    newer: &'s Snapshot,
    diff: Diff,
    /// Changes by what decides, so that each is shown with one example.
    seen: HashSet<(bool, String, String)>,
}

impl Differ<'_> {
    fn note(&mut self, text: &str) {
        if !self.diff.notes.iter().any(|n| n == text) {
            self.diff.notes.push(text.to_owned());
        }
    }

    fn change(&mut self, newly: bool, (before, after): (String, String), example: String) {
        if !self.seen.insert((newly, before.clone(), after.clone())) {
            return;
        }
        let list = if newly { &mut self.diff.newly_allowed } else { &mut self.diff.no_longer_allowed };
        if list.len() < MAX_CHANGES {
            list.push(Change { before, after, example });
        } else {
            self.note("there are more changes than are shown");
        }
    }

    fn compare(&mut self, before: Answer, after: Answer, example: impl FnOnce() -> String) {
        if before.allowed != after.allowed {
            self.change(after.allowed, (before.by, after.by), example());
        }
    }

    fn connections(&mut self) {
        let endpoints = [self.older.endpoints.as_slice(), self.newer.endpoints.as_slice()].concat();
        let hosts: BTreeSet<_> = endpoints.iter().flat_map(|e| &e.hosts).flat_map(probe::hosts).collect();
        let ports: BTreeSet<Port> = endpoints.iter().flat_map(|e| e.ports.iter().copied()).collect();
        let askers = probe::askers(&endpoints);
        let mut pairs = HashSet::new();
        let mut asked = 0;
        for host in &hosts {
            for (port, asker) in ports.iter().flat_map(|p| askers.iter().map(move |a| (*p, a))) {
                asked += 1;
                if asked > MAX_CONNECTIONS {
                    return self.note("the policies are too large to be compared whole");
                }
                let permits = [self.older, self.newer].map(|s| s.authorize(&asker.intent(s, host.clone(), port)));
                let example = || format!("{host}:{port}{asker}");
                let [before, after] = match &permits {
                    [Verdict::Allow(before), Verdict::Allow(after)] => {
                        let names = (before.terms().endpoint.clone(), after.terms().endpoint.clone());
                        if pairs.insert((names, port == Port::HTTP, asker)) {
                            self.terms(before, after, asker);
                            self.requests(before, after, asker);
                        }
                        continue;
                    }
                    verdicts => verdicts.each_ref().map(connection),
                };
                self.compare(before, after, example);
            }
        }
    }

    /// What two endpoints say besides their rules.
    fn terms(&mut self, before: &Permit, after: &Permit, asker: &Asker) {
        let (old, new) = (before.terms(), after.terms());
        let at = format!("{}:{}{asker}", after.host(), after.port());
        let names = |key: &str| (format!("{}.{key}", endpoint(before)), format!("{}.{key}", endpoint(after)));
        let sealed = |p: &Permit| !p.terms().protocol.is_http() || p.terms().tls == TlsMode::Passthrough;
        if sealed(before) != sealed(after) {
            self.change(sealed(after), names("tls"), format!("{at}: requests that nobody reads"));
        }
        for (newly, from, to) in [(true, old, new), (false, new, old)] {
            let more: Vec<String> = to
                .private_addresses
                .iter()
                .filter(|b| !from.private_addresses.contains(b))
                .map(ToString::to_string)
                .collect();
            if !more.is_empty() {
                self.change(newly, names("private_addresses"), format!("{at} at {}", more.join(", ")));
            }
            for name in to.credentials.iter().filter(|c| !from.credentials.contains(c)) {
                self.change(newly, names("credentials"), format!("{at} with credential {name}"));
            }
            if to.encoded_slash && !from.encoded_slash {
                self.change(newly, names("encoded_slash"), format!("{at}: paths with %2F"));
            }
            let larger = |a: Option<u64>, b: Option<u64>| a.is_some_and(|a| b.is_none_or(|b| b > a));
            let rate = |t: &crate::Terms| t.limits.requests_per_minute.map(u64::from);
            if larger(from.limits.request_body, to.limits.request_body) || larger(rate(from), rate(to)) {
                self.change(newly, names("limits"), format!("{at}: more or larger requests"));
            }
        }
        if old.upstream != new.upstream {
            self.note(&format!("{}: `upstream` differs", endpoint(after)));
        }
    }

    fn requests(&mut self, before: &Permit, after: &Permit, asker: &Asker) {
        let endpoints = [(self.older, before), (self.newer, after)].map(|(s, p)| s.endpoint_of(p).map(|(_, e)| e));
        let [Some(a), Some(b)] = endpoints else { return };
        let probes = probe::requests([a, b]);
        if probes.len() > MAX_REQUESTS {
            self.note("some endpoints have too many rules to be compared in every combination");
        }
        for request in probes.iter().take(MAX_REQUESTS) {
            let answers = [judged(self.older, before, request), judged(self.newer, after, request)];
            let [before_said, after_said] = answers;
            self.compare(before_said, after_said, || {
                let scheme = if after.port() == Port::HTTP { "http" } else { "https" };
                format!("{}{asker}", probe::shown(request, &format!("{scheme}://{}:{}", after.host(), after.port())))
            });
        }
    }
}

/// `network.endpoints.NAME`.
fn endpoint(permit: &Permit) -> String {
    format!("network.endpoints.{}", permit.terms().endpoint)
}

fn connection(verdict: &Verdict) -> Answer {
    match verdict {
        Verdict::Allow(permit) => Answer { allowed: true, by: endpoint(permit) },
        Verdict::Deny(denial) => Answer::no(denial),
    }
}

fn judged(snapshot: &Snapshot, permit: &Permit, request: &Request) -> Answer {
    // Opaque bytes are no requests: nothing about them is refused.
    if !permit.terms().protocol.is_http() {
        return Answer { allowed: true, by: endpoint(permit) };
    }
    match snapshot.authorize_request(permit, request) {
        RequestVerdict::Allow(given) => match given.would_deny() {
            None => Answer { allowed: true, by: given.rule().map_or_else(|| endpoint(permit), str::to_owned) },
            Some(would) => Answer { allowed: true, by: format!("{} (audit of {})", endpoint(permit), would.rule) },
        },
        RequestVerdict::Deny(denial) => Answer::no(&denial),
    }
}

impl Diff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.newly_allowed.is_empty() && self.no_longer_allowed.is_empty()
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, sign, list) in
            [("newly allowed", '+', &self.newly_allowed), ("no longer allowed", '-', &self.no_longer_allowed)]
        {
            writeln!(
                f,
                "{title}: {}",
                if list.is_empty() { "nothing found".to_owned() } else { list.len().to_string() }
            )?;
            for change in list {
                writeln!(f, "{sign} {}\n    before: {}\n    after:  {}", change.example, change.before, change.after)?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests;
