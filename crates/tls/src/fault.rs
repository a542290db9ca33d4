//! What went wrong with a TLS connection, in a few words that a person can act on.

use std::{error::Error as StdError, io};

use rustls::{AlertDescription as Alert, CertificateError, Error};

/// Why an origin could not be spoken to. Nothing of the request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OriginFault {
    /// No path to a trusted authority.
    #[error(
        "its certificate is signed by an authority that the supervisor does not trust, or by itself; if that is right, \
         name the authority's certificate: `--upstream-ca FILE`, or `upstream: {{roots: FILE}}` of the endpoint"
    )]
    UnknownIssuer,
    /// Past its end.
    #[error("its certificate has expired; its operator must renew it")]
    Expired,
    /// Before its beginning.
    #[error("its certificate is not valid yet; compare the clocks of both machines")]
    NotYetValid,
    /// An authority's own, shown by a server.
    #[error(
        "its certificate is that of an authority, as `openssl req -x509` makes it, and none for a server; its operator \
         must make one for a server (`-addext basicConstraints=critical,CA:FALSE`), which `--upstream-ca FILE` can name"
    )]
    Authority,
    /// For another host.
    #[error("its certificate is for another name; the name is wrong or the answer comes from another host")]
    WrongName,
    /// Withdrawn.
    #[error("its certificate was revoked")]
    Revoked,
    /// Malformed, for another purpose, or signed in a way that is not accepted.
    #[error("its certificate is malformed, weak or not one for a server")]
    BadCertificate,
    /// The origin wants to see a certificate, or did not like ours.
    #[error(
        "it wants a client certificate that it accepts; name one for this endpoint: `upstream: {{certificate: FILE, \
         key: FILE}}`"
    )]
    ClientCertificate,
    /// Nothing in common.
    #[error("it speaks no TLS 1.2 or 1.3, or no algorithm that is accepted")]
    Version,
    /// It serves none of the application protocols offered.
    #[error("it speaks none of the protocols that the client offered (ALPN)")]
    Protocol,
    /// It has no such host.
    #[error("it knows no host of this name")]
    UnknownName,
    /// Something else answers on that port.
    #[error("what answers on this port does not speak TLS")]
    NotTls,
    /// Closed in the handshake.
    #[error("it closed the connection during the TLS handshake")]
    Closed,
    /// Anything else.
    #[error("the TLS handshake with it failed")]
    Handshake,
}

/// Why the command's TLS connection to the door failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ClientFault {
    /// An alert said so: the program pins certificates or has a trust store of its own.
    #[error(
        "the program does not accept the sandbox's certificate: it pins the host's or has a trust store of its own; \
         `tls: passthrough` for this endpoint lets it through unread"
    )]
    RejectedCertificate,
    /// Closed after our certificate, without an alert: most often the same.
    #[error(
        "the program closed the connection during the TLS handshake, as one does that pins certificates; \
         `tls: passthrough` for this endpoint lets it through unread"
    )]
    Closed,
    /// Nothing in common.
    #[error("the program speaks no TLS 1.2 or 1.3, or no algorithm that is accepted")]
    Version,
    /// It offers none of the application protocols that the origin speaks.
    #[error("the program and the host have no protocol in common (ALPN)")]
    Protocol,
    /// SNI of another host.
    #[error("the program names another host in its TLS handshake than it connected to")]
    WrongName,
    /// Not TLS.
    #[error("the program does not speak TLS")]
    NotTls,
    /// Anything else.
    #[error("the TLS handshake with the program failed")]
    Handshake,
}

impl OriginFault {
    /// Reads the error of a handshake, or of the first read after it: TLS 1.3 refuses client certificates there.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match tls(error) {
            Some(error) => Self::of_tls(error),
            None if closed(error) => Self::Closed,
            None => Self::Handshake,
        }
    }

    /// The same of an error of rustls.
    #[must_use]
    pub fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(certificate) => Self::of_certificate(certificate),
            Error::NoCertificatesPresented | Error::UnsupportedNameType => Self::BadCertificate,
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::NoApplicationProtocol => Self::Protocol,
            Error::PeerIncompatible(_) => Self::Version,
            Error::InvalidMessage(message) if not_tls(message) => Self::NotTls,
            _ => Self::Handshake,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::Other(other) if other.to_string() == AUTHORITY => Self::Authority,
            _ => Self::BadCertificate,
        }
    }

    fn of_alert(alert: Alert) -> Self {
        match alert {
            Alert::CertificateRequired | Alert::NoCertificate => Self::ClientCertificate,
            alert if about_certificate(alert) || alert == Alert::AccessDenied => Self::ClientCertificate,
            Alert::ProtocolVersion | Alert::InsufficientSecurity => Self::Version,
            Alert::NoApplicationProtocol => Self::Protocol,
            Alert::UnrecognisedName => Self::UnknownName,
            _ => Self::Handshake,
        }
    }

    /// One word for events and metrics. It never changes.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongName => "wrong_name",
            Self::Authority => "authority",
            Self::Revoked => "revoked",
            Self::BadCertificate => "bad_certificate",
            Self::ClientCertificate => "client_certificate",
            Self::Version => "version",
            Self::Protocol => "protocol",
            Self::UnknownName => "unknown_name",
            Self::NotTls => "not_tls",
            Self::Closed => "closed",
            Self::Handshake => "handshake",
        }
    }
}

impl ClientFault {
    /// Reads the error of a handshake, or of the first read after it: TLS 1.3 clients refuse our certificate there.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match tls(error) {
            Some(error) => Self::of_tls(error),
            None if closed(error) => Self::Closed,
            None => Self::Handshake,
        }
    }

    /// The same of an error of rustls.
    #[must_use]
    pub fn of_tls(error: &Error) -> Self {
        match error {
            Error::AlertReceived(alert) if about_certificate(*alert) => Self::RejectedCertificate,
            Error::AlertReceived(Alert::ProtocolVersion | Alert::InsufficientSecurity) => Self::Version,
            Error::NoApplicationProtocol | Error::AlertReceived(Alert::NoApplicationProtocol) => Self::Protocol,
            Error::PeerIncompatible(_) => Self::Version,
            Error::General(text) if text == NO_CERTIFICATE => Self::WrongName,
            Error::InvalidMessage(message) if not_tls(message) => Self::NotTls,
            _ => Self::Handshake,
        }
    }

    /// One word for events and metrics. It never changes.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::RejectedCertificate => "client_rejected_cert",
            Self::Closed => "closed",
            Self::Version => "version",
            Self::Protocol => "protocol",
            Self::WrongName => "wrong_name",
            Self::NotTls => "not_tls",
            Self::Handshake => "handshake",
        }
    }

    /// Whether it looks like a program that pins certificates.
    #[must_use]
    pub fn pinned(self) -> bool {
        matches!(self, Self::RejectedCertificate | Self::Closed)
    }
}

/// What webpki says of an authority's certificate in a server's place; rustls has no variant for it. A test holds the text.
const AUTHORITY: &str = "CaUsedAsEndEntity";

/// What rustls says when the resolver has no certificate; it has no variant for it. A test holds the text.
const NO_CERTIFICATE: &str = "no server certificate chain resolved";

/// The error of rustls within what an asynchronous stream reports.
fn tls(error: &io::Error) -> Option<&Error> {
    let inner: &(dyn StdError + 'static) = error.get_ref()?;
    inner.downcast_ref()
}

fn closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Alerts by which a peer says that our certificate does not suit it.
fn about_certificate(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::BadCertificateStatusResponse
    )
}

/// The record layer's first complaints about bytes that are no TLS.
fn not_tls(message: &rustls::InvalidMessage) -> bool {
    use rustls::InvalidMessage as M;
    matches!(message, M::InvalidContentType | M::UnknownProtocolVersion | M::MessageTooLarge | M::InvalidEmptyPayload)
}

#[cfg(test)]
mod tests;
