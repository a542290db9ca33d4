//! Policy: parse, compile, decide, explain, learn
#![forbid(unsafe_code)]

mod builtin;
pub mod cases;
mod custom;
pub mod decision;
mod denial;
pub mod diagnostic;
pub mod explain;
pub mod host;
mod index;
mod input;
pub mod learn;
pub mod model;
mod parse;
mod rego;
pub mod snapshot;
mod yaml;

pub use decision::{Denial, Door, Intent, Mode, NameVerdict, Permit, Protocol, Terms, TlsMode, Verdict};
pub use denial::WEB_PORTS;
pub use diagnostic::{Diagnostic, Position, Rejected, Source};
pub use explain::Explanation;
pub use host::{SYNTHETIC_V4, SYNTHETIC_V6};
pub use learn::{Learned, Seen};
pub use model::{Endpoint, HostPattern, Policy, Relaxation, User};
pub use parse::{MAX_HOSTS, MAX_ITEMS, MAX_SOURCES, size};
pub use snapshot::{Posture, Snapshot};
pub use yaml::MAX_FILE;
