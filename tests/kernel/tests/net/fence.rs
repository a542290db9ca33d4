//! What leaves, and what is refused how.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use nix::libc;
use stockade_confine::{fence, netns};
use stockade_test_kernel::net::{OUTSIDE, Outcome, Sink, at, dial, outcome, spec, wall};

const PORTS: [u16; 10] = [22, 25, 81, 853, 3000, 5432, 6379, 8443, 9999, 65_535];

crate::cases!(tcp_is_refused_at_once_on_every_port);

/// NET-01, NET-02, NET-06, DNS-03.
fn tcp_is_refused_at_once_on_every_port() {
    assert!(netns::configure().unwrap().is_full());
    let sink = Sink::on(&PORTS);
    for ip in OUTSIDE {
        assert_eq!(dial(at(ip, 22)), Outcome::Reached, "tripwire: without the fence it arrives");
    }
    assert_eq!(sink.seen(), OUTSIDE.len());
    let mut fence = fence::install(&spec(&[])).unwrap();
    for port in PORTS {
        for ip in OUTSIDE {
            assert_eq!(dial(at(ip, port)), Outcome::Refused(libc::ECONNREFUSED), "{ip}:{port}");
        }
        assert_eq!(sink.seen(), 0);
        for ip in ["127.0.0.1", "127.1.2.3", "::1"] {
            assert_eq!(dial(at(ip, port)), Outcome::Reached, "control: {ip}:{port} is the command's own");
        }
        assert_eq!(sink.seen(), 3);
    }
    let expected = u64::try_from(PORTS.len() * OUTSIDE.len()).unwrap();
    assert_eq!(fence.counters().unwrap().refused, expected, "one packet each, no retransmission");
}

crate::cases!(other_protocols_reach_nothing);

/// NET-03, NET-04, NET-05: UDP, UDP-Lite, ping, raw IP; with a fence and, as a tripwire, without.
fn other_protocols_reach_nothing() {
    assert!(netns::configure().unwrap().is_full());
    // As in a container, where groups may ping.
    let gid = nix::unistd::getgid();
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{gid} {gid}")).unwrap();
    let sink = Sink::on(&[53, 123, 443, 4567]);
    let open = attempts();
    assert!(open.len() >= 20, "{open:?}");
    for (what, how) in &open {
        assert_eq!(*how, Outcome::Reached, "tripwire: {what} without the fence");
    }
    assert!(sink.seen() >= 12, "UDP arrived");
    let mut fence = fence::install(&spec(&[443])).unwrap();
    let closed = attempts();
    assert_eq!(closed.len(), open.len());
    for (what, how) in &closed {
        // A ping over IPv6 is dropped without telling its sender: there is no reply.
        let silent = what.starts_with("ping") && *how == Outcome::Refused(libc::EAGAIN);
        let refused = matches!(how, Outcome::Refused(libc::EPERM | libc::ECONNREFUSED));
        assert!(refused || silent, "{what}: {how:?}");
    }
    assert_eq!(sink.seen(), 0);
    assert_eq!(fence.counters().unwrap().refused, u64::try_from(closed.len()).unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"x", at("127.0.0.1", 53)).unwrap();
    assert_eq!(sink.seen(), 1, "control: UDP to the command's own loopback");
}

fn attempts() -> Vec<(String, Outcome)> {
    let mut all = Vec::new();
    let kinds = [
        ("udp", libc::SOCK_DGRAM, 17),
        ("udp-lite", libc::SOCK_DGRAM, 136),
        ("raw sctp", libc::SOCK_RAW, 132),
        ("raw dccp", libc::SOCK_RAW, 33),
        ("raw gre", libc::SOCK_RAW, 47),
        ("raw esp", libc::SOCK_RAW, 50),
    ];
    for ip in OUTSIDE {
        for (name, kind, protocol) in kinds {
            let ports: &[u16] = if protocol == 17 { &[53, 123, 443, 4567] } else { &[4567] };
            for port in ports {
                // Raw sockets of IPv6 do not take mapped addresses, and take no port.
                let raw = kind == libc::SOCK_RAW;
                if raw && ip.starts_with("::ffff") {
                    continue;
                }
                let to = at(ip, if raw { 0 } else { *port });
                if let Some(how) = send(kind, protocol, to, &[7; 64]) {
                    all.push((format!("{name} to {ip}:{port}"), how));
                }
            }
        }
        if ip.starts_with("::ffff") {
            continue;
        }
        let (ping, echo) = if ip.contains(':') { (58, 128) } else { (1, 8) };
        let mut packet = [0x41; 64];
        packet[..8].copy_from_slice(&[echo, 0, 0, 0, 0, 0, 0, 1]);
        if let Some(how) = send(libc::SOCK_DGRAM, ping, at(ip, 0), &packet) {
            all.push((format!("ping {ip}"), how));
        }
    }
    for group in ["224.0.0.251", "255.255.255.255"] {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_broadcast(true).unwrap();
        let start = Instant::now();
        all.push((group.to_owned(), outcome(socket.send_to(b"x", at(group, 5353)), start)));
    }
    all
}

/// `None` where this kernel has no such socket.
fn send(kind: i32, protocol: i32, to: SocketAddr, data: &[u8]) -> Option<Outcome> {
    use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
    let ping = kind == libc::SOCK_DGRAM && [1, 58].contains(&protocol);
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = Protocol::from_raw(u32::try_from(protocol).unwrap().try_into().unwrap());
    let kind = SocketType::from_raw(u32::try_from(kind).unwrap());
    let fd = match socket(family, kind, Some(protocol)) {
        Err(rustix::io::Errno::PROTONOSUPPORT) => return None,
        fd => fd.unwrap(),
    };
    let start = Instant::now();
    let mut sent = sendto(&fd, data, SendFlags::empty(), &to);
    if sent.is_ok() && ping {
        // On one machine the reply, if there is one, is there before the send returns.
        sent = recv(&fd, &mut [0; 64], RecvFlags::DONTWAIT).map(|(_, n)| n);
    }
    Some(outcome(sent.map_err(io::Error::from), start))
}

crate::cases!(fast_open_sends_nothing_and_mptcp_is_tcp);

/// NET-25, and the MPTCP of NET-05.
fn fast_open_sends_nothing_and_mptcp_is_tcp() {
    use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, connect, sendto, socket};
    const MPTCP: u32 = 262;
    let stream = |protocol: u32| {
        let protocol = Protocol::from_raw(protocol.try_into().unwrap());
        socket(AddressFamily::INET, SocketType::STREAM, Some(protocol)).unwrap()
    };
    let attempts = || {
        let to = at("198.51.100.1", 9999);
        let start = Instant::now();
        let flags = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
        let fast = outcome(sendto(stream(6), b"secret", flags, &to).map_err(io::Error::from), start);
        let start = Instant::now();
        [fast, outcome(connect(stream(MPTCP), &to).map_err(io::Error::from), start)]
    };
    assert!(netns::configure().unwrap().is_full());
    let sink = Sink::on(&[9999]);
    assert_eq!((attempts(), sink.seen()), ([Outcome::Reached; 2], 2), "tripwire");
    let _fence = fence::install(&spec(&[443])).unwrap();
    assert_eq!((attempts(), sink.seen()), ([Outcome::Refused(libc::ECONNREFUSED); 2], 0));
}

crate::cases!(a_client_bound_to_any_address_is_refused_at_once_too);

fn a_client_bound_to_any_address_is_refused_at_once_too() {
    let from = |source: &str, to: SocketAddr| {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = socket(family, SocketType::STREAM, None).unwrap();
        // Takes no capability.
        sockopt::set_ip_freebind(&fd, true).unwrap();
        bind(&fd, &at(source, 0)).unwrap();
        let start = Instant::now();
        outcome(connect(&fd, &to).map_err(io::Error::from), start)
    };
    let _fence = wall(&[443]);
    let sink = Sink::on(&[22, 443]);
    for (source, to) in [("203.0.113.9", "198.51.100.1"), ("2001:db8::9", "2001:db8::1")] {
        for port in [22, 443] {
            assert_eq!(from(source, at(to, port)), Outcome::Refused(libc::ECONNREFUSED), "{source} to {to}:{port}");
        }
    }
    assert_eq!(sink.seen(), 0);
    assert_eq!((from("127.0.0.9", at("127.0.0.1", 22)), sink.seen()), (Outcome::Reached, 1), "control");
}

crate::cases!(a_world_outside_sees_nothing);

/// The sink is in another namespace, where its addresses are real; a process there reaches it, one behind the wall
/// does not.
fn a_world_outside_sees_nothing() {
    assert!(netns::configure().unwrap().is_full());
    let sink = Sink::on(&[80, 443]);
    for ip in OUTSIDE {
        assert_eq!(dial(at(ip, 80)), Outcome::Reached, "control and tripwire: outside the wall");
    }
    assert_eq!(sink.seen(), OUTSIDE.len());
    stockade_test_kernel::net::in_child(nix::sched::CloneFlags::CLONE_NEWNET, || {
        let _fence = wall(&[443]);
        for ip in OUTSIDE {
            for port in [80, 443] {
                assert_eq!(dial(at(ip, port)), Outcome::Refused(libc::ECONNREFUSED), "{ip}:{port}");
            }
            let socket = UdpSocket::bind(if ip.contains(':') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
            assert!(socket.send_to(b"x", at(ip, 443)).is_err());
        }
    });
    assert_eq!(sink.seen(), 0);
}

crate::cases!(installing_is_quick);

fn installing_is_quick() {
    let start = Instant::now();
    assert!(netns::configure().unwrap().is_full());
    let routes = start.elapsed();
    let start = Instant::now();
    let mut fence = fence::install(&spec(&[80, 443])).unwrap();
    let install = start.elapsed();
    let start = Instant::now();
    fence.verify().unwrap();
    let verify = start.elapsed();
    let mut refusals: Vec<_> = (0..201)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(dial(at("198.51.100.1", 22)), Outcome::Refused(libc::ECONNREFUSED));
            start.elapsed()
        })
        .collect();
    refusals.sort();
    println!("routes {routes:?}, install and verify {install:?}, verify {verify:?}, refusal {:?}", refusals[100]);
    assert!((routes + install).as_millis() < 500, "even on a crowded machine: {routes:?} {install:?}");
}
