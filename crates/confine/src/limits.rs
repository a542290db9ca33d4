//! Limits of memory, CPU, processes and open files, and what was used.
//!
//! Cgroups hold the first three: version 2 where it has the controllers, version 1 where they are still bound there,
//! found by asking the kernel. Without a cgroup that we may write, a user namespace bounds its processes by
//! `RLIMIT_NPROC`; memory and CPU are then absent. `RLIMIT_AS` is no substitute: it breaks every runtime that reserves
//! address space.

mod cgroup;
mod detect;
mod v2;

use std::{io, path::PathBuf, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stockade_types::{Enforcement, SandboxId};

pub use self::{
    cgroup::{Cgroup, Entry},
    detect::CgroupPlan,
};

/// Processes and threads a sandbox may have when nobody named a number: far above any build, far below what hurts.
pub const DEFAULT_PIDS: u64 = 4096;

/// How to get limits that cannot be had.
pub const WAY_OUT: &str = "delegate a cgroup (systemd: `Delegate=yes`, or `systemd-run --user --scope`) or run as root";

/// Processes of ours inside: init, the launcher, and a session leader.
const OUR_PIDS: u64 = 3;

/// What the policy asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Bytes of memory, all processes together, swap included.
    pub memory: Option<u64>,
    /// CPUs' worth of time.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// Run even when one of these cannot be enforced.
    pub best_effort: bool,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Memory.
    Memory,
    /// CPU time.
    Cpus,
    /// Processes and threads.
    Pids,
    /// Open files.
    OpenFiles,
}

impl Limit {
    /// As the policy writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpus => "cpus",
            Self::Pids => "pids",
            Self::OpenFiles => "open_files",
        }
    }
}

/// One limit with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStatus {
    /// Which limit.
    pub limit: Limit,
    /// Whether somebody named it; otherwise it is our default.
    pub named: bool,
    /// Whether it holds.
    pub enforcement: Enforcement,
}

/// Why a cgroup does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// A file or directory of a cgroup.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel holds another value than the one written.
    #[error("wrote {wrote} to {path}, and it reads {read}")]
    ReadBack {
        /// Where.
        path: PathBuf,
        /// What was written.
        wrote: String,
        /// What stands there.
        read: String,
    },
    /// A resource limit of the process.
    #[error("cannot set {what}: {source}")]
    Rlimit {
        /// Which.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Removing failed in one or more places.
    #[error("cgroups are left behind: {0}")]
    Left(String),
}

impl LimitsError {
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// Resource limits of every process inside, set by each child before it gives up its privileges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rlimits {
    /// `RLIMIT_NOFILE`.
    pub open_files: Option<u64>,
    /// `RLIMIT_NPROC`; only in a user namespace, where it counts the sandbox alone.
    pub processes: Option<u64>,
}

impl Rlimits {
    /// Sets them on the calling process, hard and soft.
    ///
    /// # Errors
    /// [`LimitsError::Rlimit`].
    pub fn apply(&self) -> Result<(), LimitsError> {
        for (resource, what, value) in
            [(Resource::Nofile, "RLIMIT_NOFILE", self.open_files), (Resource::Nproc, "RLIMIT_NPROC", self.processes)]
        {
            let Some(value) = value else { continue };
            // A lower hard limit that is already there bounds too, and cannot be raised.
            let value = getrlimit(resource).maximum.map_or(value, |hard| hard.min(value));
            setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
                .map_err(|e| LimitsError::Rlimit { what, source: e.into() })?;
        }
        Ok(())
    }
}

/// What a sandbox used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all processes.
    pub cpu: Duration,
    /// Most memory at one time, in bytes: of all processes together, or without a memory cgroup of the largest one.
    pub peak_memory: Option<u64>,
    /// Most processes and threads at one time, ours left out.
    pub peak_processes: Option<u64>,
    /// Processes that the kernel ended for want of memory.
    pub oom_kills: u64,
}

impl Usage {
    /// What the children that this process has reaped used, with all that they had reaped: for sandboxes without a cgroup.
    #[must_use]
    pub fn of_children() -> Self {
        use nix::sys::{
            resource::{UsageWho, getrusage},
            time::TimeVal,
        };
        let Ok(used) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Self::default() };
        let time = |t: TimeVal| {
            Duration::from_secs(t.tv_sec().try_into().unwrap_or(0))
                + Duration::from_micros(t.tv_usec().try_into().unwrap_or(0))
        };
        Self {
            cpu: time(used.user_time()) + time(used.system_time()),
            peak_memory: u64::try_from(used.max_rss()).ok().map(|kib| kib * 1024),
            ..Self::default()
        }
    }
}

/// Limits in place, before anything runs under them.
#[derive(Debug)]
pub struct Established {
    /// The cgroup to start the sandbox in.
    pub cgroup: Option<Cgroup>,
    /// For [`crate::plan::Plan`].
    pub rlimits: Rlimits,
    /// Each limit that was named, and our bound on processes.
    pub status: Vec<LimitStatus>,
    best_effort: bool,
}

impl Established {
    /// The state of the layer.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        let missing: Vec<String> = self
            .status
            .iter()
            .filter(|s| !s.enforcement.is_full())
            .map(|s| format!("{}: {}", s.limit.name(), s.enforcement))
            .collect();
        match missing.len() {
            0 => Enforcement::Enforced,
            n if n == self.status.len() => Enforcement::Absent(missing.join("; ")),
            _ => Enforcement::Partial(missing.join("; ")),
        }
    }

    /// Why the command must not start: a limit that was named and cannot be enforced, without `best_effort`.
    #[must_use]
    pub fn unmet(&self) -> Option<String> {
        if self.best_effort {
            return None;
        }
        let s = self.status.iter().find(|s| s.named && !s.enforcement.is_full())?;
        Some(format!(
            "the limit of {} cannot be enforced: {}\n{WAY_OUT}, or accept it with `process: {{limits: {{best_effort: true}}}}` in the policy",
            s.limit.name(),
            s.enforcement
        ))
    }
}

/// Puts `limits` in place for the sandbox `id`, as far as this machine can. `user_namespace`: whether the command runs
/// in one of its own. What cannot be enforced is in the status, not an error: the caller decides.
#[must_use]
pub fn establish(id: &SandboxId, limits: &Limits, user_namespace: bool) -> Established {
    let (cgroup, mut status) = CgroupPlan::detect().create(id, limits);
    let mut rlimits = Rlimits { open_files: limits.open_files, processes: None };
    for s in status.iter_mut().filter(|s| s.limit == Limit::Pids && !s.enforcement.is_full()) {
        if user_namespace {
            rlimits.processes = Some(limits.pids.unwrap_or(DEFAULT_PIDS).saturating_add(OUR_PIDS));
            s.enforcement = Enforcement::Enforced;
        }
    }
    if limits.open_files.is_some() {
        status.push(LimitStatus { limit: Limit::OpenFiles, named: true, enforcement: Enforcement::Enforced });
    }
    Established { cgroup, rlimits, status, best_effort: limits.best_effort }
}

#[cfg(test)]
mod tests;
