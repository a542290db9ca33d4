//! What every command finds whatever the policy grants: /proc, /sys, /dev, /tmp, /run.

use std::{
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat, major, minor, openat},
    io::Errno,
};
use stockade_sys::mount::Reach;

use super::{
    error::{Context, ViewError},
    gpu,
    host::{Host, kind},
    masks::{Blank, Kind},
    root::NewRoot,
    tree::{DATA, Detached, NODE, PLAIN, READ_ONLY_DATA},
};

/// Device nodes that every command gets: name, major and minor number.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links in /dev.
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Files in /proc and /sys that tell about, or act on, the whole machine. Most are closed to an ordinary user already;
/// a mask does not depend on that.
const MASKED: [&str; 12] = [
    "/proc/kcore",                   // physical memory
    "/proc/keys",                    // keyrings of all processes that may be viewed
    "/proc/sysrq-trigger",           // reboots
    "/proc/timer_list",              // kernel addresses, timers of other processes
    "/proc/latency_stats",           // stacks of other processes
    "/proc/sched_debug",             // names of other processes
    "/proc/acpi",                    // wakes and powers hardware
    "/proc/scsi",                    // removes disks
    "/proc/asound",                  // sound hardware
    "/proc/interrupts",              // keystroke timing
    "/sys/firmware",                 // firmware tables
    "/sys/devices/virtual/powercap", // power side channel
];

/// Directories in /proc that stay readable.
const FROZEN: [&str; 4] = ["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq"];

/// Where files that the view puts in place lie, and where the empty covers of hidden paths come from.
pub(super) const OWN: &str = "/run/stockade";
/// An empty file that nobody can open.
const BLANK_FILE: &str = "/run/stockade/blank/file";
/// An empty directory.
const BLANK_DIRECTORY: &str = "/run/stockade/blank/directory";

/// Device nodes taken from outside before the view covers it.
#[derive(Debug)]
pub(super) struct Nodes {
    basic: Vec<(PathBuf, OwnedFd)>,
    gpu: Vec<(PathBuf, OwnedFd)>,
}

impl Nodes {
    /// Opens the nodes of the machine; those of a GPU are looked for in `gpu_root`.
    pub(super) fn open(host: &Host, gpu_root: Option<&Path>) -> Result<Self, ViewError> {
        let mut basic = Vec::new();
        for (name, want_major, want_minor) in NODES {
            let wrong = || ViewError::WrongDevice { name, major: want_major, minor: want_minor };
            let fd = match host.open(&Path::new("/dev").join(name)) {
                Err(ViewError::Missing(_)) => return Err(wrong()),
                opened => opened?,
            };
            let stat = fstat(&fd).at("stat /dev/", name)?;
            let same = (major(stat.st_rdev), minor(stat.st_rdev)) == (want_major, want_minor);
            if kind(&stat) != FileType::CharacterDevice || !same {
                return Err(wrong());
            }
            basic.push((Path::new("/dev").join(name), fd));
        }
        let gpu = gpu_root.map(|root| gpu::nodes(host, root)).transpose()?.unwrap_or_default();
        let gpu = gpu.into_iter().map(|node| (Path::new("/dev").join(node.name), node.fd)).collect();
        Ok(Self { basic, gpu })
    }

    /// Paths inside of the GPU's nodes.
    pub(super) fn gpu_paths(&self) -> Vec<PathBuf> {
        self.gpu.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Copies the mounts of all nodes, while the outside is still the root.
    pub(super) fn copy(&self) -> Result<Vec<(PathBuf, Detached)>, ViewError> {
        self.basic
            .iter()
            .chain(&self.gpu)
            .map(|(path, fd)| Ok((path.clone(), Detached::copy(fd.as_fd(), NODE, Reach::One).at("copy", path)?)))
            .collect()
    }
}

/// /dev, filled; it is sealed later because grants may still add to it.
pub(super) fn dev(root: &mut NewRoot, nodes: Vec<(PathBuf, Detached)>) -> Result<(), ViewError> {
    let dev = Path::new("/dev");
    let options = [("mode", "755"), ("size", "64k"), ("nr_inodes", "1024")];
    root.mount_own(dev, Detached::new("tmpfs", &options, DATA).at("make file system", dev)?)?;
    for (path, node) in nodes {
        root.mount(&path, node)?;
    }
    let pts = Path::new("/dev/pts");
    root.mount(pts, devpts().at("make file system", pts)?)?;
    for (path, target) in LINKS {
        root.link(Path::new(path), Path::new(target))?;
    }
    Ok(())
}

/// A terminal belongs to its owner and, where the group is mapped, to `tty` for `write(1)`.
fn devpts() -> io::Result<Detached> {
    let options = |gid| [("newinstance", ""), ("ptmxmode", "0666"), ("mode", if gid { "620" } else { "600" })];
    let attributes = stockade_sys::mount::Attributes { nodev: false, ..DATA };
    let with_group = [&options(true)[..], &[("gid", "5")]].concat();
    match Detached::new("devpts", &with_group, attributes) {
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            Detached::new("devpts", &options(false), attributes)
        }
        other => other,
    }
}

/// Private scratch space with a bound.
pub(super) fn tmpfs(root: &mut NewRoot, path: &Path, mode: &str, bytes: u64) -> Result<OwnedFd, ViewError> {
    // One inode for 4 KiB: a million empty files are bounded too.
    let (size, inodes) = (bytes.to_string(), (bytes / 4096).max(1024).to_string());
    let options = [("mode", mode), ("size", &size), ("nr_inodes", &inodes)];
    root.mount_own(path, Detached::new("tmpfs", &options, PLAIN).at("make file system", path)?)
}

/// Message queues of the new ipc namespace; absent where the kernel has none.
pub(super) fn mqueue(root: &mut NewRoot) -> Result<bool, ViewError> {
    match Detached::new("mqueue", &[], DATA) {
        Ok(mount) => root.mount(Path::new("/dev/mqueue"), mount).map(|_| true),
        Err(_) => Ok(false),
    }
}

/// A fresh /proc of this pid namespace; never the outer one.
pub(super) fn proc(root: &mut NewRoot) -> Result<(), ViewError> {
    let refused = |source| ViewError::ProcRefused { source };
    let mount = Detached::new("proc", &[], DATA).map_err(refused)?;
    root.mount(Path::new("/proc"), mount).map(drop)
}

/// Writes a setting below /proc/sys through a /proc that nobody has covered, and that is gone afterwards.
pub(super) fn set_kernel(name: &str, value: &[u8]) -> io::Result<()> {
    let proc = Detached::new("proc", &[], DATA)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&proc, Path::new("sys").join(name), flags, Mode::empty())?;
    std::fs::File::from(file).write_all(value)
}

/// A fresh /sys of this network namespace, or none and the reason.
pub(super) fn sys(root: &mut NewRoot) -> Result<Option<String>, ViewError> {
    let path = Path::new("/sys");
    match Detached::new("sysfs", &[], READ_ONLY_DATA) {
        Ok(mount) => root.mount(path, mount).map(|_| None),
        Err(e) => {
            root.directory(path, 0o555)?;
            Ok(Some(format!("/sys is empty: the kernel refuses a fresh one ({e})")))
        }
    }
}

/// The empty covers that masks are made of.
pub(super) fn blank(root: &NewRoot) -> Result<Blank, ViewError> {
    Ok(Blank {
        directory: root.directory(Path::new(BLANK_DIRECTORY), 0o555)?,
        file: root.file(Path::new(BLANK_FILE), b"", 0)?,
    })
}

/// Masks what the kernel shows of the whole machine.
pub(super) fn mask(root: &mut NewRoot, blank: &Blank) -> Result<(), ViewError> {
    let masked = MASKED.iter().map(|path| (path, Kind::Hide));
    let frozen = FROZEN.iter().map(|path| (path, Kind::Protect));
    for (path, kind) in masked.chain(frozen) {
        let path = Path::new(path);
        if root.has(path) {
            let target = root.open(path)?;
            root.cover(path, target.as_fd(), blank.make(target.as_fd(), kind).at("cover", path)?)?;
        }
    }
    Ok(())
}
