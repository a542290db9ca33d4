//! Real tools, each once allowed and once denied, in every mode. What the machine lacks is skipped and said.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clients;
mod learn;
mod registries;
mod ssh;
mod world;
