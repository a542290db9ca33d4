//! The wall: namespaces, fence, mounts, Landlock, seccomp, privileges, limits
#![forbid(unsafe_code)]
