//! Which endpoints could match a host: a narrowing before Rego, never a decision.

use std::collections::HashMap;

use stockade_types::{Host, HostName};

use crate::model::{Endpoint, HostPattern};

/// An endpoint that could match, and by which of its patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate<'i> {
    /// Index into the policy's endpoints.
    pub(crate) endpoint: u32,
    /// The pattern.
    pub(crate) pattern: PatternRef<'i>,
}

/// A pattern, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternRef<'i> {
    Exact(&'i Host),
    One(&'i str),
    Many(&'i str),
}

/// Wildcards below one parent.
#[derive(Debug, Default)]
struct Below {
    one: Vec<u32>,
    many: Vec<u32>,
}

/// Written-out hosts by name, wildcards by parent. A lookup costs one probe for the host and one per label.
#[derive(Debug, Default)]
pub(crate) struct HostIndex {
    exact: HashMap<Host, Vec<u32>>,
    below: HashMap<Box<str>, Below>,
}

impl HostIndex {
    pub(crate) fn new(endpoints: &[Endpoint]) -> Self {
        let mut index = Self::default();
        for (at, endpoint) in (0u32..).zip(endpoints) {
            for pattern in &endpoint.hosts {
                let list = match pattern {
                    HostPattern::Exact(host) => index.exact.entry(host.clone()).or_default(),
                    HostPattern::One(parent) => &mut index.below.entry(parent.as_str().into()).or_default().one,
                    HostPattern::Many(parent) => &mut index.below.entry(parent.as_str().into()).or_default().many,
                };
                // One endpoint may write a host twice; it is one candidate.
                if list.last() != Some(&at) {
                    list.push(at);
                }
            }
        }
        // Where the hosts are alike, endpoints for certain executables come before those for everybody, which would
        // otherwise leave them nothing.
        let open = |at: &u32| endpoints.get(*at as usize).is_some_and(|e| e.callers.is_none());
        index.exact.values_mut().for_each(|list| list.sort_by_key(open));
        for below in index.below.values_mut() {
            below.one.sort_by_key(open);
            below.many.sort_by_key(open);
        }
        index
    }

    /// Every endpoint with a pattern that matches the host, most specific first: written out, one label, then the
    /// longest parent; in the order of the policy within each.
    pub(crate) fn candidates<'i>(&'i self, host: &'i Host) -> Vec<Candidate<'i>> {
        let mut found = Vec::new();
        if let Some((host, list)) = self.exact.get_key_value(host) {
            found.extend(list.iter().map(|at| Candidate { endpoint: *at, pattern: PatternRef::Exact(host) }));
        }
        let Host::Name(name) = host else { return found };
        for (depth, parent) in parents(name).enumerate() {
            let Some((parent, below)) = self.below.get_key_value(parent) else { continue };
            let one = below.one.iter().filter(|_| depth == 0);
            found.extend(one.map(|at| Candidate { endpoint: *at, pattern: PatternRef::One(parent) }));
            found.extend(below.many.iter().map(|at| Candidate { endpoint: *at, pattern: PatternRef::Many(parent) }));
        }
        found
    }

    /// Whether the name is written out, matched by a wildcard, or neither.
    pub(crate) fn knows(&self, name: &HostName) -> Option<bool> {
        let host = Host::Name(name.clone());
        self.candidates(&host).first().map(|c| matches!(c.pattern, PatternRef::Exact(_)))
    }

    /// Names that are written out.
    pub(crate) fn literal_names(&self) -> impl Iterator<Item = &HostName> {
        self.exact.keys().filter_map(|host| match host {
            Host::Name(name) => Some(name),
            Host::Addr(_) => None,
        })
    }
}

/// The parents of a name, longest first.
fn parents(name: &HostName) -> impl Iterator<Item = &str> {
    let text = name.as_str();
    text.match_indices('.').filter_map(move |(at, _)| text.get(at + 1..))
}
