//! YAML text to a tree that knows where everything stands.
//!
//! The tree, not typed serde structures, is what the readers in [`crate::parse`] walk: they report everything that is
//! wrong in one go, which deserialising into types cannot (it stops at the first error).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Spanned, options::MergeKeyPolicy};

use crate::diagnostic::{Position, Rejected, Source, shown};

/// Longest policy file.
pub const MAX_FILE: usize = 4 * 1024 * 1024;
/// Deepest nesting; the model needs 8.
const MAX_DEPTH: usize = 32;
/// Most nodes after aliases are expanded: 100,000 endpoints of a few keys each.
const MAX_NODES: usize = 1_500_000;
/// Most aliases, and most nodes that they may stand for.
const MAX_ALIASES: usize = 1_000;
const MAX_REPLAYED: usize = 100_000;

/// A node and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// A key and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) at: Position,
    pub(crate) text: String,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Value {
    /// What a person calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Parses one document.
pub(crate) fn parse(source: &Source) -> Result<Node, Rejected> {
    if source.text.len() > MAX_FILE {
        let message = format!("the file is larger than {} MiB", MAX_FILE / 1024 / 1024);
        return Err(Rejected::one(&source.name, Position::default(), message, None));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_REPLAYED,
            max_recorded_anchor_bytes: MAX_FILE,
            max_total_scalar_bytes: 4 * MAX_FILE,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: MAX_DEPTH,
        },
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        emit_comments: false,
    };
    serde_saphyr::from_str_with_options::<Node>(&source.text, options).map_err(|e| {
        let at = e.location().map_or_else(Position::default, position);
        let (message, help) = plain(&e);
        Rejected::one(&source.name, at, format!("not valid YAML: {message}"), help.map(str::to_owned))
    })
}

/// What is wrong, in words of the file and not of the parser, and what to do about it.
fn plain(error: &serde_saphyr::Error) -> (String, Option<&'static str>) {
    use serde_saphyr::{Error, budget::BudgetBreach};
    match error.without_snippet() {
        Error::UnknownAnchor { .. } => (
            "what begins with `*` is an alias, and there is no such anchor".to_owned(),
            Some("put a pattern in quotes: \"*.example.com\""),
        ),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map(|key| format!(" {}", shown(key))).unwrap_or_default();
            (format!("duplicate key{key}"), Some("leave one of the two"))
        }
        Error::MergeKeyNotAllowed { .. } => {
            ("merge keys (`<<`) are not read".to_owned(), Some("write the keys where they belong"))
        }
        Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            ("a second document begins here".to_owned(), Some("a policy is one document; several are several files"))
        }
        Error::Budget { .. } => {
            ("the file is larger than a policy may be: too many elements, aliases or levels".to_owned(), None)
        }
        other => {
            // Without the position it appends; diagnostics carry their own.
            let text = other.to_string();
            let line = text.lines().next().unwrap_or_default();
            (line.split(" at line ").next().unwrap_or(line).trim_start_matches("error: ").to_owned(), None)
        }
    }
}

fn position(location: serde_saphyr::Location) -> Position {
    let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: clamp(location.line()), column: clamp(location.column()) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(d)?;
        Ok(Self { at: position(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(d)?;
        Ok(Self { at: position(spanned.referenced), text: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(Self)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v))
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Value, E> {
        i64::try_from(v).map(Value::Int).map_err(|_| E::custom("a number larger than anything here can be"))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::Text(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        while let Some(key) = map.next_key::<Key>()? {
            if key.text.len() > 1024 {
                return Err(A::Error::custom("a key longer than 1,024 characters"));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Node, Rejected> {
        parse(&Source::new("p.yaml", text))
    }

    fn refused(text: &str) -> String {
        parsed(text).unwrap_err().to_string()
    }

    #[test]
    fn positions() {
        let node = parsed("a:\n  b: [x, 'y']\n").unwrap();
        let Value::Map(top) = &node.value else { panic!("{node:?}") };
        let (key, inner) = &top[0];
        assert_eq!((key.at.line, key.at.column), (1, 1));
        let Value::Map(inner) = &inner.value else { panic!("{inner:?}") };
        assert_eq!((inner[0].0.at.line, inner[0].0.at.column), (2, 3));
        let Value::List(items) = &inner[0].1.value else { panic!("{inner:?}") };
        assert_eq!((items[1].at.line, items[1].at.column), (2, 10));
    }

    #[test]
    fn scalars_are_what_yaml_1_2_says() {
        let node = parsed("[no, on, 443, 1.5, true, 0755, 1_000, 1:30, ~, \"443\", 0x10]").unwrap();
        let Value::List(items) = node.value else { panic!() };
        let shown: Vec<String> = items.iter().map(|n| format!("{:?}", n.value)).collect();
        let want = [
            "Text(\"no\")",
            "Text(\"on\")",
            "Int(443)",
            "Float(1.5)",
            "Bool(true)",
            "Text(\"0755\")",
            "Text(\"1_000\")",
            "Text(\"1:30\")",
            "Null",
            "Text(\"443\")",
            "Int(16)",
        ];
        assert_eq!(shown, want);
    }

    #[test]
    fn broken_yaml_is_refused_with_its_place() {
        for (text, part) in [
            ("a: [1, 2", "p.yaml:"),
            ("a: 1\na: 2\n", "p.yaml:2:1: not valid YAML: duplicate key `a`\n  help: leave one"),
            ("a: 1\n---\nb: 2\n", "not valid YAML: a second document begins here\n  help: a policy is one document"),
            ("a: [*.example.com]\n", "p.yaml:1:5: not valid YAML: what begins with `*` is an alias"),
            ("a: *nowhere\n", "  help: put a pattern in quotes: \"*.example.com\""),
            ("a: !exec x\n", "p.yaml:1:"),
            ("x: &x {a: 1}\ny:\n  <<: *x\n", "p.yaml:3:3: not valid YAML: merge keys (`<<`) are not read"),
            ("a:\tb\n\tc: d", "p.yaml:"),
        ] {
            let text = refused(text);
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn bombs_end_within_a_bound() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x]\n");
        for i in 1..8 {
            let prev = format!("*a{}", i - 1);
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", [prev.as_str(); 8].join(", ")));
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let wide = format!("a: [{}]", "1,".repeat(1_600_000));
        let large = format!("a: {}", "x".repeat(10 << 20));
        for text in [bomb, deep, wide, large] {
            let begun = std::time::Instant::now();
            assert!(refused(&text).len() < 400);
            assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
        }
    }
}
