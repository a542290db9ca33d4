//! POL: policies that alternate under requests, connections that outlive their policy, and an engine that fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use stockade_testkit::{Arena, Event, Mode, Outer, Running, Stockade, upstream::Tcp};

use crate::ask::{answer, each_answered, get, told};

/// Puts a policy in the place of the one before, in one step, and asks for a reload.
fn replace(path: &Path, text: &str, run: &Running) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, path).unwrap();
    run.signal(Signal::SIGHUP);
}

fn loaded(run: &Running) -> usize {
    run.events().iter().filter(|e| e.class() == 5019).count()
}

#[track_caller]
fn wait_for_loads(run: &Running, number: usize) {
    let began = Instant::now();
    while loaded(run) < number {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", run.events());
        thread::sleep(Duration::from_millis(20));
    }
}

const HEAD: &str = "version: 1\nnetwork:\n  endpoints:\n";
const OPEN: &str = "    open: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]}\n";
const SHUT: &str =
    "    shut: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24], deny: [{paths: ['/**']}]}\n";

/// Asks on one connection after another until a file named `stop` is there, and at least a thousand times.
const ASKER: &str = r#"
    use IO::Socket::INET; $| = 1; my ($at) = $ENV{http_proxy} =~ m{//([^/]+)}; my ($s, $n);
    while ($n < 1000 || !-e 'stop') {
        $s //= IO::Socket::INET->new($at) or die;
        my $sent = print $s "GET http://up.test/ HTTP/1.1\r\nHost: up.test\r\n\r\n"; my $head = '';
        if ($sent) { while (my $line = <$s>) { $head .= $line; last if $line eq "\r\n" } }
        my ($status) = $head =~ m{^HTTP/1.1 (\d+)}; my ($length) = $head =~ /content-length: (\d+)/i;
        if (!$status) { undef $s; next }
        my $body = ''; read $s, $body, $length if $length; $n++;
        my ($reason) = $body =~ /"reason":"(\w+)"/; my ($generation) = $body =~ /"generation":(\d+)/;
        print join(' ', $status, $reason // '-', $generation // '-'), "\n";
        undef $s if $head =~ /connection: close/i;
    }"#;

fn generation(event: &Event) -> Option<u64> {
    event.0.pointer("/unmapped/generation").and_then(serde_json::Value::as_u64)
}

/// POL-05: each verdict is of one generation, the rule that it names and what the command is told with it.
#[test]
fn every_verdict_is_of_one_generation_while_policies_alternate() {
    const RELOADS: usize = 100;
    let (open, shut) = (format!("{HEAD}{OPEN}"), format!("{HEAD}{SHUT}"));
    Outer::run(|_| {
        let arena = Arena::new(&open, "up.test");
        for mode in Mode::available() {
            let stockade = arena.stockade(*mode).timeout(Duration::from_secs(60));
            let (path, stop, before) =
                (stockade.policy_path(), stockade.work().join("stop"), arena.site.requests().len());
            let run = stockade.spawn(&["perl", "-e", ASKER]);
            run.wait_for("200");
            let mut turns = 0;
            while turns % 25 != 0 || loaded(&run) <= RELOADS {
                replace(&path, if turns % 2 == 0 { &shut } else { &open }, &run);
                turns += 1;
                thread::sleep(Duration::from_millis(20));
            }
            fs::write(&stop, "").unwrap();
            let run = run.finish();
            assert_eq!(run.code(), 0, "{mode:?} {run:?}");

            // Generation, and the endpoint that spoke in its name.
            let mut spoke: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
            for event in run.events.iter().filter(|e| e.class() == 4002 && e.reason() != Some("stale_generation")) {
                let endpoint = event.text("/unmapped/endpoint").unwrap();
                spoke.entry(generation(event).unwrap()).or_default().insert(endpoint);
                let wanted =
                    if endpoint == "open" { (Some("allowed"), None) } else { (Some("denied"), Some("policy_deny")) };
                assert_eq!((event.action(), event.reason()), wanted, "{mode:?} {event:?}");
            }
            assert!(spoke.values().all(|endpoints| endpoints.len() == 1), "{mode:?} {spoke:?}");
            assert!(spoke.len() > 20, "control: many of them spoke: {mode:?} {spoke:?}");
            let text = run.text();
            let answers: Vec<Vec<&str>> = text.lines().map(|l| l.split(' ').collect()).collect();
            assert!(answers.len() >= 1000, "{mode:?} {}", answers.len());
            let denied = answers.iter().filter(|a| a[0] == "403");
            for answer in denied.clone() {
                let told: u64 = answer[2].parse().unwrap();
                assert!(matches!(answer[1], "policy_deny" | "stale_generation"), "{mode:?} {answer:?}");
                assert!(spoke.get(&told).is_none_or(|e| e.contains("shut")), "{mode:?} {answer:?} {spoke:?}");
            }
            let (allowed, denied) = (answers.iter().filter(|a| a[0] == "200").count(), denied.count());
            assert!(allowed > 100 && denied > 100, "control: {allowed} and {denied}: {mode:?}");
            let arrived = arena.site.requests().len() - before;
            assert!(arrived >= allowed && arrived <= answers.len(), "{mode:?} {arrived} {allowed}");
        }
        // Tripwire: with one policy there is one verdict, so it is the reloads that make two.
        let stockade = arena.stockade(Mode::Rootless);
        fs::write(stockade.work().join("stop"), "").unwrap();
        let run = stockade.run(&["perl", "-e", ASKER]);
        assert_eq!(run.text().matches("200 ").count(), 1000, "{run:?}");
    });
}

/// A relay, a WebSocket and requests in a tunnel, each open; a line of input later, the same once more.
const HOLDER: &str = r#"
    use IO::Socket::INET; use IO::Select; $| = 1; $SIG{PIPE} = 'IGNORE'; my ($at) = $ENV{http_proxy} =~ m{//([^/]+)};
    sub open_with { my ($head) = @_; my $s = IO::Socket::INET->new($at) or die; syswrite $s, $head; answer($s) =~ /^HTTP\/1.1 (200|101)/ or die; $s }
    sub answer { my ($s) = @_; IO::Select->new($s)->can_read(3) or return 'silent'; my $got = ''; sysread($s, $got, 4096) ? $got : 'closed' }
    my $raw = open_with("CONNECT raw.test:9000 HTTP/1.1\r\nHost: raw.test:9000\r\n\r\n");
    my $socket = open_with("GET http://ws.test/ HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    my $tunnel = open_with("CONNECT up.test:80 HTTP/1.1\r\nHost: up.test:80\r\n\r\n");
    my $n = 0;
    do {
        $n++; syswrite $_, "ping$n" for $raw, $socket; syswrite $tunnel, "GET /$n HTTP/1.1\r\nHost: up.test\r\n\r\n";
        my ($a, $b, $c) = map { answer($_) } $raw, $socket, $tunnel;
        print "raw$n ", ($a eq "ping$n" ? 'yes' : 'no'), "\nsocket$n ", ($b eq "ping$n" ? 'yes' : 'no'), "\ntunnel$n ", ($c =~ /^HTTP\/1.1 200/ ? 'yes' : 'no'), "\n";
    } while (<STDIN>);"#;

const HELD: &str = "
version: 1
network:
  endpoints:
    raw: {hosts: [raw.test], ports: [9000], protocol: tcp, private_addresses: [192.0.2.0/24]}
    web: {hosts: [ws.test, up.test], ports: [80], private_addresses: [192.0.2.0/24]}
";

/// POL-04: relays, WebSockets and tunnels end when the policy no longer allows them, before another byte goes up.
#[test]
fn no_open_connection_outlives_what_allowed_it() {
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    Outer::run(|_| {
        let arena = Arena::new(HELD, "up.test");
        arena.dns.host("raw.test", "192.0.2.11");
        arena.dns.host("ws.test", "192.0.2.12");
        let raw = Tcp::echo("192.0.2.11:9000");
        let socket = Tcp::serve("192.0.2.12:80", |mut stream| {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer)?;
            stream.write_all(SWITCH.as_bytes())?;
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => stream.write_all(&buffer[..n])?,
                }
            }
        });
        let elsewhere = HELD.replace("raw.test", "raw2.test").replace("ws.test, up.test", "other.test");
        // Another list, no list at all (POL-02), and the same.
        for (mode, next) in Mode::available().iter().flat_map(|m| [(m, &*elsewhere), (m, "version: 1\n"), (m, HELD)]) {
            let stockade = arena.stockade(*mode);
            let path = stockade.policy_path();
            let mut run = stockade.spawn(&["perl", "-e", HOLDER]);
            run.wait_for("tunnel1");
            let first = (raw.counters.bytes(), socket.counters.bytes(), arena.site.requests().len());
            replace(&path, &format!("{next}# changed\n"), &run);
            wait_for_loads(&run, 2);
            run.write(b"\n");
            let run = run.finish();
            let text = run.text();
            assert!(
                ["raw1", "socket1", "tunnel1"].iter().all(|w| text.contains(&format!("{w} yes\n"))),
                "control: {mode:?} {run:?}"
            );
            let second = (raw.counters.bytes(), socket.counters.bytes(), arena.site.requests().len());
            if next == HELD {
                assert_eq!(
                    text.matches(" yes\n").count(),
                    6,
                    "tripwire: what is allowed still lives on: {mode:?} {run:?}"
                );
                assert_ne!(first, second);
            } else {
                assert_eq!(text.matches(" yes\n").count(), 3, "{mode:?} {run:?}");
                assert_eq!(first, second, "not a byte more went up: {mode:?} {run:?}");
                let refused = told(&run, "stale_generation") + told(&run, "no_policy");
                assert_eq!((refused, run.events.refusals()), (3, 3), "one event each: {mode:?} {run:?}");
            }
        }
    });
}

/// Rules that fail for `bad.corp.test` alone: an error, two values, and more time than there is.
const FAILING: [&str; 4] = [
    "deny contains \"x\" if {\n\tbad\n\tinput.destination.port / 0 == 1\n}",
    "deny contains \"x\" if {\n\tbad\n\tregex.match(\"(\", input.destination.host)\n}",
    "v := 1 if bad\nv := 2 if input.version\ndeny contains \"x\" if v == 1",
    "deny contains \"x\" if {\n\tbad\n\tsome a in numbers.range(1, 3000)\n\tsome b in numbers.range(1, 3000)\n\ta * b == -1\n}",
];

/// POL-06: an engine that gives no answer is a no, for connections and for requests, and for nothing else.
#[test]
fn an_engine_that_fails_denies() {
    const POLICY: &str = "
version: 1
rego: [extra.rego]
network:
  endpoints:
    all: {hosts: ['*.corp.test'], ports: [80], private_addresses: [192.0.2.0/24], MODE}
";
    let (bad, good) = (get("bad.corp.test"), get("up.corp.test"));
    Outer::run(move |_| {
        let arena = Arena::new(POLICY, "up.corp.test");
        arena.dns.host("bad.corp.test", "192.0.2.10");
        let ask = |mode: Mode, (host, kind, word): (&str, &str, &str), rules: &str| {
            let stockade = Stockade::new(mode);
            let module = format!(
                "package stockade.custom\nimport rego.v1\nbad if {{\n\tinput.destination.host == \"{host}\"\n\tinput.kind == \"{kind}\"\n}}\n{rules}\n"
            );
            fs::write(stockade.policy_path().with_file_name("extra.rego"), module).unwrap();
            let before = arena.site.requests().len();
            let run = stockade.policy(&POLICY.replace("MODE", word)).probe(&[&bad, &good]);
            assert_eq!(answer(&run, &good).0, 200, "control: {mode:?} {rules} {run:?}");
            (arena.site.requests().len() - before, run)
        };
        for mode in Mode::available() {
            for (at, rules) in FAILING.iter().enumerate() {
                let kind = ["connect", "request"][at % 2];
                let word = ["mode: enforce", "mode: audit"][at / 2 % 2];
                let (arrived, run) = ask(*mode, ("bad.corp.test", kind, word), rules);
                each_answered(&run, &[(bad.clone(), 403, "engine_error")], &format!("{mode:?} {kind} {rules}"));
                assert_eq!(arrived, 1, "only the control: {mode:?} {rules} {run:?}");
            }
            let (arrived, run) = ask(*mode, ("nobody.test", "connect", "mode: enforce"), FAILING[0]);
            assert_eq!((answer(&run, &bad).0, arrived), (200, 2), "tripwire: where nothing fails it passes: {run:?}");
        }
    });
}
