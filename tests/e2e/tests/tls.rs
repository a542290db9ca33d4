//! Names and beginnings of TLS as a hostile command sends them (TLS-01 to TLS-04): the real program, raw bytes, and the
//! same without Stockade.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use stockade_testkit::{
    Finished, Mode, Outer, Stockade,
    upstream::{
        Tcp,
        https::{Authority, Https},
    },
};

/// Longer than any of these takes on a busy machine.
const LONG: Duration = Duration::from_secs(170);

const POLICY: &str = "
version: 1
network:
  endpoints:
    site: {hosts: [api.test, other.test], ports: [443], private_addresses: [192.0.2.0/24]}
    raw: {hosts: [raw.test], ports: [443], tls: passthrough, private_addresses: [192.0.2.0/24]}
";

/// `refused` sends bytes that are no good and prints what came back; `served` shakes hands with its first message in
/// records of SIZE bytes (0: as it is, in single bytes) and prints status and certificate.
const PRELUDE: &str = r#"
import os, socket, ssl, struct, time
def dial(host):
    if "http_proxy" not in os.environ:
        return socket.create_connection((host, 443), timeout=1)
    s = socket.create_connection(("127.0.0.1", 3128), timeout=10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.sendall(("CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n" % (host, host)).encode())
    head = s.recv(4096)
    assert b" 200 " in head, head
    return s
def ext(kind, body): return struct.pack(">HH", kind, len(body)) + body
def sni(*names):
    names = b"".join(struct.pack(">BH", 0, len(n)) + n for n in names)
    return ext(0, struct.pack(">H", len(names)) + names)
def hello(*extensions):
    more = ext(43, b"\x02\x03\x04") + b"".join(extensions)
    body = b"\x03\x03" + b"\x07" * 32 + b"\0\0\x02\x13\x01\x01\0" + struct.pack(">H", len(more)) + more
    return b"\x01" + struct.pack(">I", len(body))[1:] + body
def records(message, size=16000):
    pieces = [message[i:i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(p)) + p for p in pieces)
def refused(name, host, data):
    begun, got = time.time(), b""
    s = dial(host)
    try:
        s.sendall(data)
        while True:
            more = s.recv(4096)
            if not more: break
            got += more
    except OSError: pass
    took = time.time() - begun
    print(name, got.hex() or "closed", "soon" if took < 5 else "late", flush=True)
def served(name, host, size, named):
    context = ssl.create_default_context()
    context.check_hostname = named
    inn, out, s, first = ssl.MemoryBIO(), ssl.MemoryBIO(), dial(host), True
    tls = context.wrap_bio(inn, out, server_hostname=host if named else None)
    def until(step):
        nonlocal first
        while True:
            try: done, more = step(), False
            except ssl.SSLWantReadError: more = True
            data = out.read()
            if data and first:
                first = False
                data = records(data[5:], size) if size else data
                if not size:
                    while data: s.sendall(data[:1]); data = data[1:]
            s.sendall(data)
            if not more: return done
            data = s.recv(65536)
            inn.write(data) if data else inn.write_eof()
    try:
        until(tls.do_handshake)
        until(lambda: tls.write(("GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host).encode()))
        status = until(lambda: tls.read(1000)).split()[1].decode()
        print(name, status, *[value for _, value in tls.getpeercert()["subjectAltName"]], flush=True)
    except (ssl.SSLError, OSError) as e:
        print(name, type(e).__name__, flush=True)
"#;

/// `unrecognized_name` and `access_denied`, fatal.
const UNRECOGNIZED: &str = "15030300020270 soon";
const DENIED: &str = "15030300020231 soon";

struct World {
    /// api.test and other.test.
    origin: Https,
    /// raw.test.
    sink: Tcp,
    ca: PathBuf,
}

impl World {
    fn start(outer: &Outer) -> Self {
        let (site, raw) = ("192.0.2.10".parse().unwrap(), "192.0.2.11".parse().unwrap());
        outer.hosts(&[(site, "api.test"), (site, "other.test"), (raw, "raw.test")]);
        let authority = Authority::new();
        let ca = outer.dir().join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let origin = Https::hello("192.0.2.10:443", &authority, &["api.test", "other.test"]);
        Self { origin, sink: Tcp::sink("192.0.2.11:443"), ca }
    }

    /// Runs a script inside in every mode, then without Stockade.
    fn each(&self, script: &str, inside: impl Fn(Mode, &Finished), outside: impl Fn(&Finished)) {
        let put = |stockade: Stockade| {
            fs::write(stockade.work().join("tls.py"), format!("{PRELUDE}{script}")).unwrap();
            stockade.timeout(Duration::from_secs(60))
        };
        for mode in Mode::available() {
            let stockade = Stockade::new(*mode).policy(POLICY).arg("--upstream-ca").arg(&self.ca);
            inside(*mode, &put(stockade).run(&["python3", "tls.py"]).expect_code(0));
        }
        let bare = Stockade::new(Mode::Rootless).unwrapped().env("SSL_CERT_FILE", &self.ca);
        outside(&put(bare).run(&["python3", "tls.py"]).expect_code(0));
    }

    /// What has arrived so far: connections and requests at the origin, bytes at the sink.
    fn arrived(&self) -> (u64, usize, u64) {
        (self.origin.connections(), self.origin.requests().len(), self.sink.counters.bytes())
    }
}

/// What each case printed.
fn said(run: &Finished) -> BTreeMap<String, String> {
    run.text().lines().filter_map(|l| l.split_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// How many refusals there were for a reason, folded ones counted.
fn refusals(run: &Finished, reason: &str) -> u64 {
    run.events.with(reason).iter().map(|e| e.0["count"].as_u64().unwrap_or(1)).sum()
}

#[test]
fn another_name_in_the_handshake_reaches_nobody() {
    let script = r#"
refused("fronted", "api.test", records(hello(sni(b"other.test"))))
served("control", "api.test", 16000, True)
"#;
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer);
        let inside = |mode: Mode, run: &Finished| {
            let said = said(run);
            assert_eq!(said["fronted"], UNRECOGNIZED, "{mode:?} {run:?}");
            assert_eq!(said["control"], "200 api.test", "{mode:?} {run:?}");
            run.events.one("sni_mismatch");
            assert_eq!(run.events.refusals(), 1, "{mode:?} {run:?}");
            let modes = Mode::available().iter().position(|m| *m == mode).unwrap() + 1;
            assert_eq!(world.arrived(), (modes as u64, modes, 0), "only the control's connection: {mode:?} {run:?}");
        };
        let outside = |run: &Finished| {
            let modes = Mode::available().len() as u64;
            assert_eq!(world.arrived().0, modes + 2, "tripwire: without Stockade both arrive: {run:?}");
            assert_ne!(said(run)["fronted"], UNRECOGNIZED, "{run:?}");
        };
        world.each(script, inside, outside);
    });
}

#[test]
fn another_host_in_a_request_reaches_nobody() {
    // The second request of each pair uses the connection of the first.
    let script = r#"
import subprocess
def t(name, *args):
    out = subprocess.run(("curl", "-s", "-m", "20", "-w", "%{http_code}.%{num_connects} ", "-o", "/dev/null") + args,
        capture_output=True, text=True)
    print(name, out.stdout.strip(), flush=True)
A = "https://api.test/"
for v in "--http1.1", "--http2":
    t("first" + v, v, "-H", "host: other.test", A + "first")
    t("second" + v, v, A + "control", "--next", "-s", "-w", "%{http_code}.%{num_connects}", "-o", "/dev/null", v,
        "-H", "host: other.test", A + "second")
"#;
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer);
        let before = || world.origin.requests().len();
        let inside = |mode: Mode, run: &Finished| {
            let said = said(run);
            for version in ["--http1.1", "--http2"] {
                assert_eq!(said[&format!("first{version}")], "421.1", "{mode:?} {run:?}");
                assert_eq!(said[&format!("second{version}")], "200.1 421.0", "{mode:?} {run:?}");
            }
            assert_eq!(refusals(run, "authority_mismatch"), 4, "{mode:?} {run:?}");
            assert_eq!(run.events.refusals(), 4, "{mode:?} {run:?}");
            let targets: Vec<_> = world.origin.requests().iter().map(|r| r.target().to_owned()).collect();
            assert!(targets.iter().all(|t| t == "/control"), "only the controls: {mode:?} {targets:?}");
            assert_eq!(targets.len() % 2, 0, "{mode:?} {targets:?}");
        };
        let outside = |run: &Finished| {
            let told = said(run);
            assert!(told.values().all(|v| !v.contains("421")), "tripwire: {run:?}");
            let named = |r: &stockade_testkit::upstream::Request| {
                [r.header("host"), r.header(":authority")].contains(&Some("other.test"))
            };
            assert_eq!(world.origin.requests().iter().filter(|r| named(r)).count(), 4, "tripwire: {run:?}");
        };
        assert_eq!(before(), 0);
        world.each(script, inside, outside);
    });
}

#[test]
fn the_name_of_the_connection_is_the_only_one() {
    let script = r#"
for name, sent in {
    "empty": sni(b""), "address": sni(b"192.0.2.10"), "dot": sni(b"api.test."), "nul": sni(b"api.test\0"),
    "long": sni(b"a." + b"x" * 298), "two": sni(b"api.test", b"a.b"),
}.items():
    refused(name, "api.test", records(hello(sent)))
served("nameless", "api.test", 16000, False)
served("control", "api.test", 16000, True)
refused("raw-nameless", "raw.test", records(hello()))
refused("raw-hidden", "raw.test", records(hello(sni(b"raw.test"), ext(0xfe0d, b"\0\0"))))
refused("raw-dot", "raw.test", records(hello(sni(b"raw.test."))))
"#;
    let invalid = ["empty", "address", "dot", "nul", "long", "two", "raw-nameless", "raw-hidden", "raw-dot"];
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer);
        let inside = |mode: Mode, run: &Finished| {
            let said = said(run);
            for case in invalid {
                assert_eq!(said[case], UNRECOGNIZED, "{case} {mode:?} {run:?}");
            }
            assert_eq!(said["nameless"], "200 api.test", "the host's certificate, whatever is asked: {mode:?} {run:?}");
            assert_eq!(said["control"], "200 api.test", "{mode:?} {run:?}");
            assert_eq!(refusals(run, "sni_invalid"), invalid.len() as u64, "{mode:?} {run:?}");
            assert_eq!(run.events.refusals(), invalid.len() as u64, "{mode:?} {run:?}");
            assert_eq!(world.arrived().1 % 2, 0, "only the two that were served: {mode:?} {run:?}");
            assert_eq!(world.arrived().2, 0, "no byte: {mode:?} {run:?}");
        };
        let outside = |run: &Finished| {
            assert!(world.arrived().2 > 0, "tripwire: without Stockade the bytes arrive: {run:?}");
            assert!(invalid.iter().all(|case| said(run)[*case] != UNRECOGNIZED), "tripwire: {run:?}");
        };
        world.each(script, inside, outside);
    });
}

#[test]
fn a_beginning_is_put_together_or_refused_and_never_relayed() {
    let script = r#"
served("bytes", "api.test", 0, True)
for size in 100, 7, 1: served("records%d" % size, "api.test", size, True)
good, large = records(hello(sni(b"api.test"))), hello(sni(b"raw.test"), ext(0xabcd, b"\0" * 0x4300))
for name, data in {
    "large": records(large), "small-records": records(large, 10), "sslv2": b"\x80\x2e\x01\x00\x02\x00\x15\0\0\0\x10" + b"\x07" * 35,
    "alert": b"\x15\x03\x01\0\x02\x01\0", "data": b"\x17\x03\x03\0\x05hello", "version": b"\x16\x02" + good[2:],
    "empty": b"\x16\x03\x01\0\0", "server-hello": b"\x16\x03\x01\0\x04\x02\0\0\0", "raw": b"\0\0\0secret",
}.items():
    refused(name, "api.test", data)
    refused("raw-" + name, "raw.test", data)
"#;
    let begun = ["large", "small-records", "version", "empty", "server-hello"];
    let other = ["sslv2", "alert", "data", "raw"];
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer);
        let inside = |mode: Mode, run: &Finished| {
            let said = said(run);
            for case in ["bytes", "records100", "records7", "records1"] {
                assert_eq!(said[case], "200 api.test", "{case} {mode:?} {run:?}");
            }
            for prefix in ["", "raw-"] {
                for case in begun.map(|case| format!("{prefix}{case}")) {
                    assert!(["closed soon", DENIED].contains(&&*said[&case]), "{case} {mode:?} {run:?}");
                }
                for case in other.map(|case| format!("{prefix}{case}")) {
                    assert_eq!(said[&case], "closed soon", "{case} {mode:?} {run:?}");
                }
            }
            let all = 2 * (begun.len() + other.len()) as u64;
            assert_eq!(refusals(run, "unknown_protocol"), all, "{mode:?} {run:?}");
            assert_eq!(run.events.refusals(), all, "{mode:?} {run:?}");
            assert_eq!(world.arrived().1 % 4, 0, "only the four that were served: {mode:?} {run:?}");
            assert_eq!(world.arrived().2, 0, "no byte: {mode:?} {run:?}");
        };
        let outside = |run: &Finished| {
            assert!(world.arrived().2 > 0x4300, "tripwire: without Stockade they arrive: {run:?}");
        };
        world.each(script, inside, outside);
    });
}
