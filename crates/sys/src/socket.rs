//! Sockets of the sandbox's network namespace: transparent listeners, and who owns a connection.

pub mod xtables;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};

use crate::netlink::{self, Message, Protocol, Socket};

/// Connections the kernel holds for a listener until they are accepted (`somaxconn` may lower it).
const BACKLOG: i32 = 4096;
const IPV6_TRANSPARENT: libc::c_int = 75;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NO_COOKIE: u32 = u32::MAX;

/// Makes the listener that `tproxy` hands connections to: `IP_TRANSPARENT`, on a wildcard address, IPv6 without
/// IPv4-mapped ones. The local address of a socket it accepts is the destination that the client dialled.
/// Close-on-exec, blocking.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` over the network namespace; `EADDRINUSE`; `EAFNOSUPPORT` without IPv6.
pub fn transparent_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let (domain, level, option) = match address {
        SocketAddr::V4(_) => (AddressFamily::INET, libc::SOL_IP, libc::IP_TRANSPARENT),
        SocketAddr::V6(_) => (AddressFamily::INET6, libc::SOL_IPV6, IPV6_TRANSPARENT),
    };
    let fd = socket_with(domain, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    set_option(fd.as_fd(), level, option, 1)?;
    bind(&fd, &address)?;
    listen(&fd, BACKLOG)?;
    Ok(fd.into())
}

/// The destination that the client of an accepted transparent connection dialled.
///
/// # Errors
/// What `getsockname(2)` says; `EAFNOSUPPORT` for a socket that is not of the Internet.
pub fn original_destination(accepted: impl AsFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(accepted)?;
    SocketAddr::try_from(address).map_err(Into::into)
}

/// A transport whose sockets can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Whose socket it is, as the kernel knows it. Evidence for finding the process, not proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Inode of the socket, as `/proc/PID/fd` shows it; 0 when no descriptor refers to it any more.
    pub inode: u32,
    /// User id of its maker, in the user namespace of the process that opened the [`Diag`].
    pub uid: u32,
    /// Of TCP: the other end answered, and both still know of each other.
    pub connected: bool,
}

/// Opens what [`Diag`] reads, as a descriptor that can be sent elsewhere.
///
/// # Errors
/// `EPROTONOSUPPORT` where the kernel lacks it.
pub fn open_diag() -> io::Result<OwnedFd> {
    Diag::open().map(Into::into)
}

/// Looks sockets up by their addresses, at a cost that does not grow with their number.
#[derive(Debug)]
pub struct Diag(Socket);

impl Diag {
    /// Opens it in the calling thread's network namespace, whose sockets it will see wherever it is used.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` where the kernel lacks it.
    pub fn open() -> io::Result<Self> {
        Socket::open(Protocol::SockDiag).map(Self)
    }

    /// Finds the socket with exactly this local and remote address; for UDP also one that is not connected.
    ///
    /// # Errors
    /// What the kernel says, `ENOENT` meaning `Ok(None)`.
    pub fn owner(
        &mut self,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<Owner>, netlink::Error> {
        let Some((family, id)) = sockid(transport, local, remote) else { return Ok(None) };
        let protocol = match transport {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
        };
        let mut request = [0; 56];
        request[0] = family;
        request[1] = u8::try_from(protocol).unwrap_or_default();
        request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes()); // any state
        request[8..].copy_from_slice(&id);
        let message = Message::silent(SOCK_DIAG_BY_FAMILY, &request, |_| {});
        let reply = self.0.get("look a socket up", &message)?;
        Ok(reply.and_then(|r| owner(&r.body, transport, local, remote)))
    }
}

/// `struct inet_diag_sockid`; `None` when the addresses are of different families.
fn sockid(transport: Transport, local: SocketAddr, remote: SocketAddr) -> Option<(u8, [u8; 48])> {
    // UDP is looked up from the view of an arriving packet: its source is the remote end, which the kernel's
    // request structure then calls `src`.
    let (src, dst) = match transport {
        Transport::Tcp => (local, remote),
        Transport::Udp => (remote, local),
    };
    let mut id = [0; 48];
    id[0..2].copy_from_slice(&src.port().to_be_bytes());
    id[2..4].copy_from_slice(&dst.port().to_be_bytes());
    id[40..44].copy_from_slice(&NO_COOKIE.to_ne_bytes());
    id[44..48].copy_from_slice(&NO_COOKIE.to_ne_bytes());
    let family = match (src, dst) {
        (SocketAddr::V4(s), SocketAddr::V4(d)) => {
            id[4..8].copy_from_slice(&s.ip().octets());
            id[20..24].copy_from_slice(&d.ip().octets());
            libc::AF_INET
        }
        (SocketAddr::V6(s), SocketAddr::V6(d)) => {
            id[4..20].copy_from_slice(&s.ip().octets());
            id[20..36].copy_from_slice(&d.ip().octets());
            libc::AF_INET6
        }
        _ => return None,
    };
    Some((u8::try_from(family).ok()?, id))
}

/// Reads `struct inet_diag_msg`, if it is about the very socket asked for: for TCP the kernel falls back to a
/// listener, and for UDP it finds unconnected sockets, which have no remote address.
fn owner(reply: &[u8], transport: Transport, local: SocketAddr, remote: SocketAddr) -> Option<Owner> {
    let word = |at: usize| Some(u32::from_ne_bytes(reply.get(at..at + 4)?.try_into().ok()?));
    let end = |port: usize, ip: usize| {
        let octets = |n: usize| reply.get(ip..ip + n);
        let ip: IpAddr = match i32::from(*reply.first()?) {
            libc::AF_INET => <[u8; 4]>::try_from(octets(4)?).ok()?.into(),
            _ => <[u8; 16]>::try_from(octets(16)?).ok()?.into(),
        };
        // An IPv6 socket that speaks IPv4 shows mapped addresses.
        Some((ip.to_canonical(), u16::from_be_bytes(reply.get(port..port + 2)?.try_into().ok()?)))
    };
    let same = |(ip, port): (IpAddr, u16), wanted: SocketAddr| {
        let open = transport == Transport::Udp && ip.is_unspecified();
        (open && (port == 0 || port == wanted.port())) || (ip, port) == (wanted.ip().to_canonical(), wanted.port())
    };
    let found = same(end(4, 8)?, local) && end(4, 8)?.1 == local.port() && same(end(6, 24)?, remote);
    // ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT: include/net/tcp_states.h.
    let connected = matches!(*reply.get(1)?, 1 | 4 | 5 | 8);
    found.then_some(Owner { uid: word(64)?, inode: word(68)?, connected })
}

impl From<Diag> for OwnedFd {
    fn from(d: Diag) -> Self {
        d.0.into()
    }
}

impl From<OwnedFd> for Diag {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

/// Sets an integer socket option.
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: `value` is a c_int that outlives the call, and `len` is its size.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    crate::process::check(result.into())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, TcpStream, UdpSocket},
        os::linux::fs::MetadataExt,
    };

    use super::*;

    fn inode(fd: &impl AsRawFd) -> u64 {
        std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().st_ino()
    }

    #[test]
    fn owner_of_a_connection_is_found_and_a_listener_is_not_taken_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let mut diag = Diag::open().unwrap();
        for (socket, local, remote) in [(&client, peer, server), (&accepted, server, peer)] {
            let found = diag.owner(Transport::Tcp, local, remote).unwrap().unwrap();
            assert_eq!((u64::from(found.inode), found.uid), (inode(socket), nix::unistd::getuid().as_raw()));
        }
        assert_eq!(original_destination(&accepted).unwrap(), server);
        // No connection from port 1: the lookup falls back to the listener, which must not count.
        assert_eq!(diag.owner(Transport::Tcp, server, "127.0.0.1:1".parse().unwrap()).unwrap(), None);
        assert_eq!(diag.owner(Transport::Tcp, server, "[::1]:1".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn owner_of_a_mapped_connection_is_found() {
        use rustix::net::connect;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let server = listener.local_addr().unwrap();
        connect(&client, &SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), server.port()))).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        let found = Diag::open().unwrap().owner(Transport::Tcp, peer, server).unwrap().unwrap();
        assert_eq!(u64::from(found.inode), inode(&client));
    }

    #[test]
    fn owner_of_a_connected_udp_socket_is_found() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        a.connect(b.local_addr().unwrap()).unwrap();
        let found = Diag::open().unwrap().owner(Transport::Udp, a.local_addr().unwrap(), b.local_addr().unwrap());
        assert_eq!(u64::from(found.unwrap().unwrap().inode), inode(&a));
        let (open, server) = (UdpSocket::bind("0.0.0.0:0").unwrap(), b.local_addr().unwrap());
        let from = (Ipv4Addr::LOCALHOST, open.local_addr().unwrap().port()).into();
        let found = Diag::open().unwrap().owner(Transport::Udp, from, server);
        assert_eq!(u64::from(found.unwrap().unwrap().inode), inode(&open));
    }
}
