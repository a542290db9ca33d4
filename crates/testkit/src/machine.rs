//! What this machine can do, found by trying.

use std::{
    fmt, fs,
    io::{Seek, SeekFrom, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    str::FromStr,
};

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
    unistd::Uid,
};

use crate::child::Child;

/// Something that a test may need and a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// The tests run as root.
    Root,
    /// An ordinary user may make user, network and mount namespaces.
    Rootless,
    /// The kernel has nf_tables.
    NfTables,
    /// The kernel has Landlock and it is switched on.
    Landlock,
    /// A cgroup v1 hierarchy is mounted.
    CgroupV1,
    /// A cgroup v2 hierarchy is mounted.
    CgroupV2,
    /// A docker daemon answers.
    Docker,
    /// A GPU device node exists.
    Gpu,
    /// AppArmor is switched on.
    AppArmor,
}

impl Feature {
    /// All, in the order in which CI prints them.
    pub const ALL: [Self; 9] = [
        Self::Root,
        Self::Rootless,
        Self::NfTables,
        Self::Landlock,
        Self::CgroupV1,
        Self::CgroupV2,
        Self::Docker,
        Self::Gpu,
        Self::AppArmor,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Rootless => "rootless",
            Self::NfTables => "nf_tables",
            Self::Landlock => "landlock",
            Self::CgroupV1 => "cgroup-v1",
            Self::CgroupV2 => "cgroup-v2",
            Self::Docker => "docker",
            Self::Gpu => "gpu",
            Self::AppArmor => "apparmor",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Feature {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|f| f.name() == s).ok_or_else(|| format!("unknown feature `{s}`"))
    }
}

/// The answer to [`probe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What was looked for.
    pub feature: Feature,
    /// Whether it is there.
    pub present: bool,
    /// What was seen.
    pub detail: String,
}

/// Looks for one feature by using it.
#[must_use]
pub fn probe(feature: Feature) -> Found {
    let result = match feature {
        Feature::Root => yes_if(Uid::effective().is_root(), format!("uid {}", Uid::effective())),
        Feature::Rootless => rootless(),
        Feature::NfTables => in_child(nf_tables),
        Feature::Landlock => landlock_abi().map(|abi| format!("ABI {abi} or newer")),
        Feature::CgroupV1 => mounted("cgroup"),
        Feature::CgroupV2 => mounted("cgroup2"),
        Feature::Docker => UnixStream::connect("/var/run/docker.sock")
            .map(|_| "/var/run/docker.sock answers".to_owned())
            .map_err(|e| format!("/var/run/docker.sock: {e}")),
        Feature::Gpu => first_of(&["/dev/nvidia0", "/dev/kfd", "/dev/dri/renderD128"]),
        Feature::AppArmor => {
            let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
            yes_if(enabled.trim() == "Y", format!("enabled={:?}", enabled.trim()))
        }
    };
    let present = result.is_ok();
    Found { feature, present, detail: result.unwrap_or_else(|e| e) }
}

type Detail = Result<String, String>;

fn yes_if(yes: bool, detail: String) -> Detail {
    if yes { Ok(detail) } else { Err(detail) }
}

fn in_child(probe: impl FnOnce() -> Detail) -> Detail {
    let file = tempfile::tempfile().map_err(|e| e.to_string())?;
    Child::new().run(|| {
        let (mark, text) = match probe() {
            Ok(text) => ('+', text),
            Err(text) => ('-', text),
        };
        (&file).write_all(format!("{mark}{text}").as_bytes()).unwrap();
    });
    (&file).seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
    let text = std::io::read_to_string(&file).map_err(|e| e.to_string())?;
    match text.split_at_checked(1) {
        Some(("+", text)) => Ok(text.to_owned()),
        Some((_, text)) => Err(text.to_owned()),
        None => Err("the probe said nothing".to_owned()),
    }
}

fn rootless() -> Detail {
    in_child(|| {
        if Uid::effective().is_root() {
            crate::child::become_user(65_534);
        }
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| format!("user namespace: {e}"))?;
        // Where AppArmor or a container profile restricts them, the user namespace is made but is worth nothing.
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .map_err(|e| format!("network and mount namespaces below it: {e}"))?;
        Ok("uid 65534 made user, network and mount namespaces".to_owned())
    })
}

/// Asks nf_tables of a fresh network namespace for its generation.
fn nf_tables() -> Detail {
    let flags = if Uid::effective().is_root() { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
    unshare(flags | CloneFlags::CLONE_NEWNET).map_err(|e| format!("network namespace: {e}"))?;
    let nl = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
        .map_err(|e| format!("netfilter netlink: {e}"))?;
    const NEW_GEN: u16 = (10 << 8) | 15;
    const GET_GEN: u16 = (10 << 8) | 16;
    // struct nlmsghdr {len, type, flags = NLM_F_REQUEST, seq, pid}, struct nfgenmsg {family, version, res_id}
    let mut message = Vec::new();
    message.extend(20_u32.to_ne_bytes());
    message.extend(GET_GEN.to_ne_bytes());
    message.extend(1_u16.to_ne_bytes());
    message.extend([0; 12]);
    send(nl.as_raw_fd(), &message, MsgFlags::empty()).map_err(|e| format!("NFT_MSG_GETGEN: {e}"))?;
    let mut answer = [0; 256];
    let len = recv(nl.as_raw_fd(), &mut answer, MsgFlags::empty()).map_err(|e| format!("NFT_MSG_GETGEN: {e}"))?;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    yes_if(len >= 20 && kind == NEW_GEN, format!("netlink answered type {kind:#x}"))
}

/// The newest Landlock ABI of the running kernel, as far as this build knows them.
fn landlock_abi() -> Result<u8, String> {
    const ABIS: [ABI; 5] = [ABI::V1, ABI::V2, ABI::V3, ABI::V5, ABI::V6];
    let works = |abi: ABI| {
        let fs =
            Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::from_all(abi));
        let scoped = fs.and_then(|r| match abi {
            ABI::V6 => r.scope(landlock::Scope::from_all(abi)),
            _ => Ok(r),
        });
        scoped.and_then(Ruleset::create).is_ok()
    };
    ABIS.into_iter()
        .zip([1, 2, 3, 5, 6])
        .filter(|(abi, _)| works(*abi))
        .map(|(_, n)| n)
        .max()
        .ok_or_else(|| "landlock_create_ruleset fails: not built in, or not in the `lsm=` list".to_owned())
}

fn mounted(kind: &str) -> Detail {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|e| e.to_string())?;
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let at = words.next()?;
        (words.next()? == kind).then(|| format!("mounted at {at}"))
    });
    found.ok_or_else(|| format!("no {kind} mount"))
}

fn first_of(paths: &[&str]) -> Detail {
    let found = paths.iter().find(|p| Path::new(p).exists());
    found.map(|p| (*p).to_owned()).ok_or_else(|| format!("none of {}", paths.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for feature in Feature::ALL {
            assert_eq!(feature.name().parse(), Ok(feature));
        }
        assert!("telepathy".parse::<Feature>().is_err());
    }

    #[test]
    fn probes_agree_with_the_kernel() {
        assert_eq!(probe(Feature::Root).present, Uid::effective().is_root());
        assert!(mounted("proc").unwrap().contains("/proc"));
        assert!(mounted("nosuchfs").is_err());
    }
}
