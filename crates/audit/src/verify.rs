//! Checks the chain of a log.
//!
//! Finds a line that was changed, removed, inserted or moved, up to the last line. The chain has no key: who can
//! rewrite the whole log, or cut off its end, leaves a chain that is good in itself. Only a head hash kept elsewhere
//! shows that, so the check takes one.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use crate::{
    chain::{self, Flaw, Link, MAX_LINE},
    event::SegmentKind,
    ocsf::NO_PREV,
};

/// Most rotated files looked for.
const MAX_FILES: u32 = 10_000;

/// A chain without a break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Lines in all files.
    pub lines: u64,
    /// Number of the first and the last line.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// Hash of the last line. Kept elsewhere, it shows later that the end was not cut off.
    pub head: String,
    /// Whether the chain is here from its beginning; if not, older files were rotated away (or taken away).
    pub from_genesis: bool,
    /// Lines that were cut off by a crash and marked by the run after it.
    pub torn: u64,
    /// Runs that wrote to the log, as far back as it goes.
    pub runs: u64,
}

/// Why a log is not good.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The chain breaks here. Nothing behind this line is vouched for.
    #[error("{}:{line}: {why}", file.display())]
    Broken {
        /// The file.
        file: PathBuf,
        /// The line in it, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// The expected head is not in the log.
    #[error("no line has the expected head hash: the end of the log was cut off, or it is another log")]
    NoHead,
    /// There is nothing.
    #[error("the log is empty")]
    Empty,
    /// It cannot be read.
    #[error("{}: cannot read: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The files of a log, oldest first: `log.3`, `log.2`, `log.1`, `log`.
#[must_use]
pub fn files(log: &Path) -> Vec<PathBuf> {
    let numbered = |n: u32| {
        let mut name = OsString::from(log);
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    let mut files: Vec<_> = (1..=MAX_FILES).map(numbered).take_while(|file| file.exists()).collect();
    files.reverse();
    files.push(log.to_owned());
    files
}

/// Checks a log with the files it was rotated into. With `head`, some line must have that hash.
///
/// # Errors
/// See [`VerifyError`].
pub fn verify(log: &Path, head: Option<&str>) -> Result<Verified, VerifyError> {
    let io_error = |file: &Path| {
        let file = file.to_owned();
        move |source| VerifyError::Io { file, source }
    };
    // All are opened before any is read, so that a rotation meanwhile changes nothing.
    let mut opened = Vec::new();
    for file in files(log) {
        opened.push((File::open(&file).map_err(io_error(&file))?, file));
    }
    let mut verifier = Verifier::new(head);
    for (file, path) in opened {
        verifier.file(&path, BufReader::new(file))?;
    }
    verifier.finish()
}

/// Checks files one after the other, oldest first.
#[derive(Debug)]
pub struct Verifier<'a> {
    expected: Option<&'a str>,
    expected_seen: bool,
    last: Option<Link>,
    so_far: Verified,
}

/// A line that is bad, unless the next one says that a crash cut it off.
struct Suspect {
    number: u64,
    bytes: Vec<u8>,
    flaw: Flaw,
}

impl<'a> Verifier<'a> {
    /// Nothing read yet.
    #[must_use]
    pub fn new(head: Option<&'a str>) -> Self {
        let so_far =
            Verified { lines: 0, first: 0, last: 0, head: String::new(), from_genesis: false, torn: 0, runs: 0 };
        Self { expected: head, expected_seen: false, last: None, so_far }
    }

    /// Checks the next file.
    ///
    /// # Errors
    /// At the first line that breaks the chain.
    pub fn file(&mut self, path: &Path, mut from: impl BufRead) -> Result<(), VerifyError> {
        let broken = |line, why: String| VerifyError::Broken { file: path.to_owned(), line, why };
        let mut suspect: Option<Suspect> = None;
        let mut number = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut from).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
            if read.map_err(|source| VerifyError::Io { file: path.to_owned(), source })? == 0 {
                break;
            }
            number += 1;
            let Some(body) = line.strip_suffix(b"\n") else {
                let why = if line.len() > MAX_LINE { "it is longer than any line of a log" } else { CUT };
                return Err(broken(number, why.into()));
            };
            match (chain::open(body), suspect.take()) {
                (Err(flaw), None) => suspect = Some(Suspect { number, bytes: body.to_vec(), flaw }),
                (Err(_), Some(before)) => return Err(broken(before.number, before.flaw.to_string())),
                (Ok(link), suspect) => {
                    self.explained(&link, suspect).map_err(|(at, why)| broken(at.unwrap_or(number), why))?;
                    self.link(link, number == 1).map_err(|why| broken(number, why))?;
                }
            }
        }
        suspect.map_or(Ok(()), |s| Err(broken(s.number, s.flaw.to_string())))
    }

    /// A bad line is excused by a repair behind it that names its bytes, and a repair needs such a line.
    fn explained(&mut self, link: &Link, suspect: Option<Suspect>) -> Result<(), (Option<u64>, String)> {
        let torn = link.segment.as_ref().and_then(|s| s.torn.as_ref());
        match (suspect, torn) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err((None, "it repairs a line that is not there: lines were removed".into())),
            (Some(s), torn) => {
                let fits =
                    |t: &crate::event::Torn| t.bytes == s.bytes.len() as u64 && t.sha256 == chain::sha256(&[&s.bytes]);
                if !torn.is_some_and(fits) {
                    return Err((Some(s.number), s.flaw.to_string()));
                }
                self.so_far.torn += 1;
                Ok(())
            }
        }
    }

    /// Compares a line with the one before it.
    fn link(&mut self, link: Link, opens_file: bool) -> Result<(), String> {
        let kind = link.segment.as_ref().map(|s| s.kind);
        match &self.last {
            None if kind == Some(SegmentKind::Genesis) => {
                if link.sequence != 1 || link.prev != NO_PREV {
                    return Err("it claims to be the first line but is not".into());
                }
                self.so_far.from_genesis = true;
            }
            None if kind == Some(SegmentKind::Rotated) => {}
            None => return Err("the beginning of the file is missing".into()),
            Some(_) if kind == Some(SegmentKind::Genesis) => {
                return Err("another chain begins here: nothing ties the lines before it to those behind it".into());
            }
            Some(_) if opens_file && kind != Some(SegmentKind::Rotated) => {
                return Err("the beginning of the file is missing".into());
            }
            Some(last) if link.sequence != last.sequence + 1 => {
                let (is, after) = (link.sequence, last.sequence);
                return Err(format!("line {is} of the chain stands behind line {after}: lines are missing or moved"));
            }
            Some(last) if link.prev != last.hash => {
                return Err("it does not follow from the line before it".into());
            }
            Some(_) => {}
        }
        if self.last.is_none() {
            self.so_far.first = link.sequence;
        }
        self.so_far.lines += 1;
        self.so_far.last = link.sequence;
        self.so_far.runs += u64::from(kind.is_some_and(|k| k != SegmentKind::Rotated));
        self.expected_seen |= self.expected == Some(link.hash.as_str());
        self.last = Some(link);
        Ok(())
    }

    /// The result, once all files are read.
    ///
    /// # Errors
    /// When there was no line, or none with the expected hash.
    pub fn finish(self) -> Result<Verified, VerifyError> {
        let last = self.last.ok_or(VerifyError::Empty)?;
        if self.expected.is_some() && !self.expected_seen {
            return Err(VerifyError::NoHead);
        }
        Ok(Verified { head: last.hash, ..self.so_far })
    }
}

const CUT: &str = "it is cut off: a crash, or it is being written at this moment";
