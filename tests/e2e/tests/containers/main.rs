//! In real containers: the matrix of docs/containers.md, and `supervise` as their entrypoint (S1, P2).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a fixture that fails is a test that fails")]

mod cells;
mod engine;
mod entrypoint;
mod images;
#[path = "../agents/model.rs"]
mod model;
mod users;

/// The engine, or a counted skip.
#[macro_export]
macro_rules! engine {
    ($found:expr) => {
        match $found {
            Ok(engine) => engine,
            Err(why) => stockade_testkit::skip!("{why}"),
        }
    };
}
