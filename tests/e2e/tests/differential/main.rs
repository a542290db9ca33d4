//! Requests that two readers could read differently: what origins see of them is what was authorised.
//!
//! A corpus of raw bytes goes to real servers through the sandbox, by every way in. What arrives there, what the command is
//! told and what is recorded must agree; and sent without the sandbox, the same bytes must do what they are here to do.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod corpus;
mod differential;
mod extended;
mod frames;
mod origins;
mod replay;
mod rows;
