//! Every crate root forbids unsafe code, but that of `sys`; no file is called `mod.rs`.

use super::Finding;
use crate::sources::Sources;

const FORBID: &str = "#![forbid(unsafe_code)]";

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in sources.ending(".rs") {
        if file.ends_with("/mod.rs") {
            findings.push(Finding::error(
                file,
                1,
                "name it after its module and put it beside the folder, not `mod.rs`",
            ));
        }
        if !is_root(file) || file.starts_with("crates/sys/") {
            continue;
        }
        match sources.text(file) {
            Ok(text) if text.lines().any(|l| l.trim() == FORBID) => {}
            Ok(_) => findings.push(Finding::error(file, 1, format!("a crate root without {FORBID}"))),
            Err(e) => findings.push(Finding::error(file, 1, e.to_string())),
        }
    }
    findings
}

/// `lib.rs`, `main.rs`, programs, examples and build scripts of the product and of this tool.
fn is_root(file: &str) -> bool {
    let parts: Vec<&str> = file.split('/').collect();
    let inner = match parts[..] {
        ["crates", _, ref rest @ ..] | ["xtask", ref rest @ ..] => rest,
        _ => return false,
    };
    matches!(inner, ["src", "lib.rs" | "main.rs"] | ["src", "bin", _] | ["examples", _] | ["build.rs"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_must_forbid_unsafe_code_and_sys_is_excepted() {
        let (sources, _dir) = Sources::made_of(&[
            ("crates/a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\n"),
            ("crates/b/src/lib.rs", "//! B.\n"),
            ("crates/b/src/bin/tool.rs", "fn main() {}\n"),
            ("crates/b/src/inner.rs", ""),
            ("crates/sys/src/lib.rs", ""),
            ("xtask/src/main.rs", "// #![forbid(unsafe_code)]\n"),
        ]);
        let files: Vec<_> = check(&sources).into_iter().map(|f| f.file).collect();
        assert_eq!(files, ["crates/b/src/lib.rs", "crates/b/src/bin/tool.rs", "xtask/src/main.rs"]);
    }

    #[test]
    fn mod_rs_is_refused() {
        let (sources, _dir) = Sources::made_of(&[("tests/e2e/src/web/mod.rs", ""), ("crates/a/src/web.rs", "")]);
        assert_eq!(check(&sources).len(), 1);
    }
}
