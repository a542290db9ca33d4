//! What one endpoint adds: authorities of its own, and a certificate to show.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::{
    client::{ResolvesClientCert, WebPkiServerVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::{Roots, RootsError, connector::sessions, provider};

/// Most certificates in a client's chain.
const MAX_CHAIN: usize = 16;
/// Servers whose sessions are kept for one endpoint.
const SERVERS: usize = 16;

/// The same as text, as the policy's files hold it.
#[derive(Default, Clone, Copy)]
pub struct ExtraPem<'a> {
    /// Authorities. With these, no other authority may vouch for the endpoint, the machine's included.
    pub roots: Option<&'a [u8]>,
    /// The client's certificate chain, its own first, and the private key.
    pub identity: Option<(&'a [u8], &'a [u8])>,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ExtraError {
    /// The authorities.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The verifier would not take them.
    #[error("the endpoint's authorities cannot be used: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// The chain.
    #[error("client certificate {number} is malformed: {why}")]
    Certificate {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// No or too many certificates.
    #[error("the client certificate has {0} PEM blocks; it takes 1 to {MAX_CHAIN}, the client's own first")]
    Chain(usize),
    /// The key. Its text is never repeated.
    #[error("the client's private key is not an unencrypted PEM block of PKCS#8, SEC 1 or PKCS#1")]
    Key,
    /// Key and certificate.
    #[error("the client's private key does not fit its certificate, or is of a kind that cannot be used")]
    Mismatch,
}

/// Parsed. Cheap to clone; two of equal content share one configuration and its sessions.
#[derive(Clone)]
pub struct Extra(Arc<Inner>);

struct Inner {
    id: [u8; 32],
    verifier: Option<Arc<WebPkiServerVerifier>>,
    client: Option<Arc<dyn ResolvesClientCert>>,
    sessions: rustls::client::Resumption,
}

impl Extra {
    /// Reads what an endpoint's files hold.
    ///
    /// # Errors
    /// See [`ExtraError`].
    pub fn parse(text: ExtraPem<'_>) -> Result<Self, ExtraError> {
        let verifier = match text.roots {
            Some(pem) => {
                let roots = Roots::none().with_named("the endpoint's authorities", pem)?;
                Some(WebPkiServerVerifier::builder_with_provider(roots.store(), provider()).build()?)
            }
            None => None,
        };
        let client = match text.identity {
            Some((chain, key)) => Some(identity(chain, key)?),
            None => None,
        };
        Ok(Self(Arc::new(Inner { id: digest(&text), verifier, client, sessions: sessions(SERVERS) })))
    }

    pub(crate) fn id(&self) -> [u8; 32] {
        self.0.id
    }

    /// Changes what the connector has for everybody into what this endpoint wants.
    pub(crate) fn apply(&self, config: &mut rustls::ClientConfig) {
        if let Some(verifier) = &self.0.verifier {
            let verifier: Arc<WebPkiServerVerifier> = Arc::clone(verifier);
            config.dangerous().set_certificate_verifier(verifier);
        }
        if let Some(client) = &self.0.client {
            config.client_auth_cert_resolver = Arc::clone(client);
        }
        // Never the common sessions: one that began without this endpoint's rules must not be resumed under them.
        config.resumption = self.0.sessions.clone();
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extra")
            .field("roots", &self.0.verifier.is_some())
            .field("identity", &self.0.client.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ExtraPem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExtraPem(redacted)")
    }
}

fn identity(chain: &[u8], key: &[u8]) -> Result<Arc<dyn ResolvesClientCert>, ExtraError> {
    let mut certificates = Vec::new();
    for (at, block) in CertificateDer::pem_slice_iter(chain).enumerate() {
        if at == MAX_CHAIN {
            return Err(ExtraError::Chain(at + 1));
        }
        certificates.push(block.map_err(|e| ExtraError::Certificate { number: at + 1, why: e.to_string() })?);
    }
    if certificates.is_empty() {
        return Err(ExtraError::Chain(0));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ExtraError::Key)?;
    let certified = CertifiedKey::from_der(certificates, key, &provider()).map_err(|_| ExtraError::Mismatch)?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

/// Tells contents apart, lengths first so that no two layouts agree.
fn digest(text: &ExtraPem<'_>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let (chain, key) = text.identity.unzip();
    for part in [text.roots, chain, key] {
        context.update(&[u8::from(part.is_some())]);
        let bytes = part.unwrap_or_default();
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    }
    let mut id = [0; 32];
    for (to, from) in id.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    id
}

#[cfg(test)]
mod tests;
