//! Mounts before they have a place: made or copied by descriptor, restricted, then attached in one step, so that
//! nothing unrestricted is ever visible and no path is looked up twice.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, StatxFlags, statx},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};
use stockade_sys::mount::{Attributes, Reach, restrict};

/// A mount without a place; dissolved when dropped.
#[derive(Debug)]
pub(super) struct Detached {
    fd: OwnedFd,
    /// What was added to it.
    pub(super) attributes: Attributes,
    /// Whether mounts below came along.
    pub(super) reach: Reach,
}

/// Nothing of a set-user-id program or a device node works.
pub(super) const PLAIN: Attributes = Attributes { read_only: false, nosuid: true, nodev: true, noexec: false };
/// The same, and nothing can be written.
pub(super) const READ_ONLY: Attributes = Attributes { read_only: true, ..PLAIN };
/// Data only.
pub(super) const DATA: Attributes = Attributes { noexec: true, ..PLAIN };
/// Data only, not even changed.
pub(super) const READ_ONLY_DATA: Attributes = Attributes { noexec: true, ..READ_ONLY };
/// A device node: opening it works, its mode and owner cannot be changed.
pub(super) const NODE: Attributes = Attributes { read_only: true, nosuid: true, nodev: false, noexec: true };

impl Detached {
    /// Copies the mount at `source`. `Reach::Tree` brings what is mounted below, which a user namespace requires where
    /// outer mounts cover something.
    pub(super) fn copy(source: BorrowedFd<'_>, attributes: Attributes, reach: Reach) -> io::Result<Self> {
        let recursive = if reach == Reach::Tree { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let fd = open_tree(source, c"", flags | recursive)?;
        restrict(&fd, attributes, reach)?;
        Ok(Self { fd, attributes, reach })
    }

    /// Makes a new file system. Options without a value are flags.
    pub(super) fn new(kind: &str, options: &[(&str, &str)], attributes: Attributes) -> io::Result<Self> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            if value.is_empty() {
                fsconfig_set_flag(&context, *key)?;
            } else {
                fsconfig_set_string(&context, *key, *value)?;
            }
        }
        fsconfig_create(&context)?;
        let fd = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags_of(attributes))?;
        Ok(Self { fd, attributes, reach: Reach::One })
    }

    /// Puts it at `target`; the descriptor then refers to the mount's root.
    pub(super) fn attach(self, target: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.fd, c"", target, c"", flags)?;
        Ok(self.fd)
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn flags_of(a: Attributes) -> MountAttrFlags {
    [
        (a.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (a.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (a.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
        (a.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(MountAttrFlags::empty(), |flags, (_, flag)| flags | flag)
}

/// The kernel's number of the mount that `fd` is on; `mountinfo` uses the same.
pub(super) fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    let found = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel gives no mount ids (Linux 5.8 does)"));
    }
    Ok(found.stx_mnt_id)
}
