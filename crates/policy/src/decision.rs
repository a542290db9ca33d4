//! What is asked of a policy and what it answers. A [`Permit`] can be made only here: code that forwards, resolves
//! or injects takes one, so unauthorised forwarding does not type-check.

use std::sync::Arc;

use serde::Serialize;
use stockade_types::{Cidr, Generation, Host, HostName, Port, Reason};

/// The front door a connection came through. Evidence for Rego and audit; all doors share one pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// HTTP CONNECT.
    Connect,
    /// Absolute-form HTTP request to the proxy.
    Forward,
    /// Direct TCP caught by the transparent listener.
    Transparent,
}

/// A connection the command wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Intent {
    /// Which front door.
    pub door: Door,
    /// The destination as the command named it, canonical.
    pub host: Host,
    /// The destination port.
    pub port: Port,
}

/// What flows through a permitted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP family; TLS handled as [`TlsMode`] says.
    Http,
    /// Opaque bytes, server may speak first.
    Tcp,
}

/// What happens to TLS on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Decrypted and judged per request. Not available yet: TLS on such an endpoint is refused.
    Inspect,
    /// Relayed as it is, after the server name was compared with the authority.
    Passthrough,
}

/// Whether a denial of this endpoint is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Denials deny.
    Enforce,
    /// Would-be denials are recorded and let through. Destination and framing checks hold all the same.
    Audit,
}

/// The answer to an [`Intent`].
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Go ahead, within the permit.
    Allow(Permit),
    /// Refused.
    Deny(Denial),
}

/// Permission for one destination under one generation of the policy.
#[derive(Debug, Clone)]
pub struct Permit {
    pub(crate) generation: Generation,
    pub(crate) host: Host,
    pub(crate) port: Port,
    pub(crate) terms: Arc<Terms>,
    pub(crate) would_deny: Option<Arc<Denial>>,
}

/// What an endpoint says about every connection it permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Name of the endpoint in the policy.
    pub endpoint: String,
    /// What flows.
    pub protocol: Protocol,
    /// What happens to TLS.
    pub tls: TlsMode,
    /// Private blocks the name may resolve to.
    pub private_addresses: Vec<Cidr>,
}

impl Permit {
    /// The snapshot that gave this permit.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }
    /// The permitted host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }
    /// The permitted port.
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }
    /// The endpoint's terms.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
    /// Under `mode: audit` or `learn`: the denial that would have been.
    #[must_use]
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would_deny.as_deref()
    }
}

/// A refusal that helps: what, why, and the smallest policy line that would allow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// Stable code.
    pub reason: Reason,
    /// The rule that decided (`network.endpoints.github.deny[0]`), or `default`.
    pub rule: String,
    /// One sentence for a person.
    pub detail: String,
    /// The smallest YAML that would allow it, where policy can allow it at all.
    pub suggestion: Option<String>,
    /// The snapshot that decided.
    pub generation: Generation,
}

/// The answer to a DNS question: is this name in any endpoint?
#[derive(Debug, Clone)]
pub enum NameVerdict {
    /// The name may be given a synthetic address.
    Known {
        /// Written out in the policy (it has a reserved address), or matched by a wildcard.
        literal: bool,
    },
    /// NXDOMAIN.
    Unknown(Denial),
}

/// What one DNS question asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameQuestion(pub HostName);
