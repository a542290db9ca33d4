//! Reading maps, lists and words of the tree, reporting everything that does not belong.

use std::fmt;

use crate::{
    availability::Feature,
    diagnostic::{Diagnostic, Position, Report, nearest, shown},
    yaml::{Key, Node, Value},
};

/// The way from the root to a node, kept on the stack and written out only in a message.
#[derive(Clone, Copy)]
pub(crate) enum Trail<'t> {
    Root,
    Key(&'t Trail<'t>, &'t str),
    Item(&'t Trail<'t>, usize),
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => write!(f, "{}", stockade_types::Escaped(key)),
            Self::Key(up, key) => write!(f, "{up}.{}", stockade_types::Escaped(key)),
            Self::Item(up, at) => write!(f, "{up}[{at}]"),
        }
    }
}

/// Reads one source.
pub(crate) struct Reader<'r> {
    pub(crate) file: &'r str,
    pub(crate) report: &'r mut Report,
}

impl Reader<'_> {
    /// Reports something wrong at a node.
    pub(crate) fn error(&mut self, trail: &Trail<'_>, at: Position, message: impl Into<String>, help: Option<String>) {
        self.report.push(Diagnostic {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            path: trail.to_string(),
            message: message.into(),
            help,
        });
    }

    /// Reports a key whose feature is not there. It is validated all the same, and never ignored.
    pub(crate) fn unavailable(&mut self, trail: &Trail<'_>, at: Position, what: &str, help: Option<&str>) {
        self.error(trail, at, format!("{what}: not available yet"), help.map(str::to_owned));
    }

    /// Reports a feature that is not available, where it is not.
    pub(crate) fn gate(&mut self, feature: Feature, trail: &Trail<'_>, at: Position, what: &str) {
        if !feature.available() {
            self.unavailable(trail, at, what, None);
        }
    }

    fn expected(&mut self, trail: &Trail<'_>, node: &Node, what: &str) {
        self.error(trail, node.at, format!("expected {what}, found {}", node.value.kind()), None);
    }

    /// The fields of a map, after reporting the unknown ones. An empty value counts as an empty map.
    pub(crate) fn fields<'n>(&mut self, trail: &Trail<'_>, node: &'n Node, known: &[&str]) -> Option<Fields<'n>> {
        let entries = self.map(trail, node)?;
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let help = match nearest(&key.text, known.iter().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.error(trail, key.at, format!("unknown key {}", shown(&key.text)), Some(help));
        }
        Some(Fields { entries })
    }

    /// The entries of a map whose keys are free.
    pub(crate) fn map<'n>(&mut self, trail: &Trail<'_>, node: &'n Node) -> Option<&'n [(Key, Node)]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(&[]),
            _ => {
                self.expected(trail, node, "a map");
                None
            }
        }
    }

    /// The items of a list.
    pub(crate) fn list<'n>(&mut self, trail: &Trail<'_>, node: &'n Node) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => {
                self.expected(trail, node, "a list (`[a, b]`)");
                &[]
            }
        }
    }

    /// A list whose items are read one by one; those that are wrong are reported and left out.
    pub(crate) fn each<T>(
        &mut self,
        trail: &Trail<'_>,
        node: &Node,
        mut read: impl FnMut(&mut Self, &Trail<'_>, &Node) -> Option<T>,
    ) -> Vec<T> {
        let items = self.list(trail, node);
        items.iter().enumerate().filter_map(|(i, item)| read(self, &Trail::Item(trail, i), item)).collect()
    }

    /// Text. A bare number or word that YAML reads otherwise is reported, not guessed at.
    pub(crate) fn text<'n>(&mut self, trail: &Trail<'_>, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let message = format!("expected text, found {}", node.value.kind());
                self.error(trail, node.at, message, Some("put it in quotes".to_owned()));
                None
            }
            Value::Null | Value::List(_) | Value::Map(_) => {
                self.expected(trail, node, "text");
                None
            }
        }
    }

    /// Text that `parse` accepts.
    pub(crate) fn parsed<T>(
        &mut self,
        trail: &Trail<'_>,
        node: &Node,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(trail, node)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.error(trail, node.at, format!("{}: {why}", shown(text)), None);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, trail: &Trail<'_>, node: &Node) -> Option<bool> {
        match node.value {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.expected(trail, node, "true or false");
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number(
        &mut self,
        trail: &Trail<'_>,
        node: &Node,
        bounds: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        match node.value {
            Value::Int(n) if bounds.contains(&n) => Some(n),
            _ => {
                let found = match node.value {
                    Value::Int(n) => n.to_string(),
                    _ => node.value.kind().to_owned(),
                };
                let message = format!("expected a number from {} to {}, found {found}", bounds.start(), bounds.end());
                self.error(trail, node.at, message, None);
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        trail: &Trail<'_>,
        node: &Node,
        what: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(trail, node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known = words.iter().map(|(word, _)| *word);
        let help = match nearest(text, known.clone()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("one of {}", known.collect::<Vec<_>>().join(", ")),
        };
        self.error(trail, node.at, format!("unknown {what} {}", shown(text)), Some(help));
        None
    }

    /// A name that the operator gives to something.
    pub(crate) fn name(&mut self, trail: &Trail<'_>, key: &Key) -> Option<String> {
        let fits = !key.text.is_empty()
            && key.text.len() <= 64
            && key.text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if fits {
            return Some(key.text.clone());
        }
        let help = "letters, digits, `-`, `_` and `.`, at most 64";
        self.error(trail, key.at, format!("{} is not a name", shown(&key.text)), Some(help.to_owned()));
        None
    }
}

/// The fields of one map.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n> {
    entries: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    /// The value of a key.
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// The key and the value.
    pub(crate) fn entry(&self, name: &str) -> Option<(&'n Key, &'n Node)> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(key, node)| (key, node))
    }
}

/// Whether a value says nothing: absent elements, so that nothing is asked for.
pub(crate) fn says_nothing(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => false,
    }
}
