//! What the HTTP/2 server refuses by itself. It resets streams and ends connections without a word to anybody but the
//! client, so the frames that it sends are looked at on their way out: lengths, kinds and codes, never what they carry.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A frame's length, kind, flags and stream.
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
/// A longer head holds more than a status.
const SHORT: usize = 16;
/// `:status: 431` as the server writes it the first time on a connection: its answer to a head that it does not read has no
/// other field and no body, which those of sessions have. Later ones name the table, and are not told apart.
const TOO_LARGE: [u8; 5] = [0x48, 0x83, 0x69, 0x90, 0xff];

/// What of a client's HTTP/2 was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Frames or fields that are none. The connection was ended.
    #[error("malformed HTTP/2 ({0}), and the connection was ended")]
    Connection(Code),
    /// The same in one request, which was reset.
    #[error("malformed HTTP/2 ({0}), and the request was reset")]
    Request(Code),
    /// A head so far over its bound that it is not read.
    #[error("the request head is many times over the bound; send fewer or shorter fields")]
    Head,
    /// A bound on what a client may do with a connection or its streams.
    #[error("a bound of HTTP/2 was reached (streams, resets, or frames that ask for nothing: {0})")]
    Bound(Code),
}

/// An error code of RFC 9113, section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(u32);

impl Code {
    pub(crate) const PROTOCOL: Self = Self(1);
    const REFUSED: Self = Self(7);
    const CALM: Self = Self(11);
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            1 => "PROTOCOL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            9 => "COMPRESSION_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            code => return write!(f, "error {code}"),
        };
        f.write_str(name)
    }
}

/// Whether an error of a connection is one that the HTTP/2 library found in what the other end sent.
pub(crate) fn broken(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<h2::Error>())
        .any(h2::Error::is_library)
}

/// Finds refusals in the frames that a server sends.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The head of a frame and, where one tells of an error, the first bytes behind it.
    held: Vec<u8>,
    /// What is left of a frame that tells nothing.
    skip: usize,
}

impl Reader {
    /// Takes the next bytes, and says what was refused.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], told: &mut dyn FnMut(Fault)) {
        while !bytes.is_empty() {
            let wanted = if self.skip > 0 { self.skip } else { self.wanted().saturating_sub(self.held.len()) };
            let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if self.skip > 0 {
                self.skip -= part.len();
                continue;
            }
            self.held.extend_from_slice(part);
            if self.held.len() == self.wanted() {
                if let Some(fault) = self.frame() {
                    told(fault);
                }
                self.held.clear();
            }
        }
    }

    /// Bytes of the present frame that are looked at.
    fn wanted(&self) -> usize {
        match (self.held.get(3), self.held.get(4)) {
            (Some(&RST_STREAM), _) => HEAD + 4,
            (Some(&GOAWAY), _) => HEAD + 8,
            (Some(&HEADERS), Some(flags)) if flags & END_STREAM != 0 && self.length() <= SHORT => HEAD + self.length(),
            _ => HEAD,
        }
    }

    /// Of the present frame.
    fn length(&self) -> usize {
        self.held.iter().take(3).fold(0, |all, byte| all << 8 | usize::from(*byte))
    }

    fn frame(&mut self) -> Option<Fault> {
        self.skip = self.length().saturating_sub(self.held.len() - HEAD);
        let code = Code(u32::from_be_bytes(*self.held.last_chunk()?));
        match (*self.held.get(3)?, code) {
            (HEADERS, _) if self.held.ends_with(&TOO_LARGE) => Some(Fault::Head),
            (RST_STREAM, Code::REFUSED | Code::CALM) => Some(Fault::Bound(code)),
            // STREAM_CLOSED also answers what was under way when a stream ended; the others are not for malformed frames.
            (RST_STREAM, Code(1 | 3 | 6 | 9)) => Some(Fault::Request(code)),
            (GOAWAY, Code::CALM) => Some(Fault::Bound(code)),
            (GOAWAY, Code(1 | 3..=6 | 9)) => Some(Fault::Connection(code)),
            _ => None,
        }
    }
}

/// A stream to a client, and what the server refuses on it.
pub(crate) struct Watched<S> {
    stream: S,
    reader: Reader,
    told: Box<dyn FnMut(Fault) + Send>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, told: impl FnMut(Fault) + Send + 'static) -> Self {
        Self { stream, reader: Reader::default(), told: Box::new(told) }
    }

    /// What left, or would have: a client that is gone is told of all the same.
    fn sent<'p>(&mut self, polled: &Poll<io::Result<usize>>, pieces: impl Iterator<Item = &'p [u8]>) {
        let mut left = match polled {
            Poll::Pending => 0,
            Poll::Ready(Ok(n)) => *n,
            Poll::Ready(Err(_)) => usize::MAX,
        };
        for piece in pieces {
            let part = piece.get(..left.min(piece.len())).unwrap_or_default();
            self.reader.feed(part, &mut self.told);
            left -= part.len();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(&polled, std::iter::once(bytes));
        polled
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.sent(&polled, bytes.iter().map(|piece| &**piece));
        polled
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn reset(stream: u32, code: u32) -> Vec<u8> {
        frame(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    fn away(code: u32, more: &[u8]) -> Vec<u8> {
        frame(GOAWAY, 0, 0, &[&[0, 0, 0, 9][..], &code.to_be_bytes(), more].concat())
    }

    fn told(pieces: &[&[u8]]) -> Vec<Fault> {
        let (mut reader, mut all) = (Reader::default(), Vec::new());
        pieces.iter().for_each(|piece| reader.feed(piece, &mut |fault| all.push(fault)));
        all
    }

    #[test]
    fn refusals_are_found_between_other_frames_wherever_these_are_torn() {
        // What a body holds is not a frame.
        let data = frame(0, 0, 1, &reset(1, 1));
        let all = [
            frame(4, 0, 0, &[0; 12]),
            frame(HEADERS, 4, 1, b"\x88"),
            data,
            reset(1, 1),
            reset(3, 8),
            reset(5, 7),
            frame(HEADERS, 5, 7, &TOO_LARGE),
            frame(HEADERS, 5, 9, &[0x88]),
            frame(HEADERS, 4, 11, &TOO_LARGE),
            frame(HEADERS, 5, 13, &[&TOO_LARGE[..], &[0x88; 20]].concat()),
            reset(9, 3),
            away(11, b"too_many"),
            away(0, b""),
            away(1, b""),
        ]
        .concat();
        let want = [
            Fault::Request(Code(1)),
            Fault::Bound(Code(7)),
            Fault::Head,
            Fault::Request(Code(3)),
            Fault::Bound(Code(11)),
            Fault::Connection(Code(1)),
        ];
        assert_eq!(told(&[&all]), want);
        let bytes: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(told(&bytes), want);
        for at in 0..all.len() {
            let (one, two) = all.split_at(at);
            assert_eq!(told(&[one, two]), want, "{at}");
        }
    }

    #[test]
    fn only_what_left_is_read_unless_nothing_can_leave() {
        let all = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = std::sync::Arc::clone(&all);
        let mut watched = Watched::new((), move |fault| seen.lock().unwrap().push(fault));
        let frame = away(1, b"");
        let (one, two) = frame.split_at(4);
        watched.sent(&Poll::Pending, [one, two].into_iter());
        watched.sent(&Poll::Ready(Ok(6)), [one, two].into_iter());
        assert_eq!(*all.lock().unwrap(), []);
        watched.sent(&Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())), std::iter::once(&frame[6..]));
        assert_eq!(*all.lock().unwrap(), [Fault::Connection(Code::PROTOCOL)]);
    }
}
