//! `docs/status.md` has one row with a known state for every promise.

use std::collections::BTreeMap;

use super::Finding;
use crate::sources::Sources;

const FILE: &str = "docs/status.md";

/// Letter and last number of each group of promises.
const GROUPS: [(char, u8); 6] = [('W', 10), ('D', 12), ('S', 7), ('G', 9), ('C', 4), ('P', 3)];

const STATES: [&str; 4] = ["not yet", "partly", "built", "seen working"];

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    match sources.text(FILE) {
        Ok(text) => rows(&text),
        Err(e) => vec![Finding::error(FILE, 1, format!("{e}: it says how far each promise is kept"))],
    }
}

fn rows(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", id, _what, state, _evidence, ..] = cells[..] else { continue };
        if !ids().any(|i| i == id) {
            continue;
        }
        if !STATES.contains(&state) {
            let text = format!("{id}: unknown state `{state}`, expected one of: {}", STATES.join(", "));
            findings.push(Finding::error(FILE, index + 1, text));
        }
        if let Some(first) = seen.insert(id, index + 1) {
            findings.push(Finding::error(FILE, index + 1, format!("{id} is on line {first} already")));
        }
    }
    let missing = ids().filter(|id| !seen.contains_key(id.as_str()));
    findings.extend(missing.map(|id| Finding::error(FILE, 1, format!("no row for {id}"))));
    findings
}

fn ids() -> impl Iterator<Item = String> {
    GROUPS.into_iter().flat_map(|(letter, last)| (1..=last).map(move |n| format!("{letter}{n}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(skip: &str) -> String {
        ids().filter(|id| id != skip).map(|id| format!("| {id} | what | built | where |\n")).collect()
    }

    #[test]
    fn all_promises_have_a_row() {
        assert_eq!(rows(&table("")), []);
        assert_eq!(ids().count(), 45);
        assert_eq!(super::super::texts(&rows(&table("G9"))), ["docs/status.md:1: no row for G9"]);
    }

    #[test]
    fn unknown_states_and_second_rows_are_found() {
        let found = rows(&table("").replacen("| built |", "| nearly |", 1));
        assert!(found[0].text.contains("unknown state `nearly`") && found[0].line == 1);
        let found = rows(&format!("{}| W1 | again | built | x |\n", table("")));
        assert_eq!(super::super::texts(&found), ["docs/status.md:46: W1 is on line 1 already"]);
    }
}
