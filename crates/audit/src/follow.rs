//! Reading a log while it grows, across rotations: `audit tail -f`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{chain::MAX_LINE, verify::files};

/// Bytes looked at for the last lines.
const TAIL: u64 = 4 << 20;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The oldest file that is there.
    Beginning,
    /// This many lines before the end of the newest file.
    Last(usize),
}

/// A place in a log.
#[derive(Debug)]
pub struct Follow {
    log: PathBuf,
    reader: BufReader<File>,
    /// A line that is not complete yet.
    partial: Vec<u8>,
}

/// What a poll found besides lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// Everything that is there was given.
    Idle,
    /// The file that was read is gone: lines may be missing between what was given before and what comes next.
    Gap,
}

impl Follow {
    /// Opens a log.
    ///
    /// # Errors
    /// When it cannot be opened or read.
    pub fn open(log: &Path, from: From) -> io::Result<Self> {
        let first = match from {
            From::Beginning => files(log).first().cloned().unwrap_or_else(|| log.to_owned()),
            From::Last(_) => log.to_owned(),
        };
        let mut file = File::open(first)?;
        if let From::Last(lines) = from {
            seek_last(&mut file, lines)?;
        }
        Ok(Self { log: log.to_owned(), reader: BufReader::new(file), partial: Vec::new() })
    }

    /// Gives every whole line that is there now, without its line feed, and goes on to newer files. Does not wait:
    /// call it again after a while.
    ///
    /// # Errors
    /// When reading fails.
    pub fn poll(&mut self, mut line: impl FnMut(&[u8])) -> io::Result<Polled> {
        let mut polled = Polled::Idle;
        loop {
            self.drain(&mut line)?;
            let Some((file, gap)) = self.newer()? else { return Ok(polled) };
            // It may have grown between the last read and the rotation.
            self.drain(&mut line)?;
            self.reader = BufReader::new(file);
            self.partial.clear();
            if gap {
                polled = Polled::Gap;
            }
        }
    }

    fn drain(&mut self, line: &mut impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let room = (MAX_LINE as u64).saturating_sub(self.partial.len() as u64);
            if (&mut self.reader).take(room).read_until(b'\n', &mut self.partial)? == 0 {
                return Ok(());
            }
            match self.partial.strip_suffix(b"\n") {
                Some(whole) => line(whole),
                // No line is that long: it is given in pieces rather than gathered without end.
                None if self.partial.len() >= MAX_LINE => line(&self.partial),
                None => continue,
            }
            self.partial.clear();
        }
    }

    /// The file that follows the present one, and whether files between them are gone.
    fn newer(&self) -> io::Result<Option<(File, bool)>> {
        let here = self.reader.get_ref().metadata()?;
        let mut opened = Vec::new();
        for path in files(&self.log) {
            match File::open(&path) {
                Ok(file) => opened.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut at = None;
        for (n, file) in opened.iter().enumerate() {
            let there = file.metadata()?;
            if (there.ino(), there.dev()) == (here.ino(), here.dev()) {
                at = Some(n);
            }
        }
        let next = at.map_or(0, |n| n + 1);
        Ok(opened.into_iter().nth(next).map(|file| (file, at.is_none())))
    }
}

/// Puts the file at the beginning of its last lines, or of as many as the window holds.
fn seek_last(file: &mut File, lines: usize) -> io::Result<()> {
    let len = file.metadata()?.len();
    let window = len.min(TAIL);
    file.seek(SeekFrom::Start(len - window))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    // The last line feed ends the last line; the one before as many lines begins the wanted part.
    let mut feeds = bytes.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').map(|(at, _)| at);
    let start = match (lines, feeds.clone().nth(lines)) {
        (0, _) => feeds.clone().next().map_or(0, |at| at + 1),
        (_, Some(at)) => at + 1,
        (_, None) if window < len => feeds.next_back().map_or(0, |at| at + 1),
        (_, None) => 0,
    };
    file.seek(SeekFrom::Start(len - window + start as u64)).map(|_| ())
}

#[cfg(test)]
mod tests;
