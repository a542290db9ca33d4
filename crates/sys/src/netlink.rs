//! Netlink: a blocking-free socket and a small codec, enough for routes, nf_tables, NFLOG and sock_diag.
//!
//! The kernel handles a request inside `sendto(2)` and queues every answer before that returns, so nothing here
//! ever waits: an answer that is not there will not come.

mod attribute;
mod error;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind,
    netlink::{NETFILTER, SOCK_DIAG, SocketAddrNetlink},
    recvfrom, sendto, socket_with,
};

pub use attribute::{Attribute, Attributes, attributes};
use error::refusal;
pub use error::{Error, Refusal};

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// One answer of the kernel: it never makes a dump datagram larger than 32 KiB.
const DATAGRAM: usize = 64 * 1024;
/// Most bytes one dump may have; a fence with 4,096 ports needs about 100 KiB.
const DUMP: usize = 8 * 1024 * 1024;
/// Dumps interrupted by a concurrent change are repeated this often.
const ATTEMPTS: usize = 5;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NETLINK_CAP_ACK: libc::c_int = 10;
const NETLINK_EXT_ACK: libc::c_int = 11;

/// Replace what exists.
pub const REPLACE: u16 = 0x100;
/// Fail if it exists.
pub const EXCLUSIVE: u16 = 0x200;
/// Make it.
pub const CREATE: u16 = 0x400;
/// Put it last.
pub const APPEND: u16 = 0x800;

/// A netlink family in use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// nf_tables and NFLOG.
    Netfilter,
    /// Socket lookup.
    SockDiag,
}

/// A message to the kernel: type, flags, the family's fixed header, attributes.
#[derive(Debug, Clone)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Attributes,
}

impl Message {
    /// A message that is acknowledged. `flags` beyond request and acknowledgement: [`CREATE`] and its like.
    #[must_use]
    pub fn new(kind: u16, flags: u16, header: &[u8], fill: impl FnOnce(&mut Attributes)) -> Self {
        let mut body = Attributes::after(header);
        fill(&mut body);
        Self { kind, flags: flags | NLM_F_REQUEST | NLM_F_ACK, body }
    }

    /// A message without acknowledgement, as batch delimiters and queries are.
    #[must_use]
    pub fn silent(kind: u16, header: &[u8], fill: impl FnOnce(&mut Attributes)) -> Self {
        let mut message = Self::new(kind, 0, header, fill);
        message.flags = NLM_F_REQUEST;
        message
    }

    /// The fixed header and the attributes.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.as_bytes()
    }

    fn encode(&self, out: &mut Vec<u8>, seq: u32, flags: u16) -> Option<()> {
        let body = self.body.checked()?;
        let len = u32::try_from(HEADER + body.len()).ok()?;
        out.extend_from_slice(&len.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | flags).to_ne_bytes());
        out.extend_from_slice(&seq.to_ne_bytes());
        out.extend_from_slice(&0_u32.to_ne_bytes());
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(4), 0);
        Some(())
    }
}

/// A message from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Message type.
    pub kind: u16,
    /// The family's fixed header and the attributes.
    pub body: Vec<u8>,
}

impl Reply {
    /// The attributes after a fixed header of `header` bytes.
    pub fn attributes(&self, header: usize) -> impl Iterator<Item = Attribute<'_>> {
        attributes(self.body.get(header.next_multiple_of(4)..).unwrap_or_default())
    }
}

/// A message found in a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Message type.
    pub kind: u16,
    /// Message flags.
    pub flags: u16,
    /// Sequence number of the request it answers.
    pub seq: u32,
    /// Everything after the header.
    pub body: &'a [u8],
}

/// Walks the messages of a datagram; ends at the first that is not whole.
pub fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let head = datagram.get(..HEADER)?;
        let word = |at: usize| Some(u32::from_ne_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_ne_bytes(head.get(at..at + 2)?.try_into().ok()?));
        let len = usize::try_from(word(0)?).ok()?;
        let frame = Frame { kind: half(4)?, flags: half(6)?, seq: word(8)?, body: datagram.get(HEADER..len)? };
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(frame)
    })
}

/// A netlink socket. It belongs for ever to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace, close-on-exec and non-blocking.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` where the kernel lacks the family.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let protocol = match protocol {
            Protocol::Route => None, // NETLINK_ROUTE is 0
            Protocol::Netfilter => Some(NETFILTER),
            Protocol::SockDiag => Some(SOCK_DIAG),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        // Without these the errors are poorer, and nothing else is lost.
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK] {
            let _ = crate::socket::set_option(fd.as_fd(), libc::SOL_NETLINK, option, 1);
        }
        Ok(Self { fd, seq: 0 })
    }

    /// Sends messages in one datagram and checks every acknowledgement.
    ///
    /// # Errors
    /// The first refusal, with the index of its message.
    pub fn apply(&mut self, operation: &'static str, messages: &[Message]) -> Result<(), Error> {
        let first = self.send(operation, messages, 0)?;
        let mut waiting = messages.iter().filter(|m| m.flags & NLM_F_ACK != 0).count();
        let mut refused: Option<Refusal> = None;
        while waiting > 0 {
            let Some(datagram) = self.receive(operation)? else { break };
            for frame in frames(&datagram).filter(|f| f.kind == NLMSG_ERROR) {
                let index = usize::try_from(frame.seq.wrapping_sub(first)).unwrap_or(usize::MAX);
                let Some(message) = messages.get(index) else { continue };
                if message.flags & NLM_F_ACK != 0 {
                    waiting = waiting.saturating_sub(1);
                }
                let refusal = refusal(operation, index, frame);
                if refusal.errno != 0 && refused.as_ref().is_none_or(|r| r.index > index) {
                    refused = Some(refusal);
                }
            }
        }
        match refused {
            Some(r) => Err(Error::Refused(r)),
            None if waiting > 0 => Err(Error::Incomplete { operation }),
            None => Ok(()),
        }
    }

    /// Asks for one object; `None` when there is no such object (`ENOENT`).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn get(&mut self, operation: &'static str, message: &Message) -> Result<Option<Reply>, Error> {
        let seq = self.send(operation, std::slice::from_ref(message), 0)?;
        while let Some(datagram) = self.receive(operation)? {
            if let Some(frame) = frames(&datagram).find(|f| f.seq == seq) {
                if frame.kind != NLMSG_ERROR {
                    return Ok(Some(Reply { kind: frame.kind, body: frame.body.to_vec() }));
                }
                let refusal = refusal(operation, 0, frame);
                return if refusal.errno == libc::ENOENT { Ok(None) } else { Err(Error::Refused(refusal)) };
            }
        }
        Err(Error::Incomplete { operation })
    }

    /// Asks for all objects of a kind: one consistent list, repeated if it changed while it was read.
    ///
    /// # Errors
    /// What the kernel says; `TooLarge` beyond a bound.
    pub fn dump(&mut self, operation: &'static str, message: &Message) -> Result<Vec<Reply>, Error> {
        for _ in 0..ATTEMPTS {
            if let Some(replies) = self.dump_once(operation, message)? {
                return Ok(replies);
            }
        }
        Err(Error::Incomplete { operation })
    }

    fn dump_once(&mut self, operation: &'static str, message: &Message) -> Result<Option<Vec<Reply>>, Error> {
        let seq = self.send(operation, std::slice::from_ref(message), NLM_F_DUMP)?;
        let (mut replies, mut size, mut whole) = (Vec::new(), 0, true);
        while let Some(datagram) = self.receive(operation)? {
            size += datagram.len();
            if size > DUMP {
                return Err(Error::TooLarge { operation, limit: DUMP });
            }
            for frame in frames(&datagram).filter(|f| f.seq == seq) {
                whole &= frame.flags & NLM_F_DUMP_INTR == 0;
                match frame.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        let refusal = refusal(operation, 0, frame);
                        return match refusal.errno {
                            0 => Ok(whole.then_some(replies)),
                            libc::EINTR => Ok(None),
                            _ => Err(Error::Refused(refusal)),
                        };
                    }
                    kind => replies.push(Reply { kind, body: frame.body.to_vec() }),
                }
            }
        }
        Err(Error::Incomplete { operation })
    }

    fn send(&mut self, operation: &'static str, messages: &[Message], flags: u16) -> Result<u32, Error> {
        // Answers to an earlier request that failed half way are of no use to this one.
        while self.receive(operation)?.is_some() {}
        let first = self.seq.wrapping_add(1);
        let mut bytes = Vec::with_capacity(4096);
        for message in messages {
            self.seq = self.seq.wrapping_add(1);
            let too_large = Error::TooLarge { operation, limit: usize::from(u16::MAX) };
            message.encode(&mut bytes, self.seq, flags).ok_or(too_large)?;
        }
        let io = |source: io::Error| Error::Io { operation, source };
        let kernel = SocketAddrNetlink::new(0, 0);
        let sent = rustix::io::retry_on_intr(|| sendto(&self.fd, &bytes, SendFlags::empty(), &kernel));
        match sent {
            Ok(n) if n == bytes.len() => Ok(first),
            Ok(_) => Err(Error::Incomplete { operation }),
            Err(e) => Err(io(e.into())),
        }
    }

    /// The next queued datagram, `None` when there is none.
    fn receive(&self, operation: &'static str) -> Result<Option<Vec<u8>>, Error> {
        let mut buffer = vec![0; DATAGRAM];
        match receive(&self.fd, &mut buffer) {
            Ok(len) if len > buffer.len() => Err(Error::TooLarge { operation, limit: DATAGRAM }),
            Ok(len) => {
                buffer.truncate(len);
                Ok(Some(buffer))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(source) => Err(Error::Io { operation, source }),
        }
    }
}

/// Receives one datagram that the kernel itself sent, without waiting. The length is that of the datagram, which
/// may exceed the buffer's.
///
/// # Errors
/// `WouldBlock` when none is queued; `ENOBUFS` once after the kernel dropped some.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    loop {
        match recvfrom(fd.as_fd(), &mut *buffer, flags) {
            // Another process that may write to this socket could forge answers.
            Ok((_, len, Some(from))) if from_kernel(&from) => return Ok(len),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn from_kernel(from: &SocketAddrAny) -> bool {
    SocketAddrNetlink::try_from(from.clone()).is_ok_and(|a| a.pid() == 0)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

impl From<Socket> for OwnedFd {
    fn from(s: Socket) -> Self {
        s.fd
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, seq: 0 }
    }
}

#[cfg(test)]
mod tests;
