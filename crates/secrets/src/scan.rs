//! Finds placeholders in what leaves: heads, bodies, messages. A placeholder in a place where it is not replaced must
//! not leave, however it is written there.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, mem, sync::Arc};

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{Bytes, BytesMut};

use crate::{
    find::{Form, Hit, Look, Manner, Needle, is_base64, look, standard},
    placeholder::{CORE, Placeholders, Resolved},
};

/// How much of a core at the end of what came is held back: as much turns up by chance once in 10^14 places, so that a
/// stream of messages is not delayed.
const STRONG: usize = 8;
/// Characters, plain or of base64, that hold the end of a core and a tail.
const BEHIND: usize = 16;
/// How much is looked at in one go.
const PIECE: usize = 16 * 1024;

/// Decodes base64 that something else may follow or cut short.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a scanner needs to know: the sandbox's placeholders, as they are under one policy.
#[derive(Debug)]
pub struct Markers {
    needles: Vec<Needle>,
    placeholders: Placeholders,
}

/// A placeholder in what leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose it is; absent if it is forged, cut short or altered.
    pub credential: Option<String>,
    /// How it is written.
    pub form: Form,
}

/// The answer to some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// Of all bytes that came and did not go on yet, so many may: the first ones.
    Clean(usize),
    /// Nothing more may go on. Stays so.
    Found(Found),
}

/// Looks at one stream as it passes.
#[derive(Debug)]
pub struct Scanner {
    markers: Arc<Markers>,
    /// Bytes that may belong to a placeholder that is not complete; the first `gone` of them went on.
    pending: Vec<u8>,
    gone: usize,
    found: Option<Found>,
}

impl Markers {
    /// From the placeholders that were given out.
    #[must_use]
    pub fn new(placeholders: &Placeholders) -> Self {
        Self { needles: Needle::forms(0, placeholders.core()), placeholders: placeholders.clone() }
    }

    /// The placeholders.
    #[must_use]
    pub fn placeholders(&self) -> &Placeholders {
        &self.placeholders
    }

    /// The first placeholder in something that is there as a whole.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<Found> {
        bytes.len().checked_sub(CORE)?;
        self.found(&look(&self.needles, bytes, Manner { strong: STRONG, behind: BEHIND, last: true }))
    }

    /// Whose it is, is known from the view in which the tail is decoded too; in others it looks forged. Only there it is
    /// waited for: what is waited for elsewhere must not let a forged one go on.
    fn found(&self, look: &Look) -> Option<Found> {
        let mut forged = None;
        for hit in &look.hits {
            let form = self.needles[hit.needle].form;
            let credential = self.credential(form, hit);
            if credential.is_some() {
                return Some(Found { credential, form });
            }
            if forged.is_none() && !look.unsure.contains(&hit.range.start) {
                forged = Some(Found { credential, form });
            }
        }
        forged
    }

    fn credential(&self, form: Form, hit: &Hit) -> Option<String> {
        let tail = match form {
            Form::Plain => hit.behind.clone(),
            Form::Base64 { lead } => tail_of_base64(self.needles[hit.needle].bytes(), lead, &hit.behind)?,
        };
        match self.placeholders.resolve(&tail) {
            Resolved::Credential(name) => Some(name.to_owned()),
            Resolved::Unknown => None,
        }
    }
}

/// What follows a core in base64. The needle stops as many characters into a group as bytes stood before it in its
/// first one, because a core fills whole groups.
fn tail_of_base64(needle: &[u8], lead: usize, behind: &[u8]) -> Option<Vec<u8>> {
    let mut groups = needle.get(needle.len().checked_sub(lead)?..)?.to_vec();
    groups.extend(behind.iter().copied().take_while(|b| is_base64(*b)).map(standard));
    if groups.len() % 4 == 1 {
        groups.pop();
    }
    let decoded = LENIENT.decode(&groups).ok()?;
    decoded.get(lead..).map(<[u8]>::to_vec)
}

impl Scanner {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new(markers: Arc<Markers>) -> Self {
        Self { markers, pending: Vec::new(), gone: 0, found: None }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Scan {
        let mut clean = 0;
        for piece in bytes.chunks(PIECE) {
            match self.piece(piece, false) {
                Scan::Clean(more) => clean += more,
                found @ Scan::Found(_) => return found,
            }
        }
        Scan::Clean(clean)
    }

    /// Nothing comes any more: what is held back may go on, or is a placeholder cut short.
    pub fn finish(&mut self) -> Scan {
        self.piece(&[], true)
    }

    fn piece(&mut self, bytes: &[u8], last: bool) -> Scan {
        if let Some(found) = &self.found {
            return Scan::Found(found.clone());
        }
        let window = match self.pending.is_empty() {
            true => Cow::Borrowed(bytes),
            false => {
                self.pending.extend_from_slice(bytes);
                Cow::Owned(mem::take(&mut self.pending))
            }
        };
        let look = look(&self.markers.needles, &window, Manner { strong: STRONG, behind: BEHIND, last });
        if let Some(found) = self.markers.found(&look) {
            self.found = Some(found.clone());
            return Scan::Found(found);
        }
        // What went on stays gone, whatever turns out to have begun in it.
        let hold = look.hold.max(self.gone);
        let clean = hold - self.gone;
        self.pending = window[look.keep..].to_vec();
        self.gone = hold.saturating_sub(look.keep);
        Scan::Clean(clean)
    }
}

/// A scanner with the bytes it holds back.
#[derive(Debug)]
pub struct Gate {
    scanner: Scanner,
    held: BytesMut,
}

impl Gate {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new(markers: Arc<Markers>) -> Self {
        Self { scanner: Scanner::new(markers), held: BytesMut::new() }
    }

    /// Takes the next bytes and gives those that may go on.
    pub fn pass(&mut self, bytes: Bytes) -> Result<Bytes, Found> {
        match self.scanner.feed(&bytes) {
            Scan::Found(found) => Err(found),
            Scan::Clean(n) if self.held.is_empty() && n == bytes.len() => Ok(bytes),
            Scan::Clean(n) => {
                self.held.extend_from_slice(&bytes);
                Ok(self.held.split_to(n.min(self.held.len())).freeze())
            }
        }
    }

    /// Gives what was held back, at the end of the stream.
    pub fn finish(&mut self) -> Result<Bytes, Found> {
        match self.scanner.finish() {
            Scan::Found(found) => Err(found),
            Scan::Clean(_) => Ok(self.held.split().freeze()),
        }
    }
}
