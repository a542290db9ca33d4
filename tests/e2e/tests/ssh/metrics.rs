use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use stockade_testkit::Mode;

use crate::{
    forwards::free_port,
    world::{Keys, World, fed, good},
};

/// The page of metrics.
fn page(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// `None`: it is not there, or not yet.
fn value(text: &str, series: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("stockade_ssh_")?.strip_prefix(series)?.strip_prefix(' '));
    line.map(|number| number.parse::<f64>().unwrap() as u64)
}

/// Asks until every series has its value; what is over is counted as such a moment later.
#[track_caller]
fn expect(port: u16, wanted: &[(&str, u64)]) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let text = page(port);
        let seen: Vec<_> = wanted.iter().map(|(series, _)| (*series, value(&text, series))).collect();
        if seen.iter().zip(wanted).all(|(seen, wanted)| seen.1 == Some(wanted.1)) {
            return text;
        }
        assert!(Instant::now() < until, "{seen:?}, wanted {wanted:?} in\n{text}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_happens_is_counted_by_words_of_our_own() {
    for mode in Mode::available() {
        let keys = Keys::new();
        for name in ["forced", "unknown"] {
            keys.make(name);
        }
        let lines = format!("{}command=\"true\" {}", keys.public("id"), keys.public("forced"));
        let port = free_port();
        let world = World::with(*mode, keys, &lines, |s| s.arg("--metrics").arg(format!("127.0.0.1:{port}")));
        expect(port, &[("connections_open", 0), ("connections_max", 256), (r#"logins_total{result="accepted"}"#, 0)]);
        // Three logins, one refusal.
        good(&world.ssh(&["-l", "canary-user"], "true canary-command"));
        good(&world.fed(&["-T"], "", b"exit\n"));
        good(&world.only("forced", "true"));
        assert!(!world.only("unknown", "true").status.success());
        expect(
            port,
            &[
                (r#"logins_total{result="accepted"}"#, 3),
                (r#"logins_total{result="ssh_auth"}"#, 1),
                (r#"logins_total{result="limit"}"#, 0),
                (r#"sessions_total{kind="exec"}"#, 1),
                (r#"sessions_total{kind="shell"}"#, 1),
                (r#"sessions_total{kind="forced"}"#, 1),
                (r#"sessions_total{kind="sftp"}"#, 0),
                ("connections_open", 0),
            ],
        );
        // Open, and over.
        let mut open = world.client("ssh");
        open.args(["sandbox@127.0.0.1", "echo up; cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut open = open.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(open.stdout.take().unwrap()).read_line(&mut line).unwrap();
        expect(port, &[("connections_open", 1), (r#"sessions_open{kind="exec"}"#, 1)]);
        drop(open.stdin.take());
        assert!(open.wait().unwrap().success());
        expect(port, &[("connections_open", 0), (r#"sessions_open{kind="exec"}"#, 0)]);
        let mut sftp = world.client("sftp");
        sftp.args(["-b", "-", "sandbox@127.0.0.1"]);
        good(&fed(sftp, b"pwd\n"));
        expect(port, &[(r#"sessions_total{kind="sftp"}"#, 1), (r#"sessions_open{kind="sftp"}"#, 0)]);
        // Forwards, and a request that is refused.
        let serve = "python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 8123)); print(1, flush=True); \
                     s.accept()[0].send(b\"inside\")'";
        let mut server = world.client("ssh");
        server.args(["sandbox@127.0.0.1", serve]).stdout(Stdio::piped());
        let mut server = server.spawn().unwrap();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(good(&world.ssh(&["-W", "localhost:8123"], "")).contains("inside"));
        server.wait().unwrap();
        for nowhere in ["localhost:8124", "192.0.2.1:80"] {
            assert!(!world.ssh(&["-W", nowhere], "").status.success());
        }
        good(&world.ssh(&["-o", "SetEnv=LD_CANARY=canary-value"], "true"));
        let text = expect(
            port,
            &[
                (r#"forwards_total{result="accepted"}"#, 1),
                (r#"forwards_total{result="failed"}"#, 1),
                (r#"forwards_total{result="refused"}"#, 1),
                ("forwards_open", 0),
                (r#"refusals_total{what="request"}"#, 1),
                (r#"refusals_total{what="channel"}"#, 0),
            ],
        );
        assert!(!text.contains("canary"), "{text}");
        let docs = include_str!("../../../../docs/operations.md");
        for name in text.lines().filter_map(|l| l.strip_prefix("# TYPE stockade_ssh_")?.split(' ').next()) {
            let known = ["`", "_total`", "{", "_total{"].iter().any(|end| docs.contains(&format!("`ssh_{name}{end}")));
            assert!(known, "docs/operations.md does not explain ssh_{name}");
        }
        world.end();
    }
    // Without a server there is nothing to count.
    let port = free_port();
    let stockade = stockade_testkit::Stockade::new(Mode::available()[0]);
    let run = stockade.arg("--metrics").arg(format!("127.0.0.1:{port}")).spawn(&["/bin/sh", "-c", "echo up; cat"]);
    run.wait_for("up");
    let text = page(port);
    assert!(text.contains("stockade_ready") && !text.contains("stockade_ssh_"), "{text}");
    run.finish().assert_code(0);
}
