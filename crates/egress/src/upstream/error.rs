//! What an upstream did instead of answering.

use std::io;

use http::StatusCode;
use stockade_types::Reason;

use crate::http::frames;

/// What an upstream did instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// Not HTTP, or framing that does not add up.
    #[error("the upstream's response is malformed")]
    Framing,
    /// A change of protocol that was not asked for, or is not the one that was.
    #[error("the upstream changed the protocol without being asked, or not as it was asked")]
    Upgrade,
    /// A WebSocket to an origin that does not speak HTTP/1.1.
    #[error("the upstream speaks only HTTP/2, and a WebSocket is opened to it over HTTP/1.1")]
    NoSocket,
    /// The connection ended first.
    #[error("the upstream closed the connection before its response was complete")]
    Closed,
    /// Nothing in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// No TLS, or none that can be trusted.
    #[error("no trusted TLS connection to the upstream: {0}")]
    Tls(stockade_tls::OriginFault),
}

impl UpstreamError {
    /// Status and stable code.
    #[must_use]
    pub(crate) fn row(self) -> (StatusCode, Reason) {
        match self {
            Self::Framing => (StatusCode::BAD_GATEWAY, Reason::UpstreamFraming),
            Self::Upgrade | Self::NoSocket => (StatusCode::BAD_GATEWAY, Reason::Upgrade),
            Self::Closed => (StatusCode::BAD_GATEWAY, Reason::UpstreamConnect),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, Reason::UpstreamConnect),
            Self::Tls(_) => (StatusCode::BAD_GATEWAY, Reason::UpstreamTls),
        }
    }

    pub(crate) fn of(error: &hyper::Error) -> Self {
        let malformed = error.is_parse() || error.is_parse_too_large() || frames::broken(error);
        if malformed { Self::Framing } else { Self::Closed }
    }

    pub(crate) fn tls(error: &io::Error) -> Self {
        Self::Tls(stockade_tls::OriginFault::of(error))
    }
}
