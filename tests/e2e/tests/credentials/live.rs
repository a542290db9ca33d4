//! Connections that stay open: WebSockets, and tunnels that are used again, while secrets change or go away.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use stockade_testkit::{Mode, Outer, Running};

use crate::{
    LONG,
    world::{CANARY, POLICY, ROTATED, World, assert_nowhere},
};

/// Answers every message with the same message, one with `end` with a close frame that says the token, and writes down
/// what came.
const ORIGIN: &str = r#"
import base64, hashlib, json, socket, ssl, struct, sys, threading
cert, key, log = sys.argv[1:4]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
def exact(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more: raise EOFError
        data += more
    return data
def note(line):
    with open(log, "ab") as f: f.write(line + b"\n")
def serve(c):
    s, head = context.wrap_socket(c, server_side=True), b""
    while b"\r\n\r\n" not in head: head += exact(s, 1)
    note(b"opened")
    key = [l.split(b":", 1)[1].strip() for l in head.split(b"\r\n") if l.lower().startswith(b"sec-websocket-key:")][0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while True:
        first, second = exact(s, 2)
        n = second & 127
        if n == 126: n, = struct.unpack(">H", exact(s, 2))
        mask = exact(s, 4)
        data = bytes(x ^ mask[i % 4] for i, x in enumerate(exact(s, n)))
        note(b"message " + data)
        if b'"end"' in data:
            token = json.loads(data)["token"].encode()
            s.sendall(bytes([0x88, 2 + len(token)]) + struct.pack(">H", 1000) + token)
            continue
        s.sendall(bytes([first]) + (bytes([n]) if n < 126 else b"\x7e" + struct.pack(">H", n)) + data)
listener = socket.create_server(("192.0.2.11", 8443))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// Does what it is told, a line each: `get PATH` over a tunnel that it keeps, `open`, `text …`, `binary …`, `parts …`
/// over a WebSocket. TOKEN and TICKET stand for the placeholders.
const CLIENT: &str = r#"
import base64, http.client, os, socket, ssl, struct, sys
context = ssl.create_default_context()
T = os.environ["GITHUB_TOKEN"]
web = ws = None
def get(path):
    global web
    for _ in range(2):
        if web is None:
            web = http.client.HTTPSConnection("127.0.0.1", 3128, context=context, timeout=20)
            web.set_tunnel("api.test", 8443)
        try:
            web.request("GET", path, headers={"authorization": "Bearer " + T})
            r = web.getresponse()
            body = r.read().decode()
            return "%d %s" % (r.status, body.split('"reason":"')[1].split('"')[0] if "reason" in body else "-")
        except (http.client.HTTPException, OSError) as e:
            web = None
    return "failed"
def exact(n):
    data = b""
    while len(data) < n:
        more = ws.recv(n - len(data))
        if not more: raise EOFError
        data += more
    return data
def connect():
    global ws
    ws = socket.create_connection(("127.0.0.1", 3128), timeout=20)
    ws.sendall(b"CONNECT socket.test:8443 HTTP/1.1\r\nHost: socket.test:8443\r\n\r\n")
    ws.recv(4096)
    ws = context.wrap_socket(ws, server_hostname="socket.test")
    key = base64.b64encode(os.urandom(16)).decode()
    ws.sendall(("GET /live HTTP/1.1\r\nHost: socket.test:8443\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % key).encode())
    head = b""
    while b"\r\n\r\n" not in head: head += exact(1)
    return head.split()[1].decode()
def frame(first, data):
    size = bytes([128 | len(data)]) if len(data) < 126 else bytes([254]) + struct.pack(">H", len(data))
    ws.sendall(bytes([first]) + size + bytes(4) + data)
def answer():
    first, n = exact(2)
    if n == 126: n, = struct.unpack(">H", exact(2))
    data = exact(n)
    said = lambda data: data.decode().replace(os.environ["TICKET"], "TICKET")
    if first & 15 == 8: return "close %d %s" % (struct.unpack(">H", data[:2])[0], said(data[2:]))
    return "%d %s" % (first & 15, said(data))
def message(kind, data):
    data = data.replace("TICKET", os.environ["TICKET"]).replace("TOKEN", T).encode()
    try:
        if kind == "text": frame(0x81, data)
        if kind == "binary": frame(0x82, data)
        if kind == "parts":
            half = len(data) // 2
            frame(0x01, data[:half]); frame(0x80, data[half:])
        return answer()
    except (EOFError, OSError) as e:
        return "gone"
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    word, _, rest = line.strip().partition(" ")
    done = get(rest) if word == "get" else connect() if word == "open" else message(word, rest)
    print("[%d] %s." % (number, done), flush=True)
"#;

const SOCKET: &str =
    "    socket: {hosts: [socket.test], ports: [8443], private_addresses: [192.0.2.0/24], credentials: [ticket]}\n";
const TICKET: &str = "  ticket: {env: TICKET, source: \"file:ticket\", inject: {body: json, field: /token}}\n  github:";

fn policy() -> String {
    POLICY.replace("credentials:\n  github:", &format!("{SOCKET}credentials:\n{TICKET}"))
}

/// The same endpoints, none with a credential.
fn detached() -> String {
    let policy = policy();
    let network = policy.split("credentials:\n").next().unwrap();
    let lines = network.lines().filter(|l| !l.trim_start().starts_with("credentials: ["));
    lines
        .map(|l| {
            l.split(", credentials: [").next().unwrap().to_owned()
                + if l.contains(", credentials: [") { "}\n" } else { "\n" }
        })
        .collect()
}

/// The WebSocket origin, and the client inside.
struct Live {
    origin: Child,
    log: PathBuf,
    run: Option<Running>,
    file: PathBuf,
    said: usize,
}

impl Live {
    fn start(outer: &Outer, world: &World, mode: Mode) -> Self {
        let dir = outer.dir();
        let (cert, key) = world.authority.issue(&["socket.test"]);
        let paths = [("cert.pem", cert), ("key.pem", key), ("origin.py", ORIGIN.to_owned())].map(|(name, text)| {
            fs::write(dir.join(name), text).unwrap();
            dir.join(name)
        });
        let log = dir.join(format!("messages-{mode:?}"));
        let mut origin = Command::new("python3");
        let mut origin =
            origin.arg(&paths[2]).args(&paths[..2]).arg(&log).stdout(Stdio::piped()).spawn().expect("python3");
        BufReader::new(origin.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let stockade = world.stockade(mode, &policy());
        let file = stockade.policy_path();
        fs::write(file.with_file_name("ticket"), CANARY).unwrap();
        fs::write(stockade.work().join("client.py"), CLIENT).unwrap();
        let run = stockade.spawn(&["python3", "client.py"]);
        run.wait_for("ready");
        Self { origin, log, run: Some(run), file, said: 0 }
    }

    /// Tells the client something; it must answer with this.
    #[track_caller]
    fn ask(&mut self, line: &str, want: &str) {
        let run = self.run.as_mut().unwrap();
        run.write(format!("{line}\n").as_bytes());
        run.wait_for(&format!("[{}] {want}", self.said));
        self.said += 1;
    }

    /// Nothing that the run leaves may hold a value.
    #[track_caller]
    fn finish(mut self) {
        assert_nowhere(&self.run.take().unwrap().finish());
    }

    fn messages(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Replaces a file beside the policy.
    fn put(&self, name: &str, text: &str) {
        let new = self.file.with_file_name("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.file.with_file_name(name)).unwrap();
    }

    fn reload(&self, policy: &str) {
        fs::write(&self.file, policy).unwrap();
        let run = self.run.as_ref().unwrap();
        run.signal(Signal::SIGHUP);
        let began = Instant::now();
        let reloaded = |e: &stockade_testkit::Event| e.text("/message").is_some_and(|m| m.contains("reloaded"));
        while !run.events().iter().any(reloaded) {
            assert!(began.elapsed() < Duration::from_secs(20), "no reload: {:?}", run.events());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.origin.kill().ok();
        self.origin.wait().ok();
    }
}

#[test]
fn messages_carry_the_secret_in_their_field_alone() {
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer);
        for mode in Mode::available() {
            let mut live = Live::start(outer, &world, *mode);
            live.ask("open", "101");
            live.ask(r#"text {"token":"TICKET"}"#, r#"1 {"token":"TICKET"}."#);
            assert!(live.messages().contains(&format!(r#"message {{"token":"{CANARY}"}}"#)), "{mode:?}");
            let mut opened = 1;
            for refused in [
                r#"text {"note":"TICKET"}"#,
                "text TICKET",
                "binary TICKET",
                r#"parts {"note":"TICKET"}"#,
                r#"binary {"token":"TICKET"}"#,
            ] {
                live.ask(refused, "close 1008 cred_surface");
                live.ask("open", "101");
                opened += 1;
            }
            live.ask(r#"text {"token":"TOKEN"}"#, "close 1008 cred_scope");
            live.ask("open", "101");
            live.ask("text harmless", "1 harmless.");
            live.ask(r#"text {"token":"TICKET","end":1}"#, "close 1000 TICKET.");
            let want = format!(
                "message {{\"token\":\"{CANARY}\"}}\n{}message harmless\n\
                 message {{\"token\":\"{CANARY}\",\"end\":1}}\n",
                "opened\n".repeat(opened)
            );
            assert_eq!(live.messages(), format!("opened\n{want}"), "nothing refused arrived: {mode:?}");
            live.finish();
        }
    });
}

#[test]
fn after_a_rotation_or_a_detachment_no_byte_carries_the_old_secret() {
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer);
        for mode in Mode::available() {
            let before = world.origin.requests().len();
            let values = || -> Vec<String> {
                let all = world.origin.requests().split_off(before);
                all.iter().map(|r| r.header("authorization").unwrap_or("none").to_owned()).collect()
            };
            let mut live = Live::start(outer, &world, *mode);
            let token = r#"text {"token":"TICKET"}"#;
            live.ask("get /one", "200");
            live.ask("open", "101");
            live.ask(token, r#"1 {"token":"TICKET"}."#);

            live.put("github", ROTATED);
            live.put("ticket", ROTATED);
            // A file is believed to be unchanged for a second.
            thread::sleep(Duration::from_millis(1100));
            live.ask("get /two", "200");
            live.ask(token, "close 1008 cred_unresolved");
            live.ask("open", "101");
            // The new value is of another length than the placeholder, so that letters x stand in for it.
            live.ask(token, &format!(r#"1 {{"token":"{}"}}."#, "x".repeat(ROTATED.len())));
            assert_eq!(values(), [CANARY, ROTATED].map(|v| format!("Bearer {v}")), "{mode:?}");
            let messages = live.messages();
            assert_eq!((messages.matches(CANARY).count(), messages.matches(ROTATED).count()), (1, 1), "{messages}");

            live.reload(&detached());
            live.ask(token, "");
            live.ask("get /three", "403 cred_unresolved");
            live.ask("open", "101");
            live.ask(token, "close 1008 cred_unresolved");
            live.ask("open", "101");
            live.ask("text harmless", "1 harmless.");
            assert_eq!(values().len(), 2, "{mode:?}");
            assert_eq!(live.messages().matches("message").count(), 3, "{mode:?} {}", live.messages());
            live.finish();
        }
    });
}
