//! Who called `connect` on which socket, as the kernel reported it.
//!
//! The report comes before the connection exists and its caller waits meanwhile, so nothing can have been handed on,
//! and no code of another process can have opened the connection. What is kept is bounded; what was dropped is nobody.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Instant,
};

use rustix::event::{PollFd, PollFlags, poll};
use stockade_sys::notify::{Call, Listener};

use super::process::{self, FileState, Process};

/// Connects remembered until their connection is accepted. Those of UDP and Unix sockets are among them, since only
/// untrusted memory tells them apart.
const MAX_CLAIMS: usize = 8192;
/// Processes among them: each costs a descriptor.
const MAX_PROCESSES: usize = 1024;
/// Processes whose handles outlive their connections: what is known of them serves the next one.
const RECENT: usize = 64;
/// Different callers of one socket that are told apart; from two on the answer is no.
const MAX_CALLERS: usize = 2;

/// One report.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) process: Arc<Process>,
    pub(super) fd: i32,
    pub(super) exe: FileState,
    pub(super) at: Instant,
}

/// What is known about a socket.
#[derive(Debug)]
pub(super) enum Claimed {
    /// No connect was reported, or it was forgotten.
    Nobody,
    /// The last caller; all ran the same executable.
    One(Claim),
    /// Callers of several executables.
    Several,
}

/// Reports that no connection was accepted for yet.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Store>);

#[derive(Debug, Default)]
struct Store {
    by_socket: HashMap<u32, Vec<Claim>>,
    /// Oldest first; sockets that are gone from the map are skipped.
    order: VecDeque<u32>,
    processes: HashMap<u32, Weak<Process>>,
    /// Newest last.
    recent: VecDeque<Arc<Process>>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Store> {
        // Behind this lock a panic can leave nothing half changed that would name a wrong process.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a listener on a thread of its own until nothing inside is left that could call.
    pub(super) fn listen(self: &Arc<Self>, listener: OwnedFd) -> io::Result<()> {
        let (claims, listener) = (Arc::clone(self), Listener::new(listener));
        thread::Builder::new().name("connects".to_owned()).stack_size(256 * 1024).spawn(move || {
            while ready(&listener) {
                match listener.next() {
                    Ok(call) => {
                        claims.note(&listener, call);
                        // It fails when the caller is gone.
                        listener.let_go(call).ok();
                    }
                    Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::Interrupted) => {}
                    Err(_) => return,
                }
            }
        })?;
        Ok(())
    }

    /// Remembers a call. One about which something cannot be found out is not remembered, and so nobody's.
    fn note(&self, listener: &Listener, call: Call) {
        let Some(inode) = process::socket(call.tid, call.fd) else { return };
        let Ok(exe) = process::exe(call.tid) else { return };
        let Some(process) = self.process(call.tid) else { return };
        if listener.waits(call) {
            self.insert(inode, Claim { process, fd: call.fd, exe, at: Instant::now() });
        }
    }

    /// The caller's process; one handle serves all its connections.
    fn process(&self, tid: u32) -> Option<Arc<Process>> {
        let known = self.lock().processes.get(&tid).and_then(Weak::upgrade);
        if let Some(process) = known.filter(|p| p.alive()) {
            return Some(process);
        }
        let process = Arc::new(Process::of_thread(tid).ok()?);
        let mut store = self.lock();
        store.processes.insert(process.pid, Arc::downgrade(&process));
        store.recent.push_back(Arc::clone(&process));
        if store.recent.len() > RECENT {
            store.recent.pop_front();
        }
        Some(process)
    }

    fn insert(&self, inode: u32, claim: Claim) {
        let mut store = self.lock();
        let claims = store.by_socket.entry(inode).or_default();
        let new = claims.is_empty();
        claims.retain(|c| c.exe.id != claim.exe.id);
        claims.push(claim);
        claims.truncate(MAX_CALLERS);
        if new {
            store.order.push_back(inode);
        }
        store.shrink();
    }

    /// What is known about a socket; it is forgotten.
    pub(super) fn take(&self, inode: u32) -> Claimed {
        let claims = self.lock().by_socket.remove(&inode).unwrap_or_default();
        match <[Claim; 1]>::try_from(claims) {
            Ok([claim]) => Claimed::One(claim),
            Err(none) if none.is_empty() => Claimed::Nobody,
            Err(_) => Claimed::Several,
        }
    }
}

impl Store {
    fn shrink(&mut self) {
        if self.order.len() >= 2 * MAX_CLAIMS {
            self.order.retain(|inode| self.by_socket.contains_key(inode));
        }
        while self.by_socket.len() > MAX_CLAIMS {
            self.forget_oldest();
        }
        if self.processes.len() > MAX_PROCESSES {
            self.processes.retain(|_, p| p.strong_count() > 0);
            while self.processes.len() > MAX_PROCESSES && !self.order.is_empty() {
                self.forget_oldest();
                self.processes.retain(|_, p| p.strong_count() > 0);
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(inode) = self.order.pop_front() {
            self.by_socket.remove(&inode);
        }
    }
}

/// Waits for a call; `false` when none can come any more.
fn ready(listener: &Listener) -> bool {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => return fds[0].revents().contains(PollFlags::IN),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(exe: &str) -> Claim {
        let process = Arc::new(Process::open(std::process::id()).unwrap());
        let exe = FileState::of(&rustix::fs::stat(exe).unwrap());
        Claim { process, fd: 0, exe, at: Instant::now() }
    }

    #[test]
    fn one_executable_is_one_caller_and_two_are_several() {
        let claims = Claims::default();
        assert!(matches!(claims.take(7), Claimed::Nobody));
        claims.insert(7, claim("/bin/sh"));
        claims.insert(7, claim("/bin/sh"));
        assert!(matches!(claims.take(7), Claimed::One(_)));
        assert!(matches!(claims.take(7), Claimed::Nobody), "taken once");
        for exe in ["/bin/sh", "/bin/cat", "/bin/ls"] {
            claims.insert(8, claim(exe));
        }
        claims.insert(8, claim("/bin/cat"));
        assert!(matches!(claims.take(8), Claimed::Several));
    }

    #[test]
    fn a_flood_forgets_the_oldest_and_stays_bounded() {
        let claims = Claims::default();
        let one = claim("/bin/sh");
        for inode in 0..100_000 {
            claims.insert(inode, one.clone());
        }
        assert!(matches!(claims.take(1), Claimed::Nobody));
        assert!(matches!(claims.take(99_999), Claimed::One(_)));
        let store = claims.lock();
        assert!(store.by_socket.len() <= MAX_CLAIMS && store.order.len() <= 2 * MAX_CLAIMS);
    }
}
