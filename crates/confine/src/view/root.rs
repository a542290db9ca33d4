//! The new root while it is being furnished, and the record of every mount made in it.

use std::{
    collections::BTreeMap,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2, symlinkat},
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    process::{chdir, fchdir, pivot_root},
};
use stockade_sys::mount::{Attributes, Reach, restrict};

use super::{
    error::{Context, ViewError},
    host::{kind_of, names, relative},
    tree::{Detached, PLAIN, mount_id},
};

/// What a mount is expected to look like when it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) path: PathBuf,
    pub(super) attributes: Attributes,
    pub(super) reach: Reach,
}

/// Directories that the new root may be attached to until it takes the place of the old one; any will do.
const FOOTHOLDS: [&str; 4] = ["/tmp", "/proc", "/dev", "/etc"];

/// The root of the view.
#[derive(Debug)]
pub(super) struct NewRoot {
    fd: OwnedFd,
    /// By mount id.
    pub(super) made: BTreeMap<u64, Expected>,
    /// Device numbers of file systems made here: only in these may anything be created.
    own: Vec<u64>,
}

impl NewRoot {
    /// Cuts the mount namespace off from the outside and attaches an empty root. Everything from outside must have
    /// been opened before: the foothold covers what was there.
    pub(super) fn attach() -> Result<Self, ViewError> {
        let (mode, size, inodes) = (("mode", "755"), ("size", "16m"), ("nr_inodes", "16384"));
        let tmpfs = Detached::new("tmpfs", &[mode, size, inodes], PLAIN).at("make file system", "/")?;
        let foothold = FOOTHOLDS
            .iter()
            .find_map(|p| openat(CWD, *p, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok());
        let foothold = foothold.ok_or(Errno::NOENT).at("find any directory among /tmp /proc /dev /etc for", "/")?;
        let mut root =
            Self { fd: tmpfs.as_fd().try_clone_to_owned().at("open", "/")?, made: BTreeMap::new(), own: vec![] };
        root.record(Path::new("/"), &tmpfs)?;
        root.own.push(fstat(&root.fd).at("stat", "/")?.st_dev);
        root.fd = tmpfs.attach(foothold.as_fd()).at("attach", "/")?;
        Ok(root)
    }

    /// Opens what lies at `path` inside, through no link.
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd, ViewError> {
        self.find(path).at("open", path)
    }

    /// Whether something lies at `path` inside.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.find(path).is_ok()
    }

    pub(super) fn find(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(&self.fd, relative(path).map_err(|_| Errno::INVAL)?, flags, Mode::empty(), strict)
    }

    /// Makes `path` and what is missing above it. Only in file systems of the view: nothing is made outside.
    pub(super) fn directory(&self, path: &Path, mode: u32) -> Result<OwnedFd, ViewError> {
        match self.find(path) {
            Err(Errno::NOENT) => {}
            other => return other.at("open", path),
        }
        let mut so_far = PathBuf::from("/");
        let last = names(path)?.len();
        for (depth, name) in names(path)?.into_iter().enumerate() {
            let parent = self.open(&so_far)?;
            so_far.push(name);
            if self.has(&so_far) {
                continue;
            }
            self.ours(&parent, &so_far)?;
            let mode = Mode::from_raw_mode(if depth + 1 == last { mode } else { 0o755 });
            mkdirat(&parent, name, mode).at("make directory", &so_far)?;
            if depth + 1 == last {
                // The umask took part in mkdir.
                let made =
                    openat(&parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open", path)?;
                fchmod(&made, mode).at("set mode of", path)?;
            }
        }
        self.open(path)
    }

    /// Makes a file with this content.
    pub(super) fn file(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<OwnedFd, ViewError> {
        let (parent, name) = self.place(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let mut file = std::fs::File::from(openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).at("make", path)?);
        file.write_all(bytes).at("write", path)?;
        fchmod(&file, mode).at("set mode of", path)?;
        self.open(path)
    }

    /// Makes a symbolic link.
    pub(super) fn link(&self, path: &Path, target: &Path) -> Result<(), ViewError> {
        let (parent, name) = self.place(path)?;
        symlinkat(target, &parent, name).at("make link", path)
    }

    fn place<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p Path), ViewError> {
        let bad = || ViewError::NotCanonical(path.to_owned());
        let (parent, name) = (path.parent().ok_or_else(bad)?, path.file_name().ok_or_else(bad)?);
        let parent_fd = self.directory(parent, 0o755)?;
        self.ours(&parent_fd, path)?;
        Ok((parent_fd, Path::new(name)))
    }

    /// Whether a file can be made at `path`: what exists above it belongs to the view.
    pub(super) fn can_make(&self, path: &Path) -> bool {
        let deepest = path.ancestors().skip(1).find_map(|above| self.find(above).ok());
        deepest.is_some_and(|above| self.ours(&above, path).is_ok())
    }

    fn ours(&self, parent: &OwnedFd, path: &Path) -> Result<(), ViewError> {
        let dev = fstat(parent).at("stat", path)?.st_dev;
        if self.own.contains(&dev) {
            return Ok(());
        }
        Err(Errno::ROFS).at("nothing may be made outside of the view's own file systems:", path)
    }

    /// Mounts at `path`, making an empty place of the same kind where there is none.
    pub(super) fn mount(&mut self, path: &Path, mount: Detached) -> Result<OwnedFd, ViewError> {
        let target = match kind_of(&mount).at("stat", path)? {
            FileType::Directory => self.directory(path, 0o755)?,
            _ if self.has(path) => self.open(path)?,
            _ => self.file(path, b"", 0o444)?,
        };
        self.cover(path, target.as_fd(), mount)
    }

    /// Mounts a file system made here.
    pub(super) fn mount_own(&mut self, path: &Path, mount: Detached) -> Result<OwnedFd, ViewError> {
        let fd = self.mount(path, mount)?;
        self.own.push(fstat(&fd).at("stat", path)?.st_dev);
        Ok(fd)
    }

    /// Mounts over `target`, which lies at `path`.
    pub(super) fn cover(&mut self, path: &Path, target: BorrowedFd<'_>, mount: Detached) -> Result<OwnedFd, ViewError> {
        self.record(path, &mount)?;
        mount.attach(target).at("mount", path)
    }

    fn record(&mut self, path: &Path, mount: &Detached) -> Result<(), ViewError> {
        let expected = Expected { path: path.to_owned(), attributes: mount.attributes, reach: mount.reach };
        self.made.insert(mount_id(mount).at("identify mount", path)?, expected);
        Ok(())
    }

    /// Adds `attributes` to a mount made earlier.
    pub(super) fn seal(&mut self, path: &Path, attributes: Attributes) -> Result<(), ViewError> {
        let fd = self.open(path)?;
        restrict(&fd, attributes, Reach::One).at("restrict", path)?;
        let id = mount_id(&fd).at("identify mount", path)?;
        if let Some(expected) = self.made.get_mut(&id) {
            expected.attributes = attributes;
        }
        Ok(())
    }

    /// Makes this the root and lets go of the old one: nothing of it can be reached afterwards.
    pub(super) fn enter(&mut self) -> Result<(), ViewError> {
        fchdir(&self.fd).at("enter", "/")?;
        pivot_root(".", ".").map_err(|e| ViewError::PivotRefused { source: e.into() })?;
        // The old root now lies on top of the new one.
        unmount(".", UnmountFlags::DETACH).at("detach the old root from", "/")?;
        chdir("/").at("enter", "/")
    }
}

impl AsFd for NewRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// From here on no mount of the outside arrives, and none of ours leaves.
pub(super) fn cut_propagation() -> Result<(), ViewError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at("make private", "/")
}
