//! What was refused is told, with binary fields.

use std::net::{IpAddr, TcpStream, UdpSocket};

use nix::{libc, sched::CloneFlags};
use stockade_confine::nflog::{self, Log, Refused};
use stockade_test_kernel::net::{GROUP, OUTSIDE, Outcome, Sink, at, dial, in_child, wall};

pub(crate) fn drain(log: &mut Log) -> Vec<Refused> {
    let mut all = Vec::new();
    loop {
        match log.read() {
            Ok(some) => all.extend(some),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return all,
            Err(e) => panic!("{e}"),
        }
    }
}

crate::cases!(a_refused_packet_is_told_once_with_all_that_is_known);

fn a_refused_packet_is_told_once_with_all_that_is_known() {
    let _fence = wall(&[443]);
    let mut log = Log::new(nflog::open(GROUP).unwrap());
    assert!(nflog::open(GROUP).is_err(), "a group has one reader");
    let uid = Some(nix::unistd::getuid().as_raw());
    let (mut seq, mut expected) = (0, Vec::new());
    let mut expect = |protocol: u8, src: IpAddr, dst: IpAddr, sport: Option<u16>, dport: Option<u16>| {
        expected.push(Refused { protocol, src, dst, sport, dport, uid, seq: Some(seq) });
        seq += 1;
    };
    for ip in OUTSIDE {
        assert_eq!(dial(at(ip, 22)), Outcome::Refused(libc::ECONNREFUSED));
        let dst = at(ip, 0).ip().to_canonical();
        let src: IpAddr = if dst.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
        expect(6, src, dst, None, Some(22));
        let socket = UdpSocket::bind((src, 0)).unwrap();
        let denied = socket.send_to(b"data", (dst, 53)).unwrap_err();
        assert_eq!(denied.raw_os_error(), Some(libc::EPERM));
        expect(17, src, dst, Some(socket.local_addr().unwrap().port()), Some(53));
    }
    let mut found = drain(&mut log);
    for (found, expected) in found.iter_mut().zip(&expected) {
        if expected.sport.is_none() {
            assert!(found.sport.take().is_some_and(|p| p > 1023), "an ephemeral port");
        }
    }
    assert_eq!(found, expected);
    assert_eq!(log.lost(), 0);
}

crate::cases!(what_is_let_through_is_not_told);

fn what_is_let_through_is_not_told() {
    let mut fence = wall(&[443]);
    let mut log = Log::new(nflog::open(GROUP).unwrap());
    let sink = Sink::on(&[22, 443]);
    for ip in ["127.0.0.1", "::1"] {
        let client = TcpStream::connect(at(ip, 22)).unwrap();
        drop(client);
        UdpSocket::bind(at(ip, 0)).unwrap().send_to(b"x", at(ip, 22)).unwrap();
    }
    assert_eq!(dial(at("127.0.0.1", 81)), Outcome::Refused(libc::ECONNREFUSED), "by the port, not by the fence");
    assert_eq!(sink.seen(), 4);
    assert_eq!((drain(&mut log).len(), fence.counters().unwrap().refused), (0, 0));
    assert_eq!(dial(at("198.51.100.1", 22)), Outcome::Refused(libc::ECONNREFUSED));
    assert_eq!((drain(&mut log).len(), fence.counters().unwrap().refused), (1, 1), "control");
}

crate::cases!(a_flood_is_counted_and_not_all_told);

/// NET-26, the kernel's half: the log is bounded, the count is exact.
fn a_flood_is_counted_and_not_all_told() {
    const FLOOD: u64 = 20_000;
    let mut fence = wall(&[443]);
    let mut log = Log::new(nflog::open(GROUP).unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut told = 0;
    for n in 0..FLOOD {
        socket.send_to(b"x", at("198.51.100.1", 53)).unwrap_err();
        if n % 100 == 0 {
            told += drain(&mut log).len();
        }
    }
    told += drain(&mut log).len();
    let refused = fence.counters().unwrap().refused;
    assert_eq!(refused, FLOOD);
    assert!((400..15_000).contains(&told), "{told} of {FLOOD} told");
    assert_eq!(log.lost(), 0, "read in time");
}

crate::cases!(what_the_queue_cannot_hold_is_counted_as_lost);

fn what_the_queue_cannot_hold_is_counted_as_lost() {
    let _fence = wall(&[443]);
    let fd = nflog::open(GROUP).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&fd, 2048).unwrap();
    let mut log = Log::new(fd);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        socket.send_to(b"x", at("198.51.100.1", 53)).unwrap_err();
    }
    let first = drain(&mut log);
    socket.send_to(b"x", at("198.51.100.1", 54)).unwrap_err();
    let last = drain(&mut log);
    assert_eq!((first.len() as u64 + log.lost(), last.len()), (100, 1));
    assert!(log.lost() > 0, "{} arrived", first.len());
}

crate::cases!(the_log_is_read_from_another_namespace);

fn the_log_is_read_from_another_namespace() {
    let _fence = wall(&[443]);
    let mut log = Log::new(nflog::open(GROUP).unwrap());
    in_child(CloneFlags::CLONE_NEWNET, || {
        assert_eq!(dial(at("198.51.100.7", 22)), Outcome::Refused(libc::ENETUNREACH));
    });
    in_child(CloneFlags::empty(), || {
        assert_eq!(dial(at("198.51.100.8", 22)), Outcome::Refused(libc::ECONNREFUSED));
    });
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let found = drain(&mut log);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].dst, found[0].dport), (at("198.51.100.8", 0).ip(), Some(22)));
}
