//! Policy: parse, compile, decide, explain, learn
#![forbid(unsafe_code)]

pub mod decision;

pub use decision::{Denial, Door, Intent, Mode, NameVerdict, Permit, Protocol, Terms, TlsMode, Verdict};
