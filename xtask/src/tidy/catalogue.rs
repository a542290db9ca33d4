//! `tests/catalogue.toml` has a truthful row for every id of the security catalogue.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Finding, line_of, tests_index};
use crate::sources::Sources;

const FILE: &str = "tests/catalogue.toml";
/// The ids and their priorities, so that no row can be lost from the file above.
const IDS: &str = "tests/catalogue-ids.txt";

/// What a machine may lack, and a P0 row may be skipped for.
const MACHINE: [&str; 4] = ["docker", "gpu", "apparmor", "aarch64"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    priority: String,
    tries: String,
    must: String,
    test: Option<Vec<String>>,
    due: Option<String>,
    later: Option<String>,
    skip: Option<String>,
}

impl Row {
    fn states(&self) -> Vec<&'static str> {
        let states = [
            ("test", self.test.is_some()),
            ("due", self.due.is_some()),
            ("later", self.later.is_some()),
            ("skip", self.skip.is_some()),
        ];
        states.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
    }

    fn texts(&self) -> impl Iterator<Item = &String> {
        [&self.due, &self.later, &self.skip].into_iter().flatten().chain([&self.tries, &self.must])
    }
}

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let (text, ids) = match (sources.text(FILE), sources.text(IDS)) {
        (Ok(text), Ok(ids)) => (text, ids),
        (Err(e), _) => return vec![Finding::error(FILE, 1, e.to_string())],
        (_, Err(e)) => return vec![Finding::error(IDS, 1, e.to_string())],
    };
    rows(&text, &ids, &tests_index::names(sources))
}

/// How many rows are in which state, for the last line of `tidy`.
pub(super) fn summary(sources: &Sources) -> String {
    let rows: BTreeMap<String, Row> = match sources.text(FILE).map(|text| toml::from_str(&text)) {
        Ok(Ok(rows)) => rows,
        _ => return "no catalogue".to_owned(),
    };
    let count =
        |state, p0: bool| rows.values().filter(|r| r.states() == [state] && (!p0 || r.priority == "P0")).count();
    let states = ["test", "due", "later", "skip"].map(|s| format!("{s} {} (P0 {})", count(s, false), count(s, true)));
    format!("security catalogue, {} rows: {}", rows.len(), states.join(", "))
}

fn rows(text: &str, ids: &str, tests: &BTreeSet<String>) -> Vec<Finding> {
    let rows: BTreeMap<String, Row> = match toml::from_str(text) {
        Ok(rows) => rows,
        Err(e) => return vec![Finding::error(FILE, 1, e.to_string())],
    };
    let mut known = BTreeMap::new();
    let mut findings = Vec::new();
    for (index, line) in ids.lines().enumerate() {
        match line.split_once(' ') {
            Some((id, priority)) => drop(known.insert(id, priority)),
            None => findings.push(Finding::error(IDS, index + 1, "expected an id and a priority")),
        }
    }
    for (id, priority) in &known {
        match rows.get(*id) {
            None => findings.push(Finding::error(FILE, 1, format!("no row for {id}"))),
            Some(row) => {
                let line = line_of(text, &format!("[{id}]"));
                let problems = problems(row, priority, tests);
                findings.extend(problems.into_iter().map(|p| Finding::error(FILE, line, format!("{id}: {p}"))));
            }
        }
    }
    let unknown = rows.keys().filter(|id| !known.contains_key(id.as_str()));
    findings.extend(
        unknown.map(|id| Finding::error(FILE, line_of(text, &format!("[{id}]")), format!("{id} is not in {IDS}"))),
    );
    findings
}

fn problems(row: &Row, priority: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut problems = Vec::new();
    if row.priority != priority {
        problems.push(format!("priority {} here, {priority} in {IDS}", row.priority));
    }
    if row.states().len() != 1 {
        problems.push(format!("needs exactly one of test, due, later, skip; has {:?}", row.states()));
    }
    if row.texts().any(|t| t.trim().is_empty()) || row.test.as_ref().is_some_and(Vec::is_empty) {
        problems.push("an empty value says nothing".to_owned());
    }
    for name in row.test.iter().flatten().filter(|name| !tests.contains(*name)) {
        let end = format!("::{}", name.rsplit("::").next().unwrap_or(name));
        let near: Vec<_> = tests.iter().filter(|t| t.ends_with(&end)).cloned().collect();
        let hint = if near.is_empty() { String::new() } else { format!("; there is {}", near.join(", ")) };
        problems.push(format!("no test is called `{name}`{hint}"));
    }
    let reason = row.skip.as_deref().and_then(|s| s.split(':').next());
    if priority == "P0" && reason.is_some_and(|r| !MACHINE.contains(&r)) {
        problems.push(format!("P0 may be skipped only as `{}: …`", MACHINE.join(": …`, `")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &str = "NET-01 P0\nNET-12 P1\n";
    const GOOD: &str = "[NET-01]\npriority = \"P0\"\ntries = 'x'\nmust = 'y'\ntest = ['kernel::net::refused']\n\
                        [NET-12]\npriority = \"P1\"\ntries = 'x'\nmust = 'y'\nlater = 'SSH'\n";

    fn found(text: &str) -> Vec<String> {
        super::super::texts(&rows(text, IDS, &BTreeSet::from(["kernel::net::refused".to_owned()])))
    }

    #[test]
    fn a_complete_catalogue_passes() {
        assert_eq!(found(GOOD), [""; 0]);
    }

    #[test]
    fn missing_and_unknown_ids_are_found() {
        let (first, _) = GOOD.split_at(GOOD.find("[NET-12]").unwrap());
        assert_eq!(found(first), ["tests/catalogue.toml:1: no row for NET-12"]);
        let more = format!("{GOOD}[NET-99]\npriority = 'P1'\ntries = 'x'\nmust = 'y'\ndue = 'z'\n");
        assert_eq!(found(&more), ["tests/catalogue.toml:11: NET-99 is not in tests/catalogue-ids.txt"]);
    }

    #[test]
    fn a_test_that_does_not_exist_is_found_with_a_hint() {
        let found = found(&GOOD.replace("kernel::net::refused", "e2e::net::refused"));
        assert_eq!(
            found,
            ["tests/catalogue.toml:1: NET-01: no test is called `e2e::net::refused`; there is kernel::net::refused"]
        );
    }

    #[test]
    fn a_row_has_one_state_with_a_text_and_the_right_priority() {
        assert_eq!(found(&GOOD.replace("later = 'SSH'", "later = 'SSH'\ndue = 'x'")).len(), 1);
        assert_eq!(found(&GOOD.replace("later = 'SSH'", "")).len(), 1);
        assert_eq!(found(&GOOD.replace("later = 'SSH'", "later = ' '")).len(), 1);
        assert_eq!(found(&GOOD.replace("['kernel::net::refused']", "[]")).len(), 1);
        assert_eq!(found(&GOOD.replace("\"P1\"", "\"P0\"")).len(), 1);
        assert!(found(&GOOD.replace("later", "latter"))[0].contains("unknown field"));
    }

    #[test]
    fn p0_is_skipped_only_for_the_machine() {
        let skipped = |why: &str| GOOD.replace("test = ['kernel::net::refused']", &format!("skip = '{why}'"));
        assert_eq!(found(&skipped("no time")).len(), 1);
        assert_eq!(found(&skipped("gpu: none here")), [""; 0]);
    }
}
