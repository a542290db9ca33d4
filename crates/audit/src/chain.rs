//! The hash chain: each line names the hash of the line before it and ends with its own.
//!
//! A line is `{…,"unmapped":{…,"prev":"<64 hex>","hash":"<64 hex>"}}`. `hash` is the SHA-256 of the line's bytes
//! without the member `,"hash":"…"`. The check works on bytes, so there is no second spelling of a line.

use std::fmt::Write;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::event::{SegmentKind, Torn};

/// Longest line. Bounded texts, written three times and all escapes, stay below half of it.
pub(crate) const MAX_LINE: usize = 256 * 1024;

const BEFORE_HASH: &[u8] = b",\"hash\":\"";
const END: &[u8] = b"\"}}";
const HEX: usize = 64;

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    let mut out = String::with_capacity(HEX);
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Closes the line that starts at `from` and ends with `}}`; returns its hash.
pub(crate) fn seal(out: &mut Vec<u8>, from: usize) -> String {
    let hash = sha256(&[out.get(from..).unwrap_or_default()]);
    out.truncate(out.len().saturating_sub(2));
    out.extend_from_slice(BEFORE_HASH);
    out.extend_from_slice(hash.as_bytes());
    out.extend_from_slice(END);
    out.push(b'\n');
    hash
}

/// What the chain says in a line whose hash is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) sequence: u64,
    pub(crate) prev: String,
    pub(crate) hash: String,
    pub(crate) segment: Option<Opening>,
}

/// The segment part of a line that opens a file or a run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Opening {
    pub(crate) kind: SegmentKind,
    pub(crate) torn: Option<Torn>,
}

/// What is wrong with a line by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("it does not end with a hash, so it was cut, or is no line of an audit log")]
    NoHash,
    #[error("its text does not match its hash: it was changed")]
    Changed,
    #[error("it has a hash but is no line of an audit log")]
    Foreign,
}

#[derive(Deserialize)]
struct Parsed {
    metadata: Numbered,
    unmapped: Chained,
}

#[derive(Deserialize)]
struct Numbered {
    sequence: u64,
}

#[derive(Deserialize)]
struct Chained {
    prev: String,
    hash: String,
    segment: Option<Opening>,
}

/// Checks a line (without line feed) against its own hash.
pub(crate) fn open(line: &[u8]) -> Result<Link, Flaw> {
    let body = line.strip_suffix(END).ok_or(Flaw::NoHash)?;
    let (body, hash) = body.split_at_checked(body.len().wrapping_sub(HEX)).ok_or(Flaw::NoHash)?;
    let body = body.strip_suffix(BEFORE_HASH).ok_or(Flaw::NoHash)?;
    if sha256(&[body, b"}}"]).as_bytes() != hash {
        return Err(Flaw::Changed);
    }
    let Parsed { metadata, unmapped } = serde_json::from_slice(line).map_err(|_| Flaw::Foreign)?;
    if unmapped.hash.as_bytes() != hash {
        return Err(Flaw::Foreign);
    }
    Ok(Link { sequence: metadata.sequence, prev: unmapped.prev, hash: unmapped.hash, segment: unmapped.segment })
}
