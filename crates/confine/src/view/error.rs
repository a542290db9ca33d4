//! What can go wrong while the view is made, with the way out.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why there is no mount view. Nothing has been run when this is returned.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A system call failed.
    #[error("mount view: {what} {}: {source}", path.display())]
    Os {
        /// What was attempted.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A path of the plan is relative, or holds `.` or `..`.
    #[error("filesystem path `{}`: must be absolute, without `.` and `..`", .0.display())]
    NotCanonical(PathBuf),
    /// A granted path does not exist.
    #[error(
        "filesystem path `{}` does not exist: create it, take it out of the policy, or, under read_write, write {{path: …, create: true}}",
        .0.display()
    )]
    Missing(PathBuf),
    /// A granted path leads through a symbolic link that the command's user could have made.
    #[error(
        "filesystem path `{}`: `{}` is a symbolic link that the command's user could change; name the directory it leads to (`{}`) instead",
        path.display(), link.display(), target.display()
    )]
    Symlink {
        /// The path as granted.
        path: PathBuf,
        /// The link met on the way.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A path that cannot be granted.
    #[error("filesystem path `{}` cannot be granted: {why}", path.display())]
    NotGrantable {
        /// The path.
        path: PathBuf,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// The workspace is no directory.
    #[error("workspace `{}` is not a directory, or a link leads to it: name the directory itself with --workspace DIR", .0.display())]
    WorkspaceNotDirectory(PathBuf),
    /// The workspace is not part of what was granted.
    #[error("workspace `{}` is not granted: add it under filesystem.read_write or read_only, or use --workspace none", .0.display())]
    WorkspaceNotGranted(PathBuf),
    /// A file that steers Stockade can be reached and changed by the command.
    #[error("`{}` steers Stockade and cannot be protected from the command: {why}; move it out of the granted directories", path.display())]
    Unprotected {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        why: String,
    },
    /// The kernel refuses a fresh /proc.
    #[error(
        "mount view: the kernel refuses a fresh /proc ({source}): an outer container masks its own. Run the outer container with an unmasked /proc (Docker: --security-opt systempaths=unconfined; Kubernetes: procMount: Unmasked) or start Stockade outside of it. The outer /proc is never used instead"
    )]
    ProcRefused {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refuses to change the root.
    #[error(
        "mount view: pivot_root: {source}: a system call filter around Stockade forbids it (in a container: --security-opt seccomp=seccomp.json, see docs/containers.md), or the present root is not a mount point of its own (an initramfs, or a chroot)"
    )]
    PivotRefused {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel, or a filter around Stockade, does not know a call that the view is made with.
    #[error(
        "mount view: {what}: the system call is not there: the view needs Linux 5.12 or newer, and what Stockade runs in must let openat2, open_tree, move_mount, fsopen and mount_setattr through (Docker: a newer seccomp profile; systemd: neither RestrictSUIDSGID nor DynamicUser; gVisor has none of them)"
    )]
    NoMountApi {
        /// What was attempted.
        what: &'static str,
    },
    /// A device node of the machine is not what its name says.
    #[error("mount view: /dev/{name} is not the character device {major}:{minor}: repair /dev on this machine")]
    WrongDevice {
        /// Its name.
        name: &'static str,
        /// The major number it ought to have.
        major: u32,
        /// The minor number it ought to have.
        minor: u32,
    },
}

/// Puts what was attempted, and where, around the kernel's answer.
pub(super) trait Context<T> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, ViewError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, ViewError> {
        self.map_err(|e| match e.into() {
            e if e.raw_os_error() == Some(nix::libc::ENOSYS) => ViewError::NoMountApi { what },
            source => ViewError::Os { what, path: path.as_ref().to_owned(), source },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_system_call_is_told_from_a_refused_one() {
        let fail = |code| Err::<(), _>(io::Error::from_raw_os_error(code)).at("copy", "/usr").unwrap_err();
        assert!(matches!(fail(nix::libc::ENOSYS), ViewError::NoMountApi { what: "copy" }));
        assert_eq!(fail(nix::libc::EPERM).to_string(), "mount view: copy /usr: Operation not permitted (os error 1)");
    }
}
