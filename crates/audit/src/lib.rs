//! Typed OCSF events, their hash chain and the sinks that keep them
#![forbid(unsafe_code)]

pub mod event;

pub use event::{Action, Config, Event, Finding, Http, Lifecycle, Network, Process, ProcessActivity};
