//! The ephemeral CA, leaves, TLS configurations of both sides and the trust bundle.
//!
//! No sockets here: this crate makes certificates and configurations, the door moves the bytes. The CA's key lives in
//! this process's memory and nowhere else; what leaves is the certificate.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod ca;
pub mod clock;
pub mod connector;
pub mod extra;
pub mod fault;
pub mod interceptor;
mod key;
pub mod roots;
#[cfg(test)]
mod testing;

pub use bundle::{Bundle, Variable};
pub use ca::{Ca, CaError};
pub use clock::Clock;
pub use connector::{Connector, ConnectorError};
pub use extra::{Extra, ExtraError, ExtraPem};
pub use fault::{ClientFault, OriginFault};
pub use interceptor::{Interceptor, MintError, Minted};
pub use roots::{Roots, RootsError};
pub use rustls::ClientConfig;

use std::sync::Arc;

use rustls::{
    SupportedProtocolVersion,
    crypto::CryptoProvider,
    version::{TLS12, TLS13},
};

/// The versions spoken on both sides.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The one crypto provider. Handed to every configuration by name: a process-wide default would be a global.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
