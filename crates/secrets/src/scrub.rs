//! Takes values back out of what comes from an origin that was given them: whatever it echoes, the command reads the
//! placeholder.
//!
//! What is put in the place of a value is exactly as long as what it replaces, so no length, offset or frame changes: a
//! body is never collected, and a message in binary framing stays well-formed.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt, mem, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use stockade_types::Secret;
use zeroize::{Zeroize, Zeroizing};

use crate::find::{self, Form, Hit, Manner, Needle, look};

/// How much is looked at in one go.
const PIECE: usize = 16 * 1024;
/// Stands for each character of a value that is not as long as its placeholder. It may stand in base64, JSON and URLs.
const FILLER: u8 = b'x';
/// How much of a value at the end of what came is held back where messages must not wait for the next: less turns up by
/// chance at the end of every hundredth binary message.
const PROMPT: usize = 4;

/// The values to take out, in every form, and what takes their places.
pub struct Values {
    needles: Vec<Needle>,
    /// What each needle is replaced by; as long as it.
    replacements: Vec<Vec<u8>>,
    /// The texts that needles are forms of.
    known: Vec<Known>,
}

/// A value with what stands for it.
#[derive(Debug, Clone)]
pub struct Known {
    /// The credential's name in the policy.
    pub credential: Arc<str>,
    /// What the origin was given.
    pub value: Arc<Secret>,
    /// What the command has.
    pub placeholder: Arc<str>,
}

/// How much of a value's beginning may be held back at the end of what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Every byte: text, whose pieces end in line ends and brackets.
    Whole,
    /// Only four bytes and more: framed binary messages, where a peer may wait for the last byte. Up to three first
    /// bytes of a value can then go on before the rest is recognised.
    Prompt,
}

/// The content cannot be searched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the response has content coding `{coding}`, in which a credential's value cannot be found")]
pub struct Uninspectable {
    /// The coding that the origin chose.
    pub coding: String,
}

impl Values {
    /// In every form.
    #[must_use]
    pub fn new(known: Vec<Known>) -> Self {
        let mut values = Self { needles: Vec::new(), replacements: Vec::new(), known: Vec::new() };
        for (index, known) in known.iter().enumerate() {
            let filler = String::from_utf8_lossy(&vec![FILLER; known.value.len()]).into_owned();
            let fits = known.placeholder.len() == known.value.len();
            let replacement = if fits { &*known.placeholder } else { &filler };
            for needle in Needle::forms_of(index, &known.value) {
                values.replacements.push(match needle.form {
                    Form::Plain => replacement.as_bytes().to_vec(),
                    Form::Base64 { lead } => find::inside_base64(replacement, lead).to_vec(),
                });
                values.needles.push(needle);
            }
        }
        values.known = known;
        values
    }

    /// Whether it was made of these very values.
    pub(crate) fn are_of(&self, known: &[Known]) -> bool {
        let same = |(a, b): (&Known, &Known)| a.credential == b.credential && Arc::ptr_eq(&a.value, &b.value);
        self.known.len() == known.len() && self.known.iter().zip(known).all(same)
    }

    /// Whether there is nothing to take out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// Overwrites values in something that is there as a whole. Says how many there were.
    pub fn scrub(&self, bytes: &mut [u8]) -> usize {
        let manner = Manner { strong: 1, behind: 0, last: true };
        let mut hits = look(&self.needles, bytes, manner).hits;
        self.overwrite(bytes, &mut hits, 0)
    }

    /// Overwrites values in the fields of a head or of trailers, and removes a field with a value in its name. Says how
    /// many there were.
    pub fn scrub_fields(&self, fields: &mut HeaderMap) -> usize {
        let named: Vec<HeaderName> = fields.keys().filter(|name| self.named_in(name.as_str())).cloned().collect();
        for name in &named {
            fields.remove(name);
        }
        let mut count = named.len();
        for field in fields.values_mut() {
            let mut bytes = Zeroizing::new(field.as_bytes().to_vec());
            let found = self.scrub(&mut bytes);
            if found > 0 {
                count += found;
                // What takes a value's place is made of characters that a field may hold.
                *field = HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static("x"));
            }
        }
        count
    }

    /// Whether a value is in a field's name, which has lost its case on the way.
    fn named_in(&self, name: &str) -> bool {
        let (name, at) = (name.as_bytes(), |value: &[u8]| value.len().max(1));
        let within = |value: &[u8]| name.windows(at(value)).any(|part| part.eq_ignore_ascii_case(value));
        self.known.iter().any(|known| within(known.value.expose().as_bytes()))
    }

    /// Overwrites the hits but for what lies before `gone`. Says how many places there were.
    fn overwrite(&self, bytes: &mut [u8], hits: &mut [Hit], gone: usize) -> usize {
        // The longest of those that begin together first: it covers the others.
        hits.sort_by_key(|hit| (hit.range.start, std::cmp::Reverse(hit.range.end)));
        let (mut places, mut behind) = (0, 0);
        for hit in hits {
            let (start, end) = (hit.range.start.max(gone), hit.range.end);
            if end <= behind {
                continue;
            }
            places += 1;
            let whole = hit.range.start >= behind.max(gone);
            let replacement = if whole { &self.replacements[hit.needle][..] } else { &[] };
            let filled = replacement.iter().chain(std::iter::repeat(&FILLER));
            for (byte, by) in bytes[start.max(behind)..end].iter_mut().zip(filled) {
                *byte = *by;
            }
            behind = end;
        }
        places
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.known.iter().map(|known| &known.credential)).finish()
    }
}

/// Whether a body with this head can be searched, and how.
///
/// Requests that carry a credential ask for no content coding; an origin that applies one all the same is not believed.
pub fn pace(fields: &HeaderMap) -> Result<Pace, Uninspectable> {
    for field in fields.get_all(header::CONTENT_ENCODING) {
        let codings = field.to_str().unwrap_or("?").split(',').map(str::trim);
        if let Some(coding) = codings.into_iter().find(|coding| !plain(coding)) {
            let coding = coding.chars().take(32).collect();
            return Err(Uninspectable { coding });
        }
    }
    let kind = fields.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_ascii_lowercase();
    let binary = ["application/grpc", "application/octet-stream", "image/", "audio/", "video/"];
    Ok(if binary.iter().any(|b| kind.starts_with(b)) { Pace::Prompt } else { Pace::Whole })
}

/// Whether a content coding leaves the bytes as they are. `aws-chunked` frames uploads; some stores keep its name with an
/// object and say it again of the object's own bytes.
pub(crate) fn plain(coding: &str) -> bool {
    coding.is_empty() || coding.eq_ignore_ascii_case("identity") || coding.eq_ignore_ascii_case("aws-chunked")
}

/// Takes values out of one stream as it passes.
#[derive(Debug)]
pub struct Scrubber {
    values: Arc<Values>,
    pace: Pace,
    /// Bytes that may belong to a value that is not complete; the first `gone` of them went on.
    pending: Vec<u8>,
    gone: usize,
    places: u64,
}

impl Scrubber {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new(values: Arc<Values>, pace: Pace) -> Self {
        Self { values, pace, pending: Vec::new(), gone: 0, places: 0 }
    }

    /// Takes the next bytes and appends those that may go on.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.chunks(PIECE) {
            self.piece(piece, false, out);
        }
    }

    /// Nothing comes any more: appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.piece(&[], true, out);
    }

    /// How many values were taken out so far.
    #[must_use]
    pub fn places(&self) -> u64 {
        self.places
    }

    fn piece(&mut self, bytes: &[u8], last: bool, out: &mut Vec<u8>) {
        let mut window = match self.pending.is_empty() {
            true => Cow::Borrowed(bytes),
            false => {
                // A new allocation, so that what grew is not left behind with a part of a value in it.
                let mut window = Vec::with_capacity(self.pending.len() + bytes.len());
                window.extend_from_slice(&self.pending);
                window.extend_from_slice(bytes);
                mem::take(&mut self.pending).zeroize();
                Cow::Owned(window)
            }
        };
        let strong = if self.pace == Pace::Whole { 1 } else { PROMPT };
        let mut look = look(&self.values.needles, &window, Manner { strong, behind: 0, last });
        if !look.hits.is_empty() {
            let places = self.values.overwrite(window.to_mut(), &mut look.hits, self.gone);
            self.places = self.places.saturating_add(u64::try_from(places).unwrap_or(u64::MAX));
        }
        let hold = look.hold.max(self.gone);
        out.extend_from_slice(&window[self.gone..hold]);
        self.pending = window[look.keep..].to_vec();
        self.gone = hold.saturating_sub(look.keep);
        if let Cow::Owned(mut window) = window {
            window.zeroize();
        }
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.pending.zeroize();
    }
}
