//! Denials of requests.

use stockade_types::{Escaped, Generation, Reason};

use crate::{
    decision::{Denial, Protocol, Request},
    model::Endpoint,
    parse::{method, path_glob},
};

/// Characters of a path in a message.
const SHOWN: usize = 200;

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

/// The smallest rule that would allow it, where a rule can say exactly that.
fn suggestion(endpoint: &Endpoint, request: &Request) -> Option<String> {
    // A star of the path stands for itself.
    let path = request.path.replace('*', "%2A");
    path_glob(&path).ok()?;
    let rule = match endpoint.protocol {
        Protocol::Http => {
            method(&request.method).ok().filter(|()| request.method != "*")?;
            format!("methods: [{}], paths: [{}]", request.method, quoted(&path))
        }
        Protocol::Grpc | Protocol::Graphql | Protocol::JsonRpc | Protocol::Mcp | Protocol::Tcp => return None,
    };
    Some(format!("network:\n  endpoints:\n    {}:\n      allow:\n        - {{{rule}}}", endpoint.name))
}

/// Text as a YAML scalar of a flow sequence.
pub(crate) fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c == '/' || c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-~".contains(&b));
    let word = matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    if plain && !word { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
