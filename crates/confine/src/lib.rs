//! The wall: namespaces, fence, mounts, Landlock, seccomp, privileges, limits
#![forbid(unsafe_code)]

pub mod fence;
pub mod init;
pub mod landlock;
pub mod launcher;
pub mod limits;
pub mod message;
pub mod netns;
pub mod nflog;
pub mod plan;
pub mod privileges;
pub mod seccomp;
pub mod view;
