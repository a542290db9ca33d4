//! The key by which clients know this server.

use russh::keys::{
    HashAlg, PrivateKey, PublicKey,
    ssh_key::private::{Ed25519Keypair, KeypairData},
};
use zeroize::Zeroizing;

/// The server's key: Ed25519, from a file or made for one run.
pub struct HostKey(PrivateKey);

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a private key in the format of OpenSSH.
    #[error("not a private key in OpenSSH's format ({0}); make one with: ssh-keygen -t ed25519 -N '' -f FILE")]
    Format(String),
    /// It has a passphrase.
    #[error("it has a passphrase, which nobody could type; remove it with: ssh-keygen -p -N '' -f FILE")]
    Encrypted,
    /// Another kind.
    #[error("it is a key of type {0}; an ssh-ed25519 key is needed: ssh-keygen -t ed25519 -N '' -f FILE")]
    Kind(String),
    /// The kernel gave no random bytes.
    #[error("random bytes: {0}")]
    Random(std::io::Error),
}

impl HostKey {
    /// Makes a key for one run.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn ephemeral() -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0u8; 32]);
        let mut filled = 0;
        while let Some(rest) = seed.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
                .map_err(|e| Error::Random(e.into()))?;
        }
        let key = PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&seed)), "");
        key.map(Self).map_err(|e| Error::Format(e.to_string()))
    }

    /// Reads a private key as `ssh-keygen` writes it.
    ///
    /// # Errors
    /// When it is no such key, has a passphrase, or is of another kind.
    pub fn from_openssh(text: &[u8]) -> Result<Self, Error> {
        let key = PrivateKey::from_openssh(text).map_err(|e| Error::Format(e.to_string()))?;
        if key.is_encrypted() {
            return Err(Error::Encrypted);
        }
        match key.algorithm() {
            russh::keys::Algorithm::Ed25519 => Ok(Self(key)),
            other => Err(Error::Kind(other.to_string())),
        }
    }

    /// As `ssh-keygen -l` and clients show it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.public_key().fingerprint(HashAlg::Sha256).to_string()
    }

    /// The public part, as a line of `known_hosts` has it behind the name.
    #[must_use]
    pub fn public_line(&self) -> String {
        let public = PublicKey::new(self.0.public_key().key_data().clone(), "");
        public.to_openssh().unwrap_or_default()
    }

    pub(crate) fn into_inner(self) -> PrivateKey {
        self.0
    }
}

/// The public part of a private or public key file, for `known_hosts`.
///
/// # Errors
/// When it is neither.
pub fn public_line(text: &[u8]) -> Result<String, Error> {
    match std::str::from_utf8(text).ok().and_then(|t| PublicKey::from_openssh(t.trim()).ok()) {
        Some(key) if key.algorithm() == russh::keys::Algorithm::Ed25519 => {
            Ok(PublicKey::new(key.key_data().clone(), "").to_openssh().unwrap_or_default())
        }
        Some(key) => Err(Error::Kind(key.algorithm().to_string())),
        None => HostKey::from_openssh(text).map(|key| key.public_line()),
    }
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostKey").field(&self.fingerprint()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ephemeral_key_is_another() {
        let (a, b) = (HostKey::ephemeral().unwrap(), HostKey::ephemeral().unwrap());
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert!(a.fingerprint().starts_with("SHA256:"));
        assert!(a.public_line().starts_with("ssh-ed25519 AAAA"));
        assert!(!format!("{a:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_file_is_read_back() {
        let key = HostKey::ephemeral().unwrap();
        let text = key.0.to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap();
        assert_eq!(HostKey::from_openssh(text.as_bytes()).unwrap().fingerprint(), key.fingerprint());
        assert!(matches!(HostKey::from_openssh(b"hello"), Err(Error::Format(_))));
    }
}
