//! The one place of this process that waits for children.
//!
//! As PID 1 of a container it is given every orphan there, those of `docker exec` included. Each is looked at first and
//! then taken: passing one over would show the same one for ever and hide what ended after it. Who watches over init
//! learns of its end by its pidfd, which no reaping takes away, and of its manner from here.

use std::{
    io,
    sync::{Arc, OnceLock},
    thread,
};

use stockade_sys::process::{self, Status};

/// Reaps on a thread of its own until no child is left.
#[derive(Debug, Clone)]
pub(crate) struct Reaper {
    init: Arc<OnceLock<Status>>,
}

impl Reaper {
    /// Starts; `init` is the pid whose manner of ending is kept.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(crate) fn start(init: u32) -> io::Result<Self> {
        let ended = Arc::new(OnceLock::new());
        let keep = Arc::clone(&ended);
        thread::Builder::new().name("reaper".to_owned()).stack_size(128 * 1024).spawn(move || {
            loop {
                match process::next() {
                    Ok(Some((pid, status))) => {
                        if u32::try_from(pid) == Ok(init) {
                            // Set once: a pid is used again only after this one is taken.
                            let _ = keep.set(status);
                        }
                        // Nobody else takes it; a failure would show the same child again.
                        if process::take(pid).is_err() {
                            return;
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    // No child is left: init is gone, and the process about to end.
                    Ok(None) | Err(_) => return,
                }
            }
        })?;
        Ok(Self { init: ended })
    }

    /// How init ended, where that was by a signal: `init` ends in no other way while it is needed.
    pub(crate) fn init_killed_by(&self) -> Option<i32> {
        match self.init.get() {
            Some(Status::Signaled(signal)) => Some(*signal),
            _ => None,
        }
    }
}

/// Orphans of this process's children are given to it and not to PID 1, where it is not PID 1 itself.
///
/// # Errors
/// What `prctl(2)` says.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    if process::is_pid_one() { Ok(()) } else { nix::sys::prctl::set_child_subreaper(true).map_err(Into::into) }
}
