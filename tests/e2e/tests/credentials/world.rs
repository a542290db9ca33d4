//! Origins that show what they got, a policy that binds two credentials, and the search for their values.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use stockade_testkit::{
    Event, Finished, Mode, Outer, Stockade,
    upstream::{
        Http, Request,
        https::{Authority, Https, Options, Reply},
    },
};

/// The value that only the origin may see, of a GitHub token's shape.
pub(crate) const CANARY: &str = "ghp_cAnArY0f7Hq2LmVt9ZxWb4KdRs1EyUpJgN3Q";
/// What takes its place in the source after a rotation.
pub(crate) const ROTATED: &str = "ghp_rOtAtEd5s8TgYh2KpWqLzXvBnMa6Cd4Fj7UeR";
/// The value of the other provider.
pub(crate) const KEY: &str = "sk-oThErKeY3vNbQwErTyUiOpLkJhGfDsAzXcVbNm9";

/// `github` belongs to api.test:8443, `key` to other.test:8443; free.test has none.
pub(crate) const POLICY: &str = r#"
version: 1
network:
  endpoints:
    api:
      hosts: [api.test]
      ports: [8443]
      private_addresses: [192.0.2.0/24]
      deny: [{paths: ["/admin/**"]}]
      credentials: [github]
    aside: {hosts: [api.test], ports: [80, 9443], private_addresses: [192.0.2.0/24]}
    other: {hosts: [other.test], ports: [8443], private_addresses: [192.0.2.0/24], credentials: [key]}
    free: {hosts: [free.test], ports: [8443], private_addresses: [192.0.2.0/24]}
    spoilt: {hosts: [spoilt.test], ports: [8443], private_addresses: [192.0.2.0/24], credentials: [spoilt]}
    gone: {hosts: [gone.test], ports: [8443], private_addresses: [192.0.2.0/24], credentials: [gone]}
credentials:
  github: {env: GITHUB_TOKEN, source: "file:github", inject: {header: authorization, value: "Bearer {secret}"}}
  key: {env: OTHER_KEY, source: env:OTHER_KEY, inject: {header: x-api-key, value: "{secret}"}}
  spoilt: {env: SPOILT, source: "file:spoilt", inject: {header: authorization, value: "Bearer {secret}"}}
  gone: {env: GONE, source: "file:gone", inject: {path: "/bot{secret}/**"}}
"#;

/// Shell functions for scripts: `t NAME CURL-ARGUMENTS` prints the name, the status and the reason of a refusal.
const PRELUDE: &str = r#"
A=https://api.test:8443 O=https://other.test:8443 F=https://free.test:8443
T=$GITHUB_TOKEN K=$OTHER_KEY H="authorization: Bearer $GITHUB_TOKEN"
t() {
    name=$1; shift; : > body
    code=$(curl -s -m 20 -o body -w '%{http_code}' "$@")
    echo "$name $code $(grep -o '"reason":"[a-z0-9_]*"' body | cut -d'"' -f4)"
}
percent() { od -An -v -tx1 | tr -d '\n' | tr ' ' '%'; }
"#;

/// What a script's case came to: the status, and the reason in the body.
pub(crate) type Answers = BTreeMap<String, (u16, String)>;

pub(crate) struct World {
    /// All names on port 8443.
    pub(crate) origin: Https,
    /// api.test on port 9443.
    pub(crate) aside: Https,
    /// api.test on port 80.
    pub(crate) plain: Http,
    pub(crate) authority: Authority,
    ca: PathBuf,
}

impl World {
    pub(crate) fn start(outer: &Outer) -> Self {
        let names = ["api.test", "other.test", "free.test", "spoilt.test", "gone.test"];
        let addr = "192.0.2.10".parse().unwrap();
        let mut hosts = names.map(|name| (addr, name)).to_vec();
        hosts.push(("192.0.2.11".parse().unwrap(), "socket.test"));
        outer.hosts(&hosts);
        let authority = Authority::new();
        let ca = outer.dir().join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let options = Options::of(&names);
        Self {
            origin: Https::start("192.0.2.10:8443", &authority, &options, respond),
            aside: Https::start("192.0.2.10:9443", &authority, &options, |_| Reply::ok("aside\n")),
            plain: Http::hello("192.0.2.10:80"),
            authority,
            ca,
        }
    }

    /// A run with `policy`, and the sources that it names.
    pub(crate) fn stockade(&self, mode: Mode, policy: &str) -> Stockade {
        let stockade = Stockade::new(mode).policy(policy).env("OTHER_KEY", KEY).arg("--upstream-ca").arg(&self.ca);
        let file = stockade.policy_path();
        fs::write(file.with_file_name("github"), format!("{CANARY}\n")).unwrap();
        fs::write(file.with_file_name("spoilt"), format!("{CANARY}\r\nx-injected: 1\n")).unwrap();
        stockade.timeout(Duration::from_secs(60))
    }

    /// Runs a script in every mode; nothing that it leaves may hold a value.
    #[track_caller]
    pub(crate) fn each(&self, script: &str, check: impl Fn(Mode, &Finished, &Answers, Vec<Request>)) {
        for mode in Mode::available() {
            let before = self.origin.requests().len();
            let run = self.stockade(*mode, POLICY).sh(&format!("{PRELUDE}{script}"));
            assert_nowhere(&run);
            let arrived = self.origin.requests().split_off(before);
            check(*mode, &run, &answers(&run), arrived);
            let elsewhere = (self.aside.requests().len(), self.plain.requests().len());
            assert_eq!(elsewhere, (0, 0), "{mode:?} {run:?}");
        }
    }

    /// As [`Self::each`], for a script all of whose cases but `control` are refused with these reasons.
    #[track_caller]
    pub(crate) fn each_refused(&self, script: &str, want: &[(&str, u16, &str)]) {
        self.each(script, |mode, run, answers, arrived| {
            for (case, status, reason) in want {
                let answer = answers.get(*case).unwrap_or_else(|| panic!("no case {case}: {mode:?} {run:?}"));
                assert_eq!((answer.0, &*answer.1), (*status, *reason), "{case} {mode:?} {run:?}");
                run.events.some(reason);
            }
            assert_eq!(answers["control"].0, 200, "{mode:?} {run:?}");
            assert_eq!(answers.len(), want.len() + 1, "{mode:?} {run:?}");
            assert_eq!(arrived.len(), 1, "only the control arrived: {mode:?} {arrived:?} {run:?}");
            assert_eq!(arrived[0].header("authorization"), Some(&*format!("Bearer {CANARY}")), "{mode:?}");
        });
    }
}

/// `/echo/HOW` shows the authorization field that arrived.
fn respond(request: &Request) -> Reply {
    let got = request.header("authorization").unwrap_or("none").to_owned();
    let ok = |text: &str| Reply::ok(text);
    match request.target() {
        "/echo" => ok(&format!("got {got}\n")).header("x-echo", &got),
        "/echo/error" => Reply { status: 500, ..ok(&format!("<h1>bad header: {got}</h1>\n")) },
        "/echo/json" => ok(&format!("{{\"got\":\"{}\"}}\n", escaped(&got))).header("content-type", "application/json"),
        "/echo/base64" => ok(&format!("{}\n", base64(&got))),
        "/echo/percent" => ok(&format!("{}\n", percent(&got))),
        "/echo/location" => Reply { status: 302, ..ok("") }.header("location", &format!("/next?token={got}")),
        "/echo/pieces" => {
            let piece = |byte: &u8| (Duration::from_millis(2), vec![*byte]);
            Reply { pieces: got.as_bytes().iter().map(piece).collect(), ..ok("") }
        }
        "/echo/gzip" => ok(&got).header("content-encoding", "gzip"),
        "/redirect" => Reply { status: 302, ..ok("") }.header("location", "https://other.test:8443/from-api"),
        _ => ok("fine\n"),
    }
}

fn answers(run: &Finished) -> Answers {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (name, code) = (words.next()?, words.next()?.parse().ok()?);
        Some((name.to_owned(), (code, words.next().unwrap_or_default().to_owned())))
    };
    run.text().lines().filter_map(line).collect()
}

/// No value, in any encoding, in what a run printed, logged or wrote into its workspace.
#[track_caller]
pub(crate) fn assert_nowhere(run: &Finished) {
    let dir = run.dir.as_ref().unwrap().path();
    let mut all = vec![("stdout".to_owned(), run.stdout.clone()), ("stderr".to_owned(), run.stderr.clone().into())];
    for part in ["log", "work", "home"] {
        collect(&dir.join(part), &mut all);
    }
    assert!(all.iter().any(|(name, bytes)| name.ends_with("audit.jsonl") && !bytes.is_empty()), "no log to look at");
    for value in [CANARY, ROTATED, KEY] {
        for (form, text) in forms(value) {
            for (name, bytes) in &all {
                let found = bytes.windows(text.len()).any(|w| w.eq_ignore_ascii_case(text.as_bytes()));
                assert!(!found, "a value, {form}, in {name}:\n{}", String::from_utf8_lossy(bytes));
            }
        }
    }
}

fn collect(dir: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), all),
            Ok(kind) if kind.is_file() => {
                all.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
            }
            _ => {}
        }
    }
}

/// The middle of a value as it may be written.
fn forms(value: &str) -> Vec<(&'static str, String)> {
    let core = &value[4..value.len() - 4];
    let mut forms = vec![
        ("plain", core.to_owned()),
        ("reversed", core.chars().rev().collect()),
        ("hexadecimal", core.bytes().map(|b| format!("{b:02x}")).collect()),
        ("percent", percent(core)),
        ("escaped", escaped(core)),
    ];
    for lead in 0..3 {
        let whole = base64(&format!("{}{core}", &"us"[..lead]));
        // The ends are shared with what stands beside.
        forms.push(("base64", whole[4..whole.len() - 4].to_owned()));
    }
    forms
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02x}")).collect()
}

fn escaped(text: &str) -> String {
    text.bytes().map(|b| format!("\\u{b:04x}")).collect()
}

pub(crate) fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().enumerate().fold(0_u32, |all, (i, b)| all | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= three.len() { digit.into() } else { '=' });
        }
    }
    out
}

/// The findings of a run.
pub(crate) fn findings(run: &Finished) -> Vec<&Event> {
    run.events.iter().filter(|event| event.class() == 2004).collect()
}
