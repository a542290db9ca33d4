//! Where a chunked body ends: a strict check of its framing, byte by byte. The server behind decodes it.

use super::head::Violation;

/// Longest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;
/// Most hexadecimal digits of a chunk size: sizes stay below 2^60.
const MAX_DIGITS: u8 = 15;

/// Follows one chunked body.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    size: u64,
    digits: u8,
    trailers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    Line,
    /// Inside one.
    Trailer,
    TrailerLf,
    LastLf,
    Done,
}

/// How many bytes of these pieces are a complete chunked body; `None` where it is refused or does not end: what fuzzing
/// looks at.
#[must_use]
pub fn chunked_length(pieces: &[&[u8]]) -> Option<usize> {
    let mut body = Chunked::new();
    let mut length = 0;
    for piece in pieces {
        length += body.feed(piece).ok()?;
    }
    body.done().then_some(length)
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { state: State::Size, size: 0, digits: 0, trailers: 0 }
    }

    /// Whether the body is complete.
    pub(super) fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes up to the end of the body; how many.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Done => break,
                State::Data => {
                    let left = (bytes.len() - at) as u64;
                    let take = left.min(self.size);
                    self.size -= take;
                    at += usize::try_from(take).map_err(|_| Violation::Framing("a chunk is too large"))?;
                    if self.size == 0 {
                        self.state = State::DataCr;
                    }
                    continue;
                }
                state => self.state = self.step(state, byte)?,
            }
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, Violation> {
        Ok(match (state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b) if b.is_ascii_hexdigit() && self.digits < MAX_DIGITS => {
                let digit = char::from(b).to_digit(16).unwrap_or_default();
                self.size = self.size << 4 | u64::from(digit);
                self.digits += 1;
                State::Size
            }
            // Extensions mean nothing to anybody and are a known way to be read in two ways.
            (State::Size, _) => return Err(Violation::Framing("a chunk size is not a plain hexadecimal number")),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                if self.size == 0 { State::Line } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::Line, b'\r') => State::LastLf,
            (State::LastLf, b'\n') => State::Done,
            (State::TrailerLf, b'\n') => State::Line,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Line, b' ' | b'\t') => return Err(Violation::Framing("a folded trailer")),
            (State::Line | State::Trailer, b) if b != b'\n' && self.trailers < MAX_TRAILERS => {
                self.trailers += 1;
                State::Trailer
            }
            (State::Line | State::Trailer, _) => return Err(Violation::Framing("a malformed or too long trailer")),
            _ => return Err(Violation::Framing("a chunk does not end where its size says")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<(usize, bool), Violation> {
        let mut chunked = Chunked::new();
        let mut at = 0;
        for byte in body {
            at += chunked.feed(&[*byte])?;
        }
        let mut whole = Chunked::new();
        assert_eq!(whole.feed(body), Ok(at), "the same in one piece");
        assert_eq!(whole.done(), chunked.done());
        Ok((at, whole.done()))
    }

    #[test]
    fn the_end_is_found_and_nothing_behind_it_is_taken() {
        assert_eq!(read(b"5\r\nhello\r\n0\r\n\r\nGET /"), Ok((15, true)));
        assert_eq!(read(b"1\r\nx\r\nA\r\n0123456789\r\n00\r\nX: y\r\n\r\n"), Ok((33, true)));
        assert_eq!(read(b"5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn anything_else_is_refused() {
        for body in [
            &b"5;x=y\r\nhello\r\n0\r\n\r\n"[..],
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\n folded\r\n\r\n",
            b"1000000000000000\r\n",
        ] {
            let mut chunked = Chunked::new();
            let violation = chunked.feed(body).unwrap_err();
            assert_eq!(violation.row().1.code(), "framing", "{body:?}");
        }
        let mut chunked = Chunked::new();
        chunked.feed(b"0\r\n").unwrap();
        assert!(chunked.feed(&vec![b'x'; MAX_TRAILERS + 1]).is_err(), "endless trailer");
    }
}
