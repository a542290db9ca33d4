//! Request rules as typed values.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use crate::{
    decision::Protocol,
    glob::{Glob, PathGlob},
};

/// A name and the patterns that its values are held against.
pub(crate) type Named = (Box<str>, Vec<Glob>);

/// One entry of `allow` or `deny`. What it does not name is free; what it names must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it is in the policy: `network.endpoints.github.allow[0]`.
    pub id: Arc<str>,
    /// HTTP methods; `None` for any.
    pub methods: Option<BTreeSet<Box<str>>>,
    /// Paths; `None` for any.
    pub paths: Option<Vec<PathGlob>>,
    /// Query parameters.
    pub query: Vec<Named>,
    /// Header fields, lower case.
    pub headers: Vec<Named>,
    /// What the operations of the endpoint's protocol must be, by key.
    pub operation: Vec<(Key, Vec<Glob>)>,
    /// Arguments of an MCP tool, by dotted path.
    pub arguments: Vec<Named>,
}

/// A key of a rule that looks at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// gRPC: package and service.
    Service,
    /// gRPC, JSON-RPC, MCP: the method.
    Method,
    /// GraphQL: query, mutation or subscription.
    Operation,
    /// GraphQL: the operation's name. MCP: the resource's URI, or the prompt.
    Name,
    /// GraphQL: fields of the root, by their real names.
    Field,
    /// MCP: the tool that is called.
    Tool,
}

impl Key {
    /// The keys of a protocol, with the words that rules use.
    #[must_use]
    pub fn of(protocol: Protocol) -> &'static [(&'static str, Self)] {
        match protocol {
            Protocol::Http | Protocol::Tcp => &[],
            Protocol::Grpc => &[("services", Self::Service), ("methods", Self::Method)],
            Protocol::Graphql => &[("operations", Self::Operation), ("names", Self::Name), ("fields", Self::Field)],
            Protocol::JsonRpc => &[("methods", Self::Method)],
            Protocol::Mcp => &[("methods", Self::Method), ("tools", Self::Tool), ("names", Self::Name)],
        }
    }

    /// Every key.
    pub(crate) const ALL: [Self; 6] =
        [Self::Service, Self::Method, Self::Operation, Self::Name, Self::Field, Self::Tool];

    /// The word of the input document.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Method => "method",
            Self::Operation => "operation",
            Self::Name => "name",
            Self::Field => "field",
            Self::Tool => "tool",
        }
    }
}

/// `allow` and `deny` of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Requests that are allowed; `None`: all that `deny` leaves.
    pub allow: Option<Vec<Rule>>,
    /// Requests that are denied, whatever `allow` says.
    pub deny: Vec<Rule>,
}

impl Rules {
    /// Whether there is a rule at all; `allow: []` is one.
    #[must_use]
    pub fn any(&self) -> bool {
        self.allow.is_some() || !self.deny.is_empty()
    }

    /// What two endpoints mean with it, wherever each is written.
    pub(crate) fn same(&self, other: &Self) -> bool {
        fn same(a: &[Rule], b: &[Rule]) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Rule { id: Arc::clone(&b.id), ..a.clone() } == *b)
        }
        same(&self.deny, &other.deny)
            && match (&self.allow, &other.allow) {
                (Some(a), Some(b)) => same(a, b),
                (None, None) => true,
                _ => false,
            }
    }
}

/// `limits` of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestLimits {
    /// Requests in any minute.
    pub requests_per_minute: Option<u32>,
    /// Bytes of a request's body.
    pub request_body: Option<u64>,
}

/// `upstream` of an endpoint: files that the supervisor reads, relative to the policy file that names them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upstream {
    /// Root certificates that take the place of the machine's, PEM.
    pub roots: Option<PathBuf>,
    /// Client certificate and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}
