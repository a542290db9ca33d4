//! Denials of requests.

use stockade_l7::{GraphQl, Mcp, Operation};
use stockade_types::{Escaped, Generation, Reason};

use crate::{
    decision::{Denial, Protocol, Request},
    model::Endpoint,
    parse::{method, path_glob, value_glob},
};

/// Characters of a path in a message.
const SHOWN: usize = 200;
/// Rules of a suggestion; a batch of more kinds of calls is none that a line could allow.
const MAX_RULES: usize = 4;

/// A request in a sentence: `GET /repos/a`.
pub(crate) fn shown(request: &Request) -> String {
    let cut = |text: &str| match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    };
    Escaped(&format!("{} {}", cut(&request.method), cut(&request.path))).to_string()
}

/// A denial by a rule of `deny`. Nothing added to `allow` would change it.
pub(crate) fn by_rule(generation: Generation, endpoint: &Endpoint, request: &Request, rule: String) -> Denial {
    let detail = format!("a rule of endpoint `{}` denies {}", endpoint.name, shown(request));
    Denial { reason: Reason::PolicyDeny, rule, detail, suggestion: None, generation }
}

/// A denial because no rule allows it.
pub(crate) fn no_rule(generation: Generation, endpoint: &Endpoint, request: &Request) -> Denial {
    let rules = endpoint.rules.allow.is_some();
    let detail = match rules {
        true => format!("no rule in `allow` of endpoint `{}` covers {}", endpoint.name, shown(request)),
        false => format!("{} is not a request that endpoint `{}` can judge", shown(request), endpoint.name),
    };
    Denial {
        reason: Reason::L7,
        rule: format!("network.endpoints.{}.allow", endpoint.name),
        detail,
        suggestion: if rules { suggestion(endpoint, request) } else { None },
        generation,
    }
}

/// The smallest rules that would allow it, where rules can say exactly that.
fn suggestion(endpoint: &Endpoint, request: &Request) -> Option<String> {
    let rules = match endpoint.protocol {
        Protocol::Http => {
            method(&request.method).ok().filter(|()| request.method != "*")?;
            // A star of the path stands for itself.
            let path = request.path.replace('*', "%2A");
            path_glob(&path).ok()?;
            vec![format!("methods: [{}], paths: [{}]", request.method, quoted(&path))]
        }
        Protocol::Grpc | Protocol::Graphql | Protocol::JsonRpc | Protocol::Mcp => {
            let mut rules = Vec::new();
            for operation in &request.operations {
                let rule = covering(operation)?;
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
            rules
        }
        Protocol::Tcp => return None,
    };
    if rules.is_empty() || rules.len() > MAX_RULES {
        return None;
    }
    let rules: String = rules.iter().map(|rule| format!("\n        - {{{rule}}}")).collect();
    Some(format!("network:\n  endpoints:\n    {}:\n      allow:{rules}", endpoint.name))
}

/// What a rule says to cover an operation and nothing beside it.
fn covering(operation: &Operation) -> Option<String> {
    // Of the values that a rule names a star stands for more than itself.
    let exact = |text: &str| (!text.contains('*') && value_glob(text).is_ok()).then(|| quoted(text));
    Some(match operation {
        Operation::Grpc { service, method } => {
            format!("services: [{}], methods: [{}]", exact(service)?, exact(method)?)
        }
        Operation::GraphQl(GraphQl { kind, fields, .. }) => {
            let fields: Vec<String> = fields.iter().map(|f| exact(f)).collect::<Option<_>>()?;
            format!("operations: [{kind}], fields: [{}]", fields.join(", "))
        }
        Operation::JsonRpc { method, .. } => format!("methods: [{}]", exact(method)?),
        Operation::Mcp(Mcp { method, tool, name, .. }) => {
            let mut rule = format!("methods: [{}]", exact(method)?);
            for (key, value) in [("tools", tool), ("names", name)] {
                if let Some(value) = value {
                    rule.push_str(&format!(", {key}: [{}]", exact(value)?));
                }
            }
            rule
        }
    })
}

/// Text as a YAML scalar of a flow sequence.
pub(crate) fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c == '/' || c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-~".contains(&b));
    let word = matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    if plain && !word { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
