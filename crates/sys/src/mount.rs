//! Changing the attributes of a mount, or of a whole tree of mounts, by descriptor.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Attributes that a mount may carry. They are only ever added here: what an outer mount forbids stays forbidden, and
/// in a user namespace the kernel would refuse to clear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// No writes through this mount.
    pub read_only: bool,
    /// Set-user-id bits and file capabilities have no effect.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

impl Attributes {
    fn bits(self) -> u64 {
        [
            (self.read_only, libc::MOUNT_ATTR_RDONLY),
            (self.nosuid, libc::MOUNT_ATTR_NOSUID),
            (self.nodev, libc::MOUNT_ATTR_NODEV),
            (self.noexec, libc::MOUNT_ATTR_NOEXEC),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(0, |bits, (_, bit)| bits | bit)
    }
}

/// How much of the tree a change reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The mount itself.
    One,
    /// The mount and everything mounted below it.
    Tree,
}

/// Adds `attributes` to the mount whose root `mount` refers to, and makes it private: no mount event of the outside
/// arrives, none leaves.
///
/// # Errors
/// What `mount_setattr(2)` says: `EINVAL` when `mount` is not the root of a mount, `ENOSYS` before Linux 5.12.
pub fn restrict(mount: impl AsFd, attributes: Attributes, reach: Reach) -> io::Result<()> {
    let change =
        libc::mount_attr { attr_set: attributes.bits(), attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if reach == Reach::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `change` outlives the call and its true size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    crate::process::check(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_become_the_kernels_bits() {
        let all = Attributes { read_only: true, nosuid: true, nodev: true, noexec: true };
        assert_eq!((Attributes::default().bits(), all.bits()), (0, 0b1111));
    }

    #[test]
    fn a_descriptor_that_is_no_mount_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let error = restrict(&file, Attributes::default(), Reach::One).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM | libc::ENOSYS)), "{error}");
    }
}
