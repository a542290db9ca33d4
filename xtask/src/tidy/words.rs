//! What no file of the project may hold: paths of the machine it was written on, and names of its package mirrors.

use std::{collections::BTreeSet, env, fs, path::Path};

use super::Finding;
use crate::sources::Sources;

/// Folders that exist on one machine only.
const PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Where package tools keep the address of their registry.
const CONFIGS: [&str; 9] = [
    "~/.cargo/config.toml",
    "~/.npmrc",
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
    "/etc/pip.conf",
    "/etc/npmrc",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d/debian.sources",
    "/etc/apt/sources.list.d/ubuntu.sources",
];
const VARIABLES: [&str; 8] = [
    "PIP_INDEX_URL",
    "UV_INDEX_URL",
    "npm_config_registry",
    "NPM_CONFIG_REGISTRY",
    "GOPROXY",
    "HTTPS_PROXY",
    "https_proxy",
    "RUSTUP_DIST_SERVER",
];

/// Names that everybody knows and documentation may use.
const PUBLIC: [&str; 12] = [
    "crates.io",
    "debian.org",
    "ubuntu.com",
    "github.com",
    "golang.org",
    "npmjs.org",
    "pypi.org",
    "pythonhosted.org",
    "rust-lang.org",
    "localhost",
    "127.0.0.1",
    "nodesource.com",
];

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let mirrors = mirrors();
    sources
        .files()
        .filter(|f| *f != "Cargo.lock")
        .flat_map(|file| match sources.text(file) {
            Ok(text) => words(file, &text, &mirrors),
            Err(e) => vec![Finding::error(file, 1, e.to_string())],
        })
        .collect()
}

fn words(file: &str, text: &str, mirrors: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for path in PATHS {
            if line.match_indices(path).any(|(at, _)| starts_a_path(&line[..at])) {
                findings.push(Finding::error(file, index + 1, format!("a path of one machine: {path}…")));
            }
        }
        if mirrors.iter().any(|host| line.contains(host.as_str())) {
            // The name itself is not repeated: findings end up in logs.
            findings.push(Finding::error(file, index + 1, "the host name of this machine's package mirror"));
        }
    }
    findings
}

/// Whether a path begins here, rather than goes on (`target/…`, `{dir}/…`).
fn starts_a_path(before: &str) -> bool {
    !before.ends_with(|c: char| c.is_alphanumeric() || "_-.}])~*$".contains(c))
}

/// Hosts that this machine's package tools are pointed at, and that are not public.
fn mirrors() -> BTreeSet<String> {
    let home = env::var("HOME").unwrap_or_default();
    let files = CONFIGS.iter().filter_map(|c| fs::read_to_string(Path::new(&c.replace('~', &home))).ok());
    let variables = VARIABLES.iter().filter_map(|v| env::var(v).ok());
    files.chain(variables).flat_map(|text| hosts(&text)).collect()
}

/// The hosts of the URLs in `text`, without the public ones.
fn hosts(text: &str) -> Vec<String> {
    let after_scheme = text.split("://").skip(1);
    let hosts = after_scheme.filter_map(|rest| {
        let authority =
            rest.split(|c: char| c == '/' || c == '"' || c == '\'' || c == ',' || c.is_whitespace()).next()?;
        let host = authority.rsplit('@').next()?.split(':').next()?;
        let public = PUBLIC.iter().any(|p| host == *p || host.ends_with(&format!(".{p}")));
        (host.contains('.') && !public).then(|| host.to_owned())
    });
    hosts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> usize {
        words("a.md", line, &BTreeSet::from(["mirror.example.test".to_owned()])).len()
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for path in PATHS {
            assert_eq!(found(&format!("see {path}x")), 1);
            assert_eq!(found(&format!("`{path}x`")), 1);
            assert_eq!(found(&format!("target{path}x and {{dir}}{path}x")), 0, "parts of other paths");
        }
    }

    #[test]
    fn mirrors_are_found_and_not_named() {
        let found =
            words("a.md", "ok\nuse https://mirror.example.test/x\n", &BTreeSet::from(["mirror.example.test".into()]));
        assert_eq!(super::super::texts(&found), ["a.md:2: the host name of this machine's package mirror"]);
    }

    #[test]
    fn hosts_of_configurations() {
        let text = "index-url = https://user:pw@mirror.example.test:8443/simple\nURIs: http://deb.debian.org/debian\n\
                    proxy=https://goproxy.example.test,direct\nlocal=http://localhost/";
        assert_eq!(hosts(text), ["mirror.example.test", "goproxy.example.test"]);
    }
}
