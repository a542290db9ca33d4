//! The corpus case by case: what the command is told, what arrives, what is recorded. In every mode, by every way in.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use stockade_testkit::{
    Event, Events, Mode, Outer,
    outer::RESOLVER,
    upstream::{
        Dns, Https,
        https::{Authority, Options, Reply},
    },
};

use crate::{
    corpus,
    replay::{Door, Replay, cases},
};

/// Status and reason of each answer.
type Answers = &'static [(u16, &'static str)];

/// Longest that an answer may take.
const SOON: Duration = Duration::from_secs(4);

pub(crate) const POLICY: &str = "
version: 1
network:
  endpoints:
    site:
      hosts: ['*.site.test']
      ports: [80, 443]
      private_addresses: [192.0.2.0/24]
      allow: [{methods: [GET, HEAD, POST, PUT, OPTIONS], paths: ['/public/**']}]
      deny: [{paths: ['/public/secret/**']}]
";

struct Site {
    origins: [Https; 2],
    dns: Dns,
    ca: PathBuf,
}

impl Site {
    fn start(outer: &Outer, respond: impl Fn(&str) -> Reply + Send + Sync + Clone + 'static) -> Self {
        let (authority, ca) = (Authority::new(), outer.dir().join("ca.pem"));
        fs::write(&ca, authority.pem()).unwrap();
        let (dns, other) = (Dns::start((RESOLVER, 53)), respond.clone());
        let options = Options::of(&["*.site.test"]);
        let secure = Https::start("192.0.2.10:443", &authority, &options, move |r| respond(r.target()));
        Self { origins: [secure, Https::plain("192.0.2.10:80", move |r| other(r.target()))], dns, ca }
    }

    fn host(&self, name: &str) -> String {
        let host = format!("{name}.site.test");
        self.dns.host(&host, "192.0.2.10");
        host
    }

    /// What arrived, by host.
    fn seen(&self) -> BTreeMap<String, Vec<(String, String, usize)>> {
        let mut all = BTreeMap::<String, Vec<_>>::new();
        for request in self.origins.iter().flat_map(Https::requests) {
            let mut words = request.line.split(' ').map(str::to_owned);
            let (method, target) = (words.next().unwrap(), words.next().unwrap());
            let host = request.header("host").or(request.header(":authority")).unwrap_or_default();
            all.entry(host.to_owned()).or_default().push((method, target, request.body.len()));
        }
        all
    }
}

/// The reasons of refusals, by host; `""` where none is known.
fn refusals(events: &Events) -> BTreeMap<&str, Vec<&str>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for event in events.iter().filter(|e| matches!(e.action(), Some("denied" | "failed"))) {
        let times = event.0["count"].as_u64().unwrap_or(1);
        let reasons = all.entry(event.host().unwrap_or_default()).or_default();
        reasons.extend((0..times).filter_map(|_| event.reason()));
    }
    all
}

/// Runs the whole corpus through a door, in every mode.
#[track_caller]
fn through(door: Door) {
    Outer::run_within(Duration::from_secs(160), |outer| {
        let site = Site::start(outer, |_| Reply::ok("ok"));
        for mode in Mode::available() {
            let before = site.seen();
            let host = |name: &str| site.host(&format!("{name}-{}", format!("{mode:?}").to_lowercase()));
            let mut replay = Replay::default();
            replay.add_corpus(door, &host);
            let long = corpus::long();
            for (name, text, _) in &long {
                replay.add(door, &host(name), text);
            }
            let (told, events) = replay.inside(*mode, POLICY, &site.ca);
            let (seen, refused) = (site.seen(), refusals(&events));
            assert!(before.keys().all(|host| before[host] == seen[host]), "what was sent before stays as it is");
            let (mut wanted, mut wrong) = (BTreeMap::<&str, usize>::new(), Vec::new());
            let short = cases(door).map(|c| (c.name, c.told, c.seen));
            for (name, want, arrives) in short.chain(long.iter().map(|(n, _, told)| (*n, *told, &[][..]))) {
                let host = host(name);
                let told = &told[&host];
                let answers: Vec<_> = told.answers.iter().map(|(status, reason)| (*status, &**reason)).collect();
                let came: Vec<_> = seen.get(&host).into_iter().flatten().collect();
                let came: Vec<_> = came.iter().map(|(m, t, n)| (m.as_str(), t.as_str(), *n)).collect();
                let reasons: Vec<_> = want.iter().map(|(_, reason)| *reason).filter(|r| !r.is_empty()).collect();
                for reason in &reasons {
                    *wanted.entry(reason).or_default() += 1;
                }
                let recorded = refused.get(&*host).cloned().unwrap_or_default();
                // A head that is no request to the proxy names no host.
                let on_record = recorded == reasons || door == Door::Proxy;
                if answers != want || came != arrives || !on_record || told.took > SOON {
                    wrong.push(format!("{name}: told {told:?}, not {want:?}; {came:?} came; {recorded:?} recorded"));
                }
            }
            assert!(wrong.is_empty(), "{door:?} {mode:?}:\n{}", wrong.join("\n"));
            let mut recorded = BTreeMap::<&str, usize>::new();
            refused.values().flatten().for_each(|reason| *recorded.entry(reason).or_default() += 1);
            assert_eq!(recorded, wanted, "{door:?} {mode:?}: one event for each refusal");
        }
    });
}

/// HTTP-01 to HTTP-12, PRX-07, PRX-13.
#[test]
fn every_case_through_a_tunnel() {
    through(Door::Tunnel);
}

/// The same to the host itself, by a client that knows of no proxy.
#[test]
fn every_case_without_a_proxy() {
    through(Door::Direct);
}

/// PRX-05: the same rules hold for requests to the proxy itself.
#[test]
fn every_case_to_the_proxy() {
    through(Door::Proxy);
}

/// HTTP-08: raw bytes pass only behind a right 101 to a request that asked for it.
#[test]
fn only_a_right_101_opens_a_connection() {
    const ASK: &str = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // The answer to that key (RFC 6455, section 1.3).
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const RAW: &str = "DELETE ~/private HTTP/1.1\r\nHost: ^\r\n\r\n";
    Outer::run(|outer| {
        let site = Site::start(outer, |target| {
            let switch = |accept: &str| {
                let reply = Reply { status: 101, ..Reply::ok("") }.header("connection", "upgrade");
                reply.header("upgrade", "websocket").header("sec-websocket-accept", accept)
            };
            match target {
                "/public/right" | "/public/unasked" => switch(ACCEPT),
                "/public/wrong" => switch("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
                "/public/other" => switch(ACCEPT).header("sec-websocket-protocol", "unasked"),
                "/public/no" => Reply { status: 403, ..Reply::ok("no") },
                _ => Reply::ok("page"),
            }
        });
        let upgrade: Answers = &[(502, "upgrade")];
        let table: [(&str, bool, Answers); 6] = [
            ("page", true, &[(200, ""), (403, "l7")]),
            ("no", true, &[(403, ""), (403, "l7")]),
            ("wrong", true, upgrade),
            ("other", true, upgrade),
            ("unasked", false, upgrade),
            ("right", true, &[(101, "")]),
        ];
        for (at, (mode, door)) in
            Mode::available().iter().flat_map(|m| [Door::Tunnel, Door::Direct, Door::Proxy].map(|d| (m, d))).enumerate()
        {
            let host = |name: &str| site.host(&format!("{name}-{at}"));
            let mut replay = Replay::default();
            for (name, asks, _) in table {
                let (fields, raw) = if asks { (ASK, RAW) } else { ("\r\n", "") };
                replay.add(door, &host(name), &format!("GET ~/public/{name} HTTP/1.1\r\nHost: ^\r\n{fields}{raw}"));
            }
            let upgraded = || site.origins.iter().map(|o| o.upgraded().len()).sum::<usize>();
            let before = upgraded();
            let (told, events) = replay.inside(*mode, POLICY, &site.ca);
            let (seen, refused) = (site.seen(), refusals(&events));
            for (name, _, want) in table {
                let host = host(name);
                let mut answers: Vec<_> = told[&host].answers.iter().map(|(s, r)| (*s, &**r)).collect();
                // What stands behind a refusal for the upstream's sake is the next request, and has its own verdict.
                answers.truncate(want.len());
                assert_eq!(answers, want, "{name} {door:?} {mode:?}: {:?}", told[&host]);
                assert_eq!(seen[&host].len(), 1, "{name} {door:?} {mode:?}: {:?}", seen[&host]);
                let first = want.iter().map(|(_, r)| *r).find(|r| !r.is_empty());
                assert_eq!(refused.get(&*host).and_then(|r| r.first().copied()), first, "{name} {door:?} {mode:?}");
            }
            let at = if door == Door::Proxy { format!("http://{}", host("right")) } else { String::new() };
            let raw = RAW.replace('~', &at).replace('^', &host("right"));
            assert_eq!(upgraded() - before, raw.len(), "control: behind the right 101 the bytes pass, and only there");
        }
    });
}

/// PRX-02: without a certificate for the host a tunnel is refused, and never opened unread.
#[test]
fn without_a_certificate_there_is_no_tunnel() {
    // The door makes so many at once, and some more each second.
    const HOSTS: usize = 2500;
    Outer::run(|outer| {
        let site = Site::start(outer, |_| Reply::ok("ok"));
        for mode in Mode::available() {
            let host = |name: &str| site.host(&format!("{name}-{}", format!("{mode:?}").to_lowercase()));
            let mut replay = Replay::default();
            for n in 0..HOSTS {
                replay.add_connect(&host(&format!("h{n}")));
            }
            let (told, events) = replay.inside(*mode, POLICY, &site.ca);
            let (opened, refused): (Vec<_>, Vec<_>) = told.values().partition(|t| t.answers == [(200, String::new())]);
            assert!(opened.len() >= 1000, "control: {mode:?} {}", opened.len());
            assert!(!refused.is_empty(), "{mode:?}: {HOSTS} certificates were made");
            let unavailable = [(503, "tls_unavailable".to_owned())];
            assert!(refused.iter().all(|t| t.answers == unavailable && t.took < SOON), "{mode:?} {refused:?}");
            let recorded: Vec<&Event> = events.with("tls_unavailable");
            let recorded: u64 = recorded.iter().map(|e| e.0["count"].as_u64().unwrap_or(1)).sum();
            assert_eq!(recorded, refused.len() as u64, "{mode:?}: one event each");
        }
        assert!(site.seen().is_empty());
        site.origins.iter().for_each(|o| assert_eq!(o.connections(), 0, "nothing was dialled"));
    });
}
