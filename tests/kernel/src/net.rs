//! A process as init is when it sets the network up: alone in new namespaces, with capabilities over them.
#![allow(clippy::unwrap_used, clippy::panic)] // a test has nobody to return an error to

use std::{
    io::{self, ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Output},
    time::{Duration, Instant},
};

use nix::{
    sched::CloneFlags,
    sys::wait::{WaitStatus, waitpid},
    unistd::{Gid, Pid, Uid},
};
use stockade_confine::{
    fence::{self, Fence, Spec},
    netns,
};
use stockade_sys::process;
use stockade_testkit::child::Child;

/// Destinations outside: each is an address that the command could dial. All are local once the namespace is set up.
pub const OUTSIDE: [&str; 5] = ["198.51.100.1", "203.0.113.1", "8.8.8.8", "2001:db8::1", "::ffff:198.51.100.1"];
/// The port of the transparent listener in these tests.
pub const PRIVATE: u16 = 15_001;
/// The log group in these tests.
pub const GROUP: u16 = 5;
/// A refusal later than this is a failure.
pub const AT_ONCE: Duration = Duration::from_millis(100);

/// Runs `body` in a new network namespace as root.
#[track_caller]
pub fn as_root(body: impl FnOnce()) {
    if !Uid::effective().is_root() {
        stockade_testkit::skip!("root is needed");
    }
    Child::new().namespaces(CloneFlags::CLONE_NEWNET).run(body);
}

/// Runs `body` in a new user and network namespace, as a user that is root nowhere and is mapped to itself.
#[track_caller]
pub fn as_user(uid: u32, body: impl FnOnce()) {
    Child::new().uid(uid).run(|| {
        let (uid, gid) = (Uid::current(), Gid::current());
        let (mut read, write) = io::pipe().unwrap();
        let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
        let child = process::fork(flags, false, || {
            // One byte: the maps are written.
            read.read_exact(&mut [0]).unwrap();
            body();
            0
        })
        .unwrap();
        let map = |file: &str, content: String| {
            std::fs::write(format!("/proc/{}/{file}", child.pid), content).unwrap_or_else(|e| panic!("{file}: {e}"));
        };
        map("setgroups", "deny".to_owned());
        map("uid_map", format!("{uid} {uid} 1"));
        map("gid_map", format!("{gid} {gid} 1"));
        io::Write::write_all(&mut &write, &[1]).unwrap();
        wait(child.pid);
    });
}

/// Runs `body` in a child process in new namespaces (none with empty flags), and waits for it.
#[track_caller]
pub fn in_child(flags: CloneFlags, body: impl FnOnce()) {
    let child = process::fork(flags, false, || {
        body();
        0
    });
    wait(child.unwrap().pid);
}

#[track_caller]
fn wait(pid: i32) {
    let status = waitpid(Pid::from_raw(pid), None).unwrap();
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "the inner process: {status:?}");
}

/// The fence of these tests with these transparent ports.
#[must_use]
pub fn spec(ports: &[u16]) -> Spec {
    Spec { transparent_ports: ports.iter().copied().collect(), private_port: PRIVATE, group: GROUP }
}

/// Namespace and fence, both fully enforced.
#[track_caller]
pub fn wall(ports: &[u16]) -> Fence {
    assert!(netns::configure().unwrap().is_full());
    let fence = fence::install(&spec(ports)).unwrap();
    assert!(fence.enforcement().is_full(), "{}", fence.enforcement());
    fence
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It went through.
    Reached,
    /// The kernel said no with this error, at once.
    Refused(i32),
    /// The error came, but too late.
    Late(i32),
}

/// Judges the result of a system call that began at `start`.
#[track_caller]
pub fn outcome<T>(result: io::Result<T>, start: Instant) -> Outcome {
    let late = start.elapsed() > AT_ONCE;
    match result {
        Ok(_) => Outcome::Reached,
        Err(e) => match e.raw_os_error() {
            Some(errno) if late => Outcome::Late(errno),
            Some(errno) => Outcome::Refused(errno),
            None if e.kind() == ErrorKind::TimedOut => Outcome::Late(libc::ETIMEDOUT),
            None => panic!("{e}"),
        },
    }
}

/// Dials.
#[track_caller]
pub fn dial(to: SocketAddr) -> Outcome {
    let start = Instant::now();
    outcome(TcpStream::connect_timeout(&to, Duration::from_secs(2)), start)
}

/// An address and port from text.
#[must_use]
pub fn at(ip: &str, port: u16) -> SocketAddr {
    (ip.parse::<IpAddr>().unwrap(), port).into()
}

/// Listeners on every address: whatever the fence lets through to one of `ports` arrives here.
#[derive(Debug)]
pub struct Sink {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Sink {
    /// Listens on `ports` of every address.
    #[must_use]
    pub fn on(ports: &[u16]) -> Self {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for ip in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            for port in ports {
                tcp.push(listen(SocketAddr::new(ip, *port)));
                udp.push(datagrams(SocketAddr::new(ip, *port)));
            }
        }
        Self { tcp, udp }
    }

    /// Connections and datagrams that arrived since this was asked last.
    #[must_use]
    pub fn seen(&self) -> usize {
        let connections = self.tcp.iter().map(|l| std::iter::from_fn(|| l.accept().ok()).count());
        let datagrams = self.udp.iter().map(|s| std::iter::from_fn(|| s.recv(&mut [0; 64]).ok()).count());
        connections.chain(datagrams).sum()
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    // v6only, so that both families can have the port.
    let listener = stockade_sys::socket::transparent_listener(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn datagrams(address: SocketAddr) -> UdpSocket {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).unwrap();
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true).unwrap();
    }
    bind(&fd, &address).unwrap();
    fd.into()
}

/// Runs a tool that serves as oracle or as saboteur; `None` (and a visible skip) where the machine lacks it.
#[must_use]
pub fn tool(path: &str, args: &[&str]) -> Option<Output> {
    match Command::new(path).args(args).output() {
        Ok(output) => Some(output),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            stockade_testkit::skip::record(format_args!("no {path}"));
            None
        }
        Err(e) => panic!("{path}: {e}"),
    }
}

/// Runs a tool that must succeed, and gives what it printed.
#[track_caller]
#[must_use]
pub fn run(path: &str, args: &[&str]) -> Option<String> {
    let output = tool(path, args)?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{path} {args:?}: {error}");
    Some(String::from_utf8(output.stdout).unwrap())
}
