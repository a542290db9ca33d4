//! WebSocket (RFC 6455): frames of either direction, and the handshake.
//!
//! Messages are judged whole and written anew, in one frame each: fragments, masks and bytes of the sender are not
//! copied. Extensions are not spoken: [`EXTENSIONS`] must not reach the server, and a reserved bit is a violation.

mod handshake;

pub use handshake::{Handshake, HandshakeError, key};

/// The field by which extensions are offered: to be removed from requests.
pub const EXTENSIONS: &str = "sec-websocket-extensions";
/// Longest payload of a control frame.
const MAX_CONTROL: usize = 125;
/// Longest header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

/// Who sends the frames. Clients mask, servers do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The client: every frame is masked.
    Client,
    /// The server: no frame is masked.
    Server,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// Asks for a pong.
    Ping(Vec<u8>),
    /// Answers a ping, or tells that the sender lives.
    Pong(Vec<u8>),
    /// The sender sends no more.
    Close(Option<Close>),
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Close {
    /// The status code.
    pub code: u16,
    /// For people.
    pub reason: String,
}

/// What breaks the protocol. The texts repeat no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// A reserved bit is set; no extension was agreed on.
    #[error("a frame uses an extension that was not agreed on")]
    Reserved,
    /// An opcode that nobody defined.
    #[error("a frame has an unknown opcode")]
    Opcode,
    /// A client's frame without mask, or a server's with one.
    #[error("a frame is masked wrongly")]
    Mask,
    /// A length in a longer form than needed, or over 63 bits.
    #[error("a frame has a malformed length")]
    Length,
    /// A control frame in fragments, or over 125 bytes.
    #[error("a control frame is fragmented or too long")]
    Control,
    /// A continuation of nothing, or a new message within another.
    #[error("fragments of messages are out of order")]
    Fragment,
    /// A message over the bound.
    #[error("a message is larger than what is read")]
    TooLarge,
    /// A text, or the reason of a close, that is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A close with half a code, or a code that may not be sent.
    #[error("a close frame has a bad status code")]
    Code,
    /// Bytes behind a close.
    #[error("something follows a close frame")]
    AfterClose,
}

impl Violation {
    /// The status code to close the connection with (RFC 6455, section 7.4.1).
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
            Self::Reserved
            | Self::Opcode
            | Self::Mask
            | Self::Length
            | Self::Control
            | Self::Fragment
            | Self::Code
            | Self::AfterClose => 1002,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    const ALL: [(u8, Self); 6] = [
        (0, Self::Continuation),
        (1, Self::Text),
        (2, Self::Binary),
        (8, Self::Close),
        (9, Self::Ping),
        (10, Self::Pong),
    ];

    fn parse(bits: u8) -> Result<Self, Violation> {
        Self::ALL.into_iter().find(|(number, _)| *number == bits).map(|(_, opcode)| opcode).ok_or(Violation::Opcode)
    }

    fn control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    opcode: Opcode,
    last: bool,
    mask: Option<[u8; 4]>,
    /// Bytes of the payload that came, and those still to come.
    read: usize,
    left: usize,
}

/// Reads the frames of one direction, however they are cut.
#[derive(Debug)]
pub struct Frames {
    sender: Sender,
    max_message: usize,
    header: Vec<u8>,
    frame: Option<Frame>,
    /// The message that is being put together, and whether it is text.
    message: Option<(bool, Vec<u8>)>,
    control: Vec<u8>,
    closed: bool,
}

impl Frames {
    /// Nothing read yet. A message may have `max_message` bytes, all fragments together.
    #[must_use]
    pub fn new(sender: Sender, max_message: usize) -> Self {
        Self { sender, max_message, header: Vec::new(), frame: None, message: None, control: Vec::new(), closed: false }
    }

    /// Bytes of the message that is being put together.
    #[must_use]
    pub fn held(&self) -> usize {
        self.message.as_ref().map_or(0, |(_, message)| message.len())
    }

    /// Takes bytes off the front of `input` until something is complete; `None` when more bytes are needed, and then
    /// `input` is empty.
    ///
    /// # Errors
    /// See [`Violation`]. The connection is to be closed then.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        loop {
            if self.closed && !input.is_empty() {
                return Err(Violation::AfterClose);
            }
            if self.frame.is_none() {
                let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
                *input = rest;
                self.header.push(byte);
                self.frame = self.begin()?;
            }
            // A frame without payload is complete with its header.
            let Some(frame) = &mut self.frame else { continue };
            if frame.left == 0 {
                if let Some(event) = self.end()? {
                    return Ok(Some(event));
                }
                continue;
            }
            if input.is_empty() {
                return Ok(None);
            }
            self.payload(input);
        }
    }

    /// The frame, once its header is complete.
    fn begin(&mut self) -> Result<Option<Frame>, Violation> {
        let (&[first, second], rest) = match self.header.split_first_chunk::<2>() {
            Some(parts) => parts,
            None => return Ok(None),
        };
        if first & 0x70 != 0 {
            return Err(Violation::Reserved);
        }
        let (opcode, last) = (Opcode::parse(first & 15)?, first & 0x80 != 0);
        let masked = second & 0x80 != 0;
        if masked != (self.sender == Sender::Client) {
            return Err(Violation::Mask);
        }
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((bytes, rest)) => (least(u16::from_be_bytes(*bytes).into(), 126)?, rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((bytes, rest)) => (least(u64::from_be_bytes(*bytes), 1 << 16)?, rest),
                None => return Ok(None),
            },
            short => (usize::from(short), rest),
        };
        if opcode.control() && (!last || length > MAX_CONTROL) {
            return Err(Violation::Control);
        }
        self.fits(opcode, length)?;
        let mask = match (masked, rest.first_chunk::<4>()) {
            (false, _) => None,
            (true, Some(mask)) => Some(*mask),
            (true, None) => return Ok(None),
        };
        self.header.clear();
        Ok(Some(Frame { opcode, last, mask, read: 0, left: length }))
    }

    /// Whether a frame may follow what came, and its payload is within the bound. Asked before a byte of it is kept.
    fn fits(&self, opcode: Opcode, length: usize) -> Result<(), Violation> {
        let before = match (opcode, &self.message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(()),
            (Opcode::Text | Opcode::Binary, None) => 0,
            (Opcode::Continuation, Some((_, bytes))) => bytes.len(),
            (Opcode::Text | Opcode::Binary, Some(_)) | (Opcode::Continuation, None) => {
                return Err(Violation::Fragment);
            }
        };
        if length > self.max_message.saturating_sub(before) { Err(Violation::TooLarge) } else { Ok(()) }
    }

    fn payload(&mut self, input: &mut &[u8]) {
        let Some(frame) = &mut self.frame else { return };
        let (taken, rest) = input.split_at(frame.left.min(input.len()));
        *input = rest;
        let into = match frame.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => &mut self.control,
            Opcode::Text => &mut self.message.get_or_insert((true, Vec::new())).1,
            Opcode::Binary | Opcode::Continuation => &mut self.message.get_or_insert((false, Vec::new())).1,
        };
        match frame.mask {
            None => into.extend_from_slice(taken),
            Some(mask) => into.extend(taken.iter().zip(mask.iter().cycle().skip(frame.read % 4)).map(|(b, m)| b ^ m)),
        }
        frame.read += taken.len();
        frame.left -= taken.len();
    }

    /// The present frame is complete.
    fn end(&mut self) -> Result<Option<Event>, Violation> {
        let Some(frame) = self.frame.take() else { return Ok(None) };
        let mut control = || std::mem::take(&mut self.control);
        match frame.opcode {
            Opcode::Ping => return Ok(Some(Event::Ping(control()))),
            Opcode::Pong => return Ok(Some(Event::Pong(control()))),
            Opcode::Close => {
                let close = close(control())?;
                self.closed = true;
                return Ok(Some(Event::Close(close)));
            }
            // Also where a first fragment was empty.
            Opcode::Text | Opcode::Binary => {
                self.message.get_or_insert((frame.opcode == Opcode::Text, Vec::new()));
            }
            Opcode::Continuation => {}
        }
        if !frame.last {
            return Ok(None);
        }
        match self.message.take() {
            Some((true, bytes)) => {
                String::from_utf8(bytes).map(|text| Some(Event::Text(text))).map_err(|_| Violation::NotUtf8)
            }
            Some((false, bytes)) => Ok(Some(Event::Binary(bytes))),
            None => Err(Violation::Fragment),
        }
    }
}

/// A length that needed its long form.
fn least(length: u64, least: u64) -> Result<usize, Violation> {
    if length < least || length > i64::MAX as u64 {
        return Err(Violation::Length);
    }
    usize::try_from(length).map_err(|_| Violation::Length)
}

fn close(payload: Vec<u8>) -> Result<Option<Close>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::Code) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Code);
    }
    let reason = String::from_utf8(reason.to_vec()).map_err(|_| Violation::NotUtf8)?;
    Ok(Some(Close { code, reason }))
}

impl Event {
    /// The event as one frame. A client's frame needs a mask of four random bytes that no page could foresee.
    #[must_use]
    pub fn frame(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let close;
        let (opcode, payload): (u8, &[u8]) = match self {
            Self::Text(text) => (1, text.as_bytes()),
            Self::Binary(bytes) => (2, bytes),
            Self::Close(None) => (8, &[]),
            Self::Close(Some(Close { code, reason })) => {
                close = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
                (8, &close)
            }
            Self::Ping(bytes) => (9, bytes),
            Self::Pong(bytes) => (10, bytes),
        };
        let mut frame = Vec::with_capacity(MAX_HEADER + payload.len());
        let masked = if mask.is_some() { 0x80 } else { 0 };
        frame.push(0x80 | opcode);
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short @ ..126), _) => frame.push(masked | short),
            (_, Ok(medium)) => {
                frame.push(masked | 126);
                frame.extend(medium.to_be_bytes());
            }
            (_, Err(_)) => {
                frame.push(masked | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        match mask {
            None => frame.extend_from_slice(payload),
            Some(mask) => {
                frame.extend(mask);
                frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
            }
        }
        frame
    }
}

#[cfg(test)]
mod tests;
