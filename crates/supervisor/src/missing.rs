//! A command that is not found inside: where it is outside, and the policy that would show it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use stockade_confine::{
    message::SpawnError,
    view::{BASELINE, ViewPlan},
};

/// Links that are followed, as many as the kernel follows.
const LINKS: usize = 40;

/// What a lookup inside starts from.
pub(crate) struct Inside<'a> {
    pub(crate) view: &'a ViewPlan,
    pub(crate) cwd: &'a Path,
    /// The command's own, `K=V` each.
    pub(crate) environment: &'a [Vec<u8>],
    /// Whether a policy file is named.
    pub(crate) policy: bool,
}

/// Why the command did not start, and what to do.
pub(crate) fn text(e: &SpawnError, inside: &Inside<'_>) -> String {
    match e {
        SpawnError::Exec { what, .. } if e.is_absent() => not_found(what, inside),
        SpawnError::Exec { what, .. } => format!("{e}\n{what} exists inside the sandbox but cannot be executed there"),
        SpawnError::Step { .. } | SpawnError::Unmet(_) => format!("the command was not started: {e}"),
    }
}

fn not_found(what: &str, inside: &Inside<'_>) -> String {
    let own = inside.environment.iter().find_map(|v| v.strip_prefix(b"PATH="));
    let own = String::from_utf8_lossy(own.unwrap_or_default()).into_owned();
    let caller = std::env::var("PATH").unwrap_or_default();
    let (searched, found) = if what.contains('/') {
        (true, Some(inside.cwd.join(what)).filter(|p| p.exists()))
    } else {
        let own = search(what, &own);
        (own.is_some(), own.or_else(|| search(what, &caller)))
    };
    let Some(program) = found else { return format!("{what}: command not found") };
    let (dirs, target) = places(&program);
    let missing = outermost(dirs.into_iter().filter(|dir| !inside.sees(dir)).collect());
    if missing.is_empty() && !searched {
        return format!("{what}: not in the PATH that the command has ({own}); it is {}", program.display());
    }
    if missing.is_empty() {
        return format!(
            "{what}: {} is inside the sandbox, but what runs it is not there: the program of its `#!` line, or its loader",
            program.display()
        );
    }
    let link = target.map_or_else(String::new, |target| format!(", a link to {}", target.display()));
    let dirs: Vec<_> = missing.iter().map(|dir| yaml(dir)).collect();
    let (place, version) = match inside.policy {
        true => ("the policy", ""),
        false => ("a policy file (`--policy FILE`)", "version: 1\n  "),
    };
    format!(
        "{what}: not found inside the sandbox. It is {} outside{link}; grant where it lies in {place} with\n  \
         {version}filesystem: {{read_write: [.], read_only: [{}]}}",
        program.display(),
        dirs.join(", ")
    )
}

impl Inside<'_> {
    fn sees(&self, dir: &Path) -> bool {
        let system = self.view.baseline && BASELINE.iter().any(|b| dir.starts_with(b));
        system || self.view.grants.iter().any(|grant| dir.starts_with(&grant.path))
    }
}

fn search(what: &str, path: &str) -> Option<PathBuf> {
    std::env::split_paths(path).filter(|d| d.is_absolute()).map(|d| d.join(what)).find(|p| p.is_file())
}

/// The directories that a lookup of the program goes through, link by link, and where it ends if it is a link.
fn places(program: &Path) -> (Vec<PathBuf>, Option<PathBuf>) {
    let mut at = program.to_owned();
    let mut dirs: Vec<PathBuf> = Vec::new();
    let mut target = None;
    for _ in 0..LINKS {
        let Some(dir) = at.parent() else { break };
        dirs.push(dir.to_owned());
        let Ok(link) = fs::read_link(&at) else { break };
        let next = dir.join(link);
        let (Some(Ok(parent)), Some(name)) = (next.parent().map(fs::canonicalize), next.file_name()) else { break };
        at = parent.join(name);
        target = Some(at.clone());
    }
    (dirs, target)
}

/// Without those that lie in others.
fn outermost(mut dirs: Vec<PathBuf>) -> Vec<PathBuf> {
    let all = dirs.clone();
    dirs.retain(|dir| !all.iter().any(|other| other != dir && dir.starts_with(other)));
    let mut seen = Vec::new();
    dirs.retain(|dir| {
        !seen.contains(dir) && {
            seen.push(dir.clone());
            true
        }
    });
    dirs
}

fn yaml(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@".contains(&b));
    if plain { text } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_followed_and_each_place_named_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("share/versions")).unwrap();
        fs::write(root.join("share/versions/2.1"), "").unwrap();
        symlink("../share/current", root.join("bin/tool")).unwrap();
        symlink("versions/2.1", root.join("share/current")).unwrap();
        let (dirs, target) = places(&root.join("bin/tool"));
        assert_eq!(dirs, [root.join("bin"), root.join("share"), root.join("share/versions")]);
        assert_eq!(target, Some(root.join("share/versions/2.1")));
        assert_eq!(outermost(dirs), [root.join("bin"), root.join("share")]);
        assert_eq!(places(&root.join("share/versions/2.1")), (vec![root.join("share/versions")], None));
        symlink("loop", root.join("loop")).unwrap();
        assert!(places(&root.join("loop")).0.len() <= LINKS, "a loop ends");
    }

    #[test]
    fn odd_paths_are_quoted() {
        assert_eq!(yaml(Path::new("/opt/tools")), "/opt/tools");
        assert_eq!(yaml(Path::new("/a, b]")), "\"/a, b]\"");
    }
}
