//! Which system calls a filter around this process withholds.
//!
//! Each is made with arguments that every kernel refuses as invalid before it looks at anything else. Another answer is
//! not the kernel's.

use std::io;

/// Of the calls that a sandbox is made with, those that are answered by a filter, or unknown to this kernel. `mounts`:
/// whether this process may mount, without which one of them cannot be asked.
#[must_use]
pub fn withheld(mounts: bool) -> Vec<&'static str> {
    let calls: [(&str, libc::c_long, [libc::c_long; 5]); 5] = [
        // A structure of size 0.
        ("clone3", libc::SYS_clone3, [0; 5]),
        // The low byte names no namespace.
        ("unshare", libc::SYS_unshare, [1, 0, 0, 0, 0]),
        // Flags that do not exist.
        ("open_tree", libc::SYS_open_tree, [-1, 0, 0x7f00_0000, 0, 0]),
        ("mount_setattr", libc::SYS_mount_setattr, [-1, 0, 0x7f00_0000, 0, 0]),
        // Null pointers, which the kernel looks at after the right to mount.
        ("pivot_root", libc::SYS_pivot_root, [0; 5]),
    ];
    let answered = |number: libc::c_long, [a, b, c, d, e]: [libc::c_long; 5]| {
        // SAFETY: no pointer is valid, so nothing is read or written: the calls fail on a size, a flag or an address.
        let result = unsafe { libc::syscall(number, a, b, c, d, e) };
        (result == -1).then(|| io::Error::last_os_error().raw_os_error()).flatten()
    };
    let by_kernel = |number, words| matches!(answered(number, words), Some(libc::EINVAL | libc::EFAULT));
    let asked = calls.into_iter().filter(|(name, ..)| mounts || *name != "pivot_root");
    asked.filter(|(_, number, words)| !by_kernel(*number, *words)).map(|(name, ..)| name).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn without_a_filter_nothing_is_withheld() {
        assert_eq!(super::withheld(false), Vec::<&str>::new());
    }
}
