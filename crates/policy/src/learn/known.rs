//! What the policy that was in force while learning says already.

use std::collections::BTreeMap;

use stockade_types::{Cidr, Host, Port};

use crate::model::{Endpoint, HostPattern, Policy};

/// Endpoints of that policy, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(BTreeMap<String, Said>);

/// What one of them says.
#[derive(Debug, Clone)]
pub(super) struct Said {
    hosts: Vec<HostPattern>,
    ports: std::collections::BTreeSet<Port>,
    /// Private blocks that its names may resolve to.
    pub(super) blocks: Vec<Cidr>,
    /// Keys that what was seen does not show, so that a learned endpoint cannot have them.
    pub(super) more: Vec<String>,
}

impl Known {
    pub(super) fn of(policy: &Policy) -> Self {
        let said = |e: &Endpoint| Said {
            hosts: e.hosts.clone(),
            ports: e.ports.clone(),
            blocks: e.private_addresses.clone(),
            more: more(e),
        };
        Self(policy.network().endpoints.iter().map(|e| (e.name.clone(), said(e))).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Said> {
        self.0.get(name)
    }

    /// Whether the endpoint of this name is for the destination: what no endpoint covers goes by a name as well while
    /// learning, which a policy may use too.
    pub(super) fn covers(&self, name: &str, host: &Host, port: Port) -> bool {
        self.get(name).is_some_and(|said| said.ports.contains(&port) && said.hosts.iter().any(|p| p.matches(host)))
    }
}

fn more(endpoint: &Endpoint) -> Vec<String> {
    let given = [
        (endpoint.callers.is_some(), "`binaries`"),
        (!endpoint.rules.deny.is_empty(), "`deny`"),
        (endpoint.limits != Default::default(), "`limits`"),
        (endpoint.upstream != Default::default(), "`upstream`"),
        (endpoint.encoded_slash, "`encoded_slash`"),
    ];
    let mut more: Vec<String> = given.into_iter().filter(|(given, _)| *given).map(|(_, key)| key.to_owned()).collect();
    if !endpoint.credentials.is_empty() {
        more.push(format!("`credentials: [{}]`", endpoint.credentials.join(", ")));
    }
    more
}
