//! The mount view, for real: root and rootless, each refusal beside something that works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod grants;
mod hidden;
mod lab;
mod presence;
