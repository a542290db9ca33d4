//! The SFTP server (version 3, as OpenSSH speaks it), on standard input and output.
//!
//! It runs inside the sandbox, started like every other program there: what it can reach is what the command can reach,
//! because the kernel says so, and not because a path was checked here. Names of files are bytes. It has no threads and
//! no runtime, and starts in a millisecond.

mod attributes;
mod files;
mod handles;
mod wire;

use std::io::{self, Read, Write};

use self::{
    files::Files,
    wire::{Kind, Reader, Reply, Status},
};

/// Longest packet taken; OpenSSH's own bound.
const PACKET: usize = 256 * 1024;
/// Most bytes of a file in one packet.
const BLOCK: u32 = 255 * 1024;
/// Replies are collected up to this before they are written.
const COLLECT: usize = 1024 * 1024;

/// Why serving ended before its client's end of file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A descriptor failed.
    #[error("sftp: {0}")]
    Io(#[from] io::Error),
    /// No SFTP.
    #[error("sftp: a packet of {0} bytes, which is too long or too short for SFTP")]
    Length(usize),
    /// It did not begin with the packet that says the version.
    #[error("sftp: the first packet says no version")]
    NoVersion,
}

/// Serves until the input ends.
///
/// # Errors
/// When the input is no SFTP, or a descriptor fails.
pub fn serve(mut input: impl Read, mut output: impl Write) -> Result<(), Error> {
    let mut server = Server::default();
    let mut buffer = Buffer::default();
    loop {
        while let Some(packet) = buffer.next()? {
            server.answer(packet)?;
            if server.replies.len() >= COLLECT {
                output.write_all(&server.replies)?;
                server.replies.clear();
            }
        }
        // The client may wait for these before it sends more.
        output.write_all(&server.replies)?;
        output.flush()?;
        server.replies.clear();
        if !buffer.fill(&mut input)? {
            return Ok(());
        }
    }
}

/// Packets out of a stream of bytes.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    from: usize,
    filled: usize,
}

impl Buffer {
    /// The next packet without its length, if it is here whole.
    fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        let unread = self.bytes.get(self.from..self.filled).unwrap_or_default();
        let Some((length, rest)) = unread.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        // A type, and all but the first packet an id.
        if !(5..=PACKET).contains(&length) {
            return Err(Error::Length(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.from + 4;
        self.from = start + length;
        Ok(self.bytes.get(start..self.from))
    }

    /// Reads what there is, at least one byte; false at the end of the input.
    fn fill(&mut self, input: &mut impl Read) -> Result<bool, Error> {
        self.bytes.copy_within(self.from..self.filled, 0);
        self.filled -= self.from;
        self.from = 0;
        self.bytes.resize(2 * (PACKET + 4), 0);
        let room = self.bytes.get_mut(self.filled..).unwrap_or_default();
        loop {
            match input.read(room) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.filled += read;
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// What one client has open, and what is to be sent to it.
#[derive(Default)]
struct Server {
    files: Files,
    greeted: bool,
    replies: Vec<u8>,
}

impl Server {
    fn answer(&mut self, packet: &[u8]) -> Result<(), Error> {
        let mut reader = Reader(packet);
        let kind = reader.u8().and_then(Kind::of);
        if !self.greeted {
            if kind != Some(Kind::Init) {
                return Err(Error::NoVersion);
            }
            self.greeted = true;
            Reply::Version.write(0, &mut self.replies);
            return Ok(());
        }
        // Its length was checked, so an id is there.
        let id = reader.u32().unwrap_or_default();
        let reply = match kind {
            Some(kind) => self.files.answer(kind, &mut reader),
            None => Err(Status::Unsupported("this request is not known".to_owned())),
        };
        reply.unwrap_or_else(Reply::Status).write(id, &mut self.replies);
        Ok(())
    }
}

/// For the fuzzer: any bytes are a stream of packets, and are answered without touching a file.
#[doc(hidden)]
pub fn parse_only(bytes: &[u8]) -> usize {
    let mut buffer = Buffer { bytes: bytes.to_vec(), from: 0, filled: bytes.len() };
    let mut packets = 0;
    while let Ok(Some(packet)) = buffer.next() {
        let mut reader = Reader(packet);
        let kind = reader.u8().and_then(Kind::of);
        let _ = (reader.u32(), kind.map(|kind| wire::Request::read(kind, &mut reader)));
        packets += 1;
    }
    packets
}

#[cfg(test)]
mod tests;
