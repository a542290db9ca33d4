//! Fuzz targets for every parser that reads what the sandboxed command, or someone else, may have written.
//!
//! A target is a function from bytes to a signature of what happened; it panics when a property does not hold. Two
//! drivers run them: the one here, which mutates a corpus and keeps what behaves in a new way, runs in every
//! `make test` (`smoke.sh`); the one in `libfuzzer/` is guided by coverage and meant for long runs (`long.sh`).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod campaign;
pub mod mutate;
pub mod target;

pub use target::{TARGETS, Target};
