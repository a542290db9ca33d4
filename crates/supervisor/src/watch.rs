//! Notices that a policy file changed, where the command could not have changed it.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

use crate::stamp::Stamp;

/// An editor saves in several steps; events this close together count as one change.
const SETTLE: Duration = Duration::from_millis(100);
/// The kernel is asked to tell only after this time, before which the files are compared: it takes some 15 ms to end a
/// watch, and every short command would wait for it.
const LATER: Duration = Duration::from_secs(1);
/// How often the files are compared where the kernel has no watch left to give.
const LOOK: Duration = Duration::from_secs(5);

/// Watches `files` by their directories (a save by rename replaces the file) and calls `changed` after each change from
/// what they were when they were read, until it returns `false`.
///
/// # Errors
/// When no thread can be made.
pub(crate) fn start(
    files: Vec<(PathBuf, Option<Stamp>)>,
    changed: impl Fn() -> bool + Send + 'static,
) -> io::Result<()> {
    let (paths, stamps) = files.into_iter().unzip();
    let mut files = Files { paths, stamps };
    thread::Builder::new().name("policy-watch".to_owned()).stack_size(128 * 1024).spawn(move || {
        thread::sleep(LATER);
        match files.watched() {
            Ok(fd) => files.listen(fd, &changed),
            Err(_) => {
                while files.unless_changed(&changed) {
                    thread::sleep(LOOK);
                }
            }
        }
    })?;
    Ok(())
}

/// The files, and what they were when they were last seen.
struct Files {
    paths: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| Stamp::of(path).ok()).collect()
}

impl Files {
    fn watched(&self) -> io::Result<OwnedFd> {
        let fd = init(CreateFlags::CLOEXEC)?;
        let parents: BTreeSet<&Path> = self.paths.iter().filter_map(|f| f.parent()).collect();
        for dir in parents {
            add_watch(&fd, dir, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE)?;
        }
        Ok(fd)
    }

    /// Says so if they are not what they were. Whether somebody still listens.
    fn unless_changed(&mut self, changed: &impl Fn() -> bool) -> bool {
        let now = stamps(&self.paths);
        if now == self.stamps {
            return true;
        }
        thread::sleep(SETTLE);
        self.stamps = stamps(&self.paths);
        changed()
    }

    fn listen(mut self, fd: OwnedFd, changed: &impl Fn() -> bool) {
        if !self.unless_changed(changed) {
            return;
        }
        let mut names: BTreeSet<OsString> =
            self.paths.iter().filter_map(|f| f.file_name().map(OsString::from)).collect();
        // Kubernetes changes all files of a ConfigMap or Secret at once by renaming this link.
        names.insert("..data".into());
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&fd, &mut buffer);
        loop {
            let ours = match reader.next() {
                Ok(event) => event.file_name().is_some_and(|n| names.iter().any(|o| o.as_bytes() == n.to_bytes())),
                Err(rustix::io::Errno::INTR) => false,
                Err(_) => return,
            };
            if ours {
                thread::sleep(SETTLE);
                if !changed() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_change_is_told_in_the_first_moment_and_later() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["policy.yaml", "other"].map(|name| dir.path().join(name));
        fs::write(&one, "1").unwrap();
        let (told, tells) = mpsc::channel();
        // It changed between being read and being watched.
        let read = Stamp::of(&one).ok();
        fs::write(&one, "22").unwrap();
        start(vec![(one.clone(), read)], move || told.send(()).is_ok()).unwrap();
        tells.recv_timeout(LONG).unwrap();
        // By now the kernel tells.
        for text in ["333", "4444"] {
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), &one).unwrap();
            tells.recv_timeout(LONG).unwrap();
        }
        while tells.recv_timeout(2 * SETTLE).is_ok() {}
        fs::write(&other, "control").unwrap();
        assert!(tells.recv_timeout(5 * SETTLE).is_err(), "another file");
    }

    #[test]
    fn without_a_watch_the_files_are_compared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        fs::write(&path, "1").unwrap();
        let mut files = Files { stamps: stamps(std::slice::from_ref(&path)), paths: vec![path.clone()] };
        assert!(files.unless_changed(&|| panic!("nothing changed")));
        fs::write(&path, "22").unwrap();
        assert!(!files.unless_changed(&|| false), "nobody listens any more");
        assert!(files.unless_changed(&|| panic!("it was told already")));
    }
}
