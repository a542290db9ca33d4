//! A closed world for the demo: a network in which every address is this machine, and names of our own.

use std::{fs, io, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Moves the calling process, which must have one thread, into network and mount namespaces of its own where every
/// address leads to it, and puts `hosts` in the place of /etc/hosts and an empty file in that of /etc/resolv.conf.
/// No packet can leave, and no rule of a policy has to be relaxed for that.
///
/// # Errors
/// What the kernel says.
pub fn enter(hosts: &Path, resolv_conf: &Path) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags)?;
    if !uid.is_root() {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{0} {0} 1\n", uid.as_raw()))?;
        fs::write("/proc/self/gid_map", format!("{0} {0} 1\n", gid.as_raw()))?;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    for (ours, theirs) in [(hosts, "/etc/hosts"), (resolv_conf, "/etc/resolv.conf")] {
        mount(Some(ours), theirs, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    stockade_confine::netns::configure().map(drop).map_err(io::Error::other)
}
