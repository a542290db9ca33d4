//! NET: ways past the door.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{PermissionsExt, symlink},
            net::{SocketAddr, UnixListener},
        },
    },
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use stockade_testkit::{
    Arena, Mode, Outer, Stockade,
    outer::ip,
    upstream::{Http, Tcp},
};

const POLICY: &str = "
version: 1
network:
  endpoints:
    site: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]}
";

/// NET-09: what slirp4netns, pasta and Docker call the host from inside.
#[test]
fn the_host_s_loopback_has_no_other_name() {
    const DECLARED: &str = "
version: 1
network:
  endpoints:
    site: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]}
    host: {hosts: [host.containers.internal], ports: [8080], private_addresses: [10.0.2.2/32]}
    link: {hosts: [link.test], ports: [8080], private_addresses: [10.0.2.2/32]}
";
    Outer::run(|outer| {
        let gateways = ["10.0.2.2", "169.254.1.2"];
        gateways.iter().for_each(|gateway| ip(&["addr", "add", &format!("{gateway}/32"), "dev", "lo"]));
        let hosts = gateways.map(|g| g.parse().unwrap());
        outer.hosts(&[(hosts[0], "host.containers.internal"), (hosts[1], "link.test")]);
        let site = ["127.0.0.1:8080", "10.0.2.2:8080", "169.254.1.2:8080"].map(Http::hello);
        let direct = ["tcp:127.0.0.1:8080", "tcp:10.0.2.2:8080", "tcp:169.254.1.2:8080"];
        let get = |host: &str| format!("proxy:GET http://{host}:8080/ HTTP/1.1\\r\\nHost: {host}:8080\\r\\n\\r\\n");
        let (named, link) = (get("host.containers.internal"), get("link.test"));
        let asked = ["127.0.0.1", "10.0.2.2", "169.254.1.2", "localhost"].map(get);
        let tries: Vec<&str> =
            direct.into_iter().chain(asked.iter().map(String::as_str)).chain([&*named, &*link]).collect();

        Arena::new(POLICY, "up.test").run(&tries, |mode, run| {
            for attempt in direct {
                let outcome = run.outcome(attempt);
                assert!(outcome.is_refused() && outcome.millis < 100, "{mode:?} {attempt} {outcome:?}");
            }
            for attempt in &tries[direct.len()..] {
                assert!(run.outcome(attempt).what.starts_with("ok HTTP/1.1 40"), "{mode:?} {attempt} {run:?}");
            }
            // The sandbox's own loopback is no way out, so the port says no and the fence has nothing to say.
            assert_eq!(run.events.with("bypass").len(), 2, "{mode:?} {run:?}");
            assert_eq!(run.events.with("no_policy").len(), 3, "10.0.2.2 and the two names: {mode:?} {run:?}");
            assert_eq!(run.events.with("ssrf_always_blocked").len(), 2, "{mode:?} {run:?}");
            assert_eq!(run.events.with("bad_authority").len(), 1, "localhost: {mode:?} {run:?}");
        });
        site.iter().for_each(|s| s.counters().assert_untouched());

        for mode in Mode::available() {
            let run = Stockade::new(*mode).policy(DECLARED).probe(&[direct[1], &named, &link]);
            assert!(run.outcome(&named).what.starts_with("ok HTTP/1.1 200"), "declared, by the door: {mode:?} {run:?}");
            assert!(run.outcome(&link).what.starts_with("ok HTTP/1.1 403"), "never link-local: {mode:?} {run:?}");
            assert!(!run.outcome(direct[1]).what.starts_with("ok HTTP"), "{mode:?} {run:?}");
            run.events.one("ssrf_always_blocked");
        }
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&direct);
        let reached = direct.iter().filter(|t| bare.outcome(t).what.starts_with("ok")).count();
        assert_eq!(reached, direct.len(), "tripwire: without Stockade all are there: {bare:?}");
    });
}

/// NET-12: routes may be looked at, and nothing else is to be had over netlink.
#[test]
fn netlink_shows_routes_and_changes_nothing() {
    let refused =
        ["socket:16:3:12", "socket:16:3:4", "socket:16:3:16", "socket:16:3:6", "socket:16:3:9", "socket:16:3:15"];
    Outer::run(|_| {
        let tries = [&["links", "route"], &refused[..]].concat();
        Arena::new(POLICY, "up.test").run(&tries, |mode, run| {
            assert_eq!(run.outcome("links").what, "ok lo", "{mode:?} {run:?}");
            assert_eq!(run.outcome("route").what, "EPERM", "{mode:?} {run:?}");
            for attempt in refused {
                let what = run.outcome(attempt).what;
                assert!(matches!(&*what, "EPERM" | "EPROTONOSUPPORT"), "{mode:?} {attempt} {what}");
            }
        });
        ip(&["link", "add", "seen", "type", "veth", "peer", "name", "seen1"]);
        ip(&["addr", "add", "10.9.9.9/24", "dev", "seen"]);
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&tries);
        assert!(bare.outcome("links").what.contains("seen"), "tripwire: {bare:?}");
        let made = refused.iter().filter(|t| bare.outcome(t).what == "ok made").count();
        assert!(made >= 4, "tripwire: without Stockade they can be made: {bare:?}");
    });
}

/// NET-17: what listens in a granted directory is reported; an abstract name of outside is no name inside.
#[test]
fn sockets_of_outsiders_are_absent_or_reported() {
    Outer::run(|_| {
        for mode in Mode::available() {
            let stockade = Stockade::new(*mode).policy(POLICY);
            let work = stockade.work();
            let quiet = Stockade::new(*mode).policy(POLICY).sh("sleep 0.5");
            quiet.events.none("shared_socket");
            fs::create_dir(work.join("deep")).unwrap();
            let daemon = UnixListener::bind(work.join("deep/agent.sock")).unwrap();
            fs::set_permissions(work.join("deep/agent.sock"), fs::Permissions::from_mode(0o777)).unwrap();
            // A link is not followed: what it leads to is not granted.
            symlink("/run", work.join("elsewhere")).unwrap();
            let name = format!("stockade-test-{}-{mode:?}", std::process::id());
            let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
            let _abstract = UnixListener::bind_addr(&abstract_name).unwrap();
            let abstract_try = format!("abstract:{name}");
            let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&[&abstract_try]);
            assert_eq!(bare.outcome(&abstract_try).what, "ok connected", "tripwire: {bare:?}");

            let probe = stockade.put_probe();
            let script = format!("{} {abstract_try} unix:deep/agent.sock; sleep 0.5", probe.display());
            let run = stockade.sh(&script);
            let refused = run.outcome(&abstract_try).what;
            assert!(matches!(&*refused, "ECONNREFUSED" | "EPERM"), "{mode:?} {run:?}");
            let event = run.events.one("shared_socket");
            assert!(event.text("/message").unwrap().contains("deep/agent.sock"), "{mode:?} {event:?}");
            assert!(run.stderr.contains("deep/agent.sock"), "said as well: {mode:?} {run:?}");
            drop(daemon);
        }
    });
}

/// NET-23: what a router or a DHCP server of the outside says does not arrive.
#[test]
fn there_is_no_link_for_routers_to_speak_on() {
    let script = "cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '; echo --
        awk '{print $10}' /proc/net/ipv6_route | sort -u; echo --; awk '{print $6}' /proc/net/if_inet6 | sort -u; echo --
        awk 'NR > 1 {print $1}' /proc/net/route | sort -u";
    Outer::run(|_| {
        ip(&["link", "add", "wan0", "type", "veth", "peer", "name", "wan1"]);
        ["wan0", "wan1"].iter().for_each(|l| ip(&["link", "set", l, "up"]));
        ip(&["-6", "route", "add", "default", "via", "fe80::1", "dev", "wan0"]);
        ip(&["addr", "add", "10.9.9.1/24", "dev", "wan0"]);
        for mode in Mode::available() {
            let run = Stockade::new(*mode).policy(POLICY).sh(script);
            let text = run.text();
            let seen: BTreeSet<&str> = text.lines().filter(|l| *l != "--").collect();
            assert_eq!(seen, BTreeSet::from(["lo"]), "{mode:?} {run:?}");
        }
        let bare = Stockade::new(Mode::Rootless).unwrapped().sh(script);
        assert!(bare.text().lines().filter(|l| *l == "wan0").count() >= 3, "tripwire: {bare:?}");
    });
}

/// NET-27: no event is made from what the command writes.
#[test]
fn records_of_refusals_cannot_be_forged() {
    let script = r#"
        line='stockade-bypass: IN= OUT=lo SRC=127.0.0.1 DST=198.51.100.9 PROTO=TCP SPT=1 DPT=22'
        (echo "$line" > /dev/kmsg) 2>/dev/null && echo wrote kmsg
        nl=$(printf 'x\n{"class_uid":4001,"unmapped":{"reason":"bypass","action":"denied"}}\ny')
        /bin/sh -c ':' "$nl"; perl -e '$0 = $ARGV[0]; print STDERR $0' "$line" 2>/dev/null
        [ "$1" = quiet ] || ./probe tcp:198.51.100.1:22
        echo end"#;
    Outer::run(|_| {
        for mode in Mode::available() {
            for (argument, wanted) in [("quiet", 0), ("loud", 1)] {
                let stockade = Stockade::new(*mode).policy(POLICY);
                stockade.put_probe();
                let forged = "x\n{\"class_uid\":4001,\"unmapped\":{\"reason\":\"bypass\",\"action\":\"denied\"}}";
                let run = stockade.run(&["/bin/sh", "-c", script, forged, argument]);
                assert!(run.text().contains("end") && !run.text().contains("wrote"), "{mode:?} {run:?}");
                // Every line of the log parses, and only the real try, which is the control, made one.
                assert_eq!(run.events.with("bypass").len(), wanted, "{mode:?} {argument} {run:?}");
                let launched = run.events.iter().find(|e| e.class() == 1007).unwrap();
                assert!(launched.text("/message").unwrap().contains("class_uid"), "the argument is kept as text");
            }
        }
    });
}

/// NET-30: however it ends, nobody is left who could use its network.
#[test]
fn the_network_ends_with_the_sandbox() {
    Outer::run(|_| {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        for mode in Mode::available() {
            for (signal, code) in
                [(None, 7), (Some(Signal::SIGINT), 130), (Some(Signal::SIGTERM), 143), (Some(Signal::SIGKILL), 137)]
            {
                let script = "(trap '' TERM HUP INT; exec sleep 300) & setsid sleep 300 & readlink /proc/self/ns/net; \
                              read x && exit 7; exec sleep 300";
                let mut run = Stockade::new(*mode).policy(POLICY).spawn(&["/bin/sh", "-c", script]);
                run.wait_for("net:[");
                let inside = members(&run);
                assert!(inside.len() >= 4, "control: they are found while they run: {mode:?} {inside:?}");
                match signal {
                    Some(signal) => run.signal(signal),
                    None => run.write(b"\n"),
                }
                let done = run.finish();
                assert_eq!(done.code(), code, "{mode:?} {signal:?} {done:?}");
                let net = done.text().trim().to_owned();
                let began = Instant::now();
                while !holders(&net).is_empty() {
                    assert!(
                        began.elapsed() < Duration::from_secs(5),
                        "{mode:?} {signal:?}: {:?} hold {net}",
                        holders(&net)
                    );
                    thread::sleep(Duration::from_millis(10));
                }
                if signal != Some(Signal::SIGKILL) {
                    let last = done.events.iter().filter(|e| e.class() == 6002).last().unwrap();
                    assert!(last.text("/message").unwrap().contains("stop"), "{mode:?} {signal:?} {done:?}");
                }
            }
        }
    });
}

/// Descendants of the supervisor.
fn members(run: &stockade_testkit::Running) -> Vec<String> {
    let mut all = vec![run.pid().to_string()];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().map(str::to_owned));
        at += 1;
    }
    all
}

/// Processes in this network namespace, zombies left out: they have none.
fn holders(net: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path().join("ns/net"));
    all.filter(|ns| fs::read_link(ns).is_ok_and(|l| l.to_string_lossy() == net))
        .map(|p| p.display().to_string())
        .collect()
}

/// NET-10, NET-11, from inside the real thing: the door is not dialled directly, the fence cannot be touched.
#[test]
fn the_door_and_the_fence_cannot_be_gone_around() {
    Outer::run(|_| {
        let direct = ["tcp:127.0.0.1:15001", "tcp:198.51.100.1:15001", "tcp:[::1]:15001", "tcp:[2001:db8::1]:15001"];
        let links = ["tcp:192.0.2.1:2375", "tcp:192.0.2.1:10250", "tcp:192.0.2.1:22", "tcp:192.0.2.1:9090"];
        let sinks: Vec<Tcp> = links.iter().map(|l| Tcp::sink(l.trim_start_matches("tcp:"))).collect();
        let tries = [direct, links].concat();
        let arena = Arena::new(POLICY, "up.test");
        arena.run(&tries, |mode, run| {
            for attempt in &tries {
                let outcome = run.outcome(attempt);
                assert!(outcome.is_refused() && outcome.millis < 100, "{mode:?} {attempt} {outcome:?}");
            }
            let bypasses: u64 = run.events.with("bypass").iter().map(|e| e.0["count"].as_u64().unwrap_or(1)).sum();
            assert_eq!(bypasses, tries.len() as u64, "{mode:?} {run:?}");
        });
        let led = arena.stockade(Mode::Rootless).probe(&["tcp:198.51.100.1:80"]);
        assert!(
            led.outcome("tcp:198.51.100.1:80").what.starts_with("ok"),
            "control: what is led there arrives: {led:?}"
        );
        sinks.iter().for_each(|s| s.counters.assert_untouched());
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&links);
        assert!(links.iter().all(|t| bare.outcome(t).what.starts_with("ok")), "tripwire: {bare:?}");
    });
}

/// NET-04, NET-05, NET-25 from inside: protocols that are not TCP or UDP, and data in the first packet.
#[test]
fn other_protocols_carry_nothing_out() {
    Outer::run(|_| {
        let sink = Tcp::sink("198.51.100.1:9999");
        // As container engines have it: whoever likes may ping. A sandbox does not inherit that.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        let (fast, mptcp) = ("fastopen:198.51.100.1:9999:secret", "mptcp:198.51.100.1:9999");
        let lite = "send:2:136:198.51.100.1:9999:secret";
        let tries = [fast, mptcp, lite, "ping:198.51.100.1", "ping:2001:db8::1", "send:3:47:198.51.100.1:0:secret"];
        Arena::new(POLICY, "up.test").run(&tries, |mode, run| {
            for attempt in tries {
                let outcome = run.outcome(attempt);
                assert!(!outcome.what.starts_with("ok"), "{mode:?} {attempt} {outcome:?}");
            }
            for attempt in [fast, mptcp] {
                let outcome = run.outcome(attempt);
                assert!(outcome.millis < 100, "{mode:?} {attempt} {outcome:?}");
            }
            // Of all these the first alone becomes a packet; no socket of the others is made.
            assert_eq!(run.events.one("bypass").port(), Some(9999), "{mode:?} {run:?}");
            assert_eq!(run.events.refusals(), 1, "{mode:?} {run:?}");
        });
        sink.counters.assert_untouched();
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&tries);
        for attempt in &tries[..5] {
            assert!(bare.outcome(attempt).what.starts_with("ok"), "tripwire: {attempt} {bare:?}");
        }
        assert_eq!(sink.counters.arrivals(), 2, "tripwire: it arrives without Stockade");
    });
}

/// NET-16 and NET-15 from inside: no daemon's socket is there, whatever its name.
#[test]
fn sockets_of_daemons_are_not_there() {
    Outer::run(|outer| {
        let dir = outer.dir().join("run");
        fs::create_dir(&dir).unwrap();
        let names = ["docker.sock", "podman.sock", "bus", "agent.1", "S.gpg-agent", "X0", "wayland-0", "tmux-default"];
        let kept: Vec<UnixListener> = names.iter().map(|n| UnixListener::bind(dir.join(n)).unwrap()).collect();
        for name in names {
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let system =
            ["/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private"];
        let tries: Vec<String> = names.iter().map(|n| format!("unix:{}", dir.join(n).display())).collect();
        let more = system.iter().map(|s| format!("unix:{s}"));
        let all: Vec<String> = tries.iter().cloned().chain(more).collect();
        Arena::new(POLICY, "up.test").run(&all, |mode, run| {
            for attempt in &all {
                assert_eq!(run.outcome(attempt).what, "ENOENT", "{mode:?} {attempt}");
            }
        });
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&tries);
        assert!(tries.iter().all(|t| bare.outcome(t).what == "ok connected"), "tripwire: {bare:?}");
        drop(kept);
    });
}

/// NET-22: who changes the fence from outside is noticed by the next look, and nothing gets out meanwhile. The look is
/// every thirty seconds, so this takes that long.
#[test]
fn a_fence_that_is_removed_opens_nothing() {
    if !nix::unistd::Uid::effective().is_root() || Command::new("nft").arg("--version").output().is_err() {
        stockade_testkit::skip!("root and nft are needed to sabotage a fence");
    }
    Outer::run(|_| {
        let sink = Tcp::sink("198.51.100.1:22");
        let stockade = Stockade::new(Mode::Root).policy(POLICY).timeout(Duration::from_secs(80));
        let probe = stockade.put_probe();
        let script =
            format!("echo ready; read x; {0} tcp:198.51.100.1:22; read x; {0} tcp:198.51.100.1:22", probe.display());
        let mut run = stockade.spawn(&["sh", "-c", &script]);
        run.wait_for("ready");
        let pid = members(&run).last().unwrap().clone();
        let nft = |args: &[&str]| {
            let done = Command::new("nsenter").args(["-t", &pid, "-n", "nft"]).args(args).output().unwrap();
            assert!(done.status.success(), "{done:?}");
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        assert!(nft(&["list", "ruleset"]).contains("table inet stockade"), "control: the fence is found");
        nft(&["flush", "ruleset"]);
        run.write(b"\n");
        run.wait_for("-> E");
        run.wait_for_event("fence_drift");
        run.write(b"\n");
        let done = run.finish();
        assert_eq!(done.text().matches("-> ECONNREFUSED").count(), 2, "closed without the fence too: {done:?}");
        assert!(done.stderr.contains("the fence is not as it was installed"), "{done:?}");
        sink.counters.assert_untouched();
    });
}

/// A connection that is handed in from outside is a residual (docs/threat-model.md): what is granted can be talked to.
#[test]
fn a_shared_directory_lets_outsiders_in_as_documented() {
    Outer::run(|_| {
        let mode = *Mode::available().last().unwrap();
        let stockade = Stockade::new(mode).policy(POLICY);
        let work = stockade.work();
        let script = "use IO::Socket::UNIX; my $l = IO::Socket::UNIX->new(Local => 'in.sock', Listen => 1) or die;
            chmod 0777, 'in.sock'; $| = 1; print qq(ready\\n); my $c = $l->accept; print scalar <$c>;";
        let run = stockade.spawn(&["perl", "-e", script]);
        run.wait_for("ready");
        let mut outside = std::os::unix::net::UnixStream::connect(work.join("in.sock")).unwrap();
        outside.write_all(b"from outside\n").unwrap();
        outside.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = outside.read(&mut [0; 8]);
        let done = run.finish();
        assert!(done.text().contains("from outside"), "{done:?}");
    });
}
