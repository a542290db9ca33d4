//! The server name in a TLS ClientHello (RFC 8446, RFC 6066), read as bytes arrive.
//!
//! Nothing is decrypted and nothing is changed: the reader says what the client asks for, so that it can be compared
//! with the authority before a byte goes on. What is not exactly one well-formed ClientHello is an error.

mod parse;

use stockade_types::{AuthorityError, HostName};

/// Longest handshake message read. Hellos with post-quantum key shares take about 2 KiB.
const MAX_HELLO: usize = 16 * 1024;
/// Longest input read, record headers included: a hello cut into tiny records is mostly headers.
const MAX_INPUT: usize = 32 * 1024;
/// Longest record (RFC 8446, section 5.1).
const MAX_RECORD: usize = 16 * 1024;
/// `ContentType.handshake`.
const HANDSHAKE: u8 = 22;
/// `HandshakeType.client_hello`.
const CLIENT_HELLO: u8 = 1;

/// What is known so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// All that came is the beginning of a ClientHello.
    NeedMore,
    /// The whole ClientHello was read. Bytes behind it are not looked at.
    Done(Hello),
    /// The first two bytes begin no TLS record: some other protocol, or SSL 2.
    NotTls,
    /// TLS, but not a ClientHello that may be passed on.
    Invalid(Invalid),
}

/// What a ClientHello asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The server name; absent when the extension is.
    pub server_name: Option<ServerName>,
    /// Protocols offered by ALPN, in order, as sent.
    pub alpn: Vec<Vec<u8>>,
    /// Whether there is an encrypted_client_hello extension, or its predecessor: the true name may be hidden. Some
    /// browsers always send one filled with noise; the two cannot be told apart, which is its purpose.
    pub ech: bool,
}

/// The name in the server_name extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// A host name in canonical form.
    Name(HostName),
    /// Anything else: an address, a trailing dot, a single label, NUL, over 253 bytes. Its text is not kept.
    Malformed(AuthorityError),
}

/// Why a ClientHello was refused. The texts repeat no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Another record type before the hello was complete.
    #[error("a record that is no handshake comes before the end of the ClientHello")]
    Interleaved,
    /// Empty, over 16 KiB, or not version 3.
    #[error("a TLS record has a bad header")]
    Record,
    /// The first handshake message is another.
    #[error("the first TLS message is not a ClientHello")]
    NotClientHello,
    /// Over 16 KiB, or over 32 KiB with record headers.
    #[error("the ClientHello is too long")]
    TooLong,
    /// Lengths that do not add up.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// An extension occurs twice.
    #[error("the ClientHello has an extension twice")]
    Duplicate,
    /// Not exactly one name of type host_name.
    #[error("the server_name extension does not hold exactly one host name")]
    NotOneName,
}

/// Reads a ClientHello from the first bytes of a connection, however they are cut.
#[derive(Debug, Default)]
pub struct ClientHello {
    /// Bytes of the present record's header that came, and the header.
    header: [u8; 5],
    headed: usize,
    /// Bytes of the present record still to come.
    left: usize,
    message: Vec<u8>,
    input: usize,
    outcome: Option<Progress>,
}

impl ClientHello {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes. Once the answer is other than [`Progress::NeedMore`] it stays.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        if let Some(outcome) = &self.outcome {
            return outcome.clone();
        }
        let outcome = self.read(bytes).unwrap_or_else(Progress::Invalid);
        if outcome != Progress::NeedMore {
            self.outcome = Some(outcome.clone());
            self.message = Vec::new();
        }
        outcome
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<Progress, Invalid> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.input += 1;
                bytes = rest;
                if !self.head(first)? {
                    return Ok(Progress::NotTls);
                }
                continue;
            }
            let (taken, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.message.extend_from_slice(taken);
            self.left -= taken.len();
            self.input += taken.len();
            bytes = rest;
            if let Some(hello) = self.hello()? {
                return parse::hello(hello).map(Progress::Done);
            }
            if self.input > MAX_INPUT {
                return Err(Invalid::TooLong);
            }
        }
        Ok(Progress::NeedMore)
    }

    /// Takes a byte of a record header; `false` when the connection does not begin as TLS does.
    fn head(&mut self, byte: u8) -> Result<bool, Invalid> {
        let begins = self.input <= 2;
        match (self.headed, byte) {
            (0, HANDSHAKE) | (1, 3) | (2.., _) => {}
            (0 | 1, _) if begins => return Ok(false),
            (0, _) => return Err(Invalid::Interleaved),
            (1, _) => return Err(Invalid::Record),
        }
        if let Some(slot) = self.header.get_mut(self.headed) {
            *slot = byte;
        }
        self.headed += 1;
        if self.headed == self.header.len() {
            self.headed = 0;
            let [.., high, low] = self.header;
            self.left = usize::from(u16::from_be_bytes([high, low]));
            if self.left == 0 || self.left > MAX_RECORD {
                return Err(Invalid::Record);
            }
        }
        Ok(true)
    }

    /// The body of the handshake message, once it is complete.
    fn hello(&self) -> Result<Option<&[u8]>, Invalid> {
        if self.message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
            return Err(Invalid::NotClientHello);
        }
        let Some((&[_, a, b, c], body)) = self.message.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        if len > MAX_HELLO { Err(Invalid::TooLong) } else { Ok(body.get(..len)) }
    }
}

#[cfg(test)]
mod tests;
