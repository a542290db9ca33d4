//! Pipes for `splice(2)`, lent to flows while they are busy.

use std::{
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Bytes a pipe should hold. Where the kernel's per-user limit forbids it, a pipe keeps its 64 KiB.
pub(super) const CAPACITY: usize = 512 * 1024;
/// Pipes kept for the next flow.
const KEPT: usize = 16;
/// Pipes that exist at once. Further flows are copied.
const MOST: usize = 128;

/// One pipe, empty while in the pool.
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// The pool.
#[derive(Default)]
pub(crate) struct Pipes(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    kept: Vec<Pipe>,
    lent: usize,
}

impl Pipes {
    /// A pipe, unless so many are in use already or the kernel gives none: then the flow is copied.
    pub(super) fn take(&self) -> Option<Lent<'_>> {
        let mut inner = self.lock();
        if inner.lent >= MOST {
            return None;
        }
        let pipe = inner.kept.pop().or_else(make)?;
        inner.lent += 1;
        Some(Lent { pipe: Some(pipe), pool: self })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make() -> Option<Pipe> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    // A smaller pipe works too.
    fcntl_setpipe_size(&write, CAPACITY).ok();
    Some(Pipe { read, write })
}

/// A pipe on loan. Dropping it closes it, for it may hold bytes; an empty one is given back with [`Lent::give_back`].
pub(super) struct Lent<'a> {
    pipe: Option<Pipe>,
    pool: &'a Pipes,
}

impl Lent<'_> {
    /// The pipe.
    pub(super) fn ends(&self) -> Option<&Pipe> {
        self.pipe.as_ref()
    }

    /// Keeps the pipe, which is empty, for another flow.
    pub(super) fn give_back(mut self) {
        let pipe = self.pipe.take();
        let mut inner = self.pool.lock();
        if inner.kept.len() < KEPT {
            inner.kept.extend(pipe);
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pool.lock().lent -= 1;
    }
}
