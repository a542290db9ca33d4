//! One sandbox from start to summary: boot, session, reload.
//!
//! [`run`] is the whole of it. The order of a start is in [`boot`]: nothing has a second thread before init is forked,
//! and nothing of the command runs before every required layer was read back.
#![forbid(unsafe_code)]

mod advice;
mod boot;
mod callers;
mod config;
mod environment;
mod error;
mod examine;
mod held;
mod identity;
mod in_force;
mod inside;
mod learn;
mod memory;
mod missing;
mod observer;
pub mod offline;
mod operator;
mod outer;
mod prepare;
mod publish;
mod reaper;
mod refusals;
mod running;
mod signals;
mod sockets;
pub mod ssh;
mod stamp;
mod stdio;
mod steering;
mod terminal;
mod trust;
mod watch;
mod way;
mod workspace;

pub use advice::{APPARMOR_PROFILE, is_powerless};
pub use boot::{Finished, run};
pub use config::{Access, Config, Duty, Limits, Operations, Posture, Voice, Workspace};
pub use error::Error;
pub use examine::{Examination, examine};
pub use identity::IdentityError;
pub use operator::{Ask, ask};
pub use stdio::{LogFormat, StdioError, TerminalChoice, log_format, say, say_failure};
pub use steering::{Steering, SteeringError};
pub use trust::TrustError;
pub use way::Way;
pub use workspace::WorkspaceError;

/// How to get limits that cannot be had.
pub use stockade_confine::limits::WAY_OUT as LIMITS_WAY_OUT;
