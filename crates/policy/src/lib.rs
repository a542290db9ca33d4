//! Policy: parse, compile, decide, explain, learn
#![forbid(unsafe_code)]

mod asked;
mod availability;
mod builtin;
mod caller;
pub mod cases;
mod credential;
mod custom;
pub mod decision;
mod denial;
pub mod diagnostic;
pub mod diff;
pub mod explain;
mod facts;
mod glob;
pub mod host;
mod index;
mod input;
pub mod learn;
mod matcher;
pub mod model;
mod parse;
pub mod publish;
mod rego;
mod request;
mod rule;
pub mod snapshot;
mod yaml;

pub use asked::RequestError;
pub use caller::Claim;
pub use decision::{
    Denial, Door, Intent, Mode, NameVerdict, Permit, Protocol, Request, RequestPermit, RequestVerdict, Terms, TlsMode,
    Verdict,
};
pub use denial::WEB_PORTS;
pub use diagnostic::{Diagnostic, Position, Rejected, Source};
pub use diff::{Change, Diff};
pub use explain::{Explanation, RequestExplanation};
pub use host::{SYNTHETIC_V4, SYNTHETIC_V6};
pub use learn::{Learned, Seen, Unlearned, Written};
pub use model::{
    Ancestor, Binary, Caller, Callers, Credential, Endpoint, HostPattern, Inject, Part, Policy, Relaxation,
    RequestLimits, Sigv4, Store, Upstream, User,
};
pub use parse::{MAX_HOSTS, MAX_ITEMS, MAX_SOURCES, sha256, size};
pub use snapshot::{Posture, Snapshot};
pub use yaml::MAX_FILE;
