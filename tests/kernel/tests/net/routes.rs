//! `lo` and nothing else, every address local.

use std::{net::UdpSocket, time::Instant};

use nix::sched::CloneFlags;
use stockade_confine::netns::{self, NetnsError};
use stockade_test_kernel::net::{OUTSIDE, Outcome, Sink, as_root, at, dial, in_child, outcome, run};
use stockade_types::Enforcement;

crate::cases!(every_address_is_local_and_nothing_leaves);

fn every_address_is_local_and_nothing_leaves() {
    // Tripwire: before, there is no route, and the check says so.
    assert_eq!(dial(at("198.51.100.1", 80)), Outcome::Refused(libc::ENETUNREACH));
    assert!(matches!(netns::verify(), Err(NetnsError::Down)));
    assert_eq!(netns::configure().unwrap(), Enforcement::Enforced);
    netns::verify().unwrap();
    assert!(netns::has_ipv6());
    for ip in OUTSIDE {
        assert_eq!(dial(at(ip, 80)), Outcome::Refused(libc::ECONNREFUSED), "{ip}: no listener, so an answer at once");
    }
    let sink = Sink::on(&[80]);
    for ip in OUTSIDE {
        assert_eq!(dial(at(ip, 80)), Outcome::Reached, "{ip} is this namespace's own");
    }
    assert_eq!(sink.seen(), OUTSIDE.len());
    for (outside, own) in [("8.8.8.8", "127.0.0.1"), ("2001:db8::1", "::1")] {
        let probe = UdpSocket::bind(if own == "::1" { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
        probe.connect(at(outside, 53)).unwrap();
        assert_eq!(probe.local_addr().unwrap().ip(), at(own, 0).ip(), "programs learn their own address this way");
    }
    let start = Instant::now();
    let low = std::net::TcpListener::bind("127.0.0.1:80");
    assert_eq!(outcome(low, start), Outcome::Refused(libc::EADDRINUSE), "the sink has it, not the port limit");
    netns::configure().unwrap();
    netns::verify().unwrap();
}

crate::cases!(a_namespace_inside_is_as_closed);

/// NET-11: a nested namespace has no path out either.
fn a_namespace_inside_is_as_closed() {
    assert!(netns::configure().unwrap().is_full());
    let sink = Sink::on(&[80]);
    assert_eq!((dial(at("198.51.100.1", 80)), sink.seen()), (Outcome::Reached, 1), "control");
    in_child(CloneFlags::CLONE_NEWNET, || {
        assert_eq!(dial(at("198.51.100.1", 80)), Outcome::Refused(libc::ENETUNREACH));
        assert!(netns::configure().unwrap().is_full());
        assert_eq!(dial(at("198.51.100.1", 80)), Outcome::Refused(libc::ECONNREFUSED));
    });
    assert_eq!(sink.seen(), 0);
}

#[test]
fn other_links_and_routes_are_noticed() {
    let ip = |args: &[&str]| run("/sbin/ip", args).is_some();
    as_root(move || {
        assert!(netns::configure().unwrap().is_full());
        if !ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]) {
            return;
        }
        netns::verify().unwrap(); // down, as the fallback devices of tunnel modules are
        ip(&["link", "set", "v0", "up"]);
        assert!(matches!(netns::verify(), Err(NetnsError::Link(name)) if name == "v0"));
        assert!(matches!(netns::configure(), Err(NetnsError::Link(_))), "not a fresh namespace: left alone");
        ip(&["link", "del", "v0"]);
        netns::verify().unwrap();
        ip(&["route", "del", "local", "default", "dev", "lo", "table", "local"]);
        assert!(matches!(netns::verify(), Err(NetnsError::Route("0.0.0.0/0"))));
        netns::configure().unwrap();
        ip(&["-6", "route", "del", "local", "default", "dev", "lo", "table", "local"]);
        assert!(matches!(netns::verify(), Err(NetnsError::Route("::/0"))));
        netns::configure().unwrap();
        ip(&["route", "replace", "local", "default", "dev", "lo", "table", "local", "src", "127.0.0.2"]);
        assert!(matches!(netns::verify(), Err(NetnsError::Route("0.0.0.0/0"))), "another source address");
        ip(&["link", "set", "lo", "down"]);
        assert!(matches!(netns::verify(), Err(NetnsError::Down)));
    });
}

#[test]
fn the_kernel_shows_the_same_to_others() {
    as_root(|| {
        assert!(netns::configure().unwrap().is_full());
        for (family, loopback) in [("-4", "127.0.0.1"), ("-6", "::1")] {
            let Some(text) = run("/sbin/ip", &["-j", family, "route", "show", "table", "local", "type", "local"])
            else {
                return;
            };
            let routes: serde_json::Value = serde_json::from_str(&text).unwrap();
            let all = routes.as_array().unwrap().iter().find(|r| r["dst"] == "default").unwrap();
            assert_eq!((all["dev"].as_str(), all["prefsrc"].as_str()), (Some("lo"), Some(loopback)), "{text}");
        }
        let links: serde_json::Value = serde_json::from_str(&run("/sbin/ip", &["-j", "link"]).unwrap()).unwrap();
        let names: Vec<_> = links.as_array().unwrap().iter().map(|l| l["ifname"].as_str().unwrap()).collect();
        assert_eq!(names, ["lo"]);
    });
}

#[test]
fn without_ipv6_nothing_is_missing_and_ipv4_holds() {
    use nix::mount::{MsFlags, mount};
    as_root(|| {
        let sysctl = "/proc/sys/net/ipv6/conf";
        for link in ["all", "default", "lo"] {
            std::fs::write(format!("{sysctl}/{link}/disable_ipv6"), "1").unwrap();
        }
        // Read-only, so that it cannot be switched on: as in a container.
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("/proc/sys"), "/proc/sys", none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, "/proc/sys", none, read_only, none).unwrap();
        let state = netns::configure().unwrap();
        assert_eq!(state, Enforcement::Enforced, "no IPv6 is no way out over IPv6");
        netns::verify().unwrap();
        assert!(!netns::has_ipv6());
        assert_eq!(dial(at("198.51.100.1", 80)), Outcome::Refused(libc::ECONNREFUSED));
        let v6 = dial(at("2001:db8::1", 80));
        assert!(matches!(v6, Outcome::Refused(libc::ENETUNREACH | libc::EADDRNOTAVAIL)), "{v6:?}");
    });
}
