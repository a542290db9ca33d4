//! Rows of the security catalogue from end to end: what the command tries, what it is told, what is recorded. Each test
//! also does what is allowed, and shows that the same try works without the control that it is about.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ask;
mod authorities;
mod calls;
mod destinations;
mod door;
mod exfil;
mod fence;
mod files;
mod flood;
mod names;
mod net;
mod outsiders;
mod policy;
mod prepare;
mod process;
mod reload;
mod rules;
mod screen;
mod start;
mod steering;
mod tunnel;
