//! The listening socket, and its file where it has one.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener as StdTcp},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener as StdUnix,
    },
    path::{Path, PathBuf},
};

use stockade_confine::view::Grant;
use stockade_ssh::Listener;
use tokio::net::{TcpListener, UnixListener};

use super::Listen;
use crate::error::Error;

/// Longest path of a unix socket, without the zero at its end.
const PATH: usize = 107;

/// A socket that is bound. Dropped: its file is removed, if it is still its file.
pub(super) struct Bound {
    listener: Option<Listener>,
    place: String,
    port: Option<u16>,
    file: Option<(PathBuf, u64, u64)>,
}

impl Bound {
    pub(super) fn new(listen: &Listen, grants: &[Grant]) -> Result<Self, Error> {
        match listen {
            Listen::Tcp(address) => tcp(*address),
            Listen::Unix(path) => unix(path, grants),
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Of TCP.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    pub(super) fn take(&mut self) -> Result<Listener, Error> {
        self.listener.take().ok_or_else(|| refuse("the socket", "it is served already"))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some((path, device, inode)) = &self.file {
            let ours = fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (*device, *inode));
            if ours {
                // Whoever starts next says so if it cannot be made.
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn refuse(place: impl std::fmt::Display, why: impl std::fmt::Display) -> Error {
    Error::Option(format!("--ssh {place}: {why}"))
}

fn tcp(address: SocketAddr) -> Result<Bound, Error> {
    let bind = || -> io::Result<(TcpListener, SocketAddr)> {
        let listener = StdTcp::bind(address)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, local))
    };
    let (listener, local) = bind().map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => "; another program listens there, choose another port, or 0 for any",
            io::ErrorKind::PermissionDenied => "; choose a port above 1023",
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            _ => "",
        };
        refuse(address, format!("{e}{hint}"))
    })?;
    Ok(Bound {
        listener: Some(Listener::Tcp(listener)),
        place: local.to_string(),
        port: Some(local.port()),
        file: None,
    })
}

/// A socket in a directory that belongs to us, that nobody else may write, and that the command does not have.
fn unix(path: &Path, grants: &[Grant]) -> Result<Bound, Error> {
    let shown = format!("unix:{}", path.display());
    let path = std::path::absolute(path).map_err(|e| refuse(&shown, e))?;
    if path.as_os_str().as_bytes().len() > PATH {
        return Err(refuse(&shown, format!("longer than {PATH} bytes, which is all that the kernel takes")));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(refuse(&shown, "not the path of a file"));
    };
    let real = fs::canonicalize(parent).map_err(|e| refuse(&shown, format!("{}: {e}", parent.display())))?;
    let meta = fs::metadata(&real).map_err(|e| refuse(&shown, format!("{}: {e}", real.display())))?;
    let user = rustix::process::geteuid().as_raw();
    if ![0, user].contains(&meta.uid()) || meta.mode() & 0o022 != 0 {
        let why = format!(
            "{} may be written by others, who could put a socket of theirs in its place; use a directory of your own, \
             such as $XDG_RUNTIME_DIR",
            real.display()
        );
        return Err(refuse(&shown, why));
    }
    if let Some(grant) = grants.iter().find(|g| real.starts_with(&g.path)) {
        let why = format!("{} is granted to the command; keep the socket outside of it", grant.path.display());
        return Err(refuse(&shown, why));
    }
    let path = real.join(name);
    if let Ok(meta) = fs::symlink_metadata(&path) {
        let kind = if meta.is_symlink() { "a symbolic link" } else { "something" };
        return Err(refuse(&shown, format!("there is {kind} already; remove it, or choose another path")));
    }
    let bind = || -> io::Result<(UnixListener, fs::Metadata)> {
        let listener = StdUnix::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok((UnixListener::from_std(listener)?, fs::symlink_metadata(&path)?))
    };
    let (listener, meta) = bind().map_err(|e| refuse(&shown, e))?;
    let file = Some((path, meta.dev(), meta.ino()));
    // The file's mode keeps others out, too; the kernel's word on who connects does not depend on it.
    Ok(Bound { listener: Some(Listener::Unix(listener, vec![0, user])), place: shown, port: None, file })
}

#[cfg(test)]
mod tests {
    use stockade_confine::view::Access;

    use super::*;

    fn fault(path: &Path, grants: &[Grant]) -> String {
        unix(path, grants).err().unwrap().to_string()
    }

    #[tokio::test]
    async fn a_socket_is_made_where_it_is_safe_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bound = unix(&path, &[]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(fault(&path, &[]).contains("there is something already"));
        drop(bound);
        assert!(!path.exists());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        assert!(fault(&link, &[]).contains("a symbolic link already"));
        let granted = [Grant { path: fs::canonicalize(dir.path()).unwrap(), access: Access::ReadOnly, create: false }];
        assert!(fault(&path, &granted).contains("is granted to the command"));
        assert!(fault(&dir.path().join("x".repeat(200)), &[]).contains("longer than 107 bytes"));
        assert!(fault(&dir.path().join("no/such"), &[]).contains("No such file"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(fault(&path, &[]).contains("may be written by others"));
    }

    #[tokio::test]
    async fn a_socket_of_another_program_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bound = unix(&path, &[]).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        drop(bound);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_said() {
        let first = tcp(([127, 0, 0, 1], 0).into()).unwrap();
        let taken = tcp(first.place().parse().unwrap()).err().unwrap().to_string();
        assert!(taken.contains("choose another port"), "{taken}");
    }
}
