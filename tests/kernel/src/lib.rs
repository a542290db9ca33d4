//! Shared fixtures of these tests.
