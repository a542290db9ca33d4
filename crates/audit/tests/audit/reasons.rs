//! The reason codes in docs/audit.md are those of the program, with the same words.

use std::{collections::BTreeSet, fs, path::Path};

use stockade_types::Reason;

#[test]
fn the_manual_lists_every_reason_code_and_no_other() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/audit.md");
    let text = fs::read_to_string(&manual).unwrap();
    let section = text.split("## Reason codes").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: Vec<_> = rows.collect();
    let codes: BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), codes);
    assert_eq!(listed.len(), codes.len(), "a code is listed twice");
}
