//! The door against real sockets: every refusal beside the same thing allowed, with upstreams that count what reached
//! them and an audit that is read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod abuse;
mod browser;
mod connect;
mod direct;
mod forward;
mod frames;
mod hello;
mod intercept;
mod modules;
mod names;
mod protocols;
mod relay;
mod reload;
mod socket;
mod world;
