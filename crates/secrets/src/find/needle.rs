//! What is searched for: a text, and what of it stands in base64 whatever lies around it.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use stockade_types::Secret;
use zeroize::Zeroizing;

/// How a text was written where it was found. Percent-encoding and JSON escapes are layers over these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Character for character.
    Plain,
    /// In base64, with so many bytes (0, 1, 2) of its first group before it.
    Base64 {
        /// Bytes of other text in the first group.
        lead: usize,
    },
}

/// Bytes to search for. They are overwritten when it is dropped and never shown.
pub(crate) struct Needle {
    bytes: Text,
    pub(crate) form: Form,
    /// Which text it is a form of.
    pub(crate) text: usize,
}

/// Where they are.
enum Text {
    Own(Zeroizing<Vec<u8>>),
    /// With everybody else who needs the value: there is one copy of it.
    Shared(Arc<Secret>),
}

impl Needle {
    /// The forms of a text: itself, and three alignments of base64 in each alphabet where they differ.
    pub(crate) fn forms(index: usize, text: &str) -> Vec<Self> {
        Self::all(index, text, Text::Own(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// The same of a value, which is not copied but for its forms in base64.
    pub(crate) fn forms_of(index: usize, value: &Arc<Secret>) -> Vec<Self> {
        Self::all(index, value.expose(), Text::Shared(Arc::clone(value)))
    }

    fn all(index: usize, text: &str, plain: Text) -> Vec<Self> {
        let mut forms = vec![Self { bytes: plain, form: Form::Plain, text: index }];
        for lead in 0..3 {
            let form = Form::Base64 { lead };
            let standard = inside_base64(text, lead);
            if standard.iter().any(|b| matches!(b, b'+' | b'/')) {
                let url = Zeroizing::new(standard.iter().map(|b| url_safe(*b)).collect());
                forms.push(Self { bytes: Text::Own(url), form, text: index });
            }
            forms.push(Self { bytes: Text::Own(standard), form, text: index });
        }
        forms
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Text::Own(bytes) => bytes,
            Text::Shared(value) => value.expose().as_bytes(),
        }
    }

    /// Whether what stands behind it may be the beginning of more of the same text.
    pub(super) fn may_go_on(&self, behind: &[u8]) -> bool {
        match self.form {
            Form::Plain => true,
            Form::Base64 { .. } => behind.iter().all(|b| is_base64(*b)),
        }
    }
}

impl fmt::Debug for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Needle({}, {:?})", self.text, self.form)
    }
}

/// The characters of `text` in base64 that no byte before or behind it can change.
pub(crate) fn inside_base64(text: &str, lead: usize) -> Zeroizing<Vec<u8>> {
    let mut padded = Zeroizing::new(Vec::with_capacity(lead + text.len()));
    padded.resize(lead, 0);
    padded.extend_from_slice(text.as_bytes());
    let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(&*padded));
    let inside = (lead * 8).div_ceil(6)..padded.len() * 8 / 6;
    Zeroizing::new(encoded.as_bytes()[inside].to_vec())
}

fn url_safe(byte: u8) -> u8 {
    match byte {
        b'+' => b'-',
        b'/' => b'_',
        other => other,
    }
}

/// Of either alphabet, without padding.
pub(crate) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// A character of the URL-safe alphabet as the standard one has it.
pub(crate) fn standard(byte: u8) -> u8 {
    match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    }
}
