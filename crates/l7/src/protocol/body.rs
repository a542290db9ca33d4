//! Bodies: collected within a bound, decoded, then read as a whole.

use std::io::Read as _;

use flate2::bufread::GzDecoder;

use super::{Head, Protocol, Unreadable};
use crate::operation::Operation;

/// Reads a whole body with a function.
pub(crate) struct Whole<F> {
    bytes: Vec<u8>,
    gzip: bool,
    max: usize,
    read: F,
}

impl<F: FnOnce(&[u8]) -> Result<Vec<Operation>, Unreadable> + Send + 'static> Whole<F> {
    /// For the body that the head announces.
    pub(crate) fn new(head: &Head<'_>, read: F) -> Result<Box<Self>, Unreadable> {
        let gzip = match head.field("content-encoding")? {
            None => false,
            Some(coding) if coding.eq_ignore_ascii_case("identity") => false,
            Some(coding) if coding.eq_ignore_ascii_case("gzip") => true,
            Some(_) => return Err(Unreadable::Encoding),
        };
        Ok(Box::new(Self { bytes: Vec::new(), gzip, max: head.max_body, read }))
    }
}

impl<F: FnOnce(&[u8]) -> Result<Vec<Operation>, Unreadable> + Send + 'static> Protocol for Whole<F> {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        if self.bytes.len().saturating_add(bytes.len()) > self.max {
            self.bytes = Vec::new();
            return Err(Unreadable::TooLarge);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<Operation>, Unreadable> {
        let bytes = if self.gzip { unzip(&self.bytes, self.max)? } else { self.bytes };
        (self.read)(&bytes)
    }
}

/// Decodes exactly one gzip member of at most `max` bytes. Readers disagree about what may follow it.
fn unzip(bytes: &[u8], max: usize) -> Result<Vec<u8>, Unreadable> {
    let mut rest = bytes;
    let mut decoded = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(&mut rest).take(limit).read_to_end(&mut decoded).map_err(|_| Unreadable::Gzip)?;
    if decoded.len() > max {
        return Err(Unreadable::TooLarge);
    }
    if rest.is_empty() { Ok(decoded) } else { Err(Unreadable::Gzip) }
}

/// Refuses any body: the head said it all.
pub(crate) struct Empty(pub(crate) Vec<Operation>);

impl Protocol for Empty {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        if bytes.is_empty() { Ok(()) } else { Err(Unreadable::Body) }
    }

    fn finish(self: Box<Self>) -> Result<Vec<Operation>, Unreadable> {
        Ok(self.0)
    }
}
