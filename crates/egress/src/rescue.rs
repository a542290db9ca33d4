//! Refusals: one typed value per cause, one table from it to a status, a reason and a body.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use stockade_audit::Action;
use stockade_l7::Unreadable;
use stockade_policy::Denial;
use stockade_tls::ClientFault;
use stockade_types::{Generation, Reason};

use crate::{
    destination::DestinationError, http::head::Violation, opening::OpeningError, peer::IdentityError,
    resolver::ResolveError, upstream::UpstreamError,
};

/// Why a connection or a request goes no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The policy says no.
    #[error("{}", .0.detail)]
    Policy(Box<Denial>),
    /// The policy said yes once and now says no.
    #[error("the policy changed and no longer allows this connection: {}", .0.detail)]
    Stale(Box<Denial>),
    /// Not a request that can be judged.
    #[error(transparent)]
    Request(#[from] Violation),
    /// A synthetic address that was given to no name.
    #[error("the address stands for no name: resolve the name again")]
    Mapping,
    /// A safety rule, or no way to the host.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// What a permitted connection began with.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// What the upstream answered, or did not.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The command's side of TLS.
    #[error(transparent)]
    Client(#[from] ClientFault),
    /// No certificate for the host.
    #[error("no certificate can be made for this host: {0}")]
    Mint(#[from] stockade_tls::MintError),
    /// What the request asks for cannot be read.
    #[error("what the request asks for cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
    /// A placeholder where it does not belong, or a credential that cannot be put in.
    #[error(transparent)]
    Credential(Box<stockade_secrets::Refusal>),
    /// A response in which a credential's value could not be found.
    #[error(transparent)]
    Uninspectable(#[from] stockade_secrets::Uninspectable),
    /// What a WebSocket carries is not WebSocket.
    #[error("not a WebSocket message that can be judged: {0}")]
    Frame(#[from] stockade_l7::websocket::Violation),
    /// The request's body is over the endpoint's bound.
    #[error("the request body is larger than the endpoint allows (limits.request_body)")]
    BodyTooLarge,
    /// The endpoint's requests of this minute are used up.
    #[error("the endpoint's requests_per_minute are used up; wait and try again")]
    RateLimited,
    /// It is not known who asks, where a rule names programs.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// All places are taken.
    #[error("too many connections are open; close some or raise the limit")]
    Busy,
}

/// What a refusal becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Response status.
    pub(crate) status: StatusCode,
    /// Stable code.
    pub(crate) reason: Reason,
    /// Refused, or permitted and failed.
    pub(crate) action: Action,
}

const fn row(status: StatusCode, reason: Reason, action: Action) -> Row {
    Row { status, reason, action }
}

impl Refusal {
    /// The table.
    #[must_use]
    pub(crate) fn row(&self) -> Row {
        use Action::{Denied, Failed};
        match self {
            Self::Policy(denial) => row(StatusCode::FORBIDDEN, denial.reason, Denied),
            Self::Stale(_) => row(StatusCode::FORBIDDEN, Reason::StaleGeneration, Denied),
            Self::Request(violation) => {
                let (status, reason) = violation.row();
                row(status, reason, Denied)
            }
            Self::Mapping => row(StatusCode::FORBIDDEN, Reason::MappingUnknown, Denied),
            Self::Destination(error) => destination(error),
            Self::Opening(error) => row(StatusCode::FORBIDDEN, error.reason(), Denied),
            Self::Upstream(error) => {
                let (status, reason) = error.row();
                row(status, reason, Failed)
            }
            Self::Client(fault) if fault.pinned() => row(StatusCode::BAD_GATEWAY, Reason::ClientRejectedCert, Failed),
            Self::Client(_) => row(StatusCode::BAD_REQUEST, Reason::ClientTls, Failed),
            Self::Mint(_) => row(StatusCode::SERVICE_UNAVAILABLE, Reason::TlsUnavailable, Failed),
            Self::Unreadable(Unreadable::TooLarge) => row(StatusCode::PAYLOAD_TOO_LARGE, Reason::Limit, Denied),
            Self::Unreadable(Unreadable::Encoding | Unreadable::Gzip) => {
                row(StatusCode::FORBIDDEN, Reason::Uninspectable, Denied)
            }
            Self::Unreadable(_) => row(StatusCode::FORBIDDEN, Reason::L7, Denied),
            Self::Credential(refusal) => credential(refusal),
            Self::Uninspectable(_) => row(StatusCode::BAD_GATEWAY, Reason::Uninspectable, Failed),
            Self::Frame(_) => row(StatusCode::BAD_REQUEST, Reason::Framing, Denied),
            Self::BodyTooLarge => row(StatusCode::PAYLOAD_TOO_LARGE, Reason::TxLimit, Denied),
            Self::RateLimited => row(StatusCode::TOO_MANY_REQUESTS, Reason::RateLimit, Denied),
            Self::Identity(error) => row(StatusCode::FORBIDDEN, error.reason(), Denied),
            Self::Busy => row(StatusCode::SERVICE_UNAVAILABLE, Reason::Limit, Denied),
        }
    }

    /// The policy's own words, where the policy refused.
    #[must_use]
    pub(crate) fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Policy(denial) | Self::Stale(denial) => Some(denial),
            _ => None,
        }
    }

    /// The JSON body.
    #[must_use]
    pub(crate) fn body(&self, generation: Generation) -> Bytes {
        let row = self.row();
        let denial = self.denial();
        let body = Body {
            error: match row.action {
                Action::Failed => "upstream failed",
                _ => "denied by stockade",
            },
            detail: self.to_string(),
            reason: row.reason,
            rule: denial.map(|d| d.rule.as_str()),
            allow: denial.and_then(|d| d.suggestion.as_deref()),
            generation: denial.map_or(generation, |d| d.generation),
        };
        let mut text = serde_json::to_vec(&body).unwrap_or_default();
        text.push(b'\n');
        text.into()
    }

    /// The response.
    #[must_use]
    pub(crate) fn response(&self, generation: Generation) -> Response<Bytes> {
        let mut response = Response::new(self.body(generation));
        *response.status_mut() = self.row().status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// The response as bytes, for a connection that no HTTP server holds.
    #[must_use]
    pub(crate) fn raw_response(&self, generation: Generation) -> Vec<u8> {
        let (status, body) = (self.row().status, self.body(generation));
        let mut out = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len(),
        )
        .into_bytes();
        out.extend_from_slice(&body);
        out
    }
}

fn credential(refusal: &stockade_secrets::Refusal) -> Row {
    use stockade_secrets::Refusal as Why;
    match refusal {
        // The request is right; what it needs is not there.
        Why::Unresolved { .. } | Why::Invalid { .. } => row(StatusCode::BAD_GATEWAY, refusal.reason(), Action::Failed),
        _ => row(StatusCode::FORBIDDEN, refusal.reason(), Action::Denied),
    }
}

impl From<stockade_secrets::Refusal> for Refusal {
    fn from(refusal: stockade_secrets::Refusal) -> Self {
        Self::Credential(Box::new(refusal))
    }
}

fn destination(error: &DestinationError) -> Row {
    use Action::{Denied, Failed};
    match error {
        DestinationError::Blocked(block, _) => row(StatusCode::FORBIDDEN, block.reason(), Denied),
        DestinationError::Resolve(ResolveError::Timeout) => {
            row(StatusCode::GATEWAY_TIMEOUT, Reason::UpstreamDns, Failed)
        }
        DestinationError::Resolve(ResolveError::Invalid) => row(StatusCode::BAD_GATEWAY, Reason::DnsInvalid, Failed),
        DestinationError::Resolve(_) => row(StatusCode::BAD_GATEWAY, Reason::UpstreamDns, Failed),
        DestinationError::ConnectTimeout => row(StatusCode::GATEWAY_TIMEOUT, Reason::UpstreamConnect, Failed),
        DestinationError::Connect(_) => row(StatusCode::BAD_GATEWAY, Reason::UpstreamConnect, Failed),
    }
}

/// The JSON body of every refusal.
#[derive(Serialize)]
struct Body<'a> {
    error: &'static str,
    detail: String,
    reason: Reason,
    rule: Option<&'a str>,
    allow: Option<&'a str>,
    generation: Generation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_rule_reason_and_the_line_that_would_allow_it() {
        let denial = Denial {
            reason: Reason::NoPolicy,
            rule: "default".into(),
            detail: "no endpoint allows evil.test:443".into(),
            suggestion: Some("network: {}".into()),
            generation: Generation(7),
        };
        let refusal = Refusal::Policy(Box::new(denial));
        let body: serde_json::Value = serde_json::from_slice(&refusal.body(Generation(9))).unwrap();
        assert_eq!(body["reason"], "no_policy");
        assert_eq!(body["rule"], "default");
        assert_eq!(body["allow"], "network: {}");
        assert_eq!(body["generation"], 7, "of the verdict, not of now");
        let raw = String::from_utf8(refusal.raw_response(Generation(9))).unwrap();
        let (head, tail) = raw.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", tail.len())), "{head}");
    }

    #[test]
    fn bodies_show_no_internal_address() {
        let refusal = Refusal::Destination(DestinationError::Blocked(
            crate::destination::Block::Internal,
            Some("10.1.2.3".parse().unwrap()),
        ));
        assert_eq!(refusal.row().status, 403);
        let body = String::from_utf8(refusal.body(Generation::FIRST).to_vec()).unwrap();
        assert!(body.contains("ssrf_internal") && !body.contains("10.1.2.3"), "{body}");
    }
}
