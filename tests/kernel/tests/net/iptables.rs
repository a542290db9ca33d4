//! The same fence by ip_tables, forced here although nf_tables is there.

use std::{collections::BTreeSet, net::UdpSocket, time::Instant};

use nix::sched::CloneFlags;
use stockade_confine::{
    fence::{self, Backend, Fence, Mode},
    netns,
    nflog::{self, Log},
};
use stockade_sys::socket::original_destination;
use stockade_test_kernel::net::{
    GROUP, OUTSIDE, Outcome, PRIVATE, Sink, as_root, as_user, at, dial, in_child, outcome, run, spec, tool,
};

use crate::{log::drain, transparent::Door};

const LEGACY: &str = "/usr/sbin/iptables-legacy";
const LEGACY6: &str = "/usr/sbin/ip6tables-legacy";

/// `None` (and a visible skip) where the machine has no iptables.
fn installed(ports: &[u16]) -> Option<Fence> {
    assert!(netns::configure().unwrap().is_full());
    let _ = tool(LEGACY, &["-V"])?;
    let fence = fence::install_with(&spec(ports), Backend::Iptables).unwrap();
    assert_eq!((fence.mode(), fence.enforcement().is_full()), (Mode::Tproxy, true));
    Some(fence)
}

#[test]
fn it_refuses_lets_through_tells_and_counts_as_the_other_does() {
    as_root(|| {
        let Some(mut fence) = installed(&[443, 8443]) else { return };
        let mut log = Log::new(nflog::open(GROUP).unwrap());
        let door = Door::open();
        let sink = Sink::on(&[22]);
        let refused = Outcome::Refused(libc::ECONNREFUSED);
        for ip in OUTSIDE {
            assert_eq!(dial(at(ip, 22)), refused, "{ip}");
            let socket = UdpSocket::bind(if ip.contains(':') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
            let start = Instant::now();
            assert_eq!(outcome(socket.send_to(b"x", at(ip, 22)), start), Outcome::Refused(libc::EPERM), "{ip}");
            assert_eq!(dial(at(ip, PRIVATE)), refused, "{ip}");
        }
        assert_eq!(sink.seen(), 0);
        for ip in ["127.0.0.1", "::1"] {
            assert_eq!((dial(at(ip, 22)), sink.seen()), (Outcome::Reached, 1), "control");
            assert_eq!(dial(at(ip, PRIVATE)), refused);
        }
        for to in ["198.18.0.7:443", "[2001:db8::1]:8443"] {
            let client = std::net::TcpStream::connect(to).unwrap();
            let (accepted, peer) = door.next().unwrap();
            assert_eq!(original_destination(&accepted).unwrap(), to.parse().unwrap());
            assert_eq!(peer, client.local_addr().unwrap());
        }
        let told = drain(&mut log);
        let expected = OUTSIDE.len() * 3 + 2;
        assert_eq!(told.len(), expected);
        assert_eq!(fence.counters().unwrap().refused, u64::try_from(expected).unwrap());
        assert_eq!((told[0].protocol, told[0].dst, told[0].dport), (6, at(OUTSIDE[0], 0).ip(), Some(22)));
        fence.verify().unwrap();
    });
}

#[test]
fn every_change_is_noticed_without_running_anything() {
    let changes: &[(&str, &[&str])] = &[
        (LEGACY, &["-F"]),
        (LEGACY6, &["-F"]),
        (LEGACY, &["-t", "mangle", "-F"]),
        (LEGACY6, &["-t", "mangle", "-F"]),
        (LEGACY, &["-P", "OUTPUT", "ACCEPT"]),
        (LEGACY6, &["-P", "INPUT", "ACCEPT"]),
        (LEGACY, &["-I", "OUTPUT", "-j", "ACCEPT"]),
        (LEGACY6, &["-A", "refuse", "-j", "ACCEPT"]),
        (LEGACY, &["-D", "OUTPUT", "1"]),
        (LEGACY, &["-D", "refuse", "2"]),
        (LEGACY, &["-R", "OUTPUT", "3", "-d", "0.0.0.0/0", "-j", "ACCEPT"]),
        (LEGACY, &["-N", "more"]),
    ];
    as_root(move || {
        for (program, change) in changes {
            in_child(CloneFlags::CLONE_NEWNET, || {
                let Some(mut fence) = installed(&[443]) else { return };
                assert_eq!(dial(at("198.51.100.1", 22)), Outcome::Refused(libc::ECONNREFUSED));
                fence.verify().unwrap(); // counters are not drift
                let _ = run(program, change);
                assert!(fence.verify().is_err(), "{program} {change:?} went unnoticed");
            });
        }
    });
}

#[test]
fn ports_cannot_change_and_the_error_says_what_to_do() {
    as_root(|| {
        let ports: Vec<u16> = (2000..2040).collect();
        let Some(mut fence) = installed(&ports) else { return };
        let door = Door::open();
        for port in [2000, 2014, 2015, 2039] {
            assert_eq!((dial(at("198.18.0.7", port)), door.next().is_some()), (Outcome::Reached, true), "{port}");
        }
        assert_eq!(dial(at("198.18.0.7", 2040)), Outcome::Refused(libc::ECONNREFUSED));
        let same: BTreeSet<u16> = ports.into_iter().collect();
        fence.set_ports(&same).unwrap();
        let error = fence.set_ports(&BTreeSet::from([443])).unwrap_err();
        assert!(error.to_string().contains("start the command anew"), "{error}");
        fence.verify().unwrap();
    });
}

#[test]
fn where_it_cannot_be_the_error_names_the_program_or_its_words() {
    // Rootless, root's files look like nobody's and the lock of iptables cannot be had.
    as_user(1000, || {
        assert!(netns::configure().unwrap().is_full());
        let error = fence::install_with(&spec(&[443]), Backend::Iptables).unwrap_err();
        assert!(error.to_string().contains("tables"), "{error}");
        assert!(error.to_string().contains("load nf_tables"), "the way out: {error}");
        let fence = fence::install_with(&spec(&[443]), Backend::NftablesElseIptables).unwrap();
        assert!(fence.enforcement().is_full(), "control");
    });
}
