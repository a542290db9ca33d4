//! Every Rego module and table below `policies/` is used by some source: a rule nobody loads protects nothing.

use super::Finding;
use crate::sources::Sources;

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let code: String = sources.ending(".rs").filter_map(|f| sources.text(f).ok()).collect();
    let data = sources.files().filter(|f| f.starts_with("policies/"));
    let unused = data.filter(|file| !code.contains(file) && !is_walked(file));
    unused.map(|file| Finding::error(file, 1, "no source names this file, so nothing loads it")).collect()
}

/// Explanations for people.
fn is_walked(file: &str) -> bool {
    file.ends_with(".md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_nothing_loads_are_found() {
        let (sources, _dir) = Sources::made_of(&[
            ("policies/base/used.rego", ""),
            ("policies/base/README.md", ""),
            ("policies/seccomp/forgotten.toml", ""),
            ("crates/policy/src/rego.rs", "include_str!(\"../../../policies/base/used.rego\")"),
        ]);
        let files: Vec<_> = check(&sources).into_iter().map(|f| f.file).collect();
        assert_eq!(files, ["policies/seccomp/forgotten.toml"]);
    }
}
