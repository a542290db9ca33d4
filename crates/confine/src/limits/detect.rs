//! Which cgroup hierarchies this process can make a sandbox's cgroup in. Nothing is assumed: mounts say where, the
//! process's own entry says which directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a hierarchy can do for a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    /// Limits and counts memory.
    Memory,
    /// Limits CPU time.
    Cpu,
    /// Counts CPU time (version 1; version 2 counts it without a controller).
    Cpuacct,
    /// Limits and counts processes.
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Cpuacct, Self::Pids];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Pids => "pids",
        }
    }
}

/// One mounted hierarchy, seen from this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Directory of the cgroup this process is in.
    pub(super) own: PathBuf,
    /// Where the hierarchy is mounted: no directory above it.
    pub(super) mount: PathBuf,
    /// Version 1: the controllers bound to it.
    pub(super) controllers: Vec<Controller>,
    /// Mounted read-only.
    pub(super) read_only: bool,
}

/// The hierarchies of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupPlan {
    pub(super) v1: Vec<Hierarchy>,
    pub(super) v2: Option<Hierarchy>,
}

impl CgroupPlan {
    /// Looks at the mounts and at this process's own cgroups. A machine without any is an empty plan.
    #[must_use]
    pub fn detect() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    pub(super) fn parse(mountinfo: &str, own: &str) -> Self {
        let mut plan = Self::default();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let Some(path) = own_path(own, &mount) else { continue };
            let Some(dir) = mount.locate(path) else { continue };
            let hierarchy =
                Hierarchy { own: dir, controllers: mount.controllers(), read_only: mount.read_only, mount: mount.at };
            if mount.version2 {
                // Mounted twice: the one that can be written wins.
                if plan.v2.as_ref().is_none_or(|h| h.read_only) {
                    plan.v2 = Some(hierarchy);
                }
            } else if !hierarchy.controllers.is_empty() {
                match plan.v1.iter_mut().find(|h| h.controllers == hierarchy.controllers) {
                    Some(seen) if seen.read_only => *seen = hierarchy,
                    Some(_) => {}
                    None => plan.v1.push(hierarchy),
                }
            }
        }
        plan
    }
}

/// A line of mountinfo that is a cgroup hierarchy.
struct Mount {
    root: PathBuf,
    at: PathBuf,
    version2: bool,
    read_only: bool,
    options: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, at, flags) = (left.next()?, left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, _source, options) = (right.next()?, right.next()?, right.next().unwrap_or(""));
        let version2 = match kind {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let has_ro = |s: &str| s.split(',').any(|o| o == "ro");
        Some(Self {
            root: unescape(root),
            at: unescape(at),
            version2,
            read_only: has_ro(flags) || has_ro(options),
            options: options.split(',').map(str::to_owned).collect(),
        })
    }

    fn controllers(&self) -> Vec<Controller> {
        Controller::ALL.into_iter().filter(|c| self.options.iter().any(|o| o == c.name())).collect()
    }

    /// The directory of `path`, a path within the hierarchy as `/proc/self/cgroup` gives it.
    fn locate(&self, path: &Path) -> Option<PathBuf> {
        let below = match path.strip_prefix(&self.root) {
            Ok(below) => below,
            // A container's mount of its own cgroup, seen from a cgroup namespace rooted there.
            Err(_) if path == Path::new("/") => Path::new(""),
            Err(_) => return None,
        };
        // `/..` means: outside of what this namespace can see.
        if below.components().any(|c| c == std::path::Component::ParentDir) {
            return None;
        }
        Some(if below == Path::new("") { self.at.clone() } else { self.at.join(below) })
    }
}

/// This process's path in the hierarchy that `mount` shows.
fn own_path<'a>(own: &'a str, mount: &Mount) -> Option<&'a Path> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let here = if mount.version2 {
            number == "0" && names.is_empty()
        } else {
            !names.is_empty() && names.split(',').all(|n| mount.options.iter().any(|o| o == n))
        };
        here.then(|| Path::new(path))
    })
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match (byte, octal) {
            (b'\\', Some(value)) => {
                out.push(value);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}
