//! What a hostile command tries, one line of output per try. End-to-end tests run it inside the sandbox.
//!
//! Each argument is one try: `tcp:ADDR`, `say:ADDR:TEXT` (connect, send, read), `udp:ADDR:TEXT`, `listen:ADDR`,
//! `proxy:TEXT` (send to the proxy that `http_proxy` names), `socket:FAMILY:TYPE:PROTOCOL`, `resolve:NAME`. In TEXT
//! `\r`, `\n`, `\0`, `\t` and `\\` are escapes. Lines read `TRY -> ok WHAT` or `TRY -> ERRNO`, and end with the
//! milliseconds it took.
#![forbid(unsafe_code)]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use rustix::net::{AddressFamily, RawProtocol, SocketFlags, SocketType, socket_with};

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
    let (kind, rest) = attempt.split_once(':').ok_or_else(|| wrong(attempt))?;
    match kind {
        "tcp" => connect(rest).map(|s| format!("from {:?}", s.local_addr())),
        "say" => address_and_text(rest).and_then(|(addr, text)| say(connect(addr)?, &text)),
        "udp" => address_and_text(rest).and_then(|(addr, text)| datagram(addr, &text)),
        "listen" => TcpListener::bind(rest).map(|_| "bound".to_owned()),
        "proxy" => say(connect(&proxy()?)?, &unescape(rest)),
        "socket" => make_socket(rest),
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
    let (mut answer, mut chunk) = (Vec::new(), [0; 1024]);
    while answer.len() < 1024 {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => answer.extend(&chunk[..n]),
            Err(e) if answer.is_empty() => return Err(e),
            Err(_) => break,
        }
        // The head is enough; a proxy may keep the connection open behind it.
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
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
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
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
