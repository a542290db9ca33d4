//! A network namespace with `lo` and nothing else, in which every address is local.
//!
//! Every destination then has a route that ends at `lo`: a connection reaches the fence and is refused or handed to
//! the door, and no packet has anywhere else to go, fence or no fence.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use nix::libc;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with},
};
use stockade_sys::netlink::{CREATE, Error, Message, Protocol, REPLACE, Reply, Socket};
use stockade_types::Enforcement;

/// `lo` is the first link of every network namespace.
const LO: u32 = 1;
const IFINFOMSG: usize = 16;
const RTMSG: usize = 12;

/// Why the namespace is not what it must be.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Netlink failed.
    #[error("network namespace: {0}")]
    Netlink(#[from] Error),
    /// No netlink socket.
    #[error("network namespace: cannot open a route socket: {0}")]
    Open(#[from] io::Error),
    /// A link other than `lo` is up.
    #[error("network namespace: link `{0}` is up, where only `lo` may be: this is not a fresh network namespace")]
    Link(String),
    /// `lo` is down after it was set up.
    #[error("network namespace: `lo` is down")]
    Down,
    /// The route that makes every address local is not there.
    #[error("network namespace: the route `local {0} dev lo` is missing")]
    Route(&'static str),
    /// A route leads somewhere else.
    #[error("network namespace: a route leads out of `lo`: {0}")]
    Foreign(String),
}

/// Sets `lo` up and makes every address local, then reads links and routes back and compares.
///
/// Without IPv6 in the kernel there is nothing to make local for it, and nothing to promise.
///
/// # Errors
/// When something cannot be set, or is not as it was set. A namespace with another link that is up is left alone.
pub fn configure() -> Result<Enforcement, NetnsError> {
    let mut route = Socket::open(Protocol::Route)?;
    only_lo(&mut route)?;
    // A dev server on port 80 works inside, as it does in a container. No one else's port is at stake here. Where
    // /proc/sys is read-only the usual limit stays.
    let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    for link in ["all", "default", "lo"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "0");
    }
    route.apply("set `lo` up", &[lo_up()])?;
    route.apply("make every IPv4 address local", &[all_local(IpAddr::V4(Ipv4Addr::LOCALHOST))])?;
    let v6 = route.apply("make every IPv6 address local", &[all_local(IpAddr::V6(Ipv6Addr::LOCALHOST))]);
    check(&mut route)?;
    match v6 {
        Ok(()) => Ok(Enforcement::Enforced),
        // A kernel without IPv6 has no way out over IPv6 either.
        Err(_) if !routes(&mut route, &V6)?.any => Ok(Enforcement::Enforced),
        Err(e) => Err(e.into()),
    }
}

/// Begins to connect to a server of this namespace. The socket does not block; a refusal shows as its error.
///
/// # Errors
/// For an address that is not of the loopback: what is served for others is the door.
pub fn dial_loopback(to: SocketAddr) -> io::Result<OwnedFd> {
    if !to.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not the sandbox's loopback", to.ip())));
    }
    let domain = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(domain, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e.into()),
    }
}

/// Reads links and routes back and compares them with what [`configure`] made.
///
/// # Errors
/// What differs.
pub fn verify() -> Result<(), NetnsError> {
    check(&mut Socket::open(Protocol::Route)?)
}

/// Whether anything can be sent over IPv6, in a namespace that [`configure`] has set up. If that cannot be read, it
/// is taken to be so.
#[must_use]
pub fn has_ipv6() -> bool {
    let any = |mut route: Socket| routes(&mut route, &V6).map(|r| r.any).ok();
    Socket::open(Protocol::Route).ok().and_then(any).unwrap_or(true)
}

struct Family {
    number: i32,
    all: &'static str,
    loopback: &'static [u8],
}

const V4: Family = Family { number: libc::AF_INET, all: "0.0.0.0/0", loopback: &Ipv4Addr::LOCALHOST.octets() };
const V6: Family = Family { number: libc::AF_INET6, all: "::/0", loopback: &Ipv6Addr::LOCALHOST.octets() };

fn lo_up() -> Message {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&LO.to_ne_bytes());
    let up = libc::IFF_UP.to_ne_bytes();
    header[8..12].copy_from_slice(&up);
    header[12..16].copy_from_slice(&up);
    Message::new(libc::RTM_NEWLINK, 0, &header, |_| {})
}

/// `local default dev lo src loopback`. With the loopback address as preferred source, answers go to an address
/// that the fence accepts without tracking connections, and a program that asks which address it would be reached
/// at is told one that works.
fn all_local(loopback: IpAddr) -> Message {
    let (family, source) = match loopback {
        IpAddr::V4(a) => (libc::AF_INET, a.octets().to_vec()),
        IpAddr::V6(a) => (libc::AF_INET6, a.octets().to_vec()),
    };
    let mut header = [0; RTMSG];
    header[0] = u8::try_from(family).unwrap_or_default();
    header[4] = libc::RT_TABLE_LOCAL;
    header[5] = libc::RTPROT_STATIC;
    header[6] = libc::RT_SCOPE_HOST;
    header[7] = libc::RTN_LOCAL;
    Message::new(libc::RTM_NEWROUTE, CREATE | REPLACE, &header, |a| {
        a.native(libc::RTA_OIF, LO).put(libc::RTA_PREFSRC, &source);
    })
}

fn check(route: &mut Socket) -> Result<(), NetnsError> {
    if !only_lo(route)? {
        return Err(NetnsError::Down);
    }
    for family in [V4, V6] {
        let found = routes(route, &family)?;
        // Without any route of IPv6, not even that of ::1, IPv6 is off.
        let off = family.number == libc::AF_INET6 && !found.any;
        if !found.all_local && !off {
            return Err(NetnsError::Route(family.all));
        }
    }
    Ok(())
}

/// Whether `lo` is up. Fallback devices of tunnel modules (`tunl0`, `sit0`) appear in every new namespace of some
/// machines and cannot be removed; down, they carry nothing.
fn only_lo(route: &mut Socket) -> Result<bool, NetnsError> {
    let request = Message::silent(libc::RTM_GETLINK, &[0; IFINFOMSG], |_| {});
    let up_bit = libc::IFF_UP.unsigned_abs();
    let mut lo_up = false;
    for link in route.dump("list links", &request)?.iter().filter(|l| l.kind == libc::RTM_NEWLINK) {
        let up = word(&link.body, 8).is_none_or(|flags| flags & up_bit != 0);
        if word(&link.body, 4) == Some(LO) {
            lo_up = up;
        } else if up {
            let name = link.attributes(IFINFOMSG).find(|a| a.kind == libc::IFLA_IFNAME);
            return Err(NetnsError::Link(name.map_or_else(|| "?".to_owned(), |a| a.text().into_owned())));
        }
    }
    Ok(lo_up)
}

#[derive(Default)]
struct Routes {
    any: bool,
    all_local: bool,
}

fn routes(route: &mut Socket, family: &Family) -> Result<Routes, NetnsError> {
    let number = u8::try_from(family.number).unwrap_or_default();
    let mut header = [0; RTMSG];
    header[0] = number;
    let replies = route.dump("list routes", &Message::silent(libc::RTM_GETROUTE, &header, |_| {}))?;
    let mut found = Routes::default();
    // A family that the kernel lacks is answered with the routes of all others.
    for reply in replies.iter().filter(|r| r.kind == libc::RTM_NEWROUTE && r.body.first() == Some(&number)) {
        match leads(reply) {
            Leads::ToLo => {
                found.any = true;
                found.all_local |= is_all_local(reply, family.loopback);
            }
            Leads::Nowhere => {}
            Leads::Out(why) => return Err(NetnsError::Foreign(why)),
        }
    }
    Ok(found)
}

enum Leads {
    ToLo,
    Nowhere,
    Out(String),
}

fn leads(reply: &Reply) -> Leads {
    let kind = reply.body.get(7).copied().unwrap_or_default();
    match reply.attributes(RTMSG).find(|a| a.kind == libc::RTA_OIF).and_then(|a| a.u32()) {
        Some(LO) => Leads::ToLo,
        Some(link) => Leads::Out(format!("type {kind} by link {link}")),
        None if [libc::RTN_UNREACHABLE, libc::RTN_BLACKHOLE, libc::RTN_PROHIBIT].contains(&kind) => Leads::Nowhere,
        None => Leads::Out(format!("type {kind} with several next hops")),
    }
}

fn is_all_local(reply: &Reply, source: &[u8]) -> bool {
    let (len, table, kind) = (reply.body.get(1), reply.body.get(4), reply.body.get(7));
    len == Some(&0)
        && table == Some(&libc::RT_TABLE_LOCAL)
        && kind == Some(&libc::RTN_LOCAL)
        && reply.attributes(RTMSG).any(|a| a.kind == libc::RTA_PREFSRC && a.value == source)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
