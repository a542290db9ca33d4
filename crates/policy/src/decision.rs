//! What is asked of a policy and what it answers. A [`Permit`] can be made only here: code that forwards, resolves
//! or injects takes one, so unauthorised forwarding does not type-check.

use std::sync::Arc;

use serde::Serialize;
use stockade_l7::Operation;
use stockade_types::{Cidr, Generation, Host, HostName, Port, Reason};

use crate::{
    caller::{Caller, Callers},
    rule::{RequestLimits, Upstream},
};

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
    /// Who asks, where that was found out. Nobody known is nobody: an endpoint that names executables does not match.
    pub caller: Option<Arc<Caller>>,
}

impl Intent {
    /// An intent of nobody known.
    #[must_use]
    pub fn new(door: Door, host: Host, port: Port) -> Self {
        Self { door, host, port, caller: None }
    }
}

/// What flows through a permitted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP and WebSocket; TLS handled as [`TlsMode`] says.
    Http,
    /// gRPC: rules name services and methods.
    Grpc,
    /// GraphQL over HTTP: rules name operations and fields.
    Graphql,
    /// JSON-RPC over HTTP: rules name methods.
    JsonRpc,
    /// Model Context Protocol over HTTP: rules name methods, tools and arguments.
    Mcp,
    /// Opaque bytes, server may speak first.
    Tcp,
}

impl Protocol {
    /// Whether requests of it are HTTP requests, to be read and judged one by one.
    #[must_use]
    pub fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Grpc | Self::Graphql | Self::JsonRpc | Self::Mcp => true,
            Self::Tcp => false,
        }
    }
}

/// What happens to TLS on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Decrypted and judged per request.
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
    pub(crate) door: Door,
    pub(crate) host: Host,
    pub(crate) port: Port,
    pub(crate) caller: Option<Arc<Caller>>,
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
    /// Whether denials are enforced.
    pub mode: Mode,
    /// Private blocks the name may resolve to.
    pub private_addresses: Vec<Cidr>,
    /// Whether a verdict can depend on what a request asks for: the endpoint has rules, or the policy has modules. Each
    /// request is authorised either way.
    pub judged: bool,
    /// Rate and size of requests.
    pub limits: RequestLimits,
    /// Credentials that are put into its requests, by name in [`crate::Policy::credentials`].
    pub credentials: Vec<String>,
    /// Who may use it; `None`: everybody.
    pub callers: Option<Arc<Callers>>,
    /// Whether `%2F` and `%5C` in a path are let through; rules then see them as they are.
    pub encoded_slash: bool,
    /// Own roots and client certificate towards the host.
    pub upstream: Upstream,
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
    /// The same, to be kept with a connection.
    #[must_use]
    pub fn shared_terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms)
    }
    /// Under `mode: audit` or `learn`: the denial that would have been.
    #[must_use]
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would_deny.as_deref()
    }
}

/// One request as rules see it: canonical already.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// The method token, exactly as it goes on the wire.
    pub method: String,
    /// The path of a [`stockade_l7::Target`]: what is judged is what is sent.
    pub path: String,
    /// Query parameters, decoded, in their order.
    pub query: Vec<(String, String)>,
    /// Header fields with lower-case names, in their order.
    pub headers: Vec<(String, String)>,
    /// What was read from it, where the endpoint's protocol is not plain `http`. All of it must be allowed; of nothing
    /// nothing is.
    pub operations: Vec<Operation>,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone)]
pub enum RequestVerdict {
    /// Go ahead, within the permit.
    Allow(RequestPermit),
    /// Refused; the connection stays usable.
    Deny(Denial),
}

/// Permission for one request. Injecting and sending take one.
#[derive(Debug, Clone)]
pub struct RequestPermit {
    pub(crate) permit: Permit,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) would_deny: Option<Arc<Denial>>,
}

impl RequestPermit {
    /// The permit of the connection that the request came on.
    #[must_use]
    pub fn permit(&self) -> &Permit {
        &self.permit
    }
    /// The rule that allows it (`network.endpoints.github.allow[0]`); none where the endpoint allows every request.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }
    /// Under `mode: audit` or `learn`: the denial that would have been, of the request or of its connection.
    #[must_use]
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would_deny.as_deref().or_else(|| self.permit.would_deny())
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
