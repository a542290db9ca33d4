//! The cgroup of one sandbox: one directory per hierarchy that has something to offer.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use stockade_types::{Enforcement, SandboxId};

use super::{
    DEFAULT_PIDS, Limit, LimitStatus, Limits, LimitsError, OUR_PIDS, Usage,
    detect::{CgroupPlan, Controller, Hierarchy},
    v2,
};

/// How long an ended sandbox's processes may take to leave its cgroup.
const LINGER: Duration = Duration::from_millis(500);
/// Age at which an empty cgroup of a sandbox belongs to nobody: far longer than a start takes.
const STALE: Duration = Duration::from_secs(60);
/// The kernel rounds memory down to whole pages; none is larger than this.
const LARGEST_PAGE: u64 = 64 * 1024;
/// Period of the CPU quota, in microseconds.
const PERIOD: u64 = 100_000;

/// A sandbox's cgroup. Dropping removes it; [`Cgroup::remove`] says what went wrong.
#[derive(Debug)]
pub struct Cgroup {
    dirs: Vec<Dir>,
}

/// One directory.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) path: PathBuf,
    pub(super) controllers: Vec<Controller>,
    pub(super) version2: bool,
    /// Version 1: the `tasks` file, opened with the maker's rights. Version 2: the directory, for `CLONE_INTO_CGROUP`.
    pub(super) entry: File,
}

/// The way into a cgroup for a single-threaded process about itself. Moving another process makes the kernel wait for
/// an RCU grace period, 11 ms here; moving oneself, or being born inside, 0.1 ms.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a>(&'a Cgroup);

impl<'a> Entry<'a> {
    /// The version 2 directory, to be born in (`CLONE_INTO_CGROUP`).
    #[must_use]
    pub fn birthplace(&self) -> Option<BorrowedFd<'a>> {
        self.0.dirs.iter().find(|d| d.version2).map(|d| d.entry.as_fd())
    }

    /// What a new process must keep open to [`Self::join`].
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
        self.0.dirs.iter().filter(|d| !d.version2).map(|d| d.entry.as_fd())
    }

    /// Moves the calling process into the version 1 directories; works in a new user namespace too. The process must
    /// have one thread.
    ///
    /// # Errors
    /// [`LimitsError::Io`].
    pub fn join(&self) -> Result<(), LimitsError> {
        self.0.dirs.iter().filter(|d| !d.version2).try_for_each(|dir| {
            (&dir.entry).write_all(b"0").map_err(LimitsError::io("move this process into", &dir.path))
        })
    }
}

impl CgroupPlan {
    /// Makes the sandbox's cgroup and writes `limits` into it. What cannot be had is in the status.
    #[must_use]
    pub fn create(&self, id: &SandboxId, limits: &Limits) -> (Option<Cgroup>, Vec<LimitStatus>) {
        let name = format!("stockade-{id}");
        for hierarchy in self.v1.iter().chain(&self.v2).filter(|h| !h.read_only) {
            hierarchy.own.ancestors().take_while(|p| p.starts_with(&hierarchy.mount)).for_each(sweep);
        }
        let mut dirs = Vec::new();
        let mut refused = Vec::new();
        // Entering a `cpu` group costs milliseconds: only for who asked for it.
        let spare_cpu = |cs: &[Controller]| limits.cpus.is_some() || !cs.contains(&Controller::Cpu);
        for hierarchy in self.v1.iter().filter(|h| spare_cpu(&h.controllers)) {
            match make_v1(hierarchy, &name) {
                Ok(dir) => dirs.push(dir),
                Err(why) => refused.push((hierarchy.controllers.clone(), why)),
            }
        }
        if let Some(hierarchy) = &self.v2 {
            // Only what somebody named, and our bound on processes: groups above are not ours to rearrange.
            let named =
                [(Controller::Memory, limits.memory.is_some()), (Controller::Cpu, limits.cpus.is_some())].into_iter();
            let bound_elsewhere = |c: &Controller| self.v1.iter().any(|h| h.controllers.contains(c));
            let wanted: Vec<_> = named
                .chain([(Controller::Pids, true)])
                .filter_map(|(c, wanted)| wanted.then_some(c))
                .filter(|c| !bound_elsewhere(c))
                .collect();
            match v2::make(hierarchy, &name, &wanted) {
                Ok(dir) => dirs.push(dir),
                Err(why) => refused.push((Controller::ALL.to_vec(), why)),
            }
        }
        let cgroup = Cgroup { dirs };
        let wanted = [
            (Limit::Memory, Controller::Memory, limits.memory.is_some()),
            (Limit::Cpus, Controller::Cpu, limits.cpus.is_some()),
            (Limit::Pids, Controller::Pids, limits.pids.is_some()),
        ];
        let status = wanted
            .into_iter()
            .filter(|(limit, _, named)| *named || *limit == Limit::Pids)
            .map(|(limit, controller, named)| {
                let enforcement = match cgroup.dirs.iter().find(|d| d.controllers.contains(&controller)) {
                    Some(dir) => match write_limit(dir, limit, limits) {
                        Ok(()) => Enforcement::Enforced,
                        Err(e) => Enforcement::Absent(e.to_string()),
                    },
                    None => Enforcement::Absent(why_not(controller, &refused)),
                };
                LimitStatus { limit, named, enforcement }
            })
            .collect();
        ((!cgroup.dirs.is_empty()).then_some(cgroup), status)
    }
}

fn why_not(controller: Controller, refused: &[(Vec<Controller>, String)]) -> String {
    let why: Vec<&str> =
        refused.iter().filter(|(cs, _)| cs.contains(&controller)).map(|(_, why)| why.as_str()).collect();
    if why.is_empty() {
        format!("no cgroup hierarchy here has the {} controller", controller.name())
    } else {
        why.join("; ")
    }
}

/// Removes the cgroups of sandboxes whose supervisor was killed before it could. The kernel refuses to remove one with
/// a process in it; one that was made just now may be about to get its first.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().and_then(|n| n.strip_prefix("stockade-")).is_some_and(SandboxId::is_valid);
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if ours && age().is_some_and(|a| a > STALE) {
            // In use, or somebody else was quicker.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn make_v1(hierarchy: &Hierarchy, name: &str) -> Result<Dir, String> {
    if hierarchy.read_only {
        return Err(format!("{} is mounted read-only", hierarchy.mount.display()));
    }
    let path = hierarchy.own.join(name);
    fs::create_dir(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
    match OpenOptions::new().write(true).open(path.join("tasks")) {
        Ok(entry) => Ok(Dir { path, controllers: hierarchy.controllers.clone(), version2: false, entry }),
        Err(e) => {
            let why = format!("cannot open {}/tasks: {e}", path.display());
            // The error above is what is told; an empty directory that stays is removed with its parent.
            let _ = fs::remove_dir(&path);
            Err(why)
        }
    }
}

fn write_limit(dir: &Dir, limit: Limit, limits: &Limits) -> Result<(), LimitsError> {
    match limit {
        Limit::Memory => write_memory(dir, limits.memory.unwrap_or(u64::MAX)),
        Limit::Cpus => {
            // Rounded up: a tiny share is still a share.
            let quota = (limits.cpus.unwrap_or(f64::INFINITY) * PERIOD as f64).ceil().max(1_000.0) as u64;
            if dir.version2 {
                let value = format!("{quota} {PERIOD}");
                write_value(&dir.path.join("cpu.max"), &value, |read| read == value)
            } else {
                write_exact(&dir.path.join("cpu.cfs_period_us"), PERIOD)?;
                write_exact(&dir.path.join("cpu.cfs_quota_us"), quota)
            }
        }
        Limit::Pids => {
            write_exact(&dir.path.join("pids.max"), limits.pids.unwrap_or(DEFAULT_PIDS).saturating_add(OUR_PIDS))
        }
        Limit::OpenFiles => Ok(()),
    }
}

/// Memory and swap together: otherwise the limit only moves what is over it to swap.
fn write_memory(dir: &Dir, bytes: u64) -> Result<(), LimitsError> {
    let rounded = |read: &str| read.parse::<u64>().is_ok_and(|r| r <= bytes && r.saturating_add(LARGEST_PAGE) > bytes);
    let optional = |path: PathBuf, value: u64| if path.exists() { write_exact(&path, value) } else { Ok(()) };
    if dir.version2 {
        write_value(&dir.path.join("memory.max"), &bytes.to_string(), rounded)?;
        optional(dir.path.join("memory.swap.max"), 0)
    } else {
        write_value(&dir.path.join("memory.limit_in_bytes"), &bytes.to_string(), rounded)?;
        let both = dir.path.join("memory.memsw.limit_in_bytes");
        if both.exists() { write_value(&both, &bytes.to_string(), rounded) } else { Ok(()) }
    }
}

fn write_exact(path: &Path, value: u64) -> Result<(), LimitsError> {
    let value = value.to_string();
    write_value(path, &value, |read| read == value)
}

fn write_value(path: &Path, value: &str, holds: impl Fn(&str) -> bool) -> Result<(), LimitsError> {
    write_file(path, value).map_err(LimitsError::io("write", path))?;
    let read = fs::read_to_string(path).map_err(LimitsError::io("read back", path))?;
    if holds(read.trim()) {
        Ok(())
    } else {
        Err(LimitsError::ReadBack { path: path.to_owned(), wrote: value.to_owned(), read: read.trim().to_owned() })
    }
}

/// Writes without creating: a control file that does not exist is an error.
pub(super) fn write_file(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

impl Cgroup {
    /// The quick way in.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry(self)
    }

    /// Moves process `pid`, with all its threads, into the cgroup. Takes about 11 ms: see [`Entry`].
    ///
    /// # Errors
    /// [`LimitsError::Io`].
    pub fn add(&self, pid: i32) -> Result<(), LimitsError> {
        self.dirs.iter().try_for_each(|dir| {
            let path = dir.path.join("cgroup.procs");
            write_file(&path, &pid.to_string()).map_err(LimitsError::io("move the sandbox into", path))
        })
    }

    /// What was used until now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for dir in &self.dirs {
            let number = |file: &str| fs::read_to_string(dir.path.join(file)).ok()?.trim().parse::<u64>().ok();
            let keyed = |file: &str, key: &str| {
                let text = fs::read_to_string(dir.path.join(file)).ok()?;
                text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
            };
            let (cpu, peak, kills) = if dir.version2 {
                let kills = keyed("memory.events", "oom_kill");
                (keyed("cpu.stat", "usage_usec").map(Duration::from_micros), number("memory.peak"), kills)
            } else {
                let kills = keyed("memory.oom_control", "oom_kill");
                (number("cpuacct.usage").map(Duration::from_nanos), number("memory.max_usage_in_bytes"), kills)
            };
            usage.cpu = usage.cpu.max(cpu.unwrap_or_default());
            usage.peak_memory = usage.peak_memory.max(peak);
            usage.oom_kills = usage.oom_kills.max(kills.unwrap_or_default());
            let pids = number("pids.peak").map(|n| n.saturating_sub(OUR_PIDS));
            usage.peak_processes = usage.peak_processes.max(pids);
        }
        if usage.cpu.is_zero() {
            usage.cpu = Usage::of_children().cpu;
        }
        usage
    }

    /// Ends every process in it with SIGKILL.
    ///
    /// # Errors
    /// [`LimitsError::Io`] when its members cannot be read or ended.
    pub fn kill(&self) -> Result<(), LimitsError> {
        let Some(dir) = self.dirs.iter().find(|d| d.version2).or_else(|| self.dirs.first()) else { return Ok(()) };
        let at_once = dir.path.join("cgroup.kill");
        if at_once.exists() {
            return write_file(&at_once, "1").map_err(LimitsError::io("write", at_once));
        }
        let path = dir.path.join("cgroup.procs");
        let until = Instant::now() + LINGER;
        // Until none is left: between reading and killing, a member may fork.
        loop {
            let members = fs::read_to_string(&path).map_err(LimitsError::io("read", &path))?;
            if members.trim().is_empty() || Instant::now() > until {
                return Ok(());
            }
            for pid in members.lines().filter_map(|l| l.trim().parse().ok()).filter(|pid| *pid > 0) {
                // Gone already is as good as killed.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes the directories, once their last process is gone.
    ///
    /// # Errors
    /// [`LimitsError::Left`] with every directory that stayed.
    pub fn remove(mut self) -> Result<(), LimitsError> {
        self.clear()
    }

    fn clear(&mut self) -> Result<(), LimitsError> {
        let until = Instant::now() + LINGER;
        let mut left = Vec::new();
        for dir in self.dirs.drain(..) {
            if let Err(e) = remove_dir(&dir.path, until) {
                left.push(format!("{}: {e}", dir.path.display()));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(LimitsError::Left(left.join("; "))) }
    }
}

fn remove_dir(path: &Path, until: Instant) -> io::Result<()> {
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // An ended process leaves its cgroup a moment after it was reaped.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => return Err(e),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whoever wants to know calls `remove`.
        let _ = self.clear();
    }
}
