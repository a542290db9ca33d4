//! Signing keys and signatures.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use stockade_types::Secret;
use zeroize::Zeroizing;

use super::Scope;

/// SHA-256 of nothing.
pub(super) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Signs under one scope: date, region and service.
pub(super) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    pub(super) fn new(secret: &Secret, scope: &Scope) -> Self {
        let mut first = Zeroizing::new(String::with_capacity(4 + secret.len()));
        first.push_str("AWS4");
        first.push_str(secret.expose());
        let date = mac(first.as_bytes(), scope.date.as_bytes());
        let region = mac(&*date, scope.region.as_bytes());
        let service = mac(&*region, scope.service.as_bytes());
        Self(mac(&*service, b"aws4_request"))
    }

    /// The signature of a string to sign, in lower-case hexadecimal.
    pub(super) fn sign(&self, text: &str) -> String {
        hex(&*mac(&*self.0, text.as_bytes()))
    }
}

/// HMAC takes keys of any length, so that this cannot fail; were it to, the signature would be of an empty key and
/// refused by the origin.
fn mac(key: &[u8], text: &[u8]) -> Zeroizing<[u8; 32]> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Zeroizing::new([0; 32]) };
    mac.update(text);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
