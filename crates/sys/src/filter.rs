//! What the kernel can filter: the Landlock version it speaks.

use std::io;

use crate::process::check;

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u32 = 1;

/// The Landlock ABI version of the running kernel.
///
/// # Errors
/// `ENOSYS` when Landlock is not built in, `EOPNOTSUPP` when it is not enabled at boot, anything else when an outer
/// filter refuses the call.
pub fn landlock_abi() -> io::Result<u32> {
    // SAFETY: with the version flag, a null attribute and size 0 the call only returns a number.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION) };
    check(abi)?;
    u32::try_from(abi).map_err(io::Error::other)
}
