//! The directory the command works in.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Why a directory cannot be the workspace.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// It cannot be looked at.
    #[error("workspace {path}: {source}; name a directory that exists with --workspace")]
    Io {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not a directory.
    #[error("workspace {0} is not a directory; name the directory that holds it")]
    NotADirectory(PathBuf),
    /// A symbolic link leads elsewhere: whoever could write it chose the target.
    #[error("workspace {path} leads through a symbolic link to {target}; if that is meant, name {target} itself")]
    Symlink {
        /// As given, made absolute.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The home directory or a system directory: everything in it would be the command's.
    #[error("workspace {path} is {what}")]
    TooWide {
        /// The directory.
        path: PathBuf,
        /// Why it is too much.
        what: &'static str,
    },
}

/// Directories that are no workspace: granting one would grant the machine.
const SYSTEM: [&str; 14] =
    ["/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/proc", "/root", "/run", "/sbin", "/sys", "/usr", "/var"];

/// Resolves the workspace: the current directory, or the one named. `home` is the caller's home directory, which is
/// accepted only when named.
///
/// # Errors
/// [`WorkspaceError`].
pub(crate) fn resolve(named: Option<&Path>, home: Option<&Path>) -> Result<PathBuf, WorkspaceError> {
    let given = named.unwrap_or(Path::new("."));
    let io = |source| WorkspaceError::Io { path: given.to_owned(), source };
    let here = env::current_dir().map_err(io)?;
    let target = fs::canonicalize(here.join(given)).map_err(io)?;
    if !target.is_dir() {
        return Err(WorkspaceError::NotADirectory(target));
    }
    if named.is_some() {
        let lexical = lexical(&here.join(given));
        if lexical != target {
            return Err(WorkspaceError::Symlink { path: lexical, target });
        }
    }
    let what = if SYSTEM.iter().any(|s| Path::new(s) == target) {
        Some("a system directory, which is never granted as a whole; name a project directory with --workspace")
    } else if named.is_none() && home.is_some_and(|h| h == target) {
        Some(
            "your home directory, with everything in it; change to a project directory, or name one (or this one) with \
             --workspace",
        )
    } else {
        None
    };
    what.map_or(Ok(target.clone()), |what| Err(WorkspaceError::TooWide { path: target, what }))
}

/// The path with `.` and `..` taken out by name.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_links_and_system_directories_are_refused() {
        let dir = fs::canonicalize(tempfile::tempdir().unwrap().keep()).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("link")).unwrap();
        assert_eq!(resolve(Some(&dir), None).unwrap(), dir);
        assert_eq!(resolve(Some(&dir), Some(&dir)).unwrap(), dir, "a named home is accepted");
        assert!(matches!(resolve(Some(&dir.join("file")), None), Err(WorkspaceError::NotADirectory(_))));
        assert!(matches!(resolve(Some(&dir.join("link")), None), Err(WorkspaceError::Symlink { .. })));
        assert!(matches!(
            resolve(Some(&dir.join("link/..")), None),
            Err(WorkspaceError::TooWide { .. } | WorkspaceError::Symlink { .. })
        ));
        assert!(matches!(resolve(Some(&dir.join("absent")), None), Err(WorkspaceError::Io { .. })));
        assert!(matches!(resolve(Some(Path::new("/usr")), None), Err(WorkspaceError::TooWide { .. })));
        fs::remove_dir_all(dir).unwrap();
    }
}
