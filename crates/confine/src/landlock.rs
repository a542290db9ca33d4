//! Landlock: a second layer under the mount view, at the newest ABI the running kernel speaks.
//!
//! Every right of that ABI is a hard requirement; a right the kernel does not know yet is listed with the control
//! that stands in for it. Landlock's network rights are left out on purpose: they know ports and not addresses, and
//! the network namespace with its fence already closes every way out.

use std::{
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use stockade_sys::filter::landlock_abi;
use stockade_types::Enforcement;

/// The newest ABI whose rights this module has been written for.
const NEWEST: u32 = 9;

/// What the command may touch; everything else is refused. Paths are opened by [`prepare`], so they are paths of the
/// finished view.
///
/// Rules only ever add: a read-only path below a read-write one stays writable here, and is kept read-only by its mount.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Directories may be listed, and nothing else: `/`, whose own entries are no secret.
    pub list: Vec<PathBuf>,
    /// Read, list and execute.
    pub read_only: Vec<PathBuf>,
    /// Everything but device ioctls and making device nodes.
    pub read_write: Vec<PathBuf>,
    /// Existing files may be read and written, nothing made or removed: `/proc` where CUDA has to write to it. What
    /// must stay closed below (`/proc/sys` and its like) is closed by mounts and file modes.
    pub update: Vec<PathBuf>,
    /// Device nodes, or directories of them (`/dev/pts`, `/dev/dri`): read, write and ioctl.
    pub devices: Vec<PathBuf>,
    /// Pretends that the kernel speaks no newer ABI than this one; 0 for a kernel without Landlock.
    pub force_abi: Option<u8>,
}

/// A right that the ABI in use does not have, and what holds instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// The right, by its kernel name.
    pub right: &'static str,
    /// The first ABI that has it.
    pub since: u32,
    /// The control that stands in for it.
    pub instead: &'static str,
}

/// Rights that came after ABI 1, in order.
const LATER: &[Lacking] = &[
    Lacking {
        right: "refer",
        since: 2,
        instead: "without it the kernel refuses every link or rename across directories",
    },
    Lacking { right: "truncate", since: 3, instead: "read-only paths are read-only mounts" },
    Lacking { right: "ioctl_dev", since: 5, instead: "device nodes that are not granted are absent" },
    Lacking {
        right: "scope: abstract unix sockets",
        since: 6,
        instead: "abstract names belong to the network namespace",
    },
    Lacking { right: "scope: signals", since: 6, instead: "nothing outside the pid namespace has a pid" },
    Lacking { right: "resolve_unix", since: 9, instead: "sockets of outside programs are absent from the view" },
];

/// What a [`Prepared`] domain enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// ABI of the running kernel.
    pub kernel_abi: u32,
    /// ABI in use.
    pub abi: u32,
    /// Paths granted.
    pub rules: usize,
    /// Rights this ABI lacks.
    pub lacking: Vec<Lacking>,
}

impl Report {
    /// The notes a status shows beside the state: one line per right that something else stands in for.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes =
            vec!["network rights not handled: they know ports, not addresses; netns and fence hold".to_owned()];
        notes.extend(self.lacking.iter().map(|l| format!("{} needs ABI {}: {}", l.right, l.since, l.instead)));
        notes
    }
}

/// Why no domain could be made.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// A granted path cannot be opened.
    #[error("cannot open {path} for a Landlock rule: {source}")]
    Open {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a rule.
    #[error("cannot grant {path} in Landlock: {source}")]
    Rule {
        /// The path.
        path: PathBuf,
        /// What the library or the kernel said.
        source: landlock::RulesetError,
    },
    /// The ruleset could not be made or entered.
    #[error("cannot {what} at ABI {abi}: {source}")]
    Ruleset {
        /// What was tried.
        what: &'static str,
        /// The ABI in use.
        abi: u32,
        /// What the library or the kernel said.
        source: landlock::RulesetError,
    },
    /// The kernel enforces less than was asked for.
    #[error("the kernel enforces the Landlock domain only partly ({0}) though ABI {1} promises all of it")]
    NotFull(String, u32),
}

/// A domain ready to be entered.
#[derive(Debug)]
pub struct Prepared(State);

#[derive(Debug)]
enum State {
    Ready { ruleset: RulesetCreated, report: Report },
    Absent(String),
}

/// Opens every path of `plan` and builds the domain. A kernel without Landlock is not an error: the domain then says
/// [`Enforcement::Absent`], and whoever requires the layer refuses.
///
/// # Errors
/// [`LandlockError`], naming the path or the step.
pub fn prepare(plan: &Plan) -> Result<Prepared, LandlockError> {
    let kernel_abi = match (plan.force_abi, landlock_abi()) {
        (Some(0), _) => return Ok(Prepared(State::Absent(why_absent(&io::Error::from_raw_os_error(ENOSYS))))),
        (_, Ok(abi)) => abi,
        (_, Err(e)) => return Ok(Prepared(State::Absent(why_absent(&e)))),
    };
    let abi = kernel_abi.min(NEWEST).min(plan.force_abi.map_or(NEWEST, u32::from));
    let lacking = LATER.iter().filter(|l| l.since > abi).copied().collect();
    let (ruleset, rules) = build(plan, abi)?;
    Ok(Prepared(State::Ready { ruleset, report: Report { kernel_abi, abi, rules, lacking } }))
}

/// Whether this kernel can enforce the layer, without touching anything.
#[must_use]
pub fn probe() -> Enforcement {
    landlock_abi().map_or_else(|e| Enforcement::Absent(why_absent(&e)), |_| Enforcement::Enforced)
}

impl Prepared {
    /// What the domain will enforce; `None` on a kernel without Landlock.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match &self.0 {
            State::Ready { report, .. } => Some(report),
            State::Absent(_) => None,
        }
    }

    /// Enters the domain, for good: this thread and everything it starts. Sets `no_new_privs`.
    ///
    /// # Errors
    /// [`LandlockError`] when the kernel refuses or enforces less than its ABI promises.
    pub fn restrict(self) -> Result<Enforcement, LandlockError> {
        let (ruleset, abi) = match self.0 {
            State::Ready { ruleset, report } => (ruleset, report.abi),
            State::Absent(why) => return Ok(Enforcement::Absent(why)),
        };
        let status = ruleset.restrict_self().map_err(|source| LandlockError::Ruleset {
            what: "enter the domain",
            abi,
            source,
        })?;
        match (status.ruleset, status.no_new_privs) {
            (RulesetStatus::FullyEnforced, true) => Ok(Enforcement::Enforced),
            (ruleset, nnp) => Err(LandlockError::NotFull(format!("{ruleset:?}, no_new_privs {nnp}"), abi)),
        }
    }
}

const ENOSYS: i32 = nix::errno::Errno::ENOSYS as i32;
const EOPNOTSUPP: i32 = nix::errno::Errno::EOPNOTSUPP as i32;

fn why_absent(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(ENOSYS) => {
            "this kernel has no Landlock: Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK has it".to_owned()
        }
        Some(EOPNOTSUPP) => "Landlock is not enabled: add `landlock` to the `lsm=` boot parameter".to_owned(),
        _ => format!(
            "landlock_create_ruleset: {e}; an outer sandbox or container profile refuses it: allow the landlock_* calls"
        ),
    }
}

fn build(plan: &Plan, abi: u32) -> Result<(RulesetCreated, usize), LandlockError> {
    let failed = |what| move |source| LandlockError::Ruleset { what, abi, source };
    let version = ABI::from(i32::try_from(abi).unwrap_or_default());
    let all = AccessFs::from_all(version);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(all)
        .map_err(failed("handle the file system rights"))?;
    let scopes = Scope::from_all(version);
    if !scopes.is_empty() {
        ruleset = ruleset.scope(scopes).map_err(failed("scope signals and abstract sockets"))?;
    }
    let mut ruleset = ruleset.create().map_err(failed("make the ruleset"))?;
    let grants = [
        (&plan.list, AccessFs::ReadDir.into()),
        (&plan.read_only, AccessFs::from_read(version)),
        // Device nodes are never made inside, and ioctls on devices are granted by name.
        (&plan.read_write, all & !(AccessFs::IoctlDev | AccessFs::MakeChar | AccessFs::MakeBlock)),
        (&plan.update, all & (AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::Truncate)),
        (&plan.devices, all & (AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev)),
    ];
    let mut rules = 0;
    for (paths, access) in grants {
        for path in paths {
            ruleset = grant(ruleset, path, access, version)?;
            rules += 1;
        }
    }
    Ok((ruleset, rules))
}

fn grant(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
    version: ABI,
) -> Result<RulesetCreated, LandlockError> {
    let open = |source| LandlockError::Open { path: path.to_owned(), source };
    let fd = PathFd::new(path).map_err(|e| match e {
        landlock::PathFdError::OpenCall { source, .. } => open(source),
        other => open(io::Error::other(other)),
    })?;
    // Rights that only a directory can have are an error on a file.
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(|e| open(e.into()))?.st_mode);
    let access = if kind.is_dir() { access } else { access & AccessFs::from_file(version) };
    ruleset
        .add_rule(PathBeneath::new(fd, access))
        .map_err(|source| LandlockError::Rule { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_abi_reports_what_it_lacks() {
        for abi in 1..=7_u8 {
            let plan = Plan { read_only: vec!["/".into()], force_abi: Some(abi), ..Plan::default() };
            let prepared = prepare(&plan).unwrap();
            let Some(report) = prepared.report() else { return };
            assert_eq!(report.abi, u32::from(abi).min(report.kernel_abi));
            let expected: Vec<_> = LATER.iter().filter(|l| l.since > report.abi).copied().collect();
            assert_eq!(report.lacking, expected);
            assert_eq!(report.notes().len(), 1 + expected.len());
        }
    }

    #[test]
    fn a_missing_path_is_named() {
        let plan = Plan { read_only: vec!["/no/such/path".into()], ..Plan::default() };
        let e = prepare(&plan).unwrap_err();
        assert!(e.to_string().contains("/no/such/path"), "{e}");
    }

    #[test]
    fn a_kernel_without_landlock_is_absent_with_the_way_out() {
        let prepared = prepare(&Plan { force_abi: Some(0), ..Plan::default() }).unwrap();
        assert!(prepared.report().is_none());
        let Enforcement::Absent(why) = prepared.restrict().unwrap() else { panic!("absent") };
        assert!(why.contains("5.13"), "{why}");
    }
}
