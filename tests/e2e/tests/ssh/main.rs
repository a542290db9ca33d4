//! SSH into a sandbox with OpenSSH's own clients: sessions, files, forwards, who comes in, and what is refused.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod abuse;
mod files;
mod forwards;
mod gateway;
mod logins;
mod many;
mod metrics;
mod sameness;
mod sessions;
mod sockets;
mod trust;
mod vscode;
mod world;
