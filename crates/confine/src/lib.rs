//! The wall: namespaces, fence, mounts, Landlock, seccomp, privileges, limits.
//!
//! [`sandbox::Starting`] forks [`init`] before the supervisor has a second thread. Init builds the layers from a
//! [`plan::Plan`] it inherits, forks the [`launcher`], and from then on carries out typed [`message`]s. Each layer is
//! a module that reports [`stockade_types::Enforcement`]; none assumes.
#![forbid(unsafe_code)]

pub mod fence;
mod init;
pub mod landlock;
mod launcher;
pub mod limits;
pub mod message;
pub mod netns;
pub mod nflog;
pub mod plan;
pub mod privileges;
pub mod sandbox;
pub mod seccomp;
pub mod view;

/// Exit code of init, launcher and leaders when it is they that failed; the supervisor reports the cause.
const EXIT_OURS: u8 = 125;
