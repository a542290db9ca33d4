//! Why a request does not go on. Each is the command's to correct, and none of the texts holds a value or a placeholder.

use std::fmt;

use http::HeaderName;
use stockade_types::Reason;

use crate::{backend::FetchError, sigv4::SignError};

/// Where in a request something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The path.
    Path,
    /// The query.
    Query,
    /// A header field.
    Field(HeaderName),
    /// The body.
    Body,
    /// A trailer field.
    Trailer(HeaderName),
    /// A WebSocket message.
    Message,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("the path"),
            Self::Query => f.write_str("the query"),
            Self::Field(name) => write!(f, "header field {name}"),
            Self::Body => f.write_str("the body"),
            Self::Trailer(name) => write!(f, "trailer field {name}"),
            Self::Message => f.write_str("a WebSocket message"),
        }
    }
}

/// Why a value cannot be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Too short to be taken out of responses without damage, or too long for a head.
    #[error("it must have 8 to 4096 characters")]
    Length,
    /// Line ends, spaces, control characters, or beyond ASCII.
    #[error("it holds characters other than visible ASCII ones")]
    Characters,
    /// Would change the path around it.
    #[error("it holds `/`, `\\`, `%` or `..`, which cannot stand in a path")]
    Path,
}

/// A request that must not go on.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A placeholder at an endpoint that its credential is not bound to.
    #[error("credential {credential} is not bound to this endpoint; its placeholder stands in {place}")]
    Scope {
        /// Whose placeholder.
        credential: String,
        /// Where.
        place: Place,
    },
    /// The connection is not the permitted host's, verified.
    #[error("credentials of this endpoint need a verified TLS connection to the permitted host and port")]
    Unverified,
    /// At its own endpoint, but in a place where it is not replaced.
    #[error(
        "credential {credential} is not injected into {place}; send its placeholder only where the policy binds it"
    )]
    Surface {
        /// Whose placeholder.
        credential: String,
        /// Where.
        place: Place,
    },
    /// A placeholder that stands for nothing.
    #[error("{place} holds a placeholder that stands for no credential of this sandbox")]
    Forged {
        /// Where.
        place: Place,
    },
    /// The policy in force has no such credential: it was detached.
    #[error("credential {credential} is no longer attached")]
    Detached {
        /// Which.
        credential: String,
    },
    /// Another value than the one that the connection was opened with.
    #[error("credential {credential} was rotated since this connection was opened; open it again")]
    Rotated {
        /// Which.
        credential: String,
    },
    /// There is no value.
    #[error("credential {credential} has no value: {source}")]
    Unresolved {
        /// Which.
        credential: String,
        /// Why.
        source: FetchError,
    },
    /// There is a value that cannot be injected.
    #[error("the value of credential {credential} cannot be injected: {why}")]
    Invalid {
        /// Which.
        credential: String,
        /// Why.
        why: Invalid,
    },
    /// The command's own token.
    #[error(
        "{place} holds a token that is not the placeholder; credentials of this endpoint come from the policy alone"
    )]
    Foreign {
        /// Where.
        place: Place,
    },
    /// A body that should hold a credential and cannot be read.
    #[error("the body is not {0}, in which the credential's field could be found")]
    Body(&'static str),
    /// A field occurs twice where the credential belongs.
    #[error("the credential's field occurs more than once in {0}")]
    Twice(Place),
    /// A content coding that hides what is in the body.
    #[error("a request body with content coding `{0}` cannot be searched for placeholders")]
    Coded(String),
    /// An AWS request.
    #[error("{0}")]
    Sigv4(#[from] SignError),
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Scope { .. } | Self::Unverified => Reason::CredScope,
            Self::Surface { .. } | Self::Body(_) | Self::Twice(_) => Reason::CredSurface,
            Self::Forged { .. } | Self::Detached { .. } | Self::Rotated { .. } | Self::Unresolved { .. } => {
                Reason::CredUnresolved
            }
            Self::Invalid { .. } => Reason::CredInvalid,
            Self::Foreign { .. } | Self::Sigv4(SignError::Foreign) => Reason::ForeignCredential,
            Self::Coded(_) => Reason::Uninspectable,
            Self::Sigv4(_) => Reason::Sigv4,
        }
    }

    /// Whether it is worth a finding besides the denial: somebody tried a credential where it does not belong.
    #[must_use]
    pub fn is_finding(&self) -> bool {
        matches!(self, Self::Scope { .. } | Self::Forged { .. })
    }
}
