//! The processes above a caller, up to what the supervisor started.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::{
    lock,
    process::{self, FileState, Process},
};

/// Processes above a caller.
const MAX_ANCESTORS: usize = 64;
/// Those of them whose paths are kept for events, and how much of each.
const NAMED_ANCESTORS: usize = 16;
const ANCESTOR_PATH: usize = 128;
/// Parents remembered, because the same shells and agents stand above many callers: each costs a descriptor.
const MAX_KNOWN: usize = 256;

/// One process above a caller.
#[derive(Debug, Clone)]
pub(super) struct Above {
    pub(super) exe: FileState,
    pub(super) path: String,
}

/// A process as it was when it was last looked at.
#[derive(Debug)]
struct Parent {
    process: Process,
    exe: FileState,
    path: String,
}

/// Finds chains.
#[derive(Debug)]
pub(super) struct Ancestors {
    /// The sandbox's init, in the supervisor's pid namespace.
    init: u32,
    /// Programs that the supervisor started, by their pid inside, and when it knew. Whoever has the pid and is younger
    /// got it from another.
    started: Mutex<HashMap<u32, u64>>,
    known: Mutex<HashMap<u32, Arc<Parent>>>,
}

impl Ancestors {
    pub(super) fn new(init: u32) -> Self {
        Self { init, started: Mutex::default(), known: Mutex::default() }
    }

    /// Chains end at the program with this pid inside.
    pub(super) fn started(&self, pid: u32) {
        lock(&self.started).insert(pid, process::ticks());
    }

    /// The program with this pid inside ended.
    pub(super) fn ended(&self, pid: u32) {
        lock(&self.started).remove(&pid);
    }

    /// The processes above. A process whose parent ended has init's for one, which says nothing of who made it: its
    /// chain is not known.
    pub(super) fn of(&self, process: &Process) -> Option<Vec<Above>> {
        let mut chain: Vec<Arc<Parent>> = Vec::new();
        loop {
            let child = chain.last().map_or(process, |above| &above.process);
            let parent = child.parent().ok()?;
            if parent == self.init {
                break;
            }
            if chain.len() >= MAX_ANCESTORS {
                return None;
            }
            let above = self.look(parent)?;
            // Still the parent: so the handle is the parent's, and not of a process that got its pid since.
            if child.parent().ok()? != parent {
                return None;
            }
            chain.push(above);
        }
        if !self.is_started(&chain, process) {
            chain.pop()?;
        }
        let short = |(at, above): (usize, &Arc<Parent>)| {
            let path = if at < NAMED_ANCESTORS { short(&above.path) } else { String::new() };
            Above { exe: above.exe, path }
        };
        self.is_started(&chain, process).then(|| chain.iter().enumerate().map(short).collect())
    }

    fn is_started(&self, chain: &[Arc<Parent>], process: &Process) -> bool {
        let top = chain.last().map_or(process, |above| &above.process);
        let known = top.inside().ok().and_then(|pid| lock(&self.started).get(&pid).copied());
        known.is_some_and(|known| top.begun().is_ok_and(|begun| begun <= known))
    }

    /// The process with this pid and what it runs now.
    fn look(&self, pid: u32) -> Option<Arc<Parent>> {
        let known = lock(&self.known).get(&pid).cloned();
        // Alive after its executable was read: so that was its own, and the pid still is.
        if let Some(parent) = known.filter(|p| runs(&p.process) == p.exe && p.process.alive()) {
            return Some(parent);
        }
        let process = Process::open(pid).ok()?;
        let (exe, path) = (runs(&process), process.path());
        // Otherwise the path may be that of another.
        if runs(&process) != exe {
            return None;
        }
        let parent = Arc::new(Parent { process, exe, path });
        let mut known = lock(&self.known);
        if known.len() >= MAX_KNOWN {
            known.retain(|_, parent| parent.process.alive());
        }
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(pid, Arc::clone(&parent));
        Some(parent)
    }
}

/// The leader of a terminal session belongs to the machinery and cannot be looked into.
fn runs(process: &Process) -> FileState {
    process.exe().unwrap_or(FileState::NONE)
}

/// The beginning of a path that is too long.
fn short(path: &str) -> String {
    path.get(..path.floor_char_boundary(ANCESTOR_PATH)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that ended leaves its pid to whoever forks at the right moment.
    #[test]
    fn a_pid_that_was_given_away_is_not_the_program_that_had_it() {
        let own = Process::open(std::process::id()).unwrap();
        let ancestors = Ancestors::new(own.parent().unwrap());
        let pid = own.inside().unwrap();
        assert!(ancestors.of(&own).is_none(), "nobody was started");
        ancestors.started(pid);
        assert_eq!(ancestors.of(&own).map(|above| above.len()), Some(0), "started, and older than that");
        lock(&ancestors.started).insert(pid, own.begun().unwrap() - 1);
        assert!(ancestors.of(&own).is_none(), "it had the pid of one that was started before it");
        ancestors.started(pid);
        ancestors.ended(pid);
        assert!(ancestors.of(&own).is_none(), "ended");
    }
}
