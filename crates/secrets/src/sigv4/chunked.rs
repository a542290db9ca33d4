//! Uploads in signed chunks (`aws-chunked`). A chunk's signature stands before its data and depends on the one before,
//! so each chunk is collected, signed, and sent; the lengths do not change.

use std::fmt;

use memchr::memmem;

use super::{
    SignError,
    key::{EMPTY, Key, sha256},
};

/// Longest chunk.
const MAX_CHUNK: usize = 1024 * 1024;
/// Longest first line of a chunk: 8 digits, `;chunk-signature=` and 64 digits.
const MAX_LINE: usize = 8 + 17 + 64;
/// Longest trailer section.
const MAX_TRAILER: usize = 4 * 1024;
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// Signs the chunks of one body as they pass.
pub struct ChunkSigner {
    key: Key,
    stamp: String,
    scope: String,
    /// The signature before.
    last: String,
    /// Whether trailers are signed behind the last chunk.
    trailer: bool,
    state: State,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Line,
    /// Data of this length with a line end behind it.
    Data(usize),
    Trailer,
    Done,
}

impl ChunkSigner {
    /// Bytes that wait for the rest of their chunk.
    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn new(key: Key, stamp: String, scope: String, seed: String, trailer: bool) -> Self {
        Self { key, stamp, scope, last: seed, trailer, state: State::Line, buffer: Vec::new() }
    }

    /// Takes the next bytes and appends what may be sent. `seen` is shown the data of each chunk: what the origin will
    /// put together again, without what stands between.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<(), SignError> {
        while !bytes.is_empty() {
            // Never more than the present part needs, so that the buffer has the bound of that part.
            let wanted = match self.state {
                State::Line => 1,
                State::Data(length) => length + 2 - self.buffer.len(),
                State::Trailer => 1,
                State::Done => return Err(SignError::Chunk),
            };
            let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.buffer.extend_from_slice(part);
            bytes = rest;
            self.advance(out, seen)?;
        }
        Ok(())
    }

    /// The body ended.
    pub fn finish(&self) -> Result<(), SignError> {
        if self.state == State::Done { Ok(()) } else { Err(SignError::Chunk) }
    }

    fn advance(&mut self, out: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<(), SignError> {
        match self.state {
            State::Line if self.buffer.ends_with(b"\r\n") => {
                let length = length(&self.buffer)?;
                self.buffer.clear();
                self.state = State::Data(length);
                if length == 0 && self.trailer {
                    self.chunk(&[], out);
                    self.state = State::Trailer;
                }
                Ok(())
            }
            State::Line if self.buffer.len() > MAX_LINE + 2 => Err(SignError::Chunk),
            State::Data(length) if self.buffer.len() == length + 2 => {
                let buffer = std::mem::take(&mut self.buffer);
                let data = buffer.strip_suffix(b"\r\n").ok_or(SignError::Chunk)?;
                seen(data);
                self.chunk(data, out);
                out.extend_from_slice(b"\r\n");
                self.state = if length == 0 { State::Done } else { State::Line };
                Ok(())
            }
            State::Trailer if self.buffer.ends_with(b"\r\n\r\n") => self.trailers(out),
            State::Trailer if self.buffer.len() > MAX_TRAILER => Err(SignError::Chunk),
            State::Line | State::Data(_) | State::Trailer | State::Done => Ok(()),
        }
    }

    fn chunk(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let hash = sha256(data);
        let (stamp, scope, last) = (&self.stamp, &self.scope, &self.last);
        let text = format!("AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{scope}\n{last}\n{EMPTY}\n{hash}");
        self.last = self.key.sign(&text);
        out.extend_from_slice(format!("{:x};chunk-signature={}\r\n", data.len(), self.last).as_bytes());
        out.extend_from_slice(data);
    }

    /// Signs the trailers: all but the signature itself, in their order.
    fn trailers(&mut self, out: &mut Vec<u8>) -> Result<(), SignError> {
        let text = std::str::from_utf8(&self.buffer).map_err(|_| SignError::Chunk)?;
        let mut canonical = String::new();
        let mut signed = false;
        for line in text.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(SignError::Chunk)?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            // Written again without spaces: with one, the length of the body would change.
            let exact = line.len() == name.len() + 1 + value.len();
            let plain = exact && !signed && !name.is_empty() && !value.contains(['\r', '\n']);
            match name.as_str() {
                TRAILER_SIGNATURE if exact && !signed && value.len() == 64 => signed = true,
                _ if plain => canonical.push_str(&format!("{name}:{value}\n")),
                _ => return Err(SignError::Chunk),
            }
        }
        if !signed {
            return Err(SignError::Chunk);
        }
        let (stamp, scope, last) = (&self.stamp, &self.scope, &self.last);
        let hash = sha256(canonical.as_bytes());
        self.last = self.key.sign(&format!("AWS4-HMAC-SHA256-TRAILER\n{stamp}\n{scope}\n{last}\n{hash}"));
        let lines = canonical.replace('\n', "\r\n");
        out.extend_from_slice(format!("{lines}{TRAILER_SIGNATURE}:{}\r\n\r\n", self.last).as_bytes());
        self.buffer.clear();
        self.state = State::Done;
        Ok(())
    }
}

impl fmt::Debug for ChunkSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkSigner").field("scope", &self.scope).field("state", &self.state).finish_non_exhaustive()
    }
}

/// The length in a chunk's first line. Its signature must be there and is not looked at: it is the placeholder's.
fn length(line: &[u8]) -> Result<usize, SignError> {
    let line = line.strip_suffix(b"\r\n").ok_or(SignError::Chunk)?;
    let at = memmem::find(line, b";chunk-signature=").ok_or(SignError::Chunk)?;
    let digits = std::str::from_utf8(&line[..at]).map_err(|_| SignError::Chunk)?;
    let signature = &line[at + 17..];
    // Written again without leading zeros: with one, the length of the body would change.
    let fits = (1..=8).contains(&digits.len())
        && (digits == "0" || !digits.starts_with('0'))
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
        && signature.len() == 64
        && signature.iter().all(u8::is_ascii_hexdigit);
    let length = usize::from_str_radix(digits, 16).map_err(|_| SignError::Chunk)?;
    if fits && length <= MAX_CHUNK { Ok(length) } else { Err(SignError::Chunk) }
}
