//! The protocols whose messages rules can read, and how one is read: head first, then the body, however it is cut.

mod body;

use crate::{graphql, grpc, jsonrpc, mcp, operation::Operation};

/// Bound of a body that a rule must read, where the endpoint sets no other.
pub const MAX_BODY: usize = 1024 * 1024;
/// Most messages of a batch.
pub const MAX_BATCH: usize = 64;

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// gRPC and gRPC-Web.
    Grpc,
    /// GraphQL over HTTP, and `graphql-transport-ws`.
    GraphQl,
    /// JSON-RPC 2.0.
    JsonRpc,
    /// Model Context Protocol, Streamable HTTP.
    Mcp,
}

/// A row of the registry. `policies/base/WORD.rego`, `tests/cases/policy/WORD.yaml` and the fuzz target `WORD` belong to
/// it; a test looks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The protocol.
    pub kind: Kind,
    /// The word of policies, and the name of its files.
    pub word: &'static str,
}

/// Every protocol.
pub const PROTOCOLS: &[Row] = &[
    Row { kind: Kind::Grpc, word: "grpc" },
    Row { kind: Kind::GraphQl, word: "graphql" },
    Row { kind: Kind::JsonRpc, word: "jsonrpc" },
    Row { kind: Kind::Mcp, word: "mcp" },
];

/// What a reader knows of a request before its body.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a str,
    /// The canonical path.
    pub path: &'a str,
    /// The parameters of the query, decoded.
    pub query: &'a [(String, String)],
    /// The fields as they will be sent on: name in lower case, value; repeated ones repeated.
    pub fields: &'a [(String, String)],
    /// Most bytes of the body, as sent and as decoded.
    pub max_body: usize,
}

impl<'a> Head<'a> {
    /// The value of a field that may occur once.
    pub(crate) fn field(&self, name: &str) -> Result<Option<&'a str>, Unreadable> {
        let mut values = self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.trim());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Unreadable::Repeated),
        }
    }

    /// The media type in lower case, without parameters. Only UTF-8 is read, so no other `charset` may be named.
    pub(crate) fn media_type(&self) -> Result<String, Unreadable> {
        let value = self.field("content-type")?.ok_or(Unreadable::ContentType)?;
        let mut parts = value.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let utf8 = value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8");
            if name.trim().eq_ignore_ascii_case("charset") && !utf8 {
                return Err(Unreadable::ContentType);
            }
        }
        Ok(media_type)
    }
}

/// Reads the body of one request: bytes in, facts out.
pub trait Protocol: Send {
    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// See [`Unreadable`]; nothing more is to be fed then.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable>;

    /// The body is complete: what does it ask for? Never nothing.
    ///
    /// # Errors
    /// See [`Unreadable`].
    fn finish(self: Box<Self>) -> Result<Vec<Operation>, Unreadable>;
}

/// How a request is read on.
pub enum Reading {
    /// The head says it all, whatever the body. Never nothing.
    Decided(Vec<Operation>),
    /// The body must be fed to this, to its end, before a byte of it may be sent on.
    Body(Box<dyn Protocol>),
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decided(operations) => f.debug_tuple("Decided").field(operations).finish(),
            Self::Body(_) => f.write_str("Body"),
        }
    }
}

/// Why a request cannot be read, and is therefore denied. The texts repeat no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unreadable {
    /// The protocol does not use this HTTP method.
    #[error("the protocol does not use this HTTP method")]
    Method,
    /// Not `/package.Service/Method`.
    #[error("the path is not /package.Service/Method")]
    Path,
    /// A parameter that some servers would prefer to the body, or one too many.
    #[error("the query holds what the body should")]
    Query,
    /// A field that says how the body is to be read occurs twice.
    #[error("a header field that says how to read the body occurs twice")]
    Repeated,
    /// Absent, not of the protocol, or not UTF-8.
    #[error("the content type is not one of the protocol, in UTF-8")]
    ContentType,
    /// Anything but `identity` and `gzip`.
    #[error("the content encoding is neither identity nor gzip")]
    Encoding,
    /// Labelled gzip, but not exactly one gzip member.
    #[error("the body is not well-formed gzip")]
    Gzip,
    /// Over the bound, as sent or as decoded.
    #[error("the body is larger than what is read")]
    TooLarge,
    /// A body where the protocol has none.
    #[error("the request has a body where the protocol has none")]
    Body,
    /// Not one JSON text in UTF-8.
    #[error("not well-formed JSON")]
    NotJson,
    /// Two keys of an object are equal, or differ in case only: servers disagree about which one counts.
    #[error("an object has two keys that are equal, or equal but for case")]
    DuplicateKey,
    /// A key of the protocol in other letters: some servers take it for the key.
    #[error("a key of the protocol is written in another case")]
    KeySpelling,
    /// Nested too deeply.
    #[error("nested more deeply than what is read")]
    TooDeep,
    /// More values, messages, tokens, fields or arguments than are read.
    #[error("has more parts than what is read")]
    TooMany,
    /// An argument is a number that not every reader takes for the same.
    #[error("an argument is a number too large to be exact")]
    Number,
    /// Well-formed, but not a message of the protocol.
    #[error("not a message of the protocol")]
    Shape,
    /// A method, tool, or other name that is empty, too long or has control characters, or that means something else to
    /// rules; a key or an argument with NUL.
    #[error("a name is empty, too long, reserved, or has control characters, or an argument has NUL")]
    Name,
    /// `Mcp-Method` or `Mcp-Name` says something else than the body.
    #[error("a header field contradicts the body")]
    Mirror,
    /// Not a GraphQL document.
    #[error("not a well-formed GraphQL document")]
    Syntax,
    /// Which operation of the document is meant is not said, or there is none of that name.
    #[error("the document does not say which of its operations is meant")]
    OperationName,
    /// A fragment that is not there, or within itself.
    #[error("a fragment is unknown or within itself")]
    Fragment,
    /// Stands for a document that only the server knows, or contradicts the document.
    #[error("a persisted query that cannot be read here")]
    Persisted,
}

/// Begins to read a request.
///
/// # Errors
/// See [`Unreadable`].
pub fn reader(kind: Kind, head: &Head<'_>) -> Result<Reading, Unreadable> {
    match kind {
        Kind::Grpc => grpc::reading(head),
        Kind::GraphQl => graphql::reading(head),
        Kind::JsonRpc => jsonrpc::reading(head),
        Kind::Mcp => mcp::reading(head),
    }
}

/// Looks through the decoded query of a request that opens a WebSocket.
///
/// # Errors
/// [`Unreadable::Query`]: by itself it asks for something, of a server that does not know the upgrade. gRPC and MCP have
/// no WebSocket form.
pub fn opening(kind: Kind, query: &[(String, String)]) -> Result<(), Unreadable> {
    match kind {
        Kind::Grpc | Kind::Mcp => Err(Unreadable::Shape),
        Kind::GraphQl => graphql::opening(query),
        Kind::JsonRpc => jsonrpc::opening(query),
    }
}

/// Reads one WebSocket message by the client. The answer is empty for what asks for nothing: keep-alive and the end of
/// a subscription in `graphql-transport-ws`.
///
/// # Errors
/// See [`Unreadable`]; gRPC and MCP have no WebSocket form.
pub fn message(kind: Kind, bytes: &[u8]) -> Result<Vec<Operation>, Unreadable> {
    match kind {
        Kind::Grpc | Kind::Mcp => Err(Unreadable::Shape),
        Kind::GraphQl => graphql::message(bytes),
        Kind::JsonRpc => jsonrpc::operations(bytes),
    }
}

pub(crate) use body::{Empty, Whole};

#[cfg(test)]
pub(crate) mod tests;
