//! Proof that a connection is who it should be. Values are put in only where there is one.

use rustls::ClientConnection;
use stockade_types::{Host, Port};

/// A finished TLS handshake with this host, whose certificate was verified.
///
/// It lives here and not beside the TLS configurations because injection demands it and `secrets` does not know `tls`.
/// It is made of the evidence: a client connection of rustls has a peer's certificates only after its verifier accepted
/// them for the name it was opened with. That verifier is the one of the `tls` crate, the only place where client
/// configurations are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTls {
    host: Host,
    port: Port,
}

impl VerifiedTls {
    /// Absent while the handshake is under way. `host` is the name that the connection was opened with.
    #[must_use]
    pub fn of(connection: &ClientConnection, host: &Host, port: Port) -> Option<Self> {
        let certified = connection.peer_certificates().is_some_and(|chain| !chain.is_empty());
        let verified = !connection.is_handshaking() && certified;
        verified.then(|| Self { host: host.clone(), port })
    }

    /// Whether it is a connection to this host and port.
    pub(crate) fn is_to(&self, host: &Host, port: Port) -> bool {
        self.host == *host && self.port == port
    }

    #[cfg(test)]
    pub(crate) fn for_tests(host: &Host, port: Port) -> Self {
        Self { host: host.clone(), port }
    }
}
