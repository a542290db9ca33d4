//! Model Context Protocol over Streamable HTTP.

use crate::{
    json::{Object, Value},
    jsonrpc::{self, MAX_NAME, Message, named},
    operation::{self, Mcp, Operation},
    protocol::{Empty, Head, Reading, Unreadable, Whole},
};

/// Longest URI of a resource.
const MAX_URI: usize = 4096;
/// Most arguments of one message, flattened.
pub(crate) const MAX_ARGUMENTS: usize = 1024;
/// Longest path of an argument.
pub(crate) const MAX_ARGUMENT_PATH: usize = 1024;

pub(crate) fn reading(head: &Head<'_>) -> Result<Reading, Unreadable> {
    let bare = |word: &str| Reading::Body(Box::new(Empty(vec![Operation::Mcp(plain(word))])));
    match head.method {
        "GET" => return Ok(bare(operation::STREAM)),
        "DELETE" => return Ok(bare(operation::DELETE)),
        _ => jsonrpc::announced(head)?,
    }
    let mirror = Mirror { method: owned(head, "mcp-method")?, name: owned(head, "mcp-name")? };
    Ok(Reading::Body(Whole::new(head, move |bytes| {
        let operations = jsonrpc::messages(bytes)?.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
        mirror.agrees(&operations)?;
        Ok(operations.into_iter().map(Operation::Mcp).collect())
    })?))
}

fn owned(head: &Head<'_>, field: &str) -> Result<Option<String>, Unreadable> {
    Ok(head.field(field)?.map(str::to_owned))
}

/// Fields that repeat the body for proxies. A server may route by them.
struct Mirror {
    method: Option<String>,
    name: Option<String>,
}

impl Mirror {
    fn agrees(&self, messages: &[Mcp]) -> Result<(), Unreadable> {
        let all = |field: &Option<String>, of: fn(&Mcp) -> Option<&String>| match field {
            Some(field) => messages.iter().all(|message| of(message) == Some(field)),
            None => true,
        };
        let agree = all(&self.method, |m| Some(&m.method)) && all(&self.name, |m| m.tool.as_ref().or(m.name.as_ref()));
        if agree { Ok(()) } else { Err(Unreadable::Mirror) }
    }
}

fn plain(method: &str) -> Mcp {
    Mcp { method: method.into(), tool: None, name: None, arguments: Vec::new() }
}

fn message(message: Message) -> Result<Mcp, Unreadable> {
    let Message::Call { method, params, .. } = message else { return Ok(plain(operation::RESPONSE)) };
    let mut read = plain(&method);
    let params = || params.as_ref().and_then(Value::as_object).ok_or(Unreadable::Shape);
    match method.as_str() {
        "tools/call" => {
            read.tool = Some(named(params()?, "name", MAX_NAME)?);
            read.arguments = arguments(params()?)?;
        }
        "prompts/get" => {
            read.name = Some(named(params()?, "name", MAX_NAME)?);
            read.arguments = arguments(params()?)?;
        }
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            read.name = Some(named(params()?, "uri", MAX_URI)?);
        }
        "completion/complete" => read.name = Some(reference(params()?)?),
        _ => {}
    }
    Ok(read)
}

/// What a completion is asked for: a prompt by its name, or a resource template by its URI.
fn reference(params: &Object) -> Result<String, Unreadable> {
    let reference = params.get("ref")?.and_then(Value::as_object).ok_or(Unreadable::Shape)?;
    match (reference.get("name")?, reference.get("uri")?) {
        (Some(_), None) => named(reference, "name", MAX_NAME),
        (None, Some(_)) => named(reference, "uri", MAX_URI),
        _ => Err(Unreadable::Shape),
    }
}

fn arguments(params: &Object) -> Result<Vec<(String, String)>, Unreadable> {
    let mut flat = Flat::default();
    match params.get("arguments")? {
        None => {}
        Some(Value::Object(object)) => flat.object(object)?,
        Some(_) => return Err(Unreadable::Shape),
    }
    Ok(flat.arguments)
}

/// Arguments, flattened.
#[derive(Default)]
struct Flat {
    /// Where in the arguments the next value lies.
    path: String,
    arguments: Vec<(String, String)>,
}

impl Flat {
    fn object(&mut self, object: &Object) -> Result<(), Unreadable> {
        object.iter().try_for_each(|(key, value)| self.below(&key.replace('\\', "\\\\").replace('.', "\\."), value))
    }

    fn below(&mut self, key: &str, value: &Value) -> Result<(), Unreadable> {
        let above = self.path.len();
        if above > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        if self.path.len() > MAX_ARGUMENT_PATH {
            return Err(Unreadable::TooMany);
        }
        self.value(value)?;
        self.path.truncate(above);
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<(), Unreadable> {
        let text = match value {
            Value::Object(object) => return self.object(object),
            Value::Array(values) => {
                return values.iter().enumerate().try_for_each(|(i, value)| self.below(&i.to_string(), value));
            }
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.clone().ok_or(Unreadable::Number)?,
            // To some tools the text ends there.
            Value::String(text) if text.contains('\0') => return Err(Unreadable::Name),
            Value::String(text) => text.clone(),
        };
        if self.arguments.len() >= MAX_ARGUMENTS {
            return Err(Unreadable::TooMany);
        }
        self.arguments.push((self.path.clone(), text));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
