//! The audit as a user of the crate sees it: golden files, hostile text, the chain against an attacker, full disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chain;
mod disk;
mod golden;
mod hostile;
mod reasons;
mod samples;
mod schema;
