//! Sockets in granted directories: whoever listens on one is outside, and answers to what the command says. Neither a
//! read-only mount nor the fence stands between them, so a person is told.

use std::{
    ffi::OsStr,
    fmt::Write,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};
use stockade_audit::{Audit, Event, Finding};
use stockade_confine::view::ViewPlan;
use stockade_types::Reason;

/// Entries looked at, over all granted directories.
const ENTRIES: usize = 50_000;
/// Directories below a granted one that are entered; each holds a descriptor meanwhile.
const DEPTH: usize = 24;
/// Time for the whole search, which runs beside the command.
const TIME: Duration = Duration::from_secs(2);
/// Sockets named in the finding; more are counted.
const NAMED: usize = 8;

/// Searches what the plan grants, on a thread of its own, and reports what it finds. What the command makes meanwhile
/// may be found as well.
pub(crate) fn report(plan: &ViewPlan, audit: Audit) -> std::io::Result<()> {
    let roots: Vec<PathBuf> = plan.grants.iter().map(|g| g.path.clone()).collect();
    let hidden = plan.hidden.clone();
    if roots.is_empty() {
        return Ok(());
    }
    let search = move || {
        let mut search = Search { hidden, until: Instant::now() + TIME, left: ENTRIES, found: Vec::new(), count: 0 };
        roots.iter().for_each(|root| search.root(root));
        if search.count > 0 {
            audit.emit(Event::Finding(search.finding()));
        }
    };
    thread::Builder::new().name("sockets".to_owned()).stack_size(256 * 1024).spawn(search).map(drop)
}

struct Search {
    hidden: Vec<PathBuf>,
    until: Instant,
    left: usize,
    found: Vec<PathBuf>,
    count: u64,
}

impl Search {
    fn root(&mut self, path: &Path) {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(dir) => self.walk(dir, path, 0),
            // A grant may be the socket itself; a person who names it means it, and is told all the same.
            Err(rustix::io::Errno::NOTDIR) => {
                let stat = rustix::fs::statat(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
                if stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Socket) {
                    self.note(path.to_owned());
                }
            }
            // What cannot be opened here is judged where the view is made.
            Err(_) => {}
        }
    }

    /// Never through a link: the command may be exchanging directories for links meanwhile.
    fn walk(&mut self, dir: OwnedFd, path: &Path, depth: usize) {
        let Ok(mut entries) = Dir::read_from(&dir) else { return };
        while let Some(Ok(entry)) = entries.read() {
            if self.left == 0 || Instant::now() > self.until {
                return;
            }
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            self.left -= 1;
            let below = path.join(OsStr::from_bytes(name));
            match entry.file_type() {
                _ if self.hidden.contains(&below) => {}
                FileType::Socket => self.note(below),
                FileType::Directory if depth < DEPTH => {
                    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    if let Ok(next) = openat(&dir, entry.file_name(), flags, Mode::empty()) {
                        self.walk(next, &below, depth + 1);
                    }
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, path: PathBuf) {
        self.count += 1;
        if self.found.len() < NAMED {
            self.found.push(path);
        }
    }

    fn finding(&self) -> Finding {
        let mut detail = "the command can talk to who listens on".to_owned();
        for (n, path) in self.found.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(detail, "{} {}", if n == 0 { "" } else { "," }, path.display());
        }
        let more = self.count.saturating_sub(NAMED as u64);
        if more > 0 {
            let _ = write!(detail, " and {more} more sockets");
        }
        detail.push_str(" in granted directories, past the proxy; hide them or grant less");
        Finding { reason: Reason::SharedSocket, severity: 4, detail, count: self.count }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener};

    use super::*;

    fn search(hidden: Vec<PathBuf>, left: usize) -> Search {
        Search { hidden, until: Instant::now() + TIME, left, found: Vec::new(), count: 0 }
    }

    #[test]
    fn sockets_are_found_and_links_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let elsewhere = tempfile::tempdir().unwrap();
        let _far = UnixListener::bind(elsewhere.path().join("far")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), at("link")).unwrap();
        fs::create_dir_all(at("a/b")).unwrap();
        let _kept = [at("a/b/sock"), at("top"), at("secret")].map(|p| UnixListener::bind(p).unwrap());
        let mut all = search(vec![at("secret")], ENTRIES);
        all.root(dir.path());
        all.found.sort();
        assert_eq!(all.found, [at("a/b/sock"), at("top")]);
        let mut one = search(Vec::new(), ENTRIES);
        one.root(&at("top"));
        assert_eq!(one.count, 1, "a grant that is a socket");
    }

    #[test]
    fn the_search_is_bounded_in_entries_depth_and_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().to_owned();
        for _ in 0..DEPTH + 2 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        let nearby = dir.path().join("d/near");
        let _kept = [UnixListener::bind(&nearby).unwrap()];
        // The deep name is too long for an address, so it is made by a rename.
        let other = dir.path().join("far");
        let _far = UnixListener::bind(&other).unwrap();
        fs::rename(&other, deep.join("far")).unwrap();
        let mut all = search(Vec::new(), ENTRIES);
        all.root(dir.path());
        assert_eq!(all.found, [nearby]);
        let mut few = search(Vec::new(), 1);
        few.root(dir.path());
        assert_eq!((few.count, few.left), (0, 0));
        let mut many = search(Vec::new(), ENTRIES);
        (0..100).for_each(|n| many.note(format!("/s{n}").into()));
        let finding = many.finding();
        assert_eq!((finding.count, finding.detail.contains("/s7 and 92 more")), (100, true), "{finding:?}");
    }
}
