//! Shared fixtures of these tests.

pub mod net;
