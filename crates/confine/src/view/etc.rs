//! Files that the view puts in place of the machine's: resolv.conf and its like, and account files that know the
//! command's user.

use std::{
    fs::OpenOptions,
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2, readlinkat},
    io::Errno,
};
use stockade_sys::mount::Reach;

use super::{
    ViewFile, ViewPlan,
    error::{Context, ViewError},
    host::relative,
    root::NewRoot,
    system::OWN,
    tree::{Detached, READ_ONLY_DATA},
};

/// Longest account file that is copied.
const MAX_ACCOUNTS: u64 = 1 << 20;
/// Links followed from one name in /etc.
const MAX_LINKS: usize = 8;
/// The name that an unknown user gets.
const USER: &str = "sandbox";

/// Account files with a line for the command's user and group, where the machine's have none. `ssh`, `git` and
/// `whoami` refuse to work for a number without a name.
pub(super) fn accounts(plan: &ViewPlan) -> Vec<ViewFile> {
    let home = plan.home.to_string_lossy();
    let user = |name: &str| format!("{name}:x:{}:{}:Stockade sandbox:{home}:/bin/sh\n", plan.uid, plan.gid);
    let group = |name: &str| format!("{name}:x:{}:\n", plan.gid);
    let read = |path: &str| if plan.baseline { read_bounded(Path::new(path)) } else { None };
    let passwd = with_line(read("/etc/passwd").unwrap_or_else(|| ROOT_USER.into()), plan.uid, user);
    let group = with_line(read("/etc/group").unwrap_or_else(|| ROOT_GROUP.into()), plan.gid, group);
    let file = |path: &str, text: String| ViewFile { path: path.into(), bytes: text.into_bytes(), mode: 0o644 };
    [("/etc/passwd", passwd), ("/etc/group", group)].into_iter().filter_map(|(p, t)| Some(file(p, t?))).collect()
}

const ROOT_USER: &str = "root:x:0:0:root:/root:/bin/sh\n";
const ROOT_GROUP: &str = "root:x:0:\n";

/// `text` and a line for `id`, or `None` where it has one.
fn with_line(mut text: String, id: u32, line: impl Fn(&str) -> String) -> Option<String> {
    let fields = |l: &str| l.split(':').map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = text.lines().map(fields).collect();
    if lines.iter().any(|f| f.get(2).and_then(|n| n.parse().ok()) == Some(id)) {
        return None;
    }
    let taken = lines.iter().any(|f| f.first().is_some_and(|n| n == USER));
    let name = if taken { format!("{USER}-{id}") } else { USER.to_owned() };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&line(&name));
    Some(text)
}

fn read_bounded(path: &Path) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).ok()?;
    let mut text = String::new();
    let regular = file.metadata().is_ok_and(|m| m.is_file() && m.len() <= MAX_ACCOUNTS);
    (regular && file.take(MAX_ACCOUNTS).read_to_string(&mut text).is_ok()).then_some(text)
}

/// Puts `file` in place. Where the machine has a file of that name it is covered; a link is followed inside the view.
/// Returns a note where there is no such name and none can be made (a read-only /etc that lacks it).
pub(super) fn place(root: &mut NewRoot, file: &ViewFile) -> Result<Option<String>, ViewError> {
    let mut path = file.path.clone();
    for _ in 0..MAX_LINKS {
        match inside(root, &path) {
            Ok(target) => return cover(root, file, &path, &target).map(|()| None),
            Err(Errno::NOENT) => match link(root, &path)? {
                Some(next) => path = next,
                None if root.can_make(&path) => return root.file(&path, &file.bytes, file.mode).map(|_| None),
                None => {
                    let note = format!("{} is absent: this machine has none to put it over", file.path.display());
                    return Ok(Some(note));
                }
            },
            Err(e) => return Err(e).at("open", &path),
        }
    }
    Err(Errno::LOOP).at("follow links from", &file.path)
}

fn inside(root: &NewRoot, path: &Path) -> Result<OwnedFd, Errno> {
    let follow = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, relative(path).map_err(|_| Errno::INVAL)?, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), follow)
}

/// Where the link at `path` leads, if one lies there.
fn link(root: &NewRoot, path: &Path) -> Result<Option<PathBuf>, ViewError> {
    use std::os::unix::ffi::OsStrExt;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let directory = match inside(root, parent) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.at("open", parent)?,
    };
    let text = match readlinkat(&directory, name, Vec::new()) {
        Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
        other => other.at("read link", path)?,
    };
    let target = Path::new(std::ffi::OsStr::from_bytes(text.as_bytes()));
    let mut out = PathBuf::new();
    for part in parent.join(target).components() {
        if part == std::path::Component::ParentDir {
            out.pop();
        } else {
            out.push(part);
        }
    }
    Ok(Some(out))
}

fn cover(root: &mut NewRoot, file: &ViewFile, path: &Path, target: &OwnedFd) -> Result<(), ViewError> {
    let staged = Path::new(OWN).join("files").join(relative(&file.path)?);
    let source = root.file(&staged, &file.bytes, file.mode)?;
    let copy = Detached::copy(source.as_fd(), READ_ONLY_DATA, Reach::One).at("copy", &staged)?;
    root.cover(path, target.as_fd(), copy).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_gets_a_line_and_a_known_one_does_not() {
        let line = |name: &str| format!("{name}:x:1234:\n");
        let text = || "root:x:0:\nsandbox:x:7:".to_owned();
        assert_eq!(with_line(text(), 7, line), None);
        assert_eq!(with_line(text(), 1234, line).unwrap(), "root:x:0:\nsandbox:x:7:\nsandbox-1234:x:1234:\n");
        assert_eq!(with_line(String::new(), 1234, line).unwrap(), "sandbox:x:1234:\n");
    }
}
