//! Refusals: one typed value per cause, one table from it to a status, a reason and a body.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;
use serde::Serialize;
use stockade_audit::Action;
use stockade_l7::Unreadable;
use stockade_policy::{Denial, Terms};
use stockade_tls::ClientFault;
use stockade_types::{Generation, Reason};

use crate::{
    destination::DestinationError, http::head::Violation, opening::OpeningError, peer::IdentityError,
    resolver::ResolveError, upstream::UpstreamError,
};

/// Characters of the sentence in a reason phrase, and in the field of a gRPC answer.
const PHRASE: usize = 320;
const MESSAGE: usize = 1_024;

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
    #[error(
        "the request body is larger than the {} bytes that endpoint `{}` allows (its `limits.request_body`)",
        .0.limits.request_body.unwrap_or_default(), .0.endpoint
    )]
    BodyTooLarge(Arc<Terms>),
    /// The endpoint's requests of this minute are used up.
    #[error(
        "more requests than the {} a minute that endpoint `{}` allows (its `limits.requests_per_minute`); try again in \
         {seconds} s",
        .0.limits.requests_per_minute.unwrap_or_default(), .0.endpoint, seconds = .1
    )]
    RateLimited(Arc<Terms>, u64),
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
            Self::BodyTooLarge(_) => row(StatusCode::PAYLOAD_TOO_LARGE, Reason::TxLimit, Denied),
            Self::RateLimited(..) => row(StatusCode::TOO_MANY_REQUESTS, Reason::RateLimit, Denied),
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
                Action::Failed if matches!(self, Self::Credential(_) | Self::Mint(_)) => "stockade failed",
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

    /// What stands beside the status in HTTP/1: all that many clients show, and all that is left of an answer to CONNECT.
    fn phrase(&self) -> String {
        let row = self.row();
        let status = row.status.canonical_reason().unwrap_or("Refused");
        let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        let detail: String = self.to_string().chars().map(plain).take(PHRASE).collect();
        format!("{status} (stockade {}: {detail})", row.reason)
    }

    /// Fields besides those of the body.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited(_, seconds) => Some(*seconds),
            _ => None,
        }
    }

    /// The response.
    #[must_use]
    pub(crate) fn response(&self, generation: Generation) -> Response<Bytes> {
        let mut response = Response::new(self.body(generation));
        *response.status_mut() = self.row().status;
        if let Ok(phrase) = ReasonPhrase::try_from(self.phrase()) {
            response.extensions_mut().insert(phrase);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }

    /// The response as bytes, for a connection that no HTTP server holds.
    #[must_use]
    pub(crate) fn raw_response(&self, generation: Generation) -> Vec<u8> {
        let (status, body) = (self.row().status, self.body(generation));
        let mut out = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            status.as_u16(),
            self.phrase(),
            body.len(),
        )
        .into_bytes();
        out.extend_from_slice(&body);
        out
    }

    /// The response to a gRPC call, whose clients read neither status nor body: code and text in the fields, nothing
    /// else.
    #[must_use]
    pub(crate) fn grpc_response(&self, generation: Generation) -> Response<Bytes> {
        let mut response = self.response(generation);
        let message: String = format!("{}: {self}", self.row().reason).chars().take(MESSAGE).collect();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", self.grpc_code().into());
        if let Ok(message) = HeaderValue::try_from(percent(&message)) {
            headers.insert("grpc-message", message);
        }
        *response.body_mut() = Bytes::new();
        response
    }

    /// The codes that gRPC has for such answers.
    fn grpc_code(&self) -> u16 {
        const RESOURCE_EXHAUSTED: u16 = 8;
        const PERMISSION_DENIED: u16 = 7;
        const UNAVAILABLE: u16 = 14;
        const INTERNAL: u16 = 13;
        match self.row().status {
            StatusCode::FORBIDDEN => PERMISSION_DENIED,
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => RESOURCE_EXHAUSTED,
            status if status.is_server_error() => UNAVAILABLE,
            _ => INTERNAL,
        }
    }
}

/// Text as gRPC writes it into a field.
fn percent(text: &str) -> String {
    let byte = |b: u8| match b {
        b' '..=b'~' if b != b'%' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
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
        let phrase = "Forbidden (stockade no_policy: no endpoint allows evil.test:443)";
        assert!(head.starts_with(&format!("HTTP/1.1 403 {phrase}\r\n")), "{head}");
        assert!(head.contains(&format!("content-length: {}", tail.len())), "{head}");
    }

    #[test]
    fn grpc_has_code_and_text_in_fields_and_no_body() {
        let response = Refusal::Busy.grpc_response(Generation::FIRST);
        let field = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        assert_eq!((field("grpc-status"), field("content-type")), ("14", "application/grpc"));
        assert_eq!(field("grpc-message"), "limit: too many connections are open; close some or raise the limit");
        assert!(response.body().is_empty());
        assert_eq!(percent("100% é\n"), "100%25 %C3%A9%0A");
    }

    #[test]
    fn a_phrase_is_one_line_whatever_was_asked() {
        let denial = Denial {
            reason: Reason::L7,
            rule: "r".into(),
            detail: format!("é\r\nX: y {}", "z".repeat(1_000)),
            suggestion: None,
            generation: Generation::FIRST,
        };
        let phrase = Refusal::Policy(Box::new(denial)).phrase();
        assert!(phrase.starts_with("Forbidden (stockade l7: ???X: y zzz") && phrase.len() < 400, "{phrase}");
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
