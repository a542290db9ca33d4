//! Denials of requests.

use std::{collections::BTreeSet, fmt::Write as _};

use stockade_l7::{GraphQl, Mcp, Operation};
use stockade_types::{Escaped, Generation, Reason};

use crate::{
    decision::{Denial, Protocol, Request},
    facts,
    matcher::{Close, Matcher},
    model::Endpoint,
    parse::{method, path_glob, value_glob},
};

/// Characters of a path in a message.
const SHOWN: usize = 200;
/// Operations of a batch, and fields of an operation, in a message.
const NAMED: usize = 3;
/// Rules of a suggestion; a batch of more kinds of calls is none that a line could allow.
const MAX_RULES: usize = 4;
/// Bytes of the values in a suggested rule: one that names longer ones is none that a person would write down.
const MAX_WATCHED: usize = 400;

/// A request in a sentence: `GET /repos/a`.
pub(crate) fn shown(request: &Request) -> String {
    let cut = |text: &str| match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    };
    let mut text = format!("{} {}", cut(&request.method), cut(&request.path));
    let named: Vec<String> = request.operations.iter().filter_map(called).take(NAMED + 1).map(|n| cut(&n)).collect();
    if let Some(first) = named.get(..NAMED.min(named.len())).filter(|first| !first.is_empty()) {
        let more = if named.len() > NAMED { " and more" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, " ({}{more})", first.join(", "));
    }
    Escaped(&text).to_string()
}

/// An operation in a word or two, where the path does not say it.
fn called(operation: &Operation) -> Option<String> {
    Some(match operation {
        Operation::Grpc { .. } => return None,
        Operation::GraphQl(GraphQl { kind, fields, .. }) => {
            let more = if fields.len() > NAMED { " …" } else { "" };
            format!("{kind} {}{more}", fields.get(..NAMED.min(fields.len())).unwrap_or_default().join(" "))
        }
        Operation::JsonRpc { method, .. } => method.clone(),
        Operation::Mcp(Mcp { method, tool, name, .. }) => {
            let object = tool.as_ref().or(name.as_ref()).map(|o| format!(" {o}")).unwrap_or_default();
            format!("{method}{object}")
        }
    })
}

/// A denial by a rule of `deny`. Nothing added to `allow` would change it.
pub(crate) fn by_rule(generation: Generation, endpoint: &Endpoint, request: &Request, rule: String) -> Denial {
    let detail = format!("a rule of endpoint `{}` denies {}", endpoint.name, shown(request));
    Denial { reason: Reason::PolicyDeny, rule, detail, suggestion: None, generation }
}

/// A denial because no rule allows it.
pub(crate) fn no_rule(
    generation: Generation,
    (endpoint, matcher): (&Endpoint, Option<&Matcher>),
    request: &Request,
) -> Denial {
    let rules = endpoint.rules.allow.is_some();
    let close = matcher.map(|matcher| matcher.close(request));
    let missed = close.as_ref().and_then(|close| close.missed(request));
    let mut detail = match rules {
        true => format!("no rule in `allow` of endpoint `{}` covers {}", endpoint.name, shown(request)),
        false => format!("{} is not a request that endpoint `{}` can judge", shown(request), endpoint.name),
    };
    if let Some(missed) = &missed {
        let rule = missed.rule.id.rsplit('.').next().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(detail, "; `{rule}` does, but for its {}", missed.values.join(", "));
    }
    // A rule without the fields that the nearest one wants would allow more than this; and fields hold secrets.
    let fields = missed.is_some_and(|missed| !missed.rule.headers.is_empty());
    Denial {
        reason: Reason::L7,
        rule: format!("network.endpoints.{}.allow", endpoint.name),
        detail,
        suggestion: if rules && !fields { suggestion(endpoint, request, close.as_ref()) } else { None },
        generation,
    }
}

/// The smallest rules that would allow it, where rules can say exactly that.
fn suggestion(endpoint: &Endpoint, request: &Request, close: Option<&Close<'_>>) -> Option<String> {
    let rules = match endpoint.protocol {
        Protocol::Http => {
            method(&request.method).ok().filter(|()| request.method != "*")?;
            // A star of the path stands for itself.
            let path = request.path.replace('*', "%2A");
            path_glob(&path).ok()?;
            let names = close.map(Close::query).unwrap_or_default();
            let given = |name: &str| request.query.iter().filter(|(k, _)| k == name).map(|(_, v)| v.as_str()).collect();
            let query = watched("query", names, given)?.unwrap_or_default();
            vec![format!("methods: [{}], paths: [{}]{query}", request.method, quoted(&path))]
        }
        Protocol::Grpc | Protocol::Graphql | Protocol::JsonRpc | Protocol::Mcp => {
            let mut rules = Vec::new();
            for operation in &request.operations {
                let rule = covering(operation, close)?;
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
                if rules.len() > MAX_RULES {
                    return None;
                }
            }
            rules
        }
        Protocol::Tcp => return None,
    };
    if rules.is_empty() {
        return None;
    }
    let rules: String = rules.iter().map(|rule| format!("\n        - {{{rule}}}")).collect();
    Some(format!("network:\n  endpoints:\n    {}:\n      allow:{rules}", endpoint.name))
}

/// What a rule says to cover an operation and nothing beside it.
fn covering(operation: &Operation, close: Option<&Close<'_>>) -> Option<String> {
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
            let names = close.map(|close| close.arguments(operation)).unwrap_or_default();
            let watching = !names.is_empty();
            match watched("arguments", names, |name| facts::argument(operation, name))? {
                Some(arguments) => rule.push_str(&arguments),
                // What rules look at is not there, and a rule that does not look allows all of it.
                None if watching => return None,
                None => {}
            }
            rule
        }
    })
}

/// The values of what other rules look at, as this rule would name them: `, query: {page: ["2"]}`. The outer `None`:
/// they cannot be named exactly. The inner: there are none.
fn watched<'v>(key: &str, names: BTreeSet<&str>, given: impl Fn(&str) -> Vec<&'v str>) -> Option<Option<String>> {
    let mut pairs = Vec::new();
    for name in names {
        let values = given(name).into_iter().map(exact).collect::<Option<BTreeSet<_>>>()?;
        if !values.is_empty() {
            let values: Vec<_> = values.into_iter().collect();
            pairs.push(format!("{}: [{}]", quoted(name), values.join(", ")));
        }
    }
    let text = format!(", {key}: {{{}}}", pairs.join(", "));
    if text.len() > MAX_WATCHED {
        return None;
    }
    Some((!pairs.is_empty()).then_some(text))
}

/// A pattern of a value that stands for nothing but this value.
fn exact(text: &str) -> Option<String> {
    // A star stands for more than itself.
    (!text.contains('*') && value_glob(text).is_ok()).then(|| quoted(text))
}

/// Text as a YAML scalar of a flow sequence.
pub(crate) fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c == '/' || c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-~".contains(&b));
    let word = matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    if plain && !word { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
