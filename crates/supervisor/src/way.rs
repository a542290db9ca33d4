//! The way to a file that steers. Whoever can turn a link on it, or put one in the place of a directory that `..` leads
//! out of, says what is read the next time.

use std::{
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::stamp::Stamp;

/// Links followed on one way (the kernel's own bound).
const MAX_LINKS: usize = 40;

/// Where a path leads, as it was looked at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// As it was named, absolute.
    pub given: PathBuf,
    /// Where the way depends on more than the directories above its end: links, and directories that `..` led out of.
    pub turns: Vec<PathBuf>,
    /// Where the file lies, or would. No link and no `..` is left in this one.
    pub end: PathBuf,
    /// What was there before it was read.
    pub(crate) seen: Option<Stamp>,
}

impl Way {
    /// Follows `path` name by name, as the kernel does. What is missing ends no way.
    ///
    /// # Errors
    /// What the kernel says, and `ELOOP`.
    pub(crate) fn to(path: &Path) -> io::Result<Self> {
        let (given, seen) = (std::path::absolute(path)?, Stamp::of(path).ok());
        let mut ahead = names(&given);
        let (mut here, mut turns, mut links) = (PathBuf::from("/"), Vec::new(), 0);
        while let Some(name) = ahead.pop() {
            if name == ".." {
                if here.parent().is_some() {
                    turns.push(here.clone());
                }
                here.pop();
                continue;
            }
            let at = here.join(&name);
            let target = match fs::read_link(&at) {
                Ok(target) => target,
                // It is no link, or not there.
                Err(e) if matches!(e.raw_os_error(), Some(EINVAL | ENOENT | ENOTDIR)) => {
                    here = at;
                    continue;
                }
                Err(e) => return Err(e),
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
            }
            turns.push(at);
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            ahead.extend(names(&target));
        }
        Ok(Self { given, turns, end: here, seen })
    }
}

const EINVAL: i32 = nix::libc::EINVAL;
const ENOENT: i32 = nix::libc::ENOENT;
const ENOTDIR: i32 = nix::libc::ENOTDIR;

/// The names in a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_and_every_way_up_is_a_turn() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| dir.join(name);
        fs::create_dir_all(at("real/deep")).unwrap();
        fs::write(at("real/file"), "").unwrap();
        symlink("real/deep", at("one")).unwrap();
        symlink(at("one"), at("two")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for (path, turns, end) in [
            ("real/file", &[][..], "real/file"),
            ("real/./deep/../file", &["real/deep"], "real/file"),
            ("one/x", &["one"], "real/deep/x"),
            ("two/../file", &["two", "one", "real/deep"], "real/file"),
            ("dangling/x", &["dangling"], "nowhere/x"),
            ("absent/../real/file", &["absent"], "real/file"),
        ] {
            let way = Way::to(&at(path)).unwrap();
            assert_eq!(way.turns, turns.iter().map(|t| at(t)).collect::<Vec<_>>(), "{path}");
            assert_eq!((way.end, way.given), (at(end), at(path)), "{path}");
        }
        assert_eq!(Way::to(&at("loop")).unwrap_err().raw_os_error(), Some(nix::libc::ELOOP));
        assert!(Way::to(Path::new("/..")).unwrap().turns.is_empty());
    }
}
