use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use stockade_testkit::Mode;

use crate::world::{World, fed, good, out};

/// A server inside, on the sandbox's loopback.
fn serve_inside(world: &World) {
    let start = "printf 'hello from inside\\n' > page; \
                 (python3 -m http.server --bind 127.0.0.1 8123 >/dev/null 2>&1 &) ; \
                 for n in $(seq 100); do python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8123))' \
                 2>/dev/null && break; sleep 0.1; done";
    good(&world.ssh(&[], start));
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `-W`: the client's standard input and output become the connection.
fn reach(world: &World, target: &str) -> std::process::Output {
    world.fed(&["-W", target], "", b"GET /page HTTP/1.0\r\n\r\n")
}

#[test]
fn the_sandbox_s_own_servers_are_reached() {
    for mode in Mode::available() {
        let world = World::new(*mode);
        serve_inside(&world);
        for target in ["127.0.0.1:8123", "localhost:8123"] {
            assert!(out(&reach(&world, target)).contains("hello from inside"), "{target}");
        }
        let local = free_port();
        let mut client = world.client("ssh");
        let mut tunnel =
            client.args(["-N", "-L", &format!("{local}:localhost:8123"), "sandbox@127.0.0.1"]).spawn().unwrap();
        let mut page = String::new();
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(100));
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", local)) else { continue };
            stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
            stream.read_to_string(&mut page).unwrap();
            break;
        }
        assert!(page.contains("hello from inside"), "{page}");
        tunnel.kill().unwrap();
        tunnel.wait().unwrap();
        let finished = world.end();
        assert!(
            finished
                .events
                .iter()
                .any(|e| e.class() == 4007 && e.action() == Some("allowed") && e.port() == Some(8123))
        );
    }
}

#[test]
fn nothing_else_is() {
    for mode in Mode::available() {
        let world = World::new(*mode);
        serve_inside(&world);
        let finished = {
            let targets = [
                "0.0.0.0:8123",
                "[::]:8123",
                "[::ffff:127.0.0.1]:8123",
                "169.254.169.254:80",
                "10.0.0.1:443",
                "192.0.2.1:80",
                "stockade:8123",
                "ip6-localhost:8123",
                "127.1:8123",
                "2130706433:8123",
                // Stockade's own.
                "127.0.0.1:3128",
                "localhost:53",
                "127.0.0.1:15001",
                "127.0.0.9:3128",
            ];
            for target in targets {
                let tried = reach(&world, target);
                assert!(!tried.status.success() && tried.stdout.is_empty(), "{target}: {tried:?}");
            }
            assert!(out(&reach(&world, "127.0.0.1:8123")).contains("hello from inside"), "the positive control");
            world.end()
        };
        assert_eq!(finished.events.with("forward_target").len(), 14);
    }
}

#[test]
fn the_host_s_loopback_is_another() {
    for mode in Mode::available() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        thread::spawn(move || {
            for _ in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let world = World::new(*mode);
        let tried = reach(&world, &address.to_string());
        assert!(!tried.status.success(), "{tried:?}");
        assert_eq!(seen.load(Ordering::SeqCst), 0, "the connection left the sandbox");
        world.run.wait_for_event("upstream_connect");
        // The tripwire: it listens.
        TcpStream::connect(address).unwrap();
        while seen.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        world.end();
    }
}

#[test]
fn nothing_is_forwarded_from_inside() {
    let world = World::new(Mode::available()[0]);
    for options in [
        &["-R", "9999:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes"][..],
        &["-R", "/tmp/sock:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes"],
    ] {
        let tried = world.ssh(options, "echo connected");
        assert!(!tried.status.success() && out(&tried).is_empty(), "{options:?}: {tried:?}");
    }
    // Agent and X11: the session goes on without them.
    let mut agent = world.client("ssh");
    agent.args([
        "-A",
        "-X",
        "-o",
        "ForwardAgent=/nonexistent",
        "sandbox@127.0.0.1",
        "echo ${SSH_AUTH_SOCK:-none} ${DISPLAY:-none}",
    ]);
    assert_eq!(good(&fed(agent, b"")).trim(), "none none");
    let local = free_port();
    let mut client = world.client("ssh");
    let mut tunnel =
        client.args(["-N", "-L", &format!("{local}:/run/docker.sock"), "sandbox@127.0.0.1"]).spawn().unwrap();
    let mut said = String::from("nothing was asked");
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(100));
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", local)) else { continue };
        said.clear();
        stream.read_to_string(&mut said).unwrap();
        break;
    }
    assert_eq!(said, "", "a unix socket is not forwarded to");
    tunnel.kill().unwrap();
    tunnel.wait().unwrap();
    let subsystem = world.ssh(&["-s"], "netconf");
    assert!(!subsystem.status.success(), "{subsystem:?}");
    assert_eq!(good(&world.ssh(&[], "echo fine")), "fine\n", "the positive control");
    world.end().events.some("ssh_request");
}

#[test]
fn one_connection_serves_many_and_a_jump_goes_through() {
    let world = World::new(Mode::available()[0]);
    serve_inside(&world);
    let control = world.keys().path("control");
    let path = format!("ControlPath={}", control.display());
    let mut client = world.client("ssh");
    let mut master = client.args(["-M", "-N", "-o", &path, "sandbox@127.0.0.1"]).spawn().unwrap();
    while !control.exists() {
        thread::sleep(Duration::from_millis(20));
    }
    let threads: Vec<_> = (0..20)
        .map(|n| {
            let mut one = world.client("ssh");
            one.args(["-o", &path, "-o", "ControlMaster=no", "sandbox@127.0.0.1", &format!("sleep 0.5; echo {n}")]);
            thread::spawn(move || good(&fed(one, b"")))
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap().trim(), n.to_string());
    }
    master.kill().unwrap();
    master.wait().unwrap();
    let logins =
        world.end().events.iter().filter(|e| e.class() == 4007 && e.text("/unmapped/door") == Some("login")).count();
    // Two for the server inside and the master: one opened and one closed each.
    assert!(logins <= 4, "{logins}");
}
