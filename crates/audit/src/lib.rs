//! Typed OCSF events, their hash chain and the sinks that keep them.
//!
//! Code that decides holds an [`Audit`] and emits [`Event`]s built from verdicts; a thread folds equal refusals,
//! numbers what is left and hands it to [`sink::Sink`]s. Enforcement never waits for any of it.
#![forbid(unsafe_code)]

mod chain;
pub mod clock;
pub mod directory;
pub mod event;
pub mod export;
mod fold;
pub mod follow;
pub mod handle;
mod message;
mod ocsf;
pub mod record;
pub mod sink;
pub mod verify;
mod writer;

pub use event::{
    Action, Class, Config, Event, Finding, Http, Lifecycle, Network, Process, ProcessActivity, Segment, SegmentKind,
    Ssh, Torn,
};
pub use export::{Entry, Format, export};
pub use fold::{BURST, WINDOW};
pub use follow::Follow;
pub use handle::{Audit, Settings, StartError, Writer};
pub use ocsf::SCHEMA;
pub use record::Record;
pub use sink::{
    Blocked, Few, FileError, FileSink, Head, HeadHandle, LineSink, Outcome, Rotation, Sink, SinkError, Summary, Tap,
    Total,
};
pub use verify::{Verified, VerifyError, verify};
