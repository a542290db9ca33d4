//! What the fence refused: packets read from NFLOG, as binary fields and never as text.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use stockade_sys::netlink::{self, Attributes, Error, Message, Protocol, Socket, attributes, frames};

const SUBSYSTEM: u16 = 4;
const PACKET: u16 = 0;
const CONFIG: u16 = 1;
const NFGENMSG: usize = 4;
const CFG_CMD: u16 = 1;
const CFG_MODE: u16 = 2;
const CFG_NLBUFSIZ: u16 = 3;
const CFG_TIMEOUT: u16 = 4;
const CFG_QTHRESH: u16 = 5;
const CFG_FLAGS: u16 = 6;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const FLAG_SEQ: u16 = 1;
const PAYLOAD: u16 = 9;
const UID: u16 = 11;
const SEQ: u16 = 12;
/// Bytes of each packet that are copied, as the fence's log rule says.
const COPY: u32 = 128;
/// Extension headers of IPv6 that are skipped at most.
const EXTENSIONS: usize = 8;
const DATAGRAM: usize = 64 * 1024;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum NflogError {
    /// No netlink socket.
    #[error("refused packets cannot be logged: {0}")]
    Open(#[from] io::Error),
    /// The kernel refused to bind the group.
    #[error("refused packets cannot be logged: {0}")]
    Bind(#[from] Error),
}

/// A packet that the fence refused. Everything in it but `uid` and `seq` was chosen by the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// IP protocol number of the transport: 6 TCP, 17 UDP, 1 ICMP...
    pub protocol: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port, for protocols that have ports.
    pub sport: Option<u16>,
    /// Destination port, for protocols that have ports.
    pub dport: Option<u16>,
    /// User of the socket, in the user namespace of the process that opened the log.
    pub uid: Option<u32>,
    /// Number of the packet in the log.
    pub seq: Option<u32>,
}

/// Opens the log of `group` in the calling thread's network namespace. The descriptor works wherever it is sent; it
/// is non-blocking and close-on-exec.
///
/// # Errors
/// `EBUSY` when the group is taken; `EOPNOTSUPP` where the kernel has no nfnetlink_log.
pub fn open(group: u16) -> Result<OwnedFd, NflogError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let config = |fill: fn(&mut Attributes)| {
        let [high, low] = group.to_be_bytes();
        Message::new(SUBSYSTEM << 8 | CONFIG, 0, &[0, 0, high, low], fill)
    };
    let bind = config(|a| {
        a.put(CFG_CMD, &[BIND]);
    });
    let settings = config(|a| {
        let mut mode = [0; 6];
        mode[..4].copy_from_slice(&COPY.to_be_bytes());
        mode[4] = COPY_PACKET;
        // Each packet is sent at once: the default waits for more, or for a second.
        a.put(CFG_MODE, &mode).be32(CFG_NLBUFSIZ, 4096).be32(CFG_TIMEOUT, 1).be32(CFG_QTHRESH, 1);
        a.be16(CFG_FLAGS, FLAG_SEQ);
    });
    socket.apply("bind the log group", &[bind, settings])?;
    Ok(socket.into())
}

/// The reading end of a log, with the count of what was lost on the way.
#[derive(Debug)]
pub struct Log {
    fd: OwnedFd,
    buffer: Vec<u8>,
    next: Option<u32>,
    lost: u64,
}

impl Log {
    /// Reads a log that [`open`] made.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, buffer: vec![0; DATAGRAM], next: None, lost: 0 }
    }

    /// The next packets, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there are none.
    pub fn read(&mut self) -> io::Result<Vec<Refused>> {
        loop {
            match netlink::receive(&self.fd, &mut self.buffer) {
                Ok(len) => {
                    let found = parse(self.buffer.get(..len).unwrap_or(&self.buffer));
                    for seq in found.iter().filter_map(|r| r.seq) {
                        self.count(seq);
                    }
                    return Ok(found);
                }
                // Some were dropped; their numbers will be missing.
                Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Packets that were logged but never arrived, by the gaps in their numbers.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn count(&mut self, seq: u32) {
        let gap = seq.wrapping_sub(self.next.unwrap_or(0));
        // Numbers only grow: a step of half the range is one that went back.
        if gap < u32::MAX / 2 {
            self.lost += u64::from(gap);
        }
        self.next = Some(seq.wrapping_add(1));
    }
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads the packets in one datagram. Total: what is not a packet of IPv4 or IPv6 is left out.
#[must_use]
pub fn parse(datagram: &[u8]) -> Vec<Refused> {
    frames(datagram).filter(|f| f.kind == SUBSYSTEM << 8 | PACKET).filter_map(|f| entry(f.body)).collect()
}

fn entry(body: &[u8]) -> Option<Refused> {
    let (mut packet, mut uid, mut seq) = (None, None, None);
    for a in attributes(body.get(NFGENMSG..)?) {
        match a.kind {
            PAYLOAD => packet = Some(a.value),
            UID => uid = a.be32(),
            SEQ => seq = a.be32(),
            _ => {}
        }
    }
    let packet = packet?;
    let refused = match packet.first()? >> 4 {
        4 => ipv4(packet)?,
        6 => ipv6(packet)?,
        _ => return None,
    };
    Some(Refused { uid, seq, ..refused })
}

fn ipv4(packet: &[u8]) -> Option<Refused> {
    let address = |at: usize| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)));
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let fragment = be16(packet, 6)? & 0x1fff;
    let protocol = *packet.get(9)?;
    let rest = if fragment == 0 { packet.get(header..) } else { None };
    Some(refused(protocol, address(12)?, address(16)?, rest))
}

fn ipv6(packet: &[u8]) -> Option<Refused> {
    let address = |at: usize| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)));
    let (src, dst) = (address(8)?, address(24)?);
    let (protocol, rest) = transport(*packet.get(6)?, packet.get(40..).unwrap_or_default());
    Some(refused(protocol, src, dst, rest))
}

/// Skips extension headers: hop-by-hop 0, routing 43, fragment 44, authentication 51, destination 60, mobility 135.
fn transport(mut next: u8, mut rest: &[u8]) -> (u8, Option<&[u8]>) {
    for _ in 0..EXTENSIONS {
        let len = match (next, rest) {
            (44, [_, _, high, low, ..]) if u16::from_be_bytes([*high, *low]) & 0xfff8 != 0 => {
                return (rest.first().copied().unwrap_or(next), None);
            }
            (44, _) => 8,
            (51, [_, len, ..]) => (usize::from(*len) + 2) * 4,
            (0 | 43 | 60 | 135, [_, len, ..]) => (usize::from(*len) + 1) * 8,
            (0 | 43 | 51 | 60 | 135, _) => return (next, None),
            _ => return (next, Some(rest)),
        };
        match (rest.first(), rest.get(len..)) {
            (Some(inner), Some(after)) => (next, rest) = (*inner, after),
            // The copy ends inside the headers: what follows is unknown, what it would be is not.
            (Some(inner), None) => return (*inner, None),
            (None, _) => return (next, None),
        }
    }
    (next, None)
}

/// TCP, UDP, DCCP, SCTP and UDP-Lite have their ports first.
fn refused(protocol: u8, src: IpAddr, dst: IpAddr, rest: Option<&[u8]>) -> Refused {
    let ports = rest.filter(|_| [6, 17, 33, 132, 136].contains(&protocol));
    let port = |at| ports.and_then(|p| be16(p, at));
    Refused { protocol, src, dst, sport: port(0), dport: port(2), uid: None, seq: None }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
