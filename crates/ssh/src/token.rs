//! The handshake of a gateway: one line before SSH begins, which lets one key come in once.
//!
//! ```text
//! stockade-ssh-1 SANDBOX SECONDS NONCE SHA256:FINGERPRINT hmac-sha256:BASE64
//! ```
//!
//! The last word is over everything before it and its blank; with a public key configured it is `ed25519:BASE64`. The line
//! names the key that the SSH login then has to prove, so a line that is stolen on its way is of no use, and there is no
//! login without a proof. See `docs/decisions/0018-ssh-handshake.md`.

mod used;

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::{hmac, signature};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use russh::keys::PublicKey;
use stockade_types::Reason;

use self::used::Used;
use crate::limits::{SECRET_LEAST, TOKEN_LINE, TOKEN_SKEW};

const VERSION: &str = "stockade-ssh-1";

/// Why a secret or key for handshakes cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nothing in it.
    #[error("the secret is empty; anybody could make handshakes")]
    Empty,
    /// Too short.
    #[error("the secret has {0} bytes, at least {SECRET_LEAST} are needed: openssl rand -hex 32")]
    Short(usize),
    /// Not a key.
    #[error("not an ssh-ed25519 public key such as the content of id_ed25519.pub")]
    Key,
}

/// Why a handshake is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum Fault {
    /// Not a handshake.
    #[error("not a handshake of version 1")]
    Malformed,
    /// Made with another secret, or changed.
    #[error("its code is wrong")]
    Code,
    /// For another sandbox.
    #[error("it is for another sandbox")]
    Sandbox,
    /// Too old.
    #[error("it is too old")]
    Late,
    /// From the future.
    #[error("it is from the future; are the clocks right?")]
    Early,
    /// Used before.
    #[error("it was used before")]
    Replay,
    /// No room to remember it.
    #[error("too many handshakes were used within a minute")]
    Full,
    /// The machine's clock was set back, so that old lines could count as new.
    #[error("this machine's clock was set back; restart the sandbox")]
    Clock,
}

impl Fault {
    /// For the audit log.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Replay => Reason::Replay,
            Self::Full => Reason::Limit,
            Self::Malformed | Self::Code | Self::Sandbox | Self::Late | Self::Early | Self::Clock => Reason::SshToken,
        }
    }
}

enum Proof {
    Secret(Box<hmac::Key>),
    Key(Vec<u8>),
}

/// Checks handshakes of one sandbox, and remembers those that were used.
pub struct Tokens {
    proof: Proof,
    sandbox: String,
    used: Mutex<Used>,
}

impl Tokens {
    /// Handshakes made with a shared secret. White space around it does not count: files end with a line feed.
    ///
    /// # Errors
    /// For a secret that can be guessed.
    pub fn with_secret(secret: &[u8], sandbox: &str) -> Result<Self, Error> {
        match secret.trim_ascii() {
            [] => Err(Error::Empty),
            short if short.len() < SECRET_LEAST => Err(Error::Short(short.len())),
            secret => Ok(Self::new(Proof::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))), sandbox)),
        }
    }

    /// Handshakes signed with the private part of this key.
    ///
    /// # Errors
    /// When it is not an Ed25519 key.
    pub fn with_key(public: &str, sandbox: &str) -> Result<Self, Error> {
        let key = PublicKey::from_openssh(public.trim()).map_err(|_| Error::Key)?;
        let bytes = key.key_data().ed25519().ok_or(Error::Key)?.0.to_vec();
        Ok(Self::new(Proof::Key(bytes), sandbox))
    }

    fn new(proof: Proof, sandbox: &str) -> Self {
        Self { proof, sandbox: sandbox.to_owned(), used: Mutex::new(Used::default()) }
    }

    /// Takes a line without its line feed: the fingerprint of the key that may come in on this connection.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn accept(&self, line: &[u8], now: SystemTime) -> Result<String, Fault> {
        let line = Line::parse(line)?;
        if !self.proves(&line) {
            return Err(Fault::Code);
        }
        if line.sandbox != self.sandbox {
            return Err(Fault::Sandbox);
        }
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| Fault::Clock)?.as_secs();
        let skew = TOKEN_SKEW.as_secs();
        if line.seconds > now.saturating_add(skew) {
            return Err(Fault::Early);
        }
        if line.seconds.saturating_add(skew) < now {
            return Err(Fault::Late);
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(line.nonce, line.seconds.saturating_add(skew), now)?;
        Ok(line.fingerprint.to_owned())
    }

    fn proves(&self, line: &Line<'_>) -> bool {
        match (&self.proof, line.method) {
            (Proof::Secret(key), "hmac-sha256") => hmac::verify(key, line.signed.as_bytes(), &line.code).is_ok(),
            (Proof::Key(key), "ed25519") => signature::UnparsedPublicKey::new(&signature::ED25519, key)
                .verify(line.signed.as_bytes(), &line.code)
                .is_ok(),
            _ => false,
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

/// Makes a handshake, as a gateway does.
///
/// # Errors
/// For a secret that no server takes.
pub fn make(secret: &[u8], sandbox: &str, seconds: u64, nonce: &str, fingerprint: &str) -> Result<String, Error> {
    let Proof::Secret(key) = Tokens::with_secret(secret, sandbox)?.proof else { return Err(Error::Key) };
    let signed = format!("{VERSION} {sandbox} {seconds} {nonce} {fingerprint}");
    let code = STANDARD_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    Ok(format!("{signed} hmac-sha256:{code}\n"))
}

struct Line<'a> {
    signed: &'a str,
    sandbox: &'a str,
    seconds: u64,
    nonce: &'a str,
    fingerprint: &'a str,
    method: &'a str,
    code: Vec<u8>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, Fault> {
        Self::read(line).ok_or(Fault::Malformed)
    }

    fn read(line: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok().filter(|t| t.len() <= TOKEN_LINE && t.is_ascii())?;
        let (signed, last) = text.rsplit_once(' ')?;
        let words: Vec<&str> = signed.split(' ').collect();
        let [VERSION, sandbox, seconds, nonce, fingerprint] = words.as_slice() else { return None };
        let (method, code) = last.split_once(':')?;
        // 22 characters of base64 hold 128 bits. One way to write each number, so that equal lines are equal.
        let is_nonce = (22..=64).contains(&nonce.len())
            && nonce.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let is_number = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
        let is_print = fingerprint.strip_prefix("SHA256:").is_some_and(|f| f.len() == 43);
        if !is_nonce || !is_number || !is_print {
            return None;
        }
        let code = STANDARD_NO_PAD.decode(code).ok()?;
        Some(Self { signed, sandbox, seconds: seconds.parse().ok()?, nonce, fingerprint, method, code })
    }
}

#[cfg(test)]
mod tests;
