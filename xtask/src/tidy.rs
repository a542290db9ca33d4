//! `cargo xtask tidy`: each rule is a function from the sources to findings.

mod arrows;
mod catalogue;
mod cli_table;
mod clients;
mod policies;
mod roots;
mod sizes;
mod status;
mod tests_index;
mod words;

use std::{fmt, path::Path, process::ExitCode};

use crate::sources::Sources;

/// Something a rule does not like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    file: String,
    line: usize,
    text: String,
    fatal: bool,
}

impl Finding {
    fn error(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, text: text.into(), fatal: true }
    }

    fn note(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self { fatal: false, ..Self::error(file, line, text) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.fatal { "" } else { "note: " };
        write!(f, "{}:{}: {kind}{}", self.file, self.line, self.text)
    }
}

type Rule = fn(&Sources) -> Vec<Finding>;

const RULES: &[(&str, Rule)] = &[
    ("crate arrows", arrows::check),
    ("crate roots", roots::check),
    ("sizes", sizes::check),
    ("words", words::check),
    ("policies", policies::check),
    ("status", status::check),
    ("catalogue", catalogue::check),
    ("command table", cli_table::check),
    ("client table", clients::check),
];

/// Runs every rule on the checkout that this program was built from.
pub(crate) fn run() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let sources = match Sources::of(root) {
        Ok(sources) => sources,
        Err(e) => {
            eprintln!("tidy: listing the files of {} with git: {e}", root.display());
            return ExitCode::FAILURE;
        }
    };
    let mut errors = 0;
    for (name, rule) in RULES {
        for finding in rule(&sources) {
            println!("{finding} [{name}]");
            errors += usize::from(finding.fatal);
        }
    }
    println!("tidy: {errors} errors; {}", catalogue::summary(&sources));
    if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes the table of clients into its page.
pub(crate) fn write_clients() -> ExitCode {
    match clients::write(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("clients: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The line (counted from 1) of the first occurrence of `needle`, or 1.
fn line_of(text: &str, needle: &str) -> usize {
    text.lines().position(|l| l.contains(needle)).map_or(1, |i| i + 1)
}

#[cfg(test)]
fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
}
