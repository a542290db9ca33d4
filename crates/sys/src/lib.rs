//! The only crate with unsafe code: system calls as safe functions.
//!
//! Each module wraps one kernel facility that neither `nix` nor `rustix` offers safely. Everything else in the
//! workspace forbids `unsafe`.

pub mod channel;
pub mod filter;
pub mod mount;
pub mod netlink;
pub mod notify;
pub mod probe;
pub mod process;
pub mod settle;
pub mod socket;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wipe;
