//! Request rules, credentials and inference: the whole grammar is checked although nothing acts on it yet, so that a
//! policy written for a later version fails here for what is wrong with it, and is never half obeyed.

use super::{
    fields::{Fields, Reader, Trail},
    scalars,
};
use crate::yaml::{Node, Value};

/// `allow`, `deny`, `ask` of an endpoint. Returns how many rules there are.
pub(crate) fn request_rules(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> usize {
    r.each(trail, node, |r, trail, rule| {
        let fields = r.fields(trail, rule, &["methods", "paths", "query", "headers"])?;
        request_rule(r, trail, rule, fields);
        Some(())
    })
    .len()
}

fn request_rule(r: &mut Reader<'_>, trail: &Trail<'_>, rule: &Node, fields: Fields<'_>) {
    let named = ["methods", "paths", "query", "headers"].iter().any(|k| fields.get(k).is_some());
    if !named {
        r.error(trail, rule.at, "a rule that names nothing", Some("name methods, paths, query or headers".to_owned()));
    }
    for (key, grammar) in [("methods", scalars::method as fn(&str) -> _), ("paths", scalars::path_glob)] {
        if let Some(node) = fields.get(key) {
            let trail = Trail::Key(trail, key);
            r.each(&trail, node, |r, trail, item| r.parsed(trail, item, grammar));
            empty_list(r, &trail, node);
        }
    }
    if let Some(node) = fields.get("query") {
        globs(r, &Trail::Key(trail, "query"), node, scalars::value_glob);
    }
    if let Some(node) = fields.get("headers") {
        globs(r, &Trail::Key(trail, "headers"), node, scalars::header_name);
    }
}

/// An empty list in a rule could be read as "none" or as "any".
fn empty_list(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) {
    if super::fields::says_nothing(node) {
        r.error(trail, node.at, "an empty list", Some("name at least one, or leave the key out for any".to_owned()));
    }
}

/// A map from names to a pattern or a list of patterns.
fn globs(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, name: fn(&str) -> Result<(), String>) {
    for (key, value) in r.map(trail, node).unwrap_or_default() {
        let trail = Trail::Key(trail, &key.text);
        if let Err(why) = name(&key.text) {
            r.error(&trail, key.at, why, None);
        }
        match &value.value {
            Value::List(_) => {
                r.each(&trail, value, |r, trail, item| r.parsed(trail, item, scalars::value_glob));
            }
            _ => {
                r.parsed(&trail, value, scalars::value_glob);
            }
        }
    }
}

/// `limits` of an endpoint.
pub(crate) fn endpoint_limits(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) {
    let Some(fields) = r.fields(trail, node, &["requests_per_minute", "request_body"]) else { return };
    if let Some(node) = fields.get("requests_per_minute") {
        r.number(&Trail::Key(trail, "requests_per_minute"), node, 1..=1_000_000);
    }
    if let Some(node) = fields.get("request_body") {
        r.parsed(&Trail::Key(trail, "request_body"), node, scalars::size);
    }
}

/// `binaries` of an endpoint: absolute paths, or a map with a pin.
pub(crate) fn binary(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<()> {
    let absolute = |text: &str| match scalars::path(text)? {
        path if path.is_absolute() => Ok(()),
        _ => Err("not an absolute path".to_owned()),
    };
    if !matches!(node.value, Value::Map(_)) {
        return r.parsed(trail, node, absolute);
    }
    let fields = r.fields(trail, node, &["path", "sha256"])?;
    match fields.get("path") {
        Some(path) => r.parsed(&Trail::Key(trail, "path"), path, absolute)?,
        None => r.error(trail, node.at, "`path` is missing", None),
    }
    if let Some(hash) = fields.get("sha256") {
        r.parsed(&Trail::Key(trail, "sha256"), hash, |text| {
            let fits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if fits { Ok(()) } else { Err("not 64 lower-case hexadecimal digits".to_owned()) }
        });
    }
    Some(())
}

/// `credentials`.
pub(crate) fn credentials(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) {
    for (key, node) in r.map(trail, node).unwrap_or_default() {
        r.name(trail, key);
        credential(r, &Trail::Key(trail, &key.text), node);
    }
}

fn credential(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) {
    const STORES: [&str; 7] =
        ["env", "file", "aws-secretsmanager", "vault", "gcp-secretmanager", "kubernetes", "gateway"];
    let Some(fields) = r.fields(trail, node, &["env", "source", "inject", "approval"]) else { return };
    required(r, trail, node, fields, &["env", "source", "inject"]);
    if let Some(node) = fields.get("env") {
        r.parsed(&Trail::Key(trail, "env"), node, scalars::env_name);
    }
    if let Some(node) = fields.get("source") {
        r.parsed(&Trail::Key(trail, "source"), node, |text| match text.split_once(':') {
            Some((store, rest)) if STORES.contains(&store) && !rest.is_empty() => Ok(()),
            Some((store, _)) if !STORES.contains(&store) => Err(match crate::diagnostic::nearest(store, STORES) {
                Some(word) => format!("unknown store; did you mean `{word}:`?"),
                None => format!("unknown store; one of {}", STORES.join(", ")),
            }),
            _ => Err("write STORE:NAME, such as env:GITHUB_TOKEN".to_owned()),
        });
    }
    if let Some(node) = fields.get("inject") {
        inject(r, &Trail::Key(trail, "inject"), node);
    }
    if let Some(node) = fields.get("approval") {
        let words = [("never", ()), ("first-use", ()), ("every-use", ())];
        r.word(&Trail::Key(trail, "approval"), node, "approval", &words);
    }
}

fn inject(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) {
    let Some(fields) = r.fields(trail, node, &["header", "value"]) else { return };
    required(r, trail, node, fields, &["header", "value"]);
    if let Some(node) = fields.get("header") {
        r.parsed(&Trail::Key(trail, "header"), node, scalars::header_name);
    }
    if let Some(node) = fields.get("value") {
        r.parsed(&Trail::Key(trail, "value"), node, |text| match text.matches("{secret}").count() {
            1 => scalars::value_glob(text),
            _ => Err("must hold `{secret}` once: that is where the value goes".to_owned()),
        });
    }
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

fn required(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, fields: Fields<'_>, keys: &[&str]) {
    for key in keys.iter().filter(|key| fields.get(key).is_none()) {
        r.error(trail, node.at, format!("`{key}` is missing"), None);
    }
}
