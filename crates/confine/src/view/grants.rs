//! Opening what the policy grants, and the system directories, while the outside is still there.

use std::{
    fs::read_link,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, readlinkat, statat},
    io::Errno,
};
use stockade_sys::mount::Reach;

use super::{
    Access, Grant, PathAccess, ViewPlan,
    error::{Context, ViewError},
    host::{Host, kind, kind_of, names},
    tree::{Detached, NODE, PLAIN, READ_ONLY},
};

/// System directories, present where the machine has them; links among them are made again as links.
pub const BASELINE: [&str; 10] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/nix/store", // everything on NixOS and for users of Nix
    "/gnu/store", // the same of Guix
];

/// Paths that cannot be granted as a whole, and why.
const WHOLE: [(&str, &str); 9] = [
    ("/", "the view is there to leave things out; name the directories that the command needs"),
    ("/dev", "grant single device nodes instead"),
    ("/run", "sockets of daemons lie there, and each is a way past the door"),
    ("/var/run", "sockets of daemons lie there, and each is a way past the door"),
    ("/run/user", "sockets of the session lie there, and each is a way past the door"),
    ("/run/dbus", "sockets of daemons lie there, and each is a way past the door"),
    ("/run/systemd", "sockets of daemons lie there, and each is a way past the door"),
    ("/tmp", "sockets of X11, tmux and agents lie there; the command has its own /tmp; grant a directory below it"),
    ("/var/tmp", "the command has its own /var/tmp; grant a directory below it"),
];

/// Paths of which no part can be granted, and why.
const BELOW: [(&str, &str); 4] = [
    ("/proc", "the command has a /proc of its own"),
    ("/sys", "the command has a read-only /sys of its own"),
    ("/dev/pts", "the command has terminals of its own"),
    ("/run/stockade", "Stockade's own files lie there"),
];

/// Sockets of daemons: a directory that holds one is not granted.
const SOCKETS: [&str; 9] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/snapd.socket",
    "/var/run/docker.sock",
];

/// Something from outside, ready to be put in place.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it goes.
    pub(super) path: PathBuf,
    /// Where it really lies outside.
    pub(super) real: PathBuf,
    pub(super) access: PathAccess,
    pub(super) is_dir: bool,
    pub(super) mount: Detached,
}

/// A link that is made again inside.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) target: PathBuf,
}

/// Everything granted.
#[derive(Debug, Default)]
pub(super) struct Granted {
    pub(super) sources: Vec<Source>,
    pub(super) links: Vec<Link>,
}

impl Granted {
    /// Opens all of it.
    pub(super) fn open(host: &Host, plan: &ViewPlan) -> Result<Self, ViewError> {
        let mut granted =
            Self { sources: Vec::new(), links: vec![Link { path: "/var/run".into(), target: "/run".into() }] };
        if plan.baseline {
            granted.baseline(host)?;
        }
        for grant in &plan.grants {
            names(&grant.path)?;
            if plan.hidden.iter().any(|h| grant.path.starts_with(h)) {
                // `hidden` wins.
                continue;
            }
            let source = granted.grant(host, grant)?;
            granted.sources.push(source);
        }
        Ok(granted)
    }

    fn baseline(&mut self, host: &Host) -> Result<(), ViewError> {
        for path in BASELINE.map(Path::new) {
            let Ok(stat) = statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if kind(&stat) == FileType::Symlink {
                use std::os::unix::ffi::OsStrExt;
                let text = readlinkat(rustix::fs::CWD, path, Vec::new()).at("read link", path)?;
                let target = Path::new("/").join(std::ffi::OsStr::from_bytes(text.as_bytes()));
                self.links.push(Link { path: path.to_owned(), target });
            } else {
                let fd = host.open(path)?;
                self.sources.push(source(path.to_owned(), &fd, Access::ReadOnly)?);
            }
        }
        Ok(())
    }

    fn grant(&self, host: &Host, grant: &Grant) -> Result<Source, ViewError> {
        let path = self.inside(&grant.path);
        refuse(&path)?;
        let fd = if grant.create && grant.access == Access::ReadWrite {
            host.open_or_create(&grant.path)?
        } else {
            host.open(&grant.path)?
        };
        let source = source(path, &fd, grant.access)?;
        refuse(&source.real)?;
        Ok(source)
    }

    /// `path` with a leading link of the view replaced by what it leads to.
    pub(super) fn inside(&self, path: &Path) -> PathBuf {
        let through = |link: &Link| Some(link.target.join(path.strip_prefix(&link.path).ok()?));
        self.links.iter().find_map(through).unwrap_or_else(|| path.to_owned())
    }
}

fn refuse(path: &Path) -> Result<(), ViewError> {
    let not = |why| Err(ViewError::NotGrantable { path: path.to_owned(), why });
    if let Some((_, why)) = WHOLE.iter().find(|(whole, _)| path == Path::new(whole)) {
        return not(why);
    }
    if let Some((_, why)) = BELOW.iter().find(|(below, _)| path.starts_with(below)) {
        return not(why);
    }
    if path.parent() == Some(Path::new("/run/user")) {
        return not("sockets of the session lie there, and each is a way past the door");
    }
    let holds_socket = |socket: &&str| Path::new(socket).starts_with(path) && Path::new(socket).exists();
    if SOCKETS.iter().any(holds_socket) {
        return not("the socket of a daemon lies there, and it is a way past the door; grant narrower paths");
    }
    Ok(())
}

fn source(path: PathBuf, fd: &OwnedFd, access: Access) -> Result<Source, ViewError> {
    let file_type = kind_of(fd).at("stat", &path)?;
    let not = |why| Err(ViewError::NotGrantable { path: path.clone(), why });
    let (attributes, access) = match (file_type, access) {
        (FileType::Socket, _) => return not("it is a socket, and each is a way past the door"),
        (FileType::BlockDevice, _) => return not("it is a disk"),
        (FileType::CharacterDevice, _) if path.starts_with("/dev") => (NODE, PathAccess::Device),
        (FileType::CharacterDevice, _) => return not("it is a device node outside of /dev"),
        (_, Access::ReadOnly) => (READ_ONLY, PathAccess::ReadOnly),
        (_, Access::ReadWrite) => (PLAIN, PathAccess::ReadWrite),
    };
    let mount = match Detached::copy(fd.as_fd(), attributes, Reach::Tree) {
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            return not("the kernel refuses to bind it: it lies on an unbindable or foreign mount");
        }
        other => other.at("copy the mount of", &path)?,
    };
    let real = read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).at("find the place of", &path)?;
    Ok(Source { is_dir: file_type == FileType::Directory, path, real, access, mount })
}
