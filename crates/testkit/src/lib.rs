//! Fixtures for tests that run the real thing: throw-away namespaces, upstream servers, the real binary.
//!
//! Dev only. Everything here panics with a clear sentence when the machine does not do what a test needs, because
//! a test has nobody to return an error to.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod arena;
pub mod audit;
pub mod child;
pub mod machine;
pub mod outer;
pub mod runner;
pub mod skip;
pub mod upstream;

pub use arena::{Arena, in_every_mode};
pub use audit::{Event, Events};
pub use machine::Feature;
pub use outer::Outer;
pub use runner::{Finished, Mode, Outcome, Running, Stockade};
