//! The stockade program.
#![forbid(unsafe_code)]
fn main() {}
