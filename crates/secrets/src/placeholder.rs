//! What the command finds in the place of a secret.
//!
//! A placeholder is `prefix · core · tail · fill`. The core is drawn once per sandbox, stands in each of its
//! placeholders, and is how one is found in any position of any text: one word to search for. The tail is drawn per
//! credential: the command sees its own placeholders, and with them the core, but cannot guess the tail of one that it was
//! not given. Prefix and fill give the shape that clients check.

mod shape;
#[cfg(test)]
mod tests;

use std::io;

use stockade_types::Secret;

/// Letters and digits of a core: 142 bits.
pub const CORE: usize = 24;
/// Letters and digits of a tail: 59 bits.
pub const TAIL: usize = 10;
/// Longest placeholder: longer values are stood for by a shorter one.
pub const MAX_PLACEHOLDER: usize = 512;
/// No value is drawn again more often than this when it happens to resemble a secret.
const DRAWS: usize = 16;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Fills a buffer with bytes that nobody can guess.
pub type Entropy<'a> = &'a mut dyn FnMut(&mut [u8]) -> io::Result<()>;

/// Why there are no placeholders.
#[derive(Debug, thiserror::Error)]
pub enum PlaceholderError {
    /// No random bytes.
    #[error("no random bytes for placeholders: {0}")]
    Entropy(#[from] io::Error),
    /// Every draw was part of a secret: the source of random bytes is broken.
    #[error("the placeholder of credential {0} always resembles its value")]
    Resembles(String),
}

/// The placeholders of one sandbox. Those that were given out stay known for its whole life: a reload of the policy may
/// detach a credential, but the command still has the text.
#[derive(Debug, Clone)]
pub struct Placeholders {
    core: String,
    given: Vec<Placeholder>,
}

/// One of them.
#[derive(Debug, Clone)]
struct Placeholder {
    credential: String,
    text: String,
    /// Where the core begins in `text`.
    at: usize,
}

/// What is known of a credential when its placeholder is shaped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hint<'a> {
    /// The variable that the command finds it in.
    pub env: Option<&'a str>,
    /// Its value at the start, if it could be had.
    pub value: Option<&'a Secret>,
}

/// What a core with the characters behind it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved<'a> {
    /// The placeholder of this credential.
    Credential(&'a str),
    /// Forged, cut short, or of a sandbox that is gone.
    Unknown,
}

impl Placeholders {
    /// None yet; draws the core.
    pub fn new(entropy: Entropy<'_>) -> Result<Self, PlaceholderError> {
        Ok(Self { core: draw(entropy, CORE)?, given: Vec::new() })
    }

    /// The placeholder of a credential, made at the first call. Later ones change nothing, whatever the hint.
    pub fn give(&mut self, credential: &str, hint: Hint<'_>, entropy: Entropy<'_>) -> Result<&str, PlaceholderError> {
        let index = match self.given.iter().position(|p| p.credential == credential) {
            Some(index) => index,
            None => {
                let made = self.make(credential, hint, entropy)?;
                self.given.push(made);
                self.given.len() - 1
            }
        };
        Ok(&self.given[index].text)
    }

    fn make(&self, credential: &str, hint: Hint<'_>, entropy: Entropy<'_>) -> Result<Placeholder, PlaceholderError> {
        let value = hint.value.map_or("", Secret::expose);
        let shape = shape::of(hint.env, value);
        for _ in 0..DRAWS {
            let tail = draw(entropy, TAIL)?;
            let bare = shape.prefix.len() + CORE + TAIL;
            let fill = draw(entropy, shape.length.saturating_sub(bare))?;
            let text = format!("{}{}{tail}{fill}", shape.prefix, self.core);
            let resembles = !value.is_empty() && (text.contains(value) || value.contains(&self.core));
            if !resembles && self.given.iter().all(|p| p.tail() != tail) {
                return Ok(Placeholder { credential: credential.to_owned(), text, at: shape.prefix.len() });
            }
        }
        Err(PlaceholderError::Resembles(credential.to_owned()))
    }

    /// The text that stands for a credential.
    #[must_use]
    pub fn text(&self, credential: &str) -> Option<&str> {
        self.given.iter().find(|p| p.credential == credential).map(|p| p.text.as_str())
    }

    /// The word that every placeholder of this sandbox holds.
    #[must_use]
    pub fn core(&self) -> &str {
        &self.core
    }

    /// What a core stands for, by the characters that follow it.
    #[must_use]
    pub fn resolve(&self, behind_core: &[u8]) -> Resolved<'_> {
        let tail = behind_core.get(..TAIL);
        let found = self.given.iter().find(|p| Some(p.tail().as_bytes()) == tail);
        found.map_or(Resolved::Unknown, |p| Resolved::Credential(&p.credential))
    }
}

impl Placeholder {
    fn tail(&self) -> &str {
        let tail = self.at + CORE;
        self.text.get(tail..tail + TAIL).unwrap_or_default()
    }
}

/// Letters and digits, each as likely as any other.
fn draw(entropy: Entropy<'_>, length: usize) -> Result<String, PlaceholderError> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        entropy(&mut bytes)?;
        // 248 is the largest multiple of 62 that a byte can hold; what is above it would favour some characters.
        let even = bytes.iter().filter(|b| **b < 248).map(|b| char::from(ALPHABET[usize::from(*b % 62)]));
        text.extend(even.take(length - text.len()));
    }
    Ok(text)
}
