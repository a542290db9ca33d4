//! The directory of a file that is to be written, reached by nobody else's links.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};

/// Links followed in one path (the kernel's own bound).
const MAX_LINKS: u32 = 40;

const REFERENCE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Why a file is not written there.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The kernel refused.
    #[error("its directory cannot be opened: {0}")]
    Io(#[from] io::Error),
    /// An earlier command may have left the link, to have something written elsewhere.
    #[error(
        "the symbolic link {link} on the way to it leads to {target}, and others than root could have put it there; if \
         that is meant, name the path without it"
    )]
    Link {
        /// The link, as far as its path is known.
        link: PathBuf,
        /// What it says.
        target: PathBuf,
    },
}

/// Opens the directory of `path`. A link on the way is followed only where root alone could have put it.
///
/// # Errors
/// See [`DirectoryError`].
pub fn parent(path: &Path) -> Result<OwnedFd, DirectoryError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut ahead = VecDeque::new();
    push_front(&mut ahead, parent);
    let mut here = start(parent)?;
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        let next = openat(&here, &name, REFERENCE, Mode::empty()).map_err(io::Error::from)?;
        let stat = fstat(&next).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            here = next;
            continue;
        }
        let text = readlinkat(&next, c"", Vec::new()).map_err(io::Error::from)?;
        let target = Path::new(OsStr::from_bytes(text.as_bytes())).to_owned();
        links += 1;
        if links > MAX_LINKS || !of_root(&fstat(&here).map_err(io::Error::from)?, &stat) {
            return Err(DirectoryError::Link { link: PathBuf::from(name), target });
        }
        if target.is_absolute() {
            here = start(&target)?;
        }
        push_front(&mut ahead, &target);
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(&here, ".", flags, Mode::empty()).map_err(io::Error::from)?)
}

/// Where a path begins.
fn start(path: &Path) -> io::Result<OwnedFd> {
    let from = if path.is_absolute() { "/" } else { "." };
    Ok(openat(CWD, from, REFERENCE | OFlags::DIRECTORY, Mode::empty())?)
}

fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            // What is open is a directory and no link, so this is its own parent.
            Component::ParentDir => ahead.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

/// Whether only root can have put the link into the directory.
fn of_root(directory: &Stat, link: &Stat) -> bool {
    directory.st_uid == 0 && link.st_uid == 0 && directory.st_mode & 0o022 == 0
}

#[cfg(test)]
mod tests;
