//! What rules and modules see of an operation.

use regorus::Value;
use stockade_l7::{GraphQl, Mcp, Operation};

use crate::{input::fields, rule::Key};

/// The protocol that an operation is of.
pub(crate) fn protocol(operation: &Operation) -> &'static str {
    match operation {
        Operation::Grpc { .. } => "grpc",
        Operation::GraphQl(_) => "graphql",
        Operation::JsonRpc { .. } => "jsonrpc",
        Operation::Mcp(_) => "mcp",
    }
}

/// What a key of a rule looks at; nothing where the operation has nothing of the kind.
pub(crate) fn values(operation: &Operation, key: Key) -> Vec<&str> {
    match (operation, key) {
        (Operation::Grpc { service, .. }, Key::Service) => vec![service],
        (
            Operation::Grpc { method, .. } | Operation::JsonRpc { method, .. } | Operation::Mcp(Mcp { method, .. }),
            Key::Method,
        ) => vec![method],
        (Operation::GraphQl(GraphQl { kind, .. }), Key::Operation) => vec![kind.word()],
        (Operation::GraphQl(GraphQl { name, .. }) | Operation::Mcp(Mcp { name, .. }), Key::Name) => {
            name.as_deref().into_iter().collect()
        }
        (Operation::GraphQl(GraphQl { fields, .. }), Key::Field) => fields.iter().map(String::as_str).collect(),
        (Operation::Mcp(Mcp { tool, .. }), Key::Tool) => tool.as_deref().into_iter().collect(),
        (
            Operation::Grpc { .. } | Operation::GraphQl(_) | Operation::JsonRpc { .. } | Operation::Mcp(_),
            Key::Service | Key::Method | Key::Operation | Key::Name | Key::Field | Key::Tool,
        ) => Vec::new(),
    }
}

/// The values of an argument and of everything below it.
pub(crate) fn argument<'o>(operation: &'o Operation, path: &str) -> Vec<&'o str> {
    let Operation::Mcp(Mcp { arguments, .. }) = operation else { return Vec::new() };
    let within = |own: &str| own.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    arguments.iter().filter(|(own, _)| within(own)).map(|(_, value)| value.as_str()).collect()
}

/// Bytes of text that it holds.
pub(crate) fn size(operation: &Operation) -> usize {
    match operation {
        Operation::Grpc { service, method } => service.len() + method.len(),
        Operation::GraphQl(GraphQl { name, fields, .. }) => {
            name.as_ref().map_or(0, String::len) + fields.iter().map(|f| f.len() + 24).sum::<usize>()
        }
        Operation::JsonRpc { method, .. } => method.len(),
        Operation::Mcp(Mcp { method, tool, name, arguments }) => {
            let text = |t: &Option<String>| t.as_ref().map_or(0, String::len);
            let arguments = arguments.iter().map(|(k, v)| k.len() + v.len() + 48).sum::<usize>();
            method.len() + text(tool) + text(name) + arguments
        }
    }
}

/// An item of `input.request.operations` of user modules.
pub(crate) fn document(operation: &Operation) -> Value {
    let text = |t: &String| Value::from(t.as_str());
    let mut all = vec![("protocol", protocol(operation).into())];
    match operation {
        Operation::Grpc { service, method } => all.extend([("service", text(service)), ("method", text(method))]),
        Operation::GraphQl(GraphQl { kind, name, fields }) => {
            all.push(("operation", kind.word().into()));
            all.extend(name.as_ref().map(|name| ("name", text(name))));
            all.push(("fields", fields.iter().map(text).collect::<Vec<_>>().into()));
        }
        Operation::JsonRpc { method, notification } => {
            all.extend([("method", text(method)), ("notification", (*notification).into())]);
        }
        Operation::Mcp(Mcp { method, tool, name, arguments }) => {
            all.push(("method", text(method)));
            all.extend(tool.as_ref().map(|tool| ("tool", text(tool))));
            all.extend(name.as_ref().map(|name| ("name", text(name))));
            let pair = |(k, v): &(String, String)| Value::from(vec![text(k), text(v)]);
            all.push(("arguments", arguments.iter().map(pair).collect::<Vec<_>>().into()));
        }
    }
    fields(all)
}
