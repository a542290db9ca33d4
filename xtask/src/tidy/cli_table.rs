//! The command table of `docs/cli.md` is the program's own list of commands.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use super::Finding;
use crate::sources::Sources;

const FILE: &str = "docs/cli.md";

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    if !sources.has(FILE) {
        return Vec::new();
    }
    let text = match sources.text(FILE) {
        Ok(text) => text,
        Err(e) => return vec![Finding::error(FILE, 1, e.to_string())],
    };
    let Some(program) = program(sources) else {
        return vec![Finding::error(FILE, 1, "the program cannot be built".to_owned())];
    };
    let help = |words: &[String]| {
        let out = Command::new(&program).args(words).arg("--help").output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    };
    match leaves(&help, &[]) {
        Ok(commands) => compare(&text, &commands),
        Err(e) => vec![Finding::error(FILE, 1, format!("asking the program for its commands: {e}"))],
    }
}

/// The program: the one that is named, where it was built for tests and they have other features, else built now.
fn program(sources: &Sources) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("STOCKADE_PROGRAM") {
        return Some(named.into());
    }
    // The whole workspace, as everything else builds it: a package alone has other features and is compiled anew.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--bins"])
        .current_dir(sources.root())
        .status();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| sources.root().join("target"), PathBuf::from);
    built.is_ok_and(|status| status.success()).then(|| target.join("debug/stockade"))
}

/// All commands without commands below them, as `audit verify`.
fn leaves(help: &impl Fn(&[String]) -> Result<String, String>, words: &[String]) -> Result<BTreeSet<String>, String> {
    let below = commands(&help(words)?);
    if below.is_empty() {
        return Ok(BTreeSet::from([words.join(" ")]));
    }
    let mut all = BTreeSet::new();
    for name in below {
        all.extend(leaves(help, &[words, &[name]].concat())?);
    }
    Ok(all)
}

/// The names below `Commands:` in a help text. `help` is in every program and not listed.
fn commands(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    // Names are indented by two; what wraps is indented further.
    let names = section.filter_map(|l| l.strip_prefix("  ").filter(|l| !l.starts_with(' '))?.split_whitespace().next());
    names.filter(|n| *n != "help").map(str::to_owned).collect()
}

/// Rows of the table start with `stockade …` in backticks; `a \| b` lists commands of one group.
fn compare(text: &str, commands: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut listed = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        for command in row(line) {
            if !commands.contains(&command) {
                findings.push(Finding::error(FILE, index + 1, format!("the program has no command `{command}`")));
            }
            listed.insert(command);
        }
    }
    let missing = commands.difference(&listed);
    findings.extend(missing.map(|c| Finding::error(FILE, 1, format!("the table does not list `stockade {c}`"))));
    findings
}

fn row(line: &str) -> Vec<String> {
    let Some(rest) = line.strip_prefix("| `stockade ") else { return Vec::new() };
    let cell = rest.split('`').next().unwrap_or_default();
    let mut group: Vec<&str> = Vec::new();
    let mut all = Vec::new();
    for part in cell.split("\\|").map(str::trim) {
        // Options and placeholders end a command's words.
        let is_word = |w: &&str| w.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !w.starts_with('-');
        let words: Vec<&str> = part.split(' ').take_while(is_word).collect();
        if let [before @ .., _] = &words[..]
            && !before.is_empty()
        {
            group = before.to_vec();
        }
        let last = words.last().copied().unwrap_or_default();
        all.push(group.iter().copied().chain([last]).collect::<Vec<_>>().join(" "));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "Usage: stockade\n\nCommands:\n  run    Wraps\n         a command\n  audit  Reads\n  help   Print\n\n\
                       Options:\n  -h, --help\n";
    const AUDIT: &str = "Commands:\n  tail\n  verify\n\n";

    fn said(words: &[String]) -> Result<String, String> {
        Ok(match words {
            [] => TOP,
            [one] if one == "audit" => AUDIT,
            _ => "Usage: leaf\n",
        }
        .to_owned())
    }

    #[test]
    fn the_help_texts_give_the_commands() {
        let all: Vec<_> = leaves(&said, &[]).unwrap().into_iter().collect();
        assert_eq!(all, ["audit tail", "audit verify", "run"]);
    }

    #[test]
    fn tables_are_compared_both_ways() {
        let commands = leaves(&said, &[]).unwrap();
        let good = "| command | does |\n| `stockade run [options] -- CMD…` | wraps |\n\
                    | `stockade audit tail \\| verify` | reads |\n";
        assert_eq!(compare(good, &commands), []);
        let short = super::super::texts(&compare(&good.replace(" \\| verify", ""), &commands));
        assert_eq!(short, ["docs/cli.md:1: the table does not list `stockade audit verify`"]);
        let long = super::super::texts(&compare(&good.replace("verify", "verify \\| erase"), &commands));
        assert_eq!(long, ["docs/cli.md:3: the program has no command `audit erase`"]);
    }
}
