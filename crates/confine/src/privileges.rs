//! Privileges: the command's user, empty capability sets, `no_new_privs`; and what the supervisor itself gives up.
//!
//! The order matters and is held by [`become_user`] before [`drop_all`]: the bounding set can only be emptied by
//! somebody who still has `CAP_SETPCAP`, so the change of user keeps capabilities and the drop then takes them all.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};
use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{self, CapabilitiesSecureBits, CapabilitySet, CapabilitySets},
};
use stockade_types::Enforcement;

/// What a root supervisor keeps once init is forked: it signals processes of another user, and reads whose
/// connection it serves from their `/proc` entries.
pub const SUPERVISOR_KEEPS: [Capability; 3] =
    [Capability::CAP_KILL, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// How much sooner than others the kernel ends the command when memory runs out (of 1000).
const OOM_SCORE: i32 = 500;

/// Who the command is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id, never 0.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// Why privileges could not be taken away.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// Uid 0 was asked for.
    #[error("the command never runs as uid 0: name another user in `process.user`")]
    Root,
    /// A step failed.
    #[error("{what}: {source}")]
    Step {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A capability set could not be changed or read.
    #[error("{what}: {detail}")]
    Capabilities {
        /// What was tried.
        what: &'static str,
        /// What the library said.
        detail: String,
    },
    /// Everything went well, and yet the kernel reports something left.
    #[error("privileges are left after dropping all: {0}")]
    Left(String),
}

impl PrivilegesError {
    fn step<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Self {
        move |e| Self::Step { what, source: e.into() }
    }

    fn caps(what: &'static str) -> impl Fn(caps::errors::CapsError) -> Self {
        move |e| Self::Capabilities { what, detail: e.to_string() }
    }
}

/// Changes user and groups, keeping capabilities for [`drop_all`], which must follow.
///
/// Where the user namespace forbids `setgroups` the caller's supplementary groups stay, and the answer names them.
///
/// # Errors
/// [`PrivilegesError::Root`] for uid 0; else the step that failed.
pub fn become_user(identity: &Identity) -> Result<Enforcement, PrivilegesError> {
    if identity.uid == 0 {
        return Err(PrivilegesError::Root);
    }
    keep_capabilities()?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups = change_groups(identity)?;
    setresgid(gid, gid, gid).map_err(PrivilegesError::step("setresgid"))?;
    setresuid(uid, uid, uid).map_err(PrivilegesError::step("setresuid"))?;
    let (u, g) = (
        getresuid().map_err(PrivilegesError::step("getresuid"))?,
        getresgid().map_err(PrivilegesError::step("getresgid"))?,
    );
    if [u.real, u.effective, u.saved] != [uid; 3] || [g.real, g.effective, g.saved] != [gid; 3] {
        return Err(PrivilegesError::Left(format!("ids are {u:?} {g:?}")));
    }
    Ok(groups)
}

/// Makes the change of user keep the capability sets, and where allowed locks the doors through which a later
/// `execve` could refill them.
fn keep_capabilities() -> Result<(), PrivilegesError> {
    type Bits = CapabilitiesSecureBits;
    let bits = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    match thread::set_capabilities_secure_bits(bits) {
        Ok(()) => Ok(()),
        // Without CAP_SETPCAP: the unprivileged way, which lasts until execve.
        Err(rustix::io::Errno::PERM) => {
            thread::set_keep_capabilities(true).map_err(PrivilegesError::step("PR_SET_KEEPCAPS"))
        }
        Err(e) => Err(PrivilegesError::step("PR_SET_SECUREBITS")(e)),
    }
}

fn change_groups(identity: &Identity) -> Result<Enforcement, PrivilegesError> {
    let wanted: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    match setgroups(&wanted) {
        Ok(()) => {}
        Err(nix::Error::EPERM) => return kept_groups(identity),
        Err(e) => return Err(PrivilegesError::step("setgroups")(e)),
    }
    let mut have = getgroups().map_err(PrivilegesError::step("getgroups"))?;
    let mut wanted = wanted;
    have.sort_by_key(|g| g.as_raw());
    wanted.sort_by_key(|g| g.as_raw());
    if have == wanted { Ok(Enforcement::Enforced) } else { Err(PrivilegesError::Left(format!("groups are {have:?}"))) }
}

/// The groups that stay because the user namespace was made without privilege.
fn kept_groups(identity: &Identity) -> Result<Enforcement, PrivilegesError> {
    let denied = fs::read_to_string("/proc/self/setgroups").is_ok_and(|s| s.trim() == "deny");
    if !denied {
        return Err(PrivilegesError::Step { what: "setgroups", source: io::Error::from(nix::Error::EPERM) });
    }
    let have = getgroups().map_err(PrivilegesError::step("getgroups"))?;
    let kept: Vec<String> = have
        .iter()
        .map(|g| g.as_raw())
        .filter(|g| *g != identity.gid && !identity.groups.contains(g))
        .map(|g| g.to_string())
        .collect();
    if kept.is_empty() {
        return Ok(Enforcement::Enforced);
    }
    Ok(Enforcement::Partial(format!(
        "supplementary groups kept, because a user namespace made without root may not change them: {} (65534: not \
         mapped inside); start Stockade from a session without these groups, or as root",
        kept.join(" ")
    )))
}

/// Takes every capability from every set, sets `no_new_privs`, forbids core files and real-time priority, and reads
/// all of it back.
///
/// # Errors
/// [`PrivilegesError`]; also when something is left afterwards.
pub fn drop_all() -> Result<Enforcement, PrivilegesError> {
    drop_bounding(&CapsHashSet::new())?;
    caps::clear(None, CapSet::Ambient).map_err(PrivilegesError::caps("clear the ambient set"))?;
    let none = CapabilitySet::empty();
    // In one call, kernel capabilities that the library does not know included.
    thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(PrivilegesError::step("capset"))?;
    thread::set_no_new_privs(true).map_err(PrivilegesError::step("PR_SET_NO_NEW_PRIVS"))?;
    for (resource, what) in
        [(Resource::Core, "RLIMIT_CORE"), (Resource::Rtprio, "RLIMIT_RTPRIO"), (Resource::Nice, "RLIMIT_NICE")]
    {
        setrlimit(resource, Rlimit { current: Some(0), maximum: Some(0) }).map_err(PrivilegesError::step(what))?;
    }
    read_back()
}

/// Empties the bounding set but for `keep`. Only what is already empty may be left to somebody without `CAP_SETPCAP`.
fn drop_bounding(keep: &CapsHashSet) -> Result<(), PrivilegesError> {
    let mut extra = bounding()?;
    extra.retain(|c| !keep.iter().any(|k| k.bitmask() == c.bits()));
    if extra.is_empty() {
        return Ok(());
    }
    let permitted = caps::read(None, CapSet::Permitted).map_err(PrivilegesError::caps("read the permitted set"))?;
    if permitted.contains(&Capability::CAP_SETPCAP) {
        caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP)
            .map_err(PrivilegesError::caps("raise CAP_SETPCAP"))?;
    }
    extra.into_iter().try_for_each(|c| {
        thread::remove_capability_from_bounding_set(c).map_err(PrivilegesError::step(
            "PR_CAPBSET_DROP (the bounding set is not empty and CAP_SETPCAP is missing: grant it, or start rootless)",
        ))
    })
}

/// The bounding set, asked number by number: the kernel answers `EINVAL` after its last capability.
fn bounding() -> Result<Vec<CapabilitySet>, PrivilegesError> {
    let mut set = Vec::new();
    for cap in (0..64).map(|n| CapabilitySet::from_bits_retain(1 << n)) {
        match thread::capability_is_in_bounding_set(cap) {
            Ok(true) => set.push(cap),
            Ok(false) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(PrivilegesError::step("PR_CAPBSET_READ")(e)),
        }
    }
    Ok(set)
}

fn read_back() -> Result<Enforcement, PrivilegesError> {
    let sets = thread::capabilities(None).map_err(PrivilegesError::step("capget"))?;
    let ambient = caps::read(None, CapSet::Ambient).map_err(PrivilegesError::caps("read the ambient set"))?;
    let nnp = thread::no_new_privs().map_err(PrivilegesError::step("PR_GET_NO_NEW_PRIVS"))?;
    let core = getrlimit(Resource::Core).maximum;
    let bounding = bounding()?;
    let clean = sets.effective.is_empty()
        && sets.permitted.is_empty()
        && sets.inheritable.is_empty()
        && bounding.is_empty()
        && ambient.is_empty();
    if clean && nnp && core == Some(0) {
        Ok(Enforcement::Enforced)
    } else {
        Err(PrivilegesError::Left(format!(
            "{sets:?}, bounding {bounding:?}, ambient {ambient:?}, no_new_privs {nnp}, core limit {core:?}"
        )))
    }
}

/// This process's place among the victims of the out-of-memory killer. The file is held open: it belongs to root once
/// the process is not dumpable, and is out of reach once the view stands.
#[derive(Debug)]
pub struct OomScore {
    file: fs::File,
    own: i32,
}

impl OomScore {
    /// Opens the calling process's score.
    ///
    /// # Errors
    /// What `/proc/self/oom_score_adj` says.
    pub fn open() -> Result<Self, PrivilegesError> {
        let failed = PrivilegesError::step("open /proc/self/oom_score_adj");
        let mut file =
            fs::OpenOptions::new().read(true).write(true).open("/proc/self/oom_score_adj").map_err(&failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(&failed)?;
        let own = text.trim().parse().map_err(|_| failed(io::Error::from(io::ErrorKind::InvalidData)))?;
        Ok(Self { file, own })
    }

    /// What `fork` makes is a better victim than this process is before and after. Never lowers what an outer
    /// supervisor chose: that needs a capability, and would be ungrateful.
    ///
    /// # Errors
    /// What writing the score says.
    pub fn offering<T>(&self, fork: impl FnOnce() -> T) -> Result<T, PrivilegesError> {
        if self.own >= OOM_SCORE {
            return Ok(fork());
        }
        self.write(OOM_SCORE)?;
        let made = fork();
        self.write(self.own)?;
        Ok(made)
    }

    fn write(&self, score: i32) -> Result<(), PrivilegesError> {
        let text = score.to_string();
        self.file.write_all_at(text.as_bytes(), 0).map_err(PrivilegesError::step("write oom_score_adj"))
    }
}

/// Closes the supervisor's memory to others: not dumpable (no ptrace, no `/proc/PID/mem` for equal uids), no core
/// files. After the user namespace's maps are written, before any secret is read.
///
/// # Errors
/// [`PrivilegesError`].
pub fn harden_supervisor() -> Result<(), PrivilegesError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(PrivilegesError::step("PR_SET_DUMPABLE"))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(PrivilegesError::step("RLIMIT_CORE"))?;
    match dumpable_behavior() {
        Ok(DumpableBehavior::NotDumpable) => Ok(()),
        other => Err(PrivilegesError::Left(format!("dumpable is {other:?}"))),
    }
}

/// Reduces the supervisor to [`SUPERVISOR_KEEPS`] and `extra`, for good, and sets `no_new_privs`. Once init is forked,
/// and before the first thread starts: capabilities belong to threads. Returns what is left.
///
/// # Errors
/// [`PrivilegesError`]; also when more than the list is left.
pub fn drop_supervisor(extra: &[Capability]) -> Result<Vec<Capability>, PrivilegesError> {
    let wanted: CapsHashSet = SUPERVISOR_KEEPS.iter().chain(extra).copied().collect();
    let has = caps::read(None, CapSet::Permitted).map_err(PrivilegesError::caps("read the permitted set"))?;
    if has.contains(&Capability::CAP_SETPCAP) {
        drop_bounding(&wanted)?;
    }
    let kept: CapsHashSet = has.intersection(&wanted).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(PrivilegesError::caps("clear the ambient set"))?;
    let bits = CapabilitySet::from_bits_retain(kept.iter().fold(0, |bits, c| bits | c.bitmask()));
    let sets = CapabilitySets { effective: bits, permitted: bits, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets).map_err(PrivilegesError::step("capset"))?;
    thread::set_no_new_privs(true).map_err(PrivilegesError::step("PR_SET_NO_NEW_PRIVS"))?;
    let now = thread::capabilities(None).map_err(PrivilegesError::step("capget"))?;
    if now != sets {
        return Err(PrivilegesError::Left(format!("{now:?} instead of {sets:?}")));
    }
    let mut kept: Vec<Capability> = kept.into_iter().collect();
    kept.sort_by_key(Capability::index);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_0_is_refused_before_anything_changes() {
        let root = Identity { uid: 0, gid: 0, groups: vec![] };
        assert!(matches!(become_user(&root), Err(PrivilegesError::Root)));
    }
}
