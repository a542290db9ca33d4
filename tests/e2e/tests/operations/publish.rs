//! Published ports: whoever connects outside reaches a server inside, and nothing else of it.

use stockade_testkit::{Mode, Outer, Running, Stockade};

use super::*;

/// Answers each connection with what it got, in upper case; both loopback addresses can be asked for.
const SERVER: &str = r#"
import socket, sys, threading
host, port = sys.argv[1], int(sys.argv[2])
server = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
print("serving", flush=True)
def answer(c):
    data = b""
    while (part := c.recv(65536)): data += part
    c.sendall(data.upper()); c.close()
while True:
    threading.Thread(target=answer, args=(server.accept()[0],)).start()
"#;

fn serving(stockade: Stockade, host: &str, port: &str) -> Running {
    let run = stockade.spawn(&["python3", "-c", SERVER, host, port]);
    run.wait_for("serving");
    run
}

fn asked(addr: &str, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_server_inside_is_reached_from_outside_and_recorded() {
    Outer::run(|_| {
        for mode in Mode::available() {
            let policy = format!("{POLICY}publish: [9001, '192.0.2.10:9002:3000']\n");
            let stockade = Stockade::new(*mode).policy(&policy).arg("--publish").arg("192.0.2.10:9003:3000");
            let run = serving(stockade, "127.0.0.1", "3000");
            for addr in ["192.0.2.10:9002", "192.0.2.10:9003"] {
                assert_eq!(asked(addr, "hello").unwrap(), "HELLO", "{mode:?} {addr}");
            }
            let long = "x".repeat(3 << 20);
            assert_eq!(asked("192.0.2.10:9002", &long).unwrap().len(), long.len(), "{mode:?}");
            assert_eq!(asked("127.0.0.1:9001", "hello").unwrap_or_default(), "", "nobody serves port 9001 inside");
            assert!(TcpStream::connect("192.0.2.10:9001").is_err(), "a port alone is one of 127.0.0.1");
            assert!(TcpStream::connect("192.0.2.10:3000").is_err(), "nothing else is published");
            // Who stays connected is cut off with the sandbox, and that is recorded before its end is.
            let held = TcpStream::connect("192.0.2.10:9002").unwrap();
            while run.events().iter().filter(|e| e.text("/unmapped/door") == Some("publish")).count() < 8 {
                std::thread::sleep(Duration::from_millis(20));
            }
            run.signal(nix::sys::signal::Signal::SIGTERM);
            let run = run.finish();
            assert_eq!(run.events.iter().last().unwrap().class(), 6002, "{mode:?} {run:?}");
            drop(held);
            let published: Vec<_> = run.events.iter().filter(|e| e.text("/unmapped/door") == Some("publish")).collect();
            let of = |action| published.iter().filter(|e| e.action() == Some(action)).count();
            assert_eq!((of("allowed"), of("closed"), of("failed")), (4, 4, 1), "{mode:?} {run:?}");
            let bytes: u64 = published.iter().filter_map(|e| e.0["traffic"]["bytes_out"].as_u64()).sum();
            assert_eq!(bytes, 10 + (3 << 20), "{mode:?} {run:?}");
            assert!(published.iter().all(|e| e.0["connection_info"]["direction_id"] == 1), "{run:?}");
            assert!(TcpStream::connect("192.0.2.10:9002").is_err(), "closed with the sandbox");
        }
    });
}

#[test]
fn servers_on_either_loopback_address_are_found() {
    Outer::run(|_| {
        for host in ["::1", "0.0.0.0", "::"] {
            let mode = *Mode::available().last().unwrap();
            let run = serving(Stockade::new(mode).arg("--publish").arg("192.0.2.10:9002:3000"), host, "3000");
            assert_eq!(asked("192.0.2.10:9002", "hello").unwrap(), "HELLO", "{host}");
            run.signal(nix::sys::signal::Signal::SIGTERM);
            let _ = run.finish();
        }
    });
}

/// The door's own listeners are nobody else's way in, and a published port is no way out.
#[test]
fn what_belongs_to_stockade_is_not_published() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        let mode = *Mode::available().first().unwrap();
        for (published, said) in [
            ("9002:3128", "port 3128 inside is Stockade's own"),
            ("9002:53", "port 53 inside is Stockade's own"),
            ("0", "port 0"),
            ("nonsense", "expected [ADDRESS:]PORT"),
            ("203.0.113.99:1:2:3", "expected [ADDRESS:]PORT"),
        ] {
            let run = Stockade::new(mode).arg("--publish").arg(published).sh("echo ran");
            run.assert_code(125);
            assert!(run.stderr.contains(said) && run.text().is_empty(), "{published} {run:?}");
        }
        let twice = Stockade::new(mode).arg("--publish=9002:1").arg("--publish=9002:2").sh("echo ran");
        assert!(twice.code() == 125 && twice.stderr.contains("published twice"), "{twice:?}");
        let _taken = std::net::TcpListener::bind("192.0.2.10:9004").unwrap();
        let taken = Stockade::new(mode).arg("--publish=192.0.2.10:9004").sh("echo ran");
        assert!(taken.code() == 125 && taken.stderr.contains("cannot listen on 192.0.2.10:9004"), "{taken:?}");
        // The policy allows 192.0.2.10:9000: control, and then the same with a port of Stockade's.
        let control = stockade_testkit::upstream::Tcp::echo("192.0.2.10:9000");
        let script = "curl -sS -p --max-time 5 http://192.0.2.10:9000/ -o /dev/null -w '%{http_connect}' || true";
        let open = Stockade::new(mode).policy(POLICY).sh(script);
        assert!(open.text().contains("200") && control.counters.arrivals() == 1, "{open:?}");
        let looped = Stockade::new(mode).policy(POLICY).arg("--publish=192.0.2.10:8085:3000");
        let run = looped.sh(&script.replace("9000", "8085"));
        assert!(run.text().contains("403"), "{run:?}");
        run.events.one("ssrf_self");
    });
}

/// More connections than the bound: those beyond it are closed at once, and the others live on.
#[test]
fn connections_to_published_ports_are_bounded() {
    Outer::run(|_| {
        let mode = *Mode::available().last().unwrap();
        let stockade = Stockade::new(mode).arg("--publish").arg("192.0.2.10:9002:3000");
        let run = serving(stockade.timeout(Duration::from_secs(60)), "127.0.0.1", "3000");
        let mut held = TcpStream::connect("192.0.2.10:9002").unwrap();
        let crowd: Vec<TcpStream> = (0..600).filter_map(|_| TcpStream::connect("192.0.2.10:9002").ok()).collect();
        run.wait_for_event("limit");
        held.write_all(b"still here").unwrap();
        held.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        held.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "STILL HERE");
        drop(crowd);
        let until = Instant::now() + SOON;
        while asked("192.0.2.10:9002", "again").ok().as_deref() != Some("AGAIN") {
            assert!(Instant::now() < until, "places are given back");
            std::thread::sleep(Duration::from_millis(50));
        }
        run.signal(nix::sys::signal::Signal::SIGTERM);
        let _ = run.finish();
    });
}
