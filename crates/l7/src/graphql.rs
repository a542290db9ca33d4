//! GraphQL over HTTP, and over WebSocket (`graphql-transport-ws` and its predecessor).
//!
//! A document is read as the server reads it: the operation that is meant, and the fields of the root that it selects,
//! through fragments and under their real names. `@skip` and `@include` are not evaluated: what may be selected counts.

mod document;
mod lexer;

use sha2::{Digest, Sha256};

use crate::{
    json::{Object, Value},
    operation::{GraphQl, GraphQlKind, Operation},
    protocol::{Empty, Head, MAX_BATCH, Reading, Unreadable, Whole},
};

/// The parameters of a request, in a body or a query.
const PARAMETERS: [&str; 4] = ["query", "operationName", "variables", "extensions"];
/// Parameters by which some servers let a request name a document that only they know.
const PERSISTED: [&str; 8] = ["id", "doc_id", "docId", "documentId", "queryId", "operationId", "hash", "sha256Hash"];

/// Whether a parameter of a query is one of these words to some server.
pub(crate) fn claims(key: &str, words: &[&str]) -> bool {
    // Some servers read `query[]=` and `query.x=` as `query`.
    let base = key.split(['[', '.']).next().unwrap_or_default().trim();
    words.iter().any(|word| word.eq_ignore_ascii_case(base))
}

/// The query of the opening of a WebSocket: a server that does not know the upgrade would execute what it holds.
pub(crate) fn opening(query: &[(String, String)]) -> Result<(), Unreadable> {
    let asks = query.iter().any(|(key, _)| claims(key, &PARAMETERS) || claims(key, &PERSISTED));
    if asks { Err(Unreadable::Query) } else { Ok(()) }
}

pub(crate) fn reading(head: &Head<'_>) -> Result<Reading, Unreadable> {
    if head.query.iter().any(|(key, _)| claims(key, &PERSISTED)) {
        return Err(Unreadable::Persisted);
    }
    match head.method {
        "GET" => {
            if head.query.iter().any(|(key, _)| claims(key, &PARAMETERS) && !PARAMETERS.contains(&&**key)) {
                return Err(Unreadable::Query);
            }
            let operation = from_query(head)?;
            // Servers execute only queries by GET; one that executed more would be open to forged links.
            let query = operation.kind == GraphQlKind::Query;
            if query { Ok(Reading::Body(Box::new(Empty(operations(operation))))) } else { Err(Unreadable::Method) }
        }
        // Some servers prefer the query to the body.
        "POST" if head.query.iter().any(|(key, _)| claims(key, &PARAMETERS)) => Err(Unreadable::Query),
        "POST" => match head.media_type()?.as_str() {
            "application/json" => Ok(Reading::Body(Whole::new(head, body)?)),
            "application/graphql" => Ok(Reading::Body(Whole::new(head, |bytes| {
                let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::Syntax)?;
                Ok(operations(document::operation(text, None)?))
            })?)),
            _ => Err(Unreadable::ContentType),
        },
        _ => Err(Unreadable::Method),
    }
}

fn operations(operation: GraphQl) -> Vec<Operation> {
    vec![Operation::GraphQl(operation)]
}

fn from_query(head: &Head<'_>) -> Result<GraphQl, Unreadable> {
    let parameter = |name: &str| {
        let mut values = head.query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Unreadable::Query),
        }
    };
    let parse = |text: Option<&str>| match text {
        None | Some("") => Ok(None),
        Some(text) => match Value::parse(text.as_bytes())? {
            Value::Null => Ok(None),
            Value::Object(object) => Ok(Some(object)),
            _ => Err(Unreadable::Shape),
        },
    };
    parse(parameter("variables")?)?;
    let extensions = parse(parameter("extensions")?)?;
    read(parameter("query")?, parameter("operationName")?, extensions.as_ref())
}

/// A body: one request, or a batch of them.
fn body(bytes: &[u8]) -> Result<Vec<Operation>, Unreadable> {
    match Value::parse(bytes)? {
        Value::Array(batch) if batch.is_empty() => Err(Unreadable::Shape),
        Value::Array(batch) if batch.len() > MAX_BATCH => Err(Unreadable::TooMany),
        Value::Array(batch) => batch.iter().map(|value| Ok(Operation::GraphQl(request(value)?))).collect(),
        single => Ok(operations(request(&single)?)),
    }
}

fn request(value: &Value) -> Result<GraphQl, Unreadable> {
    let request = value.as_object().ok_or(Unreadable::Shape)?;
    for (key, _) in request.iter() {
        if PERSISTED.iter().any(|word| word.eq_ignore_ascii_case(key)) {
            return Err(Unreadable::Persisted);
        }
        if !PARAMETERS.contains(&key) {
            let spelling = PARAMETERS.iter().any(|own| own.eq_ignore_ascii_case(key));
            return Err(if spelling { Unreadable::KeySpelling } else { Unreadable::Shape });
        }
    }
    let text = |key| match request.get(key)? {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Unreadable::Shape),
    };
    let object = |key| match request.get(key)? {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Unreadable::Shape),
    };
    object("variables")?;
    read(text("query")?, text("operationName")?, object("extensions")?)
}

fn read(query: Option<&str>, name: Option<&str>, extensions: Option<&Object>) -> Result<GraphQl, Unreadable> {
    let persisted = match extensions {
        Some(extensions) => extensions.get("persistedQuery")?,
        None => None,
    };
    match (query, persisted) {
        (Some(query), None) => document::operation(query, name),
        // The server keeps the document under its hash: it must be the hash of what was read.
        (Some(query), Some(persisted)) => {
            let hash = persisted.as_object().ok_or(Unreadable::Persisted)?.get("sha256Hash")?;
            let digest: String = Sha256::digest(query).iter().map(|byte| format!("{byte:02x}")).collect();
            if hash.and_then(Value::as_str) != Some(&digest) {
                return Err(Unreadable::Persisted);
            }
            document::operation(query, name)
        }
        (None, Some(_)) => Err(Unreadable::Persisted),
        (None, None) => Err(Unreadable::Shape),
    }
}

/// A WebSocket message by the client.
pub(crate) fn message(bytes: &[u8]) -> Result<Vec<Operation>, Unreadable> {
    let value = Value::parse(bytes)?;
    let message = value.as_object().ok_or(Unreadable::Shape)?;
    let payload = message.get("payload")?;
    match message.get("type")?.and_then(Value::as_str).ok_or(Unreadable::Shape)? {
        "subscribe" | "start" => Ok(operations(request(payload.ok_or(Unreadable::Shape)?)?)),
        "connection_init" | "ping" | "pong" | "complete" | "stop" | "connection_terminate" => Ok(Vec::new()),
        _ => Err(Unreadable::Shape),
    }
}

#[cfg(test)]
mod tests;
