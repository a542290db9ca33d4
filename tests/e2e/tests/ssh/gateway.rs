//! A gateway's handshakes, made by a program that shares nothing with ours but the format.

use std::{
    process::{Command, Output},
    time::Duration,
};

use stockade_testkit::{Mode, Running, Stockade};

use crate::world::{Keys, fed, good};

const SECRET: &str = "00112233445566778899aabbccddeeff-gateway";

/// Connects, sends a line, and carries bytes: what a gateway's relay does. Words: port, then the line's own.
const RELAY: &str = r#"
import base64, hashlib, hmac, os, socket, sys, threading, time
port, sandbox, shift, nonce, fingerprint, secret, change = sys.argv[1:8]
signed = f"stockade-ssh-1 {sandbox} {int(time.time()) + int(shift)} {nonce} {fingerprint}"
code = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
if change == "truncated": code = code[:16]
text = base64.b64encode(code).decode().rstrip("=")
line = f"{signed} hmac-sha256:{text}\n"
if change == "none": line = ""
if change == "huge": line = "x" * 100000
if change.startswith("file:"):
    path = change[5:]
    if os.path.exists(path): line = open(path).read()
    else: open(path, "w").write(line)
s = socket.create_connection(("127.0.0.1", int(port)))
s.sendall(line.encode())
def up():
    while True:
        data = os.read(0, 65536)
        if not data: break
        s.sendall(data)
threading.Thread(target=up, daemon=True).start()
while True:
    data = s.recv(65536)
    if not data: break
    os.write(1, data)
"#;

struct Gateway {
    run: Running,
    port: u16,
    sandbox: String,
    keys: Keys,
}

fn start(mode: Mode) -> Gateway {
    let keys = Keys::new();
    let secret = keys.write("secret", &format!("{SECRET}\n"), 0o600);
    keys.give(&secret, mode);
    let stockade = Stockade::new(mode).timeout(Duration::from_secs(120));
    let stockade = stockade.arg("--ssh").arg("127.0.0.1:0").arg("--ssh-token-secret").arg(secret);
    let run = stockade.spawn(&["/bin/sh", "-c", "echo up; cat"]);
    run.wait_for("up");
    let told = run.wait_to_be_told(", host key SHA256:");
    let port = told.split("ssh on 127.0.0.1:").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    // Every event names the sandbox.
    let sandbox = loop {
        if let Some(event) = run.events().iter().next() {
            break event.text("/device/uid").unwrap().to_owned();
        }
    };
    Gateway { run, port, sandbox, keys }
}

/// What makes a handshake other than it should be.
struct Line<'a> {
    sandbox: &'a str,
    shift: &'a str,
    nonce: &'a str,
    key: &'a str,
    secret: &'a str,
    change: &'a str,
}

impl Gateway {
    fn line(&self) -> Line<'_> {
        Line { sandbox: &self.sandbox, shift: "0", nonce: "", key: "id", secret: SECRET, change: "" }
    }

    fn fingerprint(&self, name: &str) -> String {
        let told = Command::new("ssh-keygen").args(["-l", "-f"]).arg(self.keys.path(name)).output().unwrap();
        good(&told).split(' ').nth(1).unwrap().to_owned()
    }

    fn ssh(&self, line: &Line<'_>) -> Output {
        let nonce = if line.nonce.is_empty() { fresh() } else { line.nonce.to_owned() };
        let relay = self.keys.write("relay.py", RELAY, 0o644);
        let words = [line.sandbox, line.shift, &nonce, &self.fingerprint(line.key), line.secret, line.change]
            .map(|w| format!("'{w}'"));
        let proxy = format!("ProxyCommand=python3 {} {} {}", relay.display(), self.port, words.join(" "));
        let mut command = Command::new("timeout");
        command.args([
            "60",
            "ssh",
            "-F",
            "none",
            "-o",
            &proxy,
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
        ]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i"]);
        command.arg(self.keys.path("id")).args(["whoever@box", "echo came in"]);
        fed(command, b"")
    }
}

fn fresh() -> String {
    let bytes = std::fs::read("/proc/sys/kernel/random/uuid").unwrap();
    String::from_utf8(bytes).unwrap().trim().to_owned()
}

#[test]
fn a_handshake_lets_one_key_in_once() {
    for mode in Mode::available() {
        let gateway = start(*mode);
        assert_eq!(good(&gateway.ssh(&gateway.line())), "came in\n");
        let kept = gateway.keys.path("kept");
        let keep = format!("file:{}", kept.display());
        let first = Line { change: &keep, ..gateway.line() };
        assert_eq!(good(&gateway.ssh(&first)), "came in\n");
        let again = gateway.ssh(&first);
        assert!(!again.status.success() && again.stdout.is_empty(), "{again:?}");
        gateway.run.finish().events.one("replay");
    }
}

#[test]
fn every_other_handshake_is_refused() {
    let gateway = start(Mode::available()[0]);
    gateway.keys.make("other");
    let line = || gateway.line();
    let tries = [
        Line { shift: "-120", ..line() },
        Line { shift: "120", ..line() },
        Line { sandbox: "0123456789abcdef", ..line() },
        Line { secret: "another-secret-of-more-than-32-bytes!", ..line() },
        Line { change: "truncated", ..line() },
        Line { nonce: "short", ..line() },
        Line { change: "none", ..line() },
        Line { change: "huge", ..line() },
    ];
    for (n, tried) in tries.iter().enumerate() {
        let refused = gateway.ssh(tried);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "try {n}: {refused:?}");
    }
    // A line for another key: SSH begins, and the login fails.
    let refused = gateway.ssh(&Line { key: "other", ..line() });
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    assert_eq!(good(&gateway.ssh(&line())), "came in\n", "the positive control");
    let tried = tries.len();
    let events = gateway.run.finish().events;
    assert_eq!(events.with("ssh_token").len(), tried, "{events:?}");
    events.one("ssh_auth");
}
