//! `authorized_keys`: who may come in, in the format of OpenSSH.
//!
//! A line that is not understood is an error and never skipped: an option that restricts and is overlooked would be a
//! hole. Keys of kinds that cannot be checked here are left out and named.

pub(crate) mod options;

use std::{net::IpAddr, time::SystemTime};

use russh::keys::{Algorithm, HashAlg, PublicKey, ssh_key::public::KeyData};

use self::options::Options;
use crate::{
    access::Access,
    limits::{KEYS, KEYS_FILE, KEYS_LINE},
};

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A line is wrong.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// Too large.
    #[error("it is larger than {KEYS_FILE} bytes or has more than {KEYS} keys")]
    TooLarge,
    /// Nobody could come in.
    #[error("it has no usable key; add a line such as the content of ~/.ssh/id_ed25519.pub")]
    Empty,
}

/// The keys and authorities that may come in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AuthorizedKeys {
    lines: Vec<Line>,
    /// Lines left out, and why.
    pub remarks: Vec<String>,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    key: KeyData,
    options: Options,
}

impl AuthorizedKeys {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is wrong, or that there is none of use.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > KEYS_FILE {
            return Err(Error::TooLarge);
        }
        let mut keys = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_matches([' ', '\t', '\r']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if keys.lines.len() >= KEYS {
                return Err(Error::TooLarge);
            }
            match parse_line(line).map_err(|what| Error::Line { line: number, what })? {
                Parsed::Usable(line) => keys.lines.push(*line),
                Parsed::LeftOut(why) => keys.remarks.push(format!("line {number}: {why}")),
            }
        }
        if keys.lines.is_empty() { Err(Error::Empty) } else { Ok(keys) }
    }

    /// How many keys and authorities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nobody can come in by key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What the holder of a key may do; `None` for keys that are not listed, are past their time or come from elsewhere.
    pub(crate) fn holder(&self, key: &PublicKey, peer: Option<IpAddr>, now: SystemTime) -> Option<Access> {
        self.find(key.key_data(), peer, now, false).map(|options| options.access.clone())
    }

    /// The line of a certificate's authority.
    pub(crate) fn authority(&self, key: &KeyData, peer: Option<IpAddr>, now: SystemTime) -> Option<&Options> {
        self.find(key, peer, now, true)
    }

    pub(crate) fn has_authorities(&self) -> bool {
        self.lines.iter().any(|line| line.options.authority)
    }

    fn find(&self, key: &KeyData, peer: Option<IpAddr>, now: SystemTime, authority: bool) -> Option<&Options> {
        let fits = |o: &Options| o.authority == authority && o.in_time(now) && o.admits(peer);
        self.lines.iter().find(|line| line.key == *key && fits(&line.options)).map(|line| &line.options)
    }
}

enum Parsed {
    Usable(Box<Line>),
    LeftOut(String),
}

fn parse_line(line: &str) -> Result<Parsed, String> {
    if line.len() > KEYS_LINE {
        return Err(format!("longer than {KEYS_LINE} bytes"));
    }
    let (options, key) = match split_key(line) {
        Some(key) => ("", key),
        None => {
            let end = options::end(line)?;
            let (options, rest) = line.split_at_checked(end).unwrap_or((line, ""));
            let key = split_key(rest.trim_start_matches([' ', '\t']))
                .ok_or("no key type such as ssh-ed25519 where one is expected; are the options separated by commas?")?;
            (options, key)
        }
    };
    let options = Options::parse(options)?;
    let (kind, text) = key;
    if !matches!(kind, "ssh-ed25519" | "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521") {
        return Ok(Parsed::LeftOut(format!("{kind} keys are not supported; use an ssh-ed25519 key")));
    }
    // The comment may be anything, and is not used.
    let body = text.split([' ', '\t']).next().unwrap_or_default();
    let key = PublicKey::from_openssh(&format!("{kind} {body}")).map_err(|e| format!("not a key: {e}"))?;
    if !is_usable(&key.algorithm()) {
        return Err("not a key of the type that the line says".to_owned());
    }
    Ok(Parsed::Usable(Box::new(Line { key: key.key_data().clone(), options })))
}

/// The key type and what follows it, if the text begins with a type.
fn split_key(text: &str) -> Option<(&str, &str)> {
    let (kind, rest) = text.split_once([' ', '\t'])?;
    let known = kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
    let plain = kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'@' | b'.'));
    (known && plain).then_some((kind, rest.trim_start_matches([' ', '\t'])))
}

/// Kinds of keys that this server can check.
pub(crate) fn is_usable(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { .. })
}

/// The fingerprint as OpenSSH writes it.
#[must_use]
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests;
