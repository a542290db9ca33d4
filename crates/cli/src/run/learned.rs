//! What came of learning: the last lines of `learn`.

use std::path::Path;

use stockade_policy::Written;

/// Rows that are shown.
const SHOWN: usize = 10;

pub(super) fn lines(output: &Path, written: &Written) -> Vec<String> {
    let path = output.display();
    let mut lines = vec![match (written.endpoints, written.beside) {
        (0, false) => format!("stockade: nothing was learned: the policy in {path} allows nothing"),
        (0, true) => format!("stockade: nothing was learned that the policy does not have already, see {path}"),
        (_, false) => format!("stockade: the policy that allows what was seen is in {path}"),
        (_, true) => format!("stockade: what the policy lacked is in {path}; use both, its first lines say why"),
    }];
    if written.unlearned.is_empty() {
        return lines;
    }
    lines.push("stockade: refused or failed while learning:".to_owned());
    lines.extend(written.unlearned.iter().take(SHOWN).map(|kind| format!("  {kind}")));
    if written.unlearned.len() > SHOWN {
        lines.push(format!("  and {} more, in comments of the policy", written.unlearned.len() - SHOWN));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_policy::{Learned, Unlearned};

    fn shown(written: &Written) -> String {
        lines(Path::new("p.yaml"), written).join("\n")
    }

    #[test]
    fn what_was_refused_is_told() {
        let mut written = Learned::new().written();
        assert_eq!(shown(&written), "stockade: nothing was learned: the policy in p.yaml allows nothing");
        let kind = |n: usize| Unlearned { count: 1, place: format!("h{n}.test:1"), reason: None, detail: "\n".into() };
        written.unlearned = (0..SHOWN + 2).map(kind).collect();
        written.endpoints = 1;
        let text = shown(&written);
        assert!(text.starts_with("stockade: the policy that allows what was seen is in p.yaml\n"), "{text}");
        assert!(text.contains("\n  1 × h9.test:1: \\u{a}\n  and 2 more, in comments"), "{text}");
    }
}
