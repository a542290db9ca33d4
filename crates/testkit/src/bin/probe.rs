//! What a hostile command tries, one line of output per try. End-to-end tests run it inside the sandbox.
//!
//! Each argument is one try. To the network: `tcp:ADDR`, `say:ADDR:TEXT` (connect, send, read), `udp:ADDR:TEXT`,
//! `ping:IP`, `mptcp:ADDR`, `fastopen:ADDR:TEXT`, `send:TYPE:PROTOCOL:ADDR:TEXT` (any kind of IP socket),
//! `flood:N:ADDR` (connect N times), `resolve:NAME`. To the proxy that `http_proxy` names: `proxy:TEXT`, `spoof:IP:TEXT`
//! (from a source address of choice), `half:N:TEXT` (N times: send, close our side, read to the end), `denied:N:TEXT` (how many of N
//! are answered 403), `relay:ADDR` (serve
//! others as a way to it, until killed). On this machine: `listen:ADDR`, `reuse:tcp|udp:ADDR` (with every option that lets
//! two have one port), `ports:N` (take N ephemeral ports, and keep them), `unix:PATH`, `abstract:NAME`, `socket:FAMILY:TYPE:PROTOCOL`,
//! `links`, `route` (add one), `sleep:MS`.
//!
//! In TEXT `\r`, `\n`, `\0`, `\t` and `\\` are escapes. Lines read `TRY -> ok WHAT` or `TRY -> ERRNO`, and end with the
//! milliseconds it took.
#![forbid(unsafe_code)]

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixStream},
    },
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use rustix::net::{
    AddressFamily, RawProtocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect as connect_fd, listen,
    netlink::SocketAddrNetlink, recv, sendto, socket_with, sockopt,
};

/// How long an answer to a datagram may take.
const ANSWER: Duration = Duration::from_millis(500);

fn main() {
    for attempt in std::env::args().skip(1) {
        let began = Instant::now();
        let result = run(&attempt);
        let took = began.elapsed().as_millis();
        match result {
            Ok(what) => println!("{} -> ok {} ({took} ms)", attempt.escape_debug(), what.escape_debug()),
            Err(e) => println!("{} -> {} ({took} ms)", attempt.escape_debug(), name(&e)),
        }
    }
}

fn run(attempt: &str) -> io::Result<String> {
    let (kind, rest) = attempt.split_once(':').unwrap_or((attempt, ""));
    match kind {
        "tcp" => connect(rest).map(|s| format!("from {:?}", s.local_addr())),
        "say" => address_and_text(rest).and_then(|(addr, text)| say(connect(addr)?, &text)),
        "udp" => address_and_text(rest).and_then(|(addr, text)| datagram(addr, &text)),
        "listen" => TcpListener::bind(rest).map(|_| "bound".to_owned()),
        "proxy" => say(connect(&proxy()?)?, &unescape(rest)),
        "socket" => make_socket(rest),
        "ping" => ping(rest),
        "mptcp" => stream(rest, 262).map(|_| "connected".to_owned()),
        "fastopen" => address_and_text(rest).and_then(|(addr, text)| fast_open(addr, &text)),
        "send" => send_any(rest),
        "flood" => flood(rest),
        "spoof" => rest
            .split_once(':')
            .ok_or_else(|| wrong(rest))
            .and_then(|(from, text)| say(from_address(from)?, &unescape(text))),
        "half" => half(rest),
        "denied" => denied(rest),
        "sleep" => {
            thread::sleep(Duration::from_millis(rest.parse().map_err(|_| wrong(rest))?));
            Ok("slept".to_owned())
        }
        "relay" => relay(rest),
        "reuse" => reuse(rest),
        "ports" => rest.parse().map(take_ports).map_err(|_| wrong(rest)),
        "unix" => UnixStream::connect(rest).map(|_| "connected".to_owned()),
        "abstract" => UnixAddr::from_abstract_name(rest)
            .and_then(|a| UnixStream::connect_addr(&a))
            .map(|_| "connected".to_owned()),
        "links" => Ok(links()?),
        "route" => add_route(),
        "resolve" => {
            (rest, 80).to_socket_addrs().map(|all| all.map(|a| a.ip().to_string()).collect::<Vec<_>>().join(","))
        }
        _ => Err(wrong(attempt)),
    }
}

fn wrong(attempt: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("not a try: {attempt}"))
}

fn connect(addr: &str) -> io::Result<TcpStream> {
    let addr: SocketAddr = addr.parse().map_err(|_| wrong(addr))?;
    let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    Ok(stream)
}

/// Sends, then reads what comes until the end, a pause or a kilobyte.
fn say(mut stream: TcpStream, text: &[u8]) -> io::Result<String> {
    stream.write_all(text)?;
    // What stands behind a CONNECT is answered by somebody else, and later.
    let head = text.windows(4).position(|w| w == b"\r\n\r\n").map_or(text.len(), |at| at + 4);
    let behind = text.starts_with(b"CONNECT ") && head < text.len();
    let pause = Duration::from_millis(if behind { 2_000 } else { 200 });
    let (mut answer, mut chunk) = (Vec::new(), [0; 1024]);
    while answer.len() < 1024 {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => answer.extend(&chunk[..n]),
            Err(e) if answer.is_empty() => return Err(e),
            Err(_) => break,
        }
        // The head is enough; a proxy may keep the connection open behind it.
        stream.set_read_timeout(Some(pause))?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Two sends: the refusal of the first one comes back on the second.
fn datagram(addr: &str, text: &[u8]) -> io::Result<String> {
    let addr: SocketAddr = addr.parse().map_err(|_| wrong(addr))?;
    let socket = UdpSocket::bind(if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(addr)?;
    socket.send(text)?;
    std::thread::sleep(Duration::from_millis(20));
    socket.send(text)?;
    socket.set_read_timeout(Some(ANSWER))?;
    let mut answer = [0; 2048];
    let n = socket.recv(&mut answer)?;
    Ok(format!("{n} bytes back"))
}

fn make_socket(text: &str) -> io::Result<String> {
    let numbers: Vec<u32> = text.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong(text))?;
    let [family, kind, protocol] = numbers[..] else { return Err(wrong(text)) };
    let family = AddressFamily::from_raw(family.try_into().map_err(|_| wrong(text))?);
    let protocol = RawProtocol::new(protocol).map(rustix::net::Protocol::from_raw);
    socket_with(family, SocketType::from_raw(kind), SocketFlags::CLOEXEC, protocol)?;
    Ok("made".to_owned())
}

fn socket_for(addr: SocketAddr, kind: SocketType, protocol: u32) -> io::Result<std::os::fd::OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = RawProtocol::new(protocol).map(rustix::net::Protocol::from_raw);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?)
}

fn stream(addr: &str, protocol: u32) -> io::Result<std::os::fd::OwnedFd> {
    let addr: SocketAddr = addr.parse().map_err(|_| wrong(addr))?;
    let fd = socket_for(addr, SocketType::STREAM, protocol)?;
    connect_fd(&fd, &addr)?;
    Ok(fd)
}

fn fast_open(addr: &str, text: &[u8]) -> io::Result<String> {
    const MSG_FASTOPEN: u32 = 0x2000_0000;
    let addr: SocketAddr = addr.parse().map_err(|_| wrong(addr))?;
    let fd = socket_for(addr, SocketType::STREAM, 6)?;
    let sent = sendto(&fd, text, SendFlags::from_bits_retain(MSG_FASTOPEN), &addr)?;
    Ok(format!("{sent} bytes sent"))
}

/// An echo request with payload, through the ping socket that needs no privilege.
fn ping(ip: &str) -> io::Result<String> {
    let ip: IpAddr = ip.parse().map_err(|_| wrong(ip))?;
    let (protocol, kind) = if ip.is_ipv4() { (1, 8) } else { (58, 128) };
    let fd = socket_for((ip, 0).into(), SocketType::DGRAM, protocol)?;
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER))?;
    let mut packet = b"........secret payload".to_vec();
    packet[..8].copy_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 1]);
    sendto(&fd, &packet, SendFlags::empty(), &SocketAddr::from((ip, 0)))?;
    let (n, _) = recv(&fd, &mut [0; 256], RecvFlags::empty())?;
    Ok(format!("{n} bytes back"))
}

/// `TYPE:PROTOCOL:ADDR:TEXT`
fn send_any(rest: &str) -> io::Result<String> {
    let mut parts = rest.splitn(3, ':');
    let mut number = || parts.next().and_then(|p| p.parse::<u32>().ok());
    let (kind, protocol) = (number(), number());
    let (Some(kind), Some(protocol), Some(rest)) = (kind, protocol, parts.next()) else { return Err(wrong(rest)) };
    let (addr, text) = address_and_text(rest)?;
    let addr: SocketAddr = addr.parse().map_err(|_| wrong(addr))?;
    let fd = socket_for(addr, SocketType::from_raw(kind), protocol)?;
    let sent = sendto(&fd, &text, SendFlags::empty(), &addr)?;
    Ok(format!("{sent} bytes sent"))
}

/// `N:ADDR`
fn flood(rest: &str) -> io::Result<String> {
    let (n, addr) = rest.split_once(':').ok_or_else(|| wrong(rest))?;
    let n: u32 = n.parse().map_err(|_| wrong(n))?;
    let addr: SocketAddr = addr.parse().map_err(|_| wrong(addr))?;
    let refused = (0..n).filter(|_| TcpStream::connect(addr).is_err()).count();
    Ok(format!("{refused} refused"))
}

/// The proxy, from a source address that is not this machine's, as every program may bind where all is local.
fn from_address(source: &str) -> io::Result<TcpStream> {
    let source: IpAddr = source.parse().map_err(|_| wrong(source))?;
    let proxy: SocketAddr = proxy()?.parse().map_err(|_| wrong("http_proxy"))?;
    let fd = socket_for(proxy, SocketType::STREAM, 6)?;
    sockopt::set_ip_freebind(&fd, true)?;
    bind(&fd, &SocketAddr::new(source, 0))?;
    // Bounds connect(2): nobody may answer.
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(ANSWER))?;
    connect_fd(&fd, &proxy)?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    Ok(stream)
}

/// `N:TEXT`; says how many bytes came back in all.
fn half(rest: &str) -> io::Result<String> {
    let (n, text) = rest.split_once(':').ok_or_else(|| wrong(rest))?;
    let (n, text) = (n.parse::<u32>().map_err(|_| wrong(n))?, unescape(text));
    let mut total = 0;
    for _ in 0..n {
        let mut stream = connect(&proxy()?)?;
        stream.write_all(&text)?;
        stream.shutdown(Shutdown::Write)?;
        total += io::copy(&mut stream, &mut io::sink())?;
    }
    Ok(format!("{total} bytes"))
}

fn relay(addr: &str) -> io::Result<String> {
    let listener = TcpListener::bind(addr)?;
    for client in listener.incoming() {
        let (client, proxy) = (client?, connect(&proxy()?)?);
        let ways = [(client.try_clone()?, proxy.try_clone()?), (proxy, client)];
        for (mut from, mut to) in ways {
            thread::spawn(move || {
                // Either end may close first.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
    Ok("ended".to_owned())
}

/// `tcp:ADDR` or `udp:ADDR`
fn reuse(rest: &str) -> io::Result<String> {
    let (kind, addr) = rest.split_once(':').ok_or_else(|| wrong(rest))?;
    let addr: SocketAddr = addr.parse().map_err(|_| wrong(addr))?;
    let kind = if kind == "tcp" { SocketType::STREAM } else { SocketType::DGRAM };
    let fd = socket_for(addr, kind, 0)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    bind(&fd, &addr)?;
    if kind == SocketType::STREAM {
        listen(&fd, 16)?;
    }
    Ok("bound".to_owned())
}

/// Ends early when there is no port or no descriptor left. They are kept until the program ends.
fn take_ports(most: u32) -> String {
    for taken in 0..most {
        match TcpListener::bind("0.0.0.0:0") {
            Ok(socket) => std::mem::forget(socket),
            Err(e) => return format!("{taken} until {}", name(&e)),
        }
    }
    format!("{most} all")
}

/// `N:TEXT`: how many of as many connections were answered 403.
fn denied(rest: &str) -> io::Result<String> {
    let (n, text) = rest.split_once(':').ok_or_else(|| wrong(rest))?;
    let (n, text) = (n.parse::<u32>().map_err(|_| wrong(n))?, unescape(text));
    let mut refused = 0;
    for _ in 0..n {
        let mut stream = connect(&proxy()?)?;
        stream.write_all(&text)?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        refused += u32::from(&status[9..] == b"403");
    }
    Ok(format!("{refused} refused"))
}

fn links() -> io::Result<String> {
    let mut names: Vec<String> = nix::ifaddrs::getifaddrs()?.map(|i| i.interface_name).collect();
    names.dedup();
    Ok(names.join(","))
}

/// A blackhole route to 192.0.2.99/32, by RTM_NEWROUTE; the kernel's answer.
fn add_route() -> io::Result<String> {
    const NEWROUTE: [u8; 36] = [
        36, 0, 0, 0, 24, 0, 0x05, 0x06, 1, 0, 0, 0, 0, 0, 0, 0, // length, RTM_NEWROUTE, request|ack|create|excl
        2, 32, 0, 0, 254, 4, 0, 6, 0, 0, 0, 0, // AF_INET, /32, table main, RTPROT_STATIC, RTN_BLACKHOLE
        8, 0, 1, 0, 192, 0, 2, 99, // RTA_DST
    ];
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sendto(&fd, &NEWROUTE, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 256];
    recv(&fd, &mut answer, RecvFlags::empty())?;
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    if code == 0 { Ok("added".to_owned()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// The address in `http_proxy`.
fn proxy() -> io::Result<String> {
    let url = std::env::var("http_proxy").map_err(|_| wrong("proxy: http_proxy is not set"))?;
    Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}

/// `ADDR:PORT:TEXT`, where an IPv6 address is in brackets.
fn address_and_text(rest: &str) -> io::Result<(&str, Vec<u8>)> {
    let host = rest.find(']').map_or(0, |at| at + 1);
    let mut colons = rest[host..].match_indices(':').map(|(at, _)| host + at);
    let (_, end) = (colons.next(), colons.next().ok_or_else(|| wrong(rest))?);
    Ok((&rest[..end], unescape(&rest[end + 1..])))
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match (byte, byte == b'\\') {
            (_, true) => match bytes.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                other => other.unwrap_or(b'\\'),
            },
            (byte, false) => byte,
        });
    }
    out
}

fn name(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(code) => format!("{:?}", Errno::from_raw(code)),
        None => format!("{:?}: {e}", e.kind()),
    }
}
