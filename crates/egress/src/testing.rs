//! What unit tests of this crate share.

use stockade_policy::{Mode, Protocol, Terms, TlsMode};

/// Terms of an endpoint that inspects and has no rules.
pub(crate) fn terms() -> Terms {
    Terms {
        endpoint: "test".into(),
        protocol: Protocol::Http,
        tls: TlsMode::Inspect,
        mode: Mode::Enforce,
        private_addresses: Vec::new(),
        judged: false,
        limits: Default::default(),
        credentials: Vec::new(),
        callers: None,
        encoded_slash: false,
        upstream: Default::default(),
    }
}
