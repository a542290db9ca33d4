//! `credentials`.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    fields::{Fields, Reader, Trail},
    rules::required,
    scalars,
};
use crate::{
    credential::{Credential, Inject, Part, Sigv4, Store},
    yaml::Node,
};

/// Stores that are known words. The first two can be read.
const STORES: [&str; 7] = ["env", "file", "aws-secretsmanager", "vault", "gcp-secretmanager", "kubernetes", "gateway"];

pub(crate) fn credentials(
    r: &mut Reader<'_>,
    trail: &Trail<'_>,
    node: &Node,
    file: &Arc<str>,
) -> BTreeMap<String, Credential> {
    let mut found = BTreeMap::new();
    for (key, node) in r.map(trail, node).unwrap_or_default() {
        let name = r.name(trail, key);
        let trail = Trail::Key(trail, &key.text);
        let credential = credential(r, &trail, node);
        if let (Some(name), Some((env, source, inject))) = (name, credential) {
            found.insert(name, Credential { env, source, inject, file: Arc::clone(file), at: key.at });
        }
    }
    found
}

fn credential(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<(String, Store, Inject)> {
    let fields = r.fields(trail, node, &["env", "source", "inject", "approval"])?;
    required(r, trail, node, fields, &["env", "source", "inject"]);
    let part = part(r, trail, fields);
    let inject = fields.get("inject").and_then(|node| inject(r, &Trail::Key(trail, "inject"), node));
    if let Some(node) = fields.get("approval") {
        let trail = Trail::Key(trail, "approval");
        let words = [("never", true), ("first-use", false), ("every-use", false)];
        if r.word(&trail, node, "approval", &words) == Some(false) {
            r.unavailable(&trail, node.at, "approval by a person", Some("write `approval: never`"));
        }
    }
    let Part { env, source } = part?;
    Some((env, source, inject?))
}

/// `env` and `source`.
fn part(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>) -> Option<Part> {
    let env = fields.get("env").and_then(|node| {
        let name = |text: &str| scalars::env_name(text).map(|()| text.to_owned());
        r.parsed(&Trail::Key(trail, "env"), node, name)
    });
    let source = fields.get("source").and_then(|node| source(r, &Trail::Key(trail, "source"), node));
    Some(Part { env: env?, source: source? })
}

fn source(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<Store> {
    let read = r.parsed(trail, node, |text| match text.split_once(':') {
        Some(("env", name)) => scalars::env_name(name).map(|()| Some(Store::Env(name.to_owned()))),
        Some(("file", path)) => scalars::path(path).map(|path| Some(Store::File(path))),
        Some((store, name)) if STORES.contains(&store) && !name.is_empty() => Ok(None),
        Some((store, _)) if !STORES.contains(&store) => Err(match crate::diagnostic::nearest(store, STORES) {
            Some(word) => format!("unknown store; did you mean `{word}:`?"),
            None => format!("unknown store; one of {}", STORES.join(", ")),
        }),
        _ => Err("write STORE:NAME, such as env:GITHUB_TOKEN".to_owned()),
    })?;
    if read.is_none() {
        r.unavailable(trail, node.at, "this store", Some("use `env:` or `file:`"));
    }
    read
}

/// One of the forms: `header` and `value`, `basic`, `query`, `path`, `body` and `field`, `sigv4`.
fn inject(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<Inject> {
    const FORMS: [&str; 6] = ["header", "basic", "query", "path", "body", "sigv4"];
    let fields = r.fields(trail, node, &["header", "value", "basic", "query", "path", "body", "field", "sigv4"])?;
    let mut named = FORMS.iter().filter(|form| fields.get(form).is_some());
    let (Some(form), None) = (named.next(), named.next()) else {
        let help = format!("one of {}", FORMS.join(", "));
        r.error(trail, node.at, "`inject` names one place", Some(help));
        return None;
    };
    let beside = match *form {
        "header" => Some("value"),
        "body" => Some("field"),
        _ => None,
    };
    for (key, of) in [("value", "header"), ("field", "body")] {
        match (fields.entry(key), beside == Some(key)) {
            (Some((at, _)), false) => r.error(trail, at.at, format!("`{key}` goes with `{of}`"), None),
            (None, true) => r.error(trail, node.at, format!("`{key}` is missing"), None),
            _ => {}
        }
    }
    let node = fields.get(form)?;
    let trail_form = Trail::Key(trail, form);
    match *form {
        "header" => {
            let name = r.parsed(&trail_form, node, |t| scalars::header_name(t).map(|()| t.to_owned()));
            let template = r.parsed(&Trail::Key(trail, "value"), fields.get("value")?, template);
            let (before, after) = template?;
            Some(Inject::Header { name: name?, before, after })
        }
        "basic" => r.parsed(&trail_form, node, user).map(|user| Inject::Basic { user }),
        "query" => r.parsed(&trail_form, node, parameter).map(|name| Inject::Query { name }),
        "path" => {
            let (before, after) = r.parsed(&trail_form, node, |text| {
                scalars::path_glob(&text.replace("{secret}", "x"))?;
                template(text)
            })?;
            Some(Inject::Path { before, after })
        }
        "body" => body(r, trail, fields, node),
        _ => sigv4(r, &trail_form, node).map(Inject::Sigv4),
    }
}

fn body(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>, node: &Node) -> Option<Inject> {
    let json = r.word(&Trail::Key(trail, "body"), node, "kind of body", &[("json", true), ("form", false)])?;
    let (trail, node) = (Trail::Key(trail, "field"), fields.get("field")?);
    match json {
        true => r.parsed(&trail, node, pointer).map(|pointer| Inject::Json { pointer }),
        false => r.parsed(&trail, node, parameter).map(|name| Inject::Form { name }),
    }
}

fn sigv4(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<Sigv4> {
    let fields = r.fields(trail, node, &["service", "region", "access_key_id", "session_token"])?;
    required(r, trail, node, fields, &["access_key_id"]);
    let mut scope = |key: &str| {
        let word = |text: &str| match text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !text.is_empty() {
            true => Ok(text.to_owned()),
            false => Err("letters, digits and `-`".to_owned()),
        };
        fields.get(key).map(|node| r.parsed(&Trail::Key(trail, key), node, word))
    };
    let (service, region) = (scope("service"), scope("region"));
    let mut other = |key: &str| {
        let (trail, node) = (Trail::Key(trail, key), fields.get(key)?);
        let fields = r.fields(&trail, node, &["env", "source"])?;
        required(r, &trail, node, fields, &["env", "source"]);
        part(r, &trail, fields)
    };
    let (access_key_id, session_token) = (other("access_key_id"), other("session_token"));
    if fields.get("session_token").is_some() && session_token.is_none() {
        return None;
    }
    // A scope that could not be read must not become "any".
    let scope = |read: Option<Option<String>>| read.map_or(Some(None), |text| text.map(Some));
    Some(Sigv4 { service: scope(service)?, region: scope(region)?, access_key_id: access_key_id?, session_token })
}

/// Text around `{secret}`.
fn template(text: &str) -> Result<(String, String), String> {
    scalars::value_glob(text)?;
    match text.split_once("{secret}") {
        Some((before, after)) if !after.contains("{secret}") => Ok((before.to_owned(), after.to_owned())),
        _ => Err("must hold `{secret}` once: that is where the value goes".to_owned()),
    }
}

fn user(text: &str) -> Result<String, String> {
    match text.len() <= 256 && !text.contains(':') && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("not a user name of HTTP Basic authentication".to_owned()),
    }
}

fn parameter(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.len() <= 256 && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("not the name of a parameter".to_owned()),
    }
}

fn pointer(text: &str) -> Result<String, String> {
    match text.starts_with('/') && text.len() <= 1024 && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("not a JSON pointer; write one such as /auth/token".to_owned()),
    }
}

#[cfg(test)]
mod tests;
