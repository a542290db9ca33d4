//! Which crate may use which: the table of ARCHITECTURE.md.

use toml::{Table, Value};

use super::{Finding, line_of};
use crate::sources::Sources;

/// From, to. `types` holds the words everybody shares and may be used by all; `testkit` may be used by tests only.
/// The rows of crates that do not exist yet are here so that they start out right.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("audit", &[]),
    ("l7", &[]),
    ("policy", &["l7"]),
    ("wire", &["policy", "audit"]),
    ("sys", &[]),
    ("confine", &["sys", "policy"]),
    ("tls", &[]),
    ("secrets", &["policy"]),
    ("egress", &["sys", "policy", "l7", "tls", "secrets", "audit"]),
    ("inference", &["egress", "secrets", "audit"]),
    ("ssh", &["audit"]),
    ("telemetry", &["audit"]),
    ("store", &["policy"]),
    ("compute", &[]),
    ("scan", &[]),
    (
        "supervisor",
        &[
            "policy",
            "audit",
            "l7",
            "wire",
            "sys",
            "confine",
            "tls",
            "secrets",
            "egress",
            "inference",
            "ssh",
            "telemetry",
            "scan",
        ],
    ),
    ("gateway", &["store", "compute", "secrets", "policy", "wire", "audit"]),
    // audit: `stockade audit`; confine: `stockade doctor` (docs/decisions/0002-crates.md); ssh: the SFTP server that runs
    // inside (docs/decisions/0019-sftp-inside.md).
    ("cli", &["supervisor", "policy", "scan", "wire", "audit", "confine", "ssh"]),
    ("testkit", &["sys"]),
];

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let manifests = sources.ending("Cargo.toml").filter(|f| f.starts_with("crates/") || f.starts_with("xtask/"));
    manifests
        .flat_map(|file| match sources.text(file) {
            Ok(text) => manifest(file, &text),
            Err(e) => vec![Finding::error(file, 1, e.to_string())],
        })
        .collect()
}

fn manifest(file: &str, text: &str) -> Vec<Finding> {
    let name = file.split('/').rev().nth(1).unwrap_or_default();
    let table: Table = match text.parse() {
        Ok(table) => table,
        Err(e) => return vec![Finding::error(file, 1, format!("not TOML: {e}"))],
    };
    let Some(allowed) = allowed(name) else {
        return vec![Finding::error(
            file,
            1,
            format!("crate `{name}` is not in the table of xtask/src/tidy/arrows.rs"),
        )];
    };
    let mut findings = Vec::new();
    for (section, in_tests) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)] {
        for to in ours(table.get(section)) {
            let ok = to == "types" && name != "xtask" || allowed.contains(&to) || in_tests && to == "testkit";
            if !ok {
                let text_line = line_of(text, &format!("stockade-{to}"));
                findings.push(Finding::error(file, text_line, format!("`{name}` may not use `{to}` ({section})")));
            }
        }
    }
    findings
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    if name == "xtask" {
        return Some(&[]);
    }
    ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

/// The workspace's own packages among the keys, without their prefix.
fn ours(section: Option<&Value>) -> impl Iterator<Item = &str> {
    section.and_then(Value::as_table).into_iter().flat_map(Table::keys).filter_map(|k| k.strip_prefix("stockade-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(file: &str, deps: &str) -> Vec<String> {
        super::super::texts(&manifest(file, deps))
    }

    #[test]
    fn listed_arrows_and_types_pass() {
        let deps = "[dependencies]\nstockade-types.workspace = true\nstockade-sys.workspace = true\nserde = \"1\"\n\
                    [dev-dependencies]\nstockade-testkit.workspace = true\n";
        assert_eq!(findings("crates/egress/Cargo.toml", deps), [""; 0]);
    }

    #[test]
    fn other_arrows_fail_with_their_line() {
        let deps = "[dependencies]\nserde = \"1\"\nstockade-confine.workspace = true\n";
        assert_eq!(
            findings("crates/egress/Cargo.toml", deps),
            ["crates/egress/Cargo.toml:3: `egress` may not use `confine` (dependencies)"]
        );
        assert_eq!(findings("crates/policy/Cargo.toml", "[dependencies]\nstockade-testkit = { }\n").len(), 1);
        assert_eq!(findings("xtask/Cargo.toml", "[dependencies]\nstockade-types = { }\n").len(), 1);
        assert_eq!(findings("crates/novel/Cargo.toml", "").len(), 1);
    }

    #[test]
    fn the_table_has_no_circle() {
        fn reaches(from: &str, goal: &str) -> bool {
            allowed(from).unwrap().iter().any(|to| *to == goal || reaches(to, goal))
        }
        for (name, _) in ARROWS {
            assert!(!reaches(name, name), "{name} reaches itself");
        }
    }
}
