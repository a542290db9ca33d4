//! Connections to any address arrive at the door, with the address that was dialled.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsRawFd, linux::fs::MetadataExt},
    thread,
};

use nix::{libc, sched::CloneFlags};
use stockade_confine::netns;
use stockade_sys::socket::{Diag, Transport, original_destination, transparent_listener};
use stockade_test_kernel::net::{Outcome, PRIVATE, at, dial, wall};

pub(crate) struct Door([TcpListener; 2]);

impl Door {
    pub(crate) fn open() -> Self {
        let v4 = transparent_listener((Ipv4Addr::UNSPECIFIED, PRIVATE).into()).unwrap();
        let v6 = transparent_listener((Ipv6Addr::UNSPECIFIED, PRIVATE).into()).unwrap();
        v4.set_nonblocking(true).unwrap();
        v6.set_nonblocking(true).unwrap();
        Self([v4, v6])
    }

    /// The next connection, already there: a dial that returned has been queued.
    pub(crate) fn next(&self) -> Option<(TcpStream, SocketAddr)> {
        let accepted = self.0.iter().find_map(|l| l.accept().ok())?;
        accepted.0.set_nonblocking(false).unwrap();
        Some(accepted)
    }
}

crate::cases!(the_door_gets_what_was_dialled_and_own_servers_live_beside_it);

fn the_door_gets_what_was_dialled_and_own_servers_live_beside_it() {
    assert!(netns::configure().unwrap().is_full());
    let door = Door::open();
    assert_eq!(dial(at("198.18.0.7", 443)), Outcome::Refused(libc::ECONNREFUSED), "tripwire: the rules bring it here");
    let _fence = wall(&[80, 443]);
    // Own servers on the same port, also one that would take every address.
    let own = TcpListener::bind("127.0.0.1:443").unwrap();
    let greedy = TcpListener::bind("0.0.0.0:80").unwrap();
    greedy.set_nonblocking(true).unwrap();
    let pretender = TcpListener::bind("198.18.0.7:443").unwrap();
    pretender.set_nonblocking(true).unwrap();
    for to in ["198.18.0.7:443", "198.18.0.7:80", "8.8.8.8:443", "[fd53:746f:636b::7]:443", "[2001:db8::1]:80"] {
        let to: SocketAddr = to.parse().unwrap();
        let mut client = TcpStream::connect(to).unwrap();
        let (mut accepted, peer) = door.next().unwrap_or_else(|| panic!("{to} did not arrive"));
        assert_eq!(original_destination(&accepted).unwrap(), to);
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(peer.ip().is_loopback(), "{peer}");
        client.write_all(b"ping").unwrap();
        let mut got = [0; 4];
        accepted.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ping");
        accepted.write_all(b"pong").unwrap();
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"pong");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(accepted.read(&mut got).unwrap(), 0, "half-close arrives");
    }
    assert!(greedy.accept().is_err(), "a wildcard listener of the command takes nothing of it");
    assert!(pretender.accept().is_err(), "nor one on the very address");
    let client = TcpStream::connect("127.0.0.1:443").unwrap();
    assert_eq!(own.accept().unwrap().1, client.local_addr().unwrap(), "own server");
    assert!(door.next().is_none(), "and the door does not see it");
}

crate::cases!(nobody_dials_the_door_directly);

/// NET-10.
fn nobody_dials_the_door_directly() {
    assert!(netns::configure().unwrap().is_full());
    let door = Door::open();
    for ip in ["127.0.0.1", "198.18.0.7", "::1", "2001:db8::1"] {
        assert_eq!(dial(at(ip, PRIVATE)), Outcome::Reached, "tripwire: without the fence");
        assert!(door.next().is_some());
    }
    let mut fence = wall(&[443]);
    for (n, ip) in ["127.0.0.1", "127.9.9.9", "198.18.0.7", "::1", "2001:db8::1"].into_iter().enumerate() {
        assert_eq!(dial(at(ip, PRIVATE)), Outcome::Refused(libc::ECONNREFUSED), "{ip}");
        assert!(door.next().is_none());
        assert_eq!(fence.counters().unwrap().refused, u64::try_from(n).unwrap() + 1, "counted, so logged");
    }
    let taken = TcpListener::bind(("127.0.0.1", PRIVATE)).map(drop).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE), "nor takes its place");
    assert_eq!(dial(at("198.18.0.7", 443)), Outcome::Reached, "control");
    assert!(door.next().is_some());
}

crate::cases!(ports_change_while_connections_live_on);

fn ports_change_while_connections_live_on() {
    let mut fence = wall(&[443]);
    let door = Door::open();
    let refused = Outcome::Refused(libc::ECONNREFUSED);
    let mut old = TcpStream::connect(at("198.18.0.7", 443)).unwrap();
    let (mut accepted, _) = door.next().unwrap();
    assert_eq!(dial(at("198.18.0.7", 8443)), refused);
    fence.set_ports(&BTreeSet::from([8443, 22])).unwrap();
    fence.verify().unwrap();
    assert_eq!((dial(at("198.18.0.7", 8443)), door.next().is_some()), (Outcome::Reached, true));
    assert_eq!((dial(at("2001:db8::1", 22)), door.next().is_some()), (Outcome::Reached, true));
    assert_eq!(dial(at("198.18.0.7", 443)), refused);
    // The door answers what it has accepted, and tells the client when it ends it; the client's own packets to a
    // port that was taken away are refused, which resets it.
    accepted.write_all(b"bye").unwrap();
    let mut got = [0; 3];
    old.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"bye");
    let many: BTreeSet<u16> = (20_000..22_048).collect();
    fence.set_ports(&many).unwrap();
    fence.verify().unwrap();
    fence.set_ports(&BTreeSet::new()).unwrap();
    fence.verify().unwrap();
    assert_eq!(dial(at("198.18.0.7", 20_000)), refused);
    assert!(fence.set_ports(&BTreeSet::from([PRIVATE])).is_err());
    fence.verify().unwrap();
}

crate::cases!(bulk_data_arrives_whole_both_ways);

fn bulk_data_arrives_whole_both_ways() {
    const SIZE: usize = 64 << 20;
    let _fence = wall(&[443]);
    let door = Door::open();
    for to in ["198.18.0.7:443", "[2001:db8::1]:443"] {
        let mut client = TcpStream::connect(to).unwrap();
        let (mut accepted, _) = door.next().unwrap();
        let mut source = accepted.try_clone().unwrap();
        let echo = thread::spawn(move || std::io::copy(&mut source, &mut accepted).unwrap());
        let mut sender = client.try_clone().unwrap();
        let send = thread::spawn(move || {
            let block: Vec<u8> = (0..=250).cycle().take(251 * 1024).collect();
            let mut left = SIZE;
            while left > 0 {
                let n = left.min(block.len());
                sender.write_all(&block[..n]).unwrap();
                left -= n;
            }
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
        while total < SIZE {
            let n = client.read(&mut buffer).unwrap();
            assert!(n > 0, "{total} of {SIZE}");
            for (i, b) in buffer[..n].iter().enumerate() {
                assert_eq!(usize::from(*b), (total + i) % 251);
            }
            total += n;
        }
        send.join().unwrap();
        drop(client);
        drop(echo);
    }
}

crate::cases!(the_owner_of_a_connection_is_found_from_another_namespace);

fn the_owner_of_a_connection_is_found_from_another_namespace() {
    let _fence = wall(&[443]);
    let door = Door::open();
    let to = at("198.18.0.7", 443);
    let client = TcpStream::connect(to).unwrap();
    let (accepted, peer) = door.next().unwrap();
    let inode = std::fs::metadata(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap().st_ino();
    let mut diag = Diag::open().unwrap();
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let owner = diag.owner(Transport::Tcp, peer, to).unwrap().unwrap();
    assert_eq!((u64::from(owner.inode), owner.uid), (inode, nix::unistd::getuid().as_raw()));
    assert_eq!(Diag::open().unwrap().owner(Transport::Tcp, peer, to).unwrap(), None, "tripwire: here it is unknown");
    drop((client, accepted));
}
