//! Request rules and inference. What a rule may name depends on the protocol of its endpoint.

use super::{
    fields::{Fields, Reader, Trail, says_nothing},
    scalars,
};
use crate::{
    decision::Protocol,
    glob::{Glob, PathGlob},
    rule::{Key, Named, Rule},
    yaml::{Node, Value},
};

/// The keys that rules of a protocol have.
fn keys(protocol: Protocol) -> Vec<&'static str> {
    let own = Key::of(protocol).iter().map(|(word, _)| *word);
    let rest: &[&str] = match protocol {
        Protocol::Http | Protocol::Tcp => &["methods", "paths", "query", "headers"],
        // The path of a call is its service and method.
        Protocol::Grpc => &["headers"],
        Protocol::Graphql | Protocol::JsonRpc => &["paths", "headers"],
        Protocol::Mcp => &["arguments", "paths", "headers"],
    };
    own.chain(rest.iter().copied()).collect()
}

/// `allow`, `deny` or `ask` of an endpoint, and how many entries there are, right or wrong.
pub(crate) fn request_rules(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, of: Protocol) -> (Vec<Rule>, usize) {
    let known = keys(of);
    let mut count = 0;
    let rules = r.each(trail, node, |r, trail, node| {
        count += 1;
        let fields = r.fields(trail, node, &known)?;
        if !known.iter().any(|k| fields.get(k).is_some()) {
            let help = format!("name at least one of {}", known.join(", "));
            r.error(trail, node.at, "a rule that names nothing", Some(help));
        }
        Some(rule(r, trail, fields, of))
    });
    (rules, count)
}

fn rule(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>, of: Protocol) -> Rule {
    let mut rule = Rule {
        id: trail.to_string().into(),
        methods: None,
        paths: None,
        query: Vec::new(),
        headers: Vec::new(),
        operation: Vec::new(),
        arguments: Vec::new(),
    };
    if of == Protocol::Http
        && let Some(methods) = list(r, trail, fields, "methods", scalars::method)
    {
        let any = methods.iter().any(|m| m == "*");
        rule.methods = (!any).then(|| methods.into_iter().map(String::into_boxed_str).collect());
    }
    rule.paths = list(r, trail, fields, "paths", scalars::path_glob)
        .map(|paths| paths.iter().map(|p| PathGlob::new(p)).collect());
    for (word, key) in Key::of(of) {
        let grammar = match key {
            Key::Operation => scalars::graphql_operation,
            Key::Service | Key::Method | Key::Name | Key::Field | Key::Tool => scalars::value_glob,
        };
        if let Some(values) = list(r, trail, fields, word, grammar) {
            rule.operation.push((*key, values.iter().map(|v| Glob::new(v)).collect()));
        }
    }
    let mut named = |key: &'static str, name: fn(&str) -> Result<(), String>| {
        fields.get(key).map(|node| globs(r, &Trail::Key(trail, key), node, name)).unwrap_or_default()
    };
    rule.query = named("query", scalars::value_glob);
    rule.headers = named("headers", scalars::header_name);
    rule.arguments = named("arguments", scalars::value_glob);
    rule
}

/// A list of texts.
fn list(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    fields: Fields<'_>,
    key: &'static str,
    grammar: fn(&str) -> Result<(), String>,
) -> Option<Vec<String>> {
    let node = fields.get(key)?;
    let trail = Trail::Key(trail, key);
    empty_list(r, &trail, node);
    Some(r.each(&trail, node, |r, trail, item| r.parsed(trail, item, |t| grammar(t).map(|()| t.to_owned()))))
}

/// An empty list in a rule could be read as "none" or as "any".
pub(crate) fn empty_list(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) {
    if says_nothing(node) {
        r.error(trail, node.at, "an empty list", Some("name at least one, or leave the key out for any".to_owned()));
    }
}

/// A map from names to a pattern or a list of patterns.
fn globs(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, name: fn(&str) -> Result<(), String>) -> Vec<Named> {
    let glob = |r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node| {
        r.parsed(trail, node, |text| scalars::value_glob(text).map(|()| Glob::new(text)))
    };
    let mut found = Vec::new();
    for (key, value) in r.map(trail, node).unwrap_or_default() {
        let trail = Trail::Key(trail, &key.text);
        if let Err(why) = name(&key.text) {
            r.error(&trail, key.at, why, None);
        }
        let patterns = match &value.value {
            Value::List(_) => {
                empty_list(r, &trail, value);
                r.each(&trail, value, glob)
            }
            _ => glob(r, &trail, value).into_iter().collect(),
        };
        found.push((key.text.as_str().into(), patterns));
    }
    found
}

/// `inference`.
pub(crate) fn inference(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) {
    let Some(fields) = r.fields(trail, node, &["routes"]) else { return };
    let Some(routes) = fields.get("routes") else { return };
    r.each(&Trail::Key(trail, "routes"), routes, |r, trail, node| {
        let keys = ["name", "protocol", "base_url", "model", "credential"];
        let fields = r.fields(trail, node, &keys)?;
        required(r, trail, node, fields, &["name", "protocol", "base_url"]);
        for key in ["name", "model", "credential"] {
            if let Some(node) = fields.get(key) {
                r.text(&Trail::Key(trail, key), node);
            }
        }
        if let Some(node) = fields.get("protocol") {
            r.word(&Trail::Key(trail, "protocol"), node, "protocol", &[("openai", ()), ("anthropic", ())]);
        }
        if let Some(node) = fields.get("base_url") {
            r.parsed(&Trail::Key(trail, "base_url"), node, |text| match text.strip_prefix("https://") {
                Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => Ok(()),
                _ => Err("not an https:// URL".to_owned()),
            });
        }
        Some(())
    });
}

pub(crate) fn required(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, fields: Fields<'_>, keys: &[&str]) {
    for key in keys.iter().filter(|key| fields.get(key).is_none()) {
        r.error(trail, node.at, format!("`{key}` is missing"), None);
    }
}
