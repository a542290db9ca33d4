//! What is wrong with a policy: where, what, and what to write instead.

use std::fmt;

use serde::Serialize;
use stockade_types::Escaped;

/// Diagnostics kept per load; the rest is counted. A hostile file cannot make the report grow.
const MAX_KEPT: usize = 50;

/// A named text: a policy file, a Rego module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name shown in diagnostics, normally the path as the operator wrote it.
    pub name: String,
    /// The text.
    pub text: String,
}

impl Source {
    /// A source from its name and text.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

/// A place in a source, counted from 1; 0 where the place is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The source's name.
    pub file: String,
    /// Line, from 1; 0 where the whole file is meant.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// The key (`network.endpoints.github.ports[0]`); empty where the file as a whole is meant.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.path.is_empty() {
            write!(f, " (at {})", self.path)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// A policy or module that was refused, with everything found wrong in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Rejected(pub Vec<Diagnostic>);

impl Rejected {
    /// A rejection for one reason.
    #[must_use]
    pub fn one(file: &str, position: Position, message: impl Into<String>, help: Option<String>) -> Self {
        Self(vec![Diagnostic {
            file: file.to_owned(),
            line: position.line,
            column: position.column,
            path: String::new(),
            message: message.into(),
            help,
        }])
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            d.fmt(f)?;
        }
        Ok(())
    }
}

/// Collects diagnostics while a source is read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    found: Vec<Diagnostic>,
    dropped: usize,
}

impl Report {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < MAX_KEPT {
            self.found.push(diagnostic);
        } else {
            self.dropped += 1;
        }
    }

    pub(crate) fn extend(&mut self, Rejected(all): Rejected) {
        all.into_iter().for_each(|d| self.push(d));
    }

    /// Whether nothing more need be looked for: enough is wrong already.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MAX_KEPT
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The value, if nothing is wrong.
    pub(crate) fn finish<T>(mut self, value: T) -> Result<T, Rejected> {
        if self.found.is_empty() {
            return Ok(value);
        }
        self.found.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        if self.dropped > 0 {
            let file = self.found.first().map(|d| d.file.clone()).unwrap_or_default();
            self.found.push(Diagnostic {
                file,
                line: 0,
                column: 0,
                path: String::new(),
                message: format!("{} more errors are not shown", self.dropped),
                help: None,
            });
        }
        Err(Rejected(self.found))
    }
}

/// Shows text from a source in a message: quoted, escaped, cut.
pub(crate) fn shown(text: &str) -> String {
    const MAX: usize = 80;
    let cut: String = text.chars().take(MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", Escaped(&cut))
}

/// The known word nearest to what was written, if it is near enough to be meant.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer text is never a slip of a known word.
    const MAX_WORD: usize = 64;
    if written.len() > MAX_WORD {
        return None;
    }
    let fold = |text: &str| text.to_lowercase().replace('-', "_");
    let folded = fold(written);
    let letters: Vec<char> = folded.chars().collect();
    known
        .into_iter()
        .filter(|k| k.len() <= MAX_WORD)
        .map(|k| {
            let word = fold(k);
            let begun = folded.len() >= 3 && word.starts_with(&folded);
            (if begun { 1 } else { distance(&letters, &word.chars().collect::<Vec<_>>()) }, k)
        })
        .filter(|(d, k)| *d <= (k.len() / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
pub(crate) fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let get = |v: &[usize], at: usize| v.get(at).copied().unwrap_or(usize::MAX / 2);
            let mut best = (get(&last, j) + usize::from(ca != cb)).min(get(&last, j + 1) + 1).min(get(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(get(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word() {
        let known = ["hosts", "ports", "protocol", "private_addresses"];
        for (written, want) in [
            ("host", Some("hosts")),
            ("prot", Some("protocol")),
            ("protocl", Some("protocol")),
            ("private-addresses", Some("private_addresses")),
            ("HOSTS", Some("hosts")),
            ("hsots", Some("hosts")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), want, "{written}");
        }
        assert_eq!(nearest(&"h".repeat(100_000), known), None);
    }

    #[test]
    fn display_has_place_path_and_help() {
        let d = Diagnostic {
            file: "policy.yaml".into(),
            line: 6,
            column: 5,
            path: "network.endpoints.x".into(),
            message: "unknown key `prot`".into(),
            help: Some("did you mean `ports`?".into()),
        };
        let text = "policy.yaml:6:5: unknown key `prot` (at network.endpoints.x)\n  help: did you mean `ports`?";
        assert_eq!(d.to_string(), text);
    }

    #[test]
    fn report_is_bounded() {
        let mut report = Report::default();
        for line in 0..1_000 {
            let Rejected(mut one) = Rejected::one("f", Position { line, column: 1 }, "m", None);
            report.push(one.remove(0));
        }
        let Rejected(all) = report.finish(()).unwrap_err();
        assert_eq!(all.len(), MAX_KEPT + 1);
        assert_eq!(all.last().unwrap().message, "950 more errors are not shown");
    }

    #[test]
    fn shown_text_cannot_steer_a_terminal() {
        assert_eq!(shown("a\x1b[2J"), "`a\\u{1b}[2J`");
        assert!(shown(&"x".repeat(1_000)).chars().count() < 100);
    }
}
