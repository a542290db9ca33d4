//! What a message asks for, in the words of rules.

use std::fmt;

/// Stands in place of a method for what has none: an answer by the client to a request of the server.
pub const RESPONSE: &str = "response";
/// Stands in place of a method: the client opens the stream of the server's messages (MCP, `GET`).
pub const STREAM: &str = "stream";
/// Stands in place of a method: the client ends its session (MCP, `DELETE`).
pub const DELETE: &str = "delete";

/// One thing that a request asks for. A request may ask for several; all of them must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A gRPC call.
    Grpc {
        /// The service with its package.
        service: String,
        /// The method.
        method: String,
    },
    /// A GraphQL operation.
    GraphQl(GraphQl),
    /// A JSON-RPC request or notification.
    JsonRpc {
        /// The method, or [`RESPONSE`].
        method: String,
        /// Whether it wants no answer.
        notification: bool,
    },
    /// A message of the Model Context Protocol.
    Mcp(Mcp),
}

/// A GraphQL operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GraphQl {
    /// Query, mutation or subscription.
    pub kind: GraphQlKind,
    /// Its name; absent when it has none.
    pub name: Option<String>,
    /// The fields of the root that it selects, through fragments: real names, not aliases; each once, in order.
    pub fields: Vec<String>,
}

/// The kind of a GraphQL operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GraphQlKind {
    /// Reads.
    Query,
    /// Writes.
    Mutation,
    /// Reads, again and again.
    Subscription,
}

impl GraphQlKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Query, Self::Mutation, Self::Subscription];

    /// The keyword of the language, which is the word of rules.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
        }
    }
}

impl fmt::Display for GraphQlKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A message of the Model Context Protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mcp {
    /// The method, or [`RESPONSE`], [`STREAM`] or [`DELETE`]. A message whose method is one of these words is refused.
    pub method: String,
    /// The tool of `tools/call`.
    pub tool: Option<String>,
    /// The URI of `resources/read`, `resources/subscribe` and `resources/unsubscribe`; the name of `prompts/get`; the
    /// prompt's name or the template's URI of `completion/complete`.
    pub name: Option<String>,
    /// The arguments of `tools/call` and `prompts/get`, flattened: the path and the text of each scalar.
    ///
    /// `{"a": {"b": [1, true]}}` gives `a.b.0` with `1` and `a.b.1` with `true`. A dot or backslash within a key has a
    /// backslash before it. Empty objects and lists give nothing. A rule about `a` should look at `a` and at everything
    /// below it.
    pub arguments: Vec<(String, String)>,
}
