//! A value that must not be seen: it is never printed, compared by `==`, serialised or copied by accident.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// The text of a secret, overwritten when it is dropped.
///
/// Neither `Clone`, `Display` nor `Serialize`: who needs it in two places shares an `Arc`, so that there is one copy to
/// overwrite.
pub struct Secret(Zeroizing<String>);

/// The bytes are not UTF-8. They were overwritten and are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not UTF-8 text")]
pub struct NotText;

impl Secret {
    /// Takes the text over: no copy is made.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Takes bytes over. What is not UTF-8 is overwritten here.
    pub fn from_utf8(bytes: Vec<u8>) -> Result<Self, NotText> {
        String::from_utf8(bytes).map(Self::new).map_err(|e| {
            e.into_bytes().zeroize();
            NotText
        })
    }

    /// The value. Each call is a place where it could get out: none may log, format or keep what it returns.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both hold the same value, in time that depends on the lengths alone.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_shown() {
        let secret = Secret::new("canary-7f3a".to_owned());
        for text in [format!("{secret:?}"), format!("{secret:#?}"), format!("{:?}", Some(&secret))] {
            assert!(!text.contains("canary") && text.contains("redacted"), "{text}");
        }
        assert_eq!(Secret::from_utf8(b"canary-\xff".to_vec()).unwrap_err().to_string(), "not UTF-8 text");
    }

    #[test]
    fn values_are_compared_whole() {
        let [a, b, c] = ["abcd", "abce", "abc"].map(|t| Secret::new(t.to_owned()));
        assert!(a.same(&Secret::new("abcd".to_owned())));
        assert!(!a.same(&b) && !a.same(&c) && !c.is_empty() && c.len() == 3);
    }
}
