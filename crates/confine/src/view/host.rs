//! Finding paths outside, and making those that a policy asks for, before the view exists. Whoever the command runs as
//! may have prepared these trees in an earlier run, so a link is followed only where that user could not have put it.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fchown, fstat, mkdirat, openat, openat2, readlinkat},
    io::Errno,
};

use super::error::{Context, ViewError};

/// Links followed in one path (the kernel's own bound).
const MAX_LINKS: u32 = 40;

/// The machine's file system as init found it.
#[derive(Debug)]
pub(super) struct Host {
    root: OwnedFd,
    uid: u32,
    gid: u32,
}

impl Host {
    /// `uid` and `gid` are whom the command will run as.
    pub(super) fn new(uid: u32, gid: u32) -> Result<Self, ViewError> {
        let root = openat(CWD, "/", DIRECTORY, Mode::empty()).at("open", "/")?;
        Ok(Self { root, uid, gid })
    }

    /// Opens `path` as a reference (`O_PATH`), following only links that the command's user could not have made.
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd, ViewError> {
        let strict = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.root, relative(path)?, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), strict) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(ViewError::Missing(path.to_owned())),
            Err(Errno::LOOP) => self.walk(path, false),
            Err(e) => Err(e).at("open", path),
        }
    }

    /// Opens `path` as a reference, following every link as the kernel does: to learn what lies there, never to grant it.
    pub(super) fn look(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let relative = relative(path).map_err(|_| Errno::INVAL)?;
        openat2(&self.root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens `path`, making directories that are missing. What lies at its end must not be a link at all.
    pub(super) fn open_or_create(&self, path: &Path) -> Result<OwnedFd, ViewError> {
        self.walk(path, true)
    }

    fn walk(&self, path: &Path, create: bool) -> Result<OwnedFd, ViewError> {
        let mut ahead: VecDeque<OsString> = names(path)?.into_iter().map(OsStr::to_owned).collect();
        let mut trail = vec![self.root.try_clone().at("open", "/")?];
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                here.pop();
                trail.truncate(trail.len().saturating_sub(1).max(1));
                continue;
            }
            let Some(parent) = trail.last() else { return Err(ViewError::Missing(path.to_owned())) };
            let at = here.join(&name);
            let next = match openat(parent, &name, REFERENCE, Mode::empty()) {
                Err(Errno::NOENT) if create => self.make_directory(parent, &name).at("make directory", &at)?,
                Err(Errno::NOENT | Errno::NOTDIR) => return Err(ViewError::Missing(path.to_owned())),
                other => other.at("open", &at)?,
            };
            let stat = fstat(&next).at("stat", &at)?;
            if kind(&stat) != FileType::Symlink {
                trail.push(next);
                here = at;
                continue;
            }
            let text = readlinkat(&next, c"", Vec::new()).at("read link", &at)?;
            let target = Path::new(OsStr::from_bytes(text.as_bytes())).to_owned();
            links += 1;
            let forgeable = self.writable(&fstat(parent).at("stat", &here)?) || self.writable(&stat);
            if forgeable || links > MAX_LINKS || (create && ahead.is_empty()) {
                return Err(ViewError::Symlink { path: path.to_owned(), link: at, target });
            }
            if target.is_absolute() {
                trail.truncate(1);
                here = PathBuf::from("/");
            }
            for part in target.components().rev() {
                match part {
                    Component::Normal(name) => ahead.push_front(name.to_owned()),
                    Component::ParentDir => ahead.push_front("..".into()),
                    Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                }
            }
        }
        trail.pop().ok_or_else(|| ViewError::Missing(path.to_owned()))
    }

    /// Whether the command's user could change this inode. Which supplementary groups that user has is not asked:
    /// writable by some group counts. A link's own mode says nothing.
    pub(super) fn writable(&self, stat: &Stat) -> bool {
        let mode = if kind(stat) == FileType::Symlink { 0 } else { stat.st_mode };
        stat.st_uid == self.uid || mode & 0o022 != 0
    }

    /// Makes a directory that belongs to the command's user.
    fn make_directory(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
        let mode = Mode::from_raw_mode(0o755);
        if self.writable(&fstat(parent)?) {
            // That user can exchange what lies here at any moment, so it must not be ours to give away: the directory
            // is made with that user's rights, and belongs to it from the start.
            let _as_user = FsUser::enter(self.uid, self.gid);
            mkdirat(parent, name, mode)?;
            return Ok(openat(parent, name, DIRECTORY, Mode::empty())?);
        }
        mkdirat(parent, name, mode)?;
        let made = openat(parent, name, DIRECTORY - OFlags::PATH, Mode::empty())?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(self.uid), rustix::fs::Gid::from_raw(self.gid));
        fchown(&made, Some(uid), Some(gid))?;
        Ok(openat(parent, name, DIRECTORY, Mode::empty())?)
    }
}

/// File system rights of another user, until dropped.
struct FsUser {
    uid: Uid,
    gid: Gid,
}

impl FsUser {
    fn enter(uid: u32, gid: u32) -> Self {
        let gid = setfsgid(Gid::from_raw(gid));
        Self { uid: setfsuid(Uid::from_raw(uid)), gid }
    }
}

impl Drop for FsUser {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
    }
}

/// A reference to whatever lies there, a link included.
const REFERENCE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// A reference to a directory, never through a link.
const DIRECTORY: OFlags = REFERENCE.union(OFlags::DIRECTORY);

/// The type of a file.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The type of what `fd` refers to.
pub(super) fn kind_of(fd: impl AsFd) -> io::Result<FileType> {
    Ok(kind(&fstat(fd)?))
}

/// `path` without its leading slash; `.` for the root.
pub(super) fn relative(path: &Path) -> Result<&Path, ViewError> {
    names(path)?;
    let rest = path.strip_prefix("/").map_err(|_| ViewError::NotCanonical(path.to_owned()))?;
    Ok(if rest.as_os_str().is_empty() { Path::new(".") } else { rest })
}

/// The names in an absolute path that has neither `.` nor `..`.
pub(super) fn names(path: &Path) -> Result<Vec<&OsStr>, ViewError> {
    let bad = || ViewError::NotCanonical(path.to_owned());
    let mut parts = path.components();
    if parts.next() != Some(Component::RootDir) || path.as_os_str().as_bytes().contains(&0) {
        return Err(bad());
    }
    parts.map(|c| if let Component::Normal(name) = c { Ok(name) } else { Err(bad()) }).collect()
}
