//! The query as pairs.

use std::fmt;

use super::{MAX_PARAMETERS, TargetError, percent};

/// A query: parameters in order, repeated ones kept. Shown, it is what goes on the wire.
///
/// Only `&` separates; empty parts between two of them are dropped. `+` is a space, and is sent as `%20`, so that a
/// server for which it is a plus reads what was judged. Values may hold encodings of encodings, as URLs in parameters
/// do: they are judged as they stand after one decoding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    pairs: Vec<(String, String)>,
    text: String,
}

impl Query {
    /// Parses what follows the `?`; `None` when there is no parameter in it.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn parse(text: &str) -> Result<Option<Self>, TargetError> {
        if text.contains(';') {
            return Err(TargetError::Semicolon);
        }
        let mut query = Self { pairs: Vec::new(), text: String::with_capacity(text.len()) };
        for part in text.split('&').filter(|p| !p.is_empty()) {
            if query.pairs.len() >= MAX_PARAMETERS {
                return Err(TargetError::TooManyParameters);
            }
            query.push(part)?;
        }
        Ok((!query.pairs.is_empty()).then_some(query))
    }

    fn push(&mut self, part: &str) -> Result<(), TargetError> {
        if !self.text.is_empty() {
            self.text.push('&');
        }
        let (key, value) = part.split_once('=').map_or((part, None), |(k, v)| (k, Some(v)));
        let (wire, key) = parameter(key)?;
        self.text.push_str(&wire);
        let mut decoded = String::new();
        if let Some(value) = value {
            let (wire, value) = parameter(value)?;
            self.text.push('=');
            self.text.push_str(&wire);
            decoded = value;
        }
        self.pairs.push((key, decoded));
        Ok(())
    }

    /// Names and values, decoded. A parameter without `=` has an empty value.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A name or value as it is sent, and decoded.
fn parameter(text: &str) -> Result<(String, String), TargetError> {
    let (wire, decoded) = percent::normal(&text.replace('+', "%20"), |b| b"!$'()*,=:@/?".contains(&b))?;
    // Line breaks and tabs occur in texts that are sent as a parameter.
    if decoded.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(TargetError::Control);
    }
    Ok((wire, decoded))
}
