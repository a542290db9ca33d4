//! What curl and Python show of each refusal: enough to know what was refused, where, why and what to do. The texts are
//! held in tests/golden/refusals.txt; `STOCKADE_BLESS=1` writes it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{env, fs, path::Path, time::Duration};

use stockade_testkit::{
    Mode, Outer, Stockade,
    outer::RESOLVER,
    skip,
    upstream::{
        Dns, Tcp,
        https::{Authority, Https, Options, Reply},
    },
};

const POLICY: &str = "
version: 1
network:
  endpoints:
    api:
      hosts: [api.test]
      private_addresses: [192.0.2.0/24]
      allow:
        - {methods: [GET], paths: [/repos/**]}
        - {methods: [GET], paths: [/search], query: {q: ['public*']}}
        - {methods: [POST], paths: [/upload]}
      deny: [{paths: ['/repos/secret/**']}]
      limits: {request_body: 1KiB}
    slow:
      hosts: [slow.test]
      private_addresses: [192.0.2.0/24]
      limits: {requests_per_minute: 1}
    graph: {hosts: [graph.test], protocol: graphql, private_addresses: [192.0.2.0/24], allow: [{fields: [viewer]}]}
    self: {hosts: [self.test], private_addresses: [192.0.2.0/24]}
    dead: {hosts: [dead.test], private_addresses: [192.0.2.0/24]}
    plain: {hosts: [plain.test], private_addresses: [192.0.2.0/24]}
    inner: {hosts: [inner.test]}
    nowhere: {hosts: [nowhere.test]}
";

/// Each case by curl (status, reason phrase, fields, body) and by Python (what an exception says).
const SCRIPT: &str = r#"
c() {
    name=$1; shift
    echo "== $name"
    curl -sS -i --http1.1 -m 20 "$@" 2>&1 | tr -d '\r' |
        grep -viE '^(content-length|cache-control|content-type|date|x-|$)' | grep -v '^HTTP/1.1 200'
    python3 ask.py "$@"
}
c 403_connection https://evil.test/
c 403_connection_plain http://evil.test/
c 403_port https://api.test:8443/
c 403_rule -X DELETE https://api.test/repos/o/r
c 403_deny https://api.test/repos/secret/r
c 403_query 'https://api.test/search?q=private&page=2'
c 403_graphql -H 'content-type: application/json' -d '{"query": "{ viewer secrets }"}' https://graph.test/
c 403_private https://inner.test/
c 413 -d @large https://api.test/upload
c 421 -H 'host: other.test' https://api.test/repos/o/r
c 429 https://slow.test/ https://slow.test/
c 431 -H @heads https://api.test/repos/o/r
c 502_untrusted https://self.test/
c 502_refused https://dead.test/
c 502_no_tls https://plain.test/
c 502_no_name https://nowhere.test/
"#;

/// The same by urllib and requests, from curl's arguments.
const ASK: &str = r#"
import sys, urllib.error, urllib.request
try: import requests
except ImportError: requests = None
method, body, fields, urls, args = None, None, {}, [], iter(sys.argv[1:])
for arg in args:
    if arg == "-X": method = next(args)
    elif arg == "-d":
        body = next(args)
        body = (open(body[1:]).read() if body.startswith("@") else body).encode()
    elif arg == "-H":
        field = next(args)
        lines = open(field[1:]).read().splitlines() if field.startswith("@") else [field]
        fields.update(line.split(": ", 1) for line in lines)
    else: urls.append(arg)
method = method or ("POST" if body else "GET")
def shown(e):
    while getattr(e, "reason", None) is not None and isinstance(e.reason, BaseException): e = e.reason
    return " ".join(str(e).split())[:400]
for url in urls:
    try: urllib.request.urlopen(urllib.request.Request(url, body, fields, method=method), timeout=20).read()
    except OSError as e: print("urllib:", shown(e))
    if requests is None: continue
    try: requests.request(method, url, data=body, headers=fields, timeout=20).raise_for_status()
    except OSError as e:
        while e.args and isinstance(e.args[0], BaseException): e = e.args[0]
        print("requests:", shown(e))
"#;

#[test]
fn refusals_say_what_and_where_and_why_and_what_to_do() {
    let clients = clients();
    if !clients.join("python/requests").exists() || !Path::new("/usr/bin/curl").exists() {
        skip!("curl, or requests of tests/e2e/clients/install.sh, is not installed");
    }
    Outer::run_within(Duration::from_secs(170), |outer| {
        let names = ["api.test", "slow.test", "graph.test", "self.test", "plain.test", "dead.test", "inner.test"];
        let addrs = ["10", "10", "10", "11", "12", "13", "14"].map(|last| format!("192.0.2.{last}").parse().unwrap());
        let hosts: Vec<_> = addrs.into_iter().zip(names).collect();
        outer.hosts(&hosts);
        let _names = Dns::start((RESOLVER, 53));
        let authority = Authority::new();
        let ca = outer.dir().join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let fine = |_: &stockade_testkit::upstream::Request| Reply::ok("fine\n");
        let options = Options::of(&["api.test", "slow.test", "graph.test"]);
        let site = Https::start("192.0.2.10:443", &authority, &options, fine);
        let alone = Options { self_signed: true, ..Options::of(&["self.test"]) };
        let _alone = Https::start("192.0.2.11:443", &authority, &alone, fine);
        let _plain = Tcp::serve("192.0.2.12:443", |mut stream| {
            use std::io::Write;
            stream.write_all(b"220 mail.test ESMTP\r\n")
        });
        for mode in Mode::available() {
            let before = site.requests().len();
            let policy = POLICY.replacen(
                '\n',
                &format!("\nfilesystem: {{baseline: true, read_only: [{}]}}\n", clients.display()),
                1,
            );
            let stockade = Stockade::new(*mode).policy(&policy).arg("--upstream-ca").arg(&ca);
            let fields: String = (0..20).map(|n| format!("x-{n}: {}\n", "y".repeat(5_000))).collect();
            for (name, text) in [("ask.py", ASK), ("large", &*"x".repeat(2_000)), ("heads", &fields)] {
                fs::write(stockade.work().join(name), text).unwrap();
            }
            let script = format!("export PYTHONPATH={}/python\n{SCRIPT}", clients.display());
            let run = stockade.timeout(Duration::from_secs(80)).sh(&script);
            assert_eq!(
                site.requests().len(),
                before + 1,
                "of all, the first within the rate arrived: {mode:?} {run:?}"
            );
            compare(&run.text());
        }
    });
}

/// With the golden file, but for what differs from run to run.
fn compare(text: &str) {
    let text: String = text.lines().map(|line| format!("{}\n", steady(line))).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/refusals.txt");
    if env::var_os("STOCKADE_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == golden, "what is shown has changed; look at it, and run again with STOCKADE_BLESS=1\n{text}");
}

/// A wait is a matter of time, and what stands around the answer of the door one of versions.
fn steady(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for at in 1..words.len() {
        let after = matches!(&*words[at - 1], "in" | "retry-after:");
        if after && words[at].chars().all(|c| c.is_ascii_digit()) {
            words[at] = "N".to_owned();
        }
    }
    words.join(" ")
}

fn clients() -> std::path::PathBuf {
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    env::var_os("STOCKADE_CLIENTS").map_or(target.join("clients"), Into::into)
}
