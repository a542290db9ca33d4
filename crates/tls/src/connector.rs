//! TLS towards origins.

use std::{fmt, sync::Arc};

use quick_cache::sync::Cache;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        ClientSessionMemoryCache, Resumption, Tls12Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{Clock, Extra, Roots, VERSIONS, provider};

/// Configurations kept, one for each ALPN list and endpoint with certificates of its own.
const MAX_CONFIGS: usize = 128;
/// Origins whose sessions are kept.
const SERVERS: usize = 256;

/// Why nothing can be verified.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The verifier would not take the roots.
    #[error("origins cannot be verified: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// rustls takes no configuration.
    #[error("TLS towards origins cannot be configured: {0}")]
    Config(#[from] rustls::Error),
}

/// Makes the configurations of upstream connections: verified against the roots, by name, without exception.
pub struct Connector {
    base: ClientConfig,
    configs: Cache<Wanted, Arc<ClientConfig>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Wanted {
    alpn: Vec<Vec<u8>>,
    extra: Option<[u8; 32]>,
}

impl Connector {
    /// Trusts `roots`, on the machine's clock.
    ///
    /// # Errors
    /// The crypto library refuses the roots.
    pub fn new(roots: &Roots) -> Result<Self, ConnectorError> {
        Self::with_clock(roots, &Clock::system())
    }

    /// The same on a clock of the caller's.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_clock(roots: &Roots, clock: &Clock) -> Result<Self, ConnectorError> {
        let store = roots.store();
        let verifier: Arc<dyn ServerCertVerifier> = if store.is_empty() {
            Arc::new(TrustNobody(provider()))
        } else {
            WebPkiServerVerifier::builder_with_provider(store, provider()).build()?
        };
        let mut base = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        base.resumption = sessions(SERVERS);
        base.enable_early_data = false;
        Ok(Self { base, configs: Cache::new(MAX_CONFIGS) })
    }

    /// The configuration that offers `alpn`, with what the endpoint adds. Equal wishes share one, and all that trust
    /// the same share their sessions.
    #[must_use]
    pub fn config(&self, alpn: &[Vec<u8>], extra: Option<&Extra>) -> Arc<ClientConfig> {
        let wanted = Wanted { alpn: alpn.to_vec(), extra: extra.map(Extra::id) };
        if let Some(config) = self.configs.get(&wanted) {
            return config;
        }
        let mut config = self.base.clone();
        config.alpn_protocols.clone_from(&wanted.alpn);
        if let Some(extra) = extra {
            extra.apply(&mut config);
        }
        let config = Arc::new(config);
        self.configs.insert(wanted, Arc::clone(&config));
        config
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// Stands for an empty set of roots, which webpki's verifier does not take: every origin is of an unknown issuer.
#[derive(Debug)]
struct TrustNobody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustNobody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Sessions in memory, of the last `servers` names.
pub(crate) fn sessions(servers: usize) -> Resumption {
    Resumption::store(Arc::new(ClientSessionMemoryCache::new(servers)))
        .tls12_resumption(Tls12Resumption::SessionIdOrTickets)
}

#[cfg(test)]
mod tests;
