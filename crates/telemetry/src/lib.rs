//! What an operator sees of a running sandbox: health, metrics, traces.
//!
//! Nothing here decides, and nothing waits for it: counts come from the audit's events, on the audit's thread, and the
//! rest is read when somebody asks. Labels are words of Stockade's own; no name, path or value from inside is one.
#![forbid(unsafe_code)]

mod ask;
mod health;
mod metrics;
mod pages;
mod trace;

pub use ask::{AskError, ask};
pub use health::{Check, CheckState, Health, Phase, Probe, Readiness};
pub use metrics::{Kind, Metrics, Reading, Source};
pub use pages::{BindError, Bound, Pages};
pub use trace::{
    Counts as TraceCounts, Lookup, Lookups, Protocol, SendError, Settings as TraceSettings, SettingsError, Traces,
};
