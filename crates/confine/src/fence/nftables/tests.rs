use super::*;

fn spec() -> Spec {
    Spec { transparent_ports: [80, 443].into(), private_port: 15_001, group: 5 }
}

/// Runs `body` in a network namespace of its own, which needs root; else says so.
fn in_netns(body: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a network namespace for one thread needs root");
        return;
    }
    std::thread::scope(|s| {
        let thread = s.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            body();
        });
        thread.join().unwrap();
    });
}

/// The batch with every expression of one name renamed to one that no kernel knows.
fn without(name: &str) -> Vec<Message> {
    let rename = |r: &Rule| {
        let message = rule(r);
        let mut bytes = message.body().to_vec();
        let needle = format!("{name}\0").into_bytes();
        for at in 0..bytes.len().saturating_sub(needle.len()) {
            if bytes[at..].starts_with(&needle) {
                bytes[at] = b'X';
            }
        }
        Message::new(SUBSYSTEM << 8 | NEWRULE, CREATE | APPEND, &bytes, |_| {})
    };
    let mut objects: Vec<_> = objects(&spec(), Mode::Tproxy);
    let all = rules(&spec(), Mode::Tproxy);
    objects.truncate(objects.len() - all.len());
    objects.extend(all.iter().map(rename));
    transaction(objects)
}

#[test]
fn a_missing_expression_is_named_and_nothing_stays_installed() {
    in_netns(|| {
        for (name, called) in
            [("tproxy", "Xproxy"), ("log", "Xog"), ("reject", "Xeject"), ("limit", "Ximit"), ("lookup", "Xookup")]
        {
            let mut table = Table::open().unwrap();
            let messages = without(name);
            let error = table.0.apply("install the fence", &messages).map_err(|e| explain(e, &messages)).unwrap_err();
            assert!(matches!(&error, FenceError::Unavailable { what, .. } if what == called), "{name}: {error:?}");
            assert!(matches!(table.verify(&spec(), Mode::Tproxy), Err(Drift::Gone)), "{name}");
        }
    });
}

#[test]
fn what_is_installed_verifies_in_both_modes_and_a_second_fence_is_refused() {
    in_netns(|| {
        let mut table = Table::open().unwrap();
        table.install(&spec(), Mode::Listeners).unwrap();
        table.verify(&spec(), Mode::Listeners).unwrap();
        assert!(table.verify(&spec(), Mode::Tproxy).is_err());
        let again = table.install(&spec(), Mode::Listeners).unwrap_err();
        assert!(matches!(&again, FenceError::Netlink(e) if e.errno() == Some(libc::EEXIST)), "{again}");
    });
}

#[test]
fn without_an_offset_the_rule_still_tells_what_is_missing() {
    let messages = transaction(objects(&spec(), Mode::Tproxy));
    let refusal = |index, offset| Refusal { operation: "t", index, errno: libc::ENOENT, message: None, offset };
    let named = |name: &str| {
        let with = |m: &Message| m.body().windows(name.len()).any(|w| w == name.as_bytes());
        blamed(&refusal(messages.iter().position(with).unwrap(), None), &messages)
    };
    assert_eq!(named("tproxy").as_deref(), Some("tproxy"));
    assert_eq!(named("log\0").as_deref(), Some("log"));
    assert_eq!(blamed(&refusal(usize::MAX, None), &messages), None);
    assert_eq!(blamed(&refusal(1, Some(usize::MAX)), &messages), None);
}

#[test]
fn comparison_sees_every_changed_byte_of_a_rule_but_not_its_counter() {
    let sent = rule(&rules(&spec(), Mode::Tproxy)[0]);
    let attributes_of = |bytes: &[u8]| same_as(&sent, bytes);
    let body = sent.body()[NFGENMSG..].to_vec();
    assert!(attributes_of(&body));
    for at in 0..body.len() {
        let mut other = body.clone();
        other[at] ^= 0x41;
        let padding = !whole(&body, at);
        assert!(padding || !attributes_of(&other), "byte {at} of {}", body.len());
    }
    let counted = |packets: u64| {
        new(NEWRULE, 0, |a| {
            a.nest(RULE_EXPRESSIONS, |l| {
                l.nest(LIST_ELEM, |e| {
                    e.text(1, "counter").nest(2, |d| {
                        d.be64(1, packets * 60).be64(COUNTER_PACKETS, packets);
                    });
                });
            });
        })
    };
    assert!(same_as(&counted(0), &counted(7).body()[NFGENMSG..]));
}

fn same_as(sent: &Message, bytes: &[u8]) -> bool {
    let sent: Vec<_> = attributes(&sent.body()[NFGENMSG..]).collect();
    same(&sent, &attributes(bytes).collect::<Vec<_>>())
}

/// Whether the byte at `at` means something: not padding, and not the mark that an attribute is nested.
fn whole(body: &[u8], at: usize) -> bool {
    let mut other = body.to_vec();
    other[at] ^= 0x41;
    let flat = |bytes: &[u8]| {
        fn walk(bytes: &[u8], out: &mut Vec<(u16, Vec<u8>)>, depth: u8) {
            for a in attributes(bytes) {
                out.push((a.kind, if a.nested { Vec::new() } else { a.value.to_vec() }));
                if a.nested && depth < 8 {
                    walk(a.value, out, depth + 1);
                }
            }
        }
        let mut out = Vec::new();
        walk(bytes, &mut out, 0);
        out
    };
    flat(body) != flat(&other)
}

#[test]
fn without_tproxy_a_listener_per_port_gets_what_was_dialled() {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
    in_netns(|| {
        assert!(crate::netns::configure().unwrap().is_full());
        let mut table = Table::open().unwrap();
        table.install(&spec(), Mode::Listeners).unwrap();
        let listen = |a: SocketAddr| stockade_sys::socket::transparent_listener(a).unwrap();
        let v4 = listen((Ipv4Addr::UNSPECIFIED, 443).into());
        let v6 = listen((Ipv6Addr::UNSPECIFIED, 443).into());
        for (to, listener) in [("198.18.0.7:443", &v4), ("[2001:db8::1]:443", &v6)] {
            let client = TcpStream::connect(to).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!((accepted.local_addr().unwrap(), peer), (to.parse().unwrap(), client.local_addr().unwrap()));
        }
        let refused = TcpStream::connect("198.18.0.7:22").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
        assert_eq!(table.refused().unwrap(), 1);
        let taken = TcpListener::bind("198.18.0.7:443").unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE), "the command cannot step in front");
    });
}

#[test]
fn without_the_reset_rule_a_client_bound_elsewhere_would_hang() {
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with},
    };
    let answered = |with_rule: bool| {
        let mut all = rules(&spec(), Mode::Tproxy);
        all.retain(|r| with_rule || !r.matches.contains(&super::super::rules::Match::ResetFlag));
        let mut objects = objects(&spec(), Mode::Tproxy);
        objects.truncate(objects.len() - rules(&spec(), Mode::Tproxy).len());
        objects.extend(all.iter().map(rule));
        assert!(crate::netns::configure().unwrap().is_full());
        Table::open().unwrap().0.apply("install the fence", &transaction(objects)).unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        bind(&fd, &"203.0.113.9:0".parse::<std::net::SocketAddr>().unwrap()).unwrap();
        connect(&fd, &"198.51.100.1:22".parse::<std::net::SocketAddr>().unwrap()).unwrap_err();
        let wait = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&wait)).unwrap() == 1
    };
    in_netns(|| assert!(answered(true)));
    in_netns(|| assert!(!answered(false)));
}
