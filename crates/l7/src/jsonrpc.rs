//! JSON-RPC 2.0: single messages and batches.

use crate::{
    json::{Object, Value},
    operation::{self, Operation},
    protocol::{Head, MAX_BATCH, Reading, Unreadable, Whole},
};

/// Longest method, and longest name of what a message is about.
pub(crate) const MAX_NAME: usize = 256;

/// The query of the opening of a WebSocket: some servers take calls from the query of a GET, and one that does not know
/// the upgrade would execute what it holds.
pub(crate) fn opening(query: &[(String, String)]) -> Result<(), Unreadable> {
    const PARAMETERS: [&str; 4] = ["jsonrpc", "method", "params", "id"];
    let asks = query.iter().any(|(key, _)| crate::graphql::claims(key, &PARAMETERS));
    if asks { Err(Unreadable::Query) } else { Ok(()) }
}

pub(crate) fn reading(head: &Head<'_>) -> Result<Reading, Unreadable> {
    announced(head)?;
    Ok(Reading::Body(Whole::new(head, operations)?))
}

/// Whether the head announces a JSON body.
pub(crate) fn announced(head: &Head<'_>) -> Result<(), Unreadable> {
    if head.method != "POST" {
        return Err(Unreadable::Method);
    }
    match head.media_type()?.as_str() {
        "application/json" | "application/json-rpc" | "application/jsonrequest" => Ok(()),
        _ => Err(Unreadable::ContentType),
    }
}

pub(crate) fn operations(bytes: &[u8]) -> Result<Vec<Operation>, Unreadable> {
    let operation = |message| match message {
        Message::Call { method, notification, .. } => Operation::JsonRpc { method, notification },
        Message::Response => Operation::JsonRpc { method: operation::RESPONSE.into(), notification: false },
    };
    Ok(messages(bytes)?.into_iter().map(operation).collect())
}

/// A message by the client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    /// A request, or a notification.
    Call { method: String, params: Option<Value>, notification: bool },
    /// An answer to a request of the server.
    Response,
}

/// All messages of a text: one, or those of a batch. Never none.
pub(crate) fn messages(bytes: &[u8]) -> Result<Vec<Message>, Unreadable> {
    match Value::parse(bytes)? {
        Value::Array(batch) if batch.is_empty() => Err(Unreadable::Shape),
        Value::Array(batch) if batch.len() > MAX_BATCH => Err(Unreadable::TooMany),
        Value::Array(batch) => batch.iter().map(message).collect(),
        single => Ok(vec![message(&single)?]),
    }
}

fn message(value: &Value) -> Result<Message, Unreadable> {
    let message = value.as_object().ok_or(Unreadable::Shape)?;
    if message.entry("jsonrpc")?.and_then(Value::as_str) != Some("2.0") {
        return Err(Unreadable::Shape);
    }
    let id = message.entry("id")?;
    if matches!(id, Some(Value::Bool(_) | Value::Array(_) | Value::Object(_))) {
        return Err(Unreadable::Shape);
    }
    let answers = [message.entry("result")?, message.entry("error")?].into_iter().flatten().count();
    match message.entry("method")? {
        Some(Value::String(method)) if answers == 0 => {
            let params = message.get("params")?.cloned();
            if !matches!(params, None | Some(Value::Array(_) | Value::Object(_))) {
                return Err(Unreadable::Shape);
            }
            Ok(Message::Call { method: method_name(method)?, params, notification: id.is_none() })
        }
        None if answers == 1 && id.is_some() && message.entry("params")?.is_none() => Ok(Message::Response),
        _ => Err(Unreadable::Shape),
    }
}

fn method_name(method: &str) -> Result<String, Unreadable> {
    let reserved = [operation::RESPONSE, operation::STREAM, operation::DELETE].contains(&method);
    if reserved { Err(Unreadable::Name) } else { name(method, MAX_NAME) }
}

/// A name, if it is one that can be shown and compared.
pub(crate) fn name(text: &str, max: usize) -> Result<String, Unreadable> {
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        return Err(Unreadable::Name);
    }
    Ok(text.to_owned())
}

/// A name that the object must have under this key.
pub(crate) fn named(object: &Object, key: &str, max: usize) -> Result<String, Unreadable> {
    name(object.get(key)?.and_then(Value::as_str).ok_or(Unreadable::Shape)?, max)
}

#[cfg(test)]
mod tests;
