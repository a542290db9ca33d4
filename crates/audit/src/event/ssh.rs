//! What comes in over SSH.

use stockade_types::Reason;

use super::Action;

/// OCSF 4007.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// What was done.
    pub action: Action,
    /// Why, for refusals and failures.
    pub reason: Option<Reason>,
    /// `login`, `channel`, `session`, `request` or `forward`.
    pub what: &'static str,
    /// Where the connection comes from.
    pub peer: String,
    /// The name that the client gave; empty before it gave one.
    pub user: String,
    /// Fingerprint of the key, or the certificate, that came in.
    pub key: Option<String>,
    /// Address and port inside that a forward goes to.
    pub target: Option<(String, u16)>,
    /// One sentence; for a session, what was asked for.
    pub detail: Option<String>,
}
