//! Notices that a policy file changed, where the command could not have changed it.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

/// An editor saves in several steps; events this close together count as one change.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches `files` by their directories (a save by rename replaces the file) and calls `changed` after each change,
/// until it returns `false`.
///
/// # Errors
/// When the directories cannot be watched.
pub(crate) fn start(files: &[PathBuf], changed: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    let fd = init(CreateFlags::CLOEXEC)?;
    let parents: BTreeSet<&Path> = files.iter().filter_map(|f| f.parent()).collect();
    for dir in parents {
        add_watch(&fd, dir, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE)?;
    }
    let mut names: BTreeSet<OsString> = files.iter().filter_map(|f| f.file_name().map(OsString::from)).collect();
    // Kubernetes changes all files of a ConfigMap or Secret at once by renaming this link.
    names.insert("..data".into());
    thread::Builder::new().name("policy-watch".to_owned()).stack_size(128 * 1024).spawn(move || {
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
    })?;
    Ok(())
}
