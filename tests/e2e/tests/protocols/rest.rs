//! REST as GitHub's clients use it: a token that the command does not have, rules by method and path.

use std::{fs, time::Duration};

use stockade_testkit::{
    Mode, Outer,
    upstream::{
        Request,
        https::{Https, Options, Reply},
    },
};

use crate::{
    need_programs,
    world::{LONG, World, clients, lacks, requests, said},
};

const TOKEN: &str = "ghp_rEaLtOkEn8Zq2LmVt9ZxWb4KdRs1EyUpJgN3";

const ENDPOINTS: &str = r#"
    api:
      hosts: [api.test]
      @site
      allow:
        - {methods: [GET], paths: ["/api/v3/repos/*/*", "/api/v3/repos/*/*/issues", /api/v3/user, /api/v3]}
        - {methods: [POST, PATCH], paths: ["/api/v3/repos/*/*/issues", "/api/v3/repos/*/*/issues/*"]}
      deny: [{paths: ["/api/v3/repos/secret/**"]}]
      limits: {request_body: 4KiB}
      credentials: [token]
credentials:
  token:
    env: GH_ENTERPRISE_TOKEN
    source: file:token
    inject: {header: authorization, value: "token {secret}"}
"#;

/// A little of GitHub's interface; `who` is told who asks.
fn respond(request: &Request) -> Reply {
    let json = |status: u16, text: &str| Reply { status, ..Reply::ok(text).header("content-type", "application/json") };
    if request.header("authorization") != Some(&*format!("token {TOKEN}")) {
        return json(401, r#"{"message": "Bad credentials"}"#);
    }
    let method = request.line.split(' ').next().unwrap();
    match (method, request.target().split('?').next().unwrap()) {
        ("GET", "/api/v3/repos/o/r") => json(200, r#"{"full_name": "o/r", "private": false}"#),
        ("GET", "/api/v3/repos/o/r/issues") => json(200, r#"[{"number": 1, "title": "first"}]"#)
            .header("link", r#"<https://api.test/api/v3/repos/o/r/issues?page=2>; rel="next""#),
        ("POST", "/api/v3/repos/o/r/issues") => json(201, r#"{"number": 2}"#),
        ("PATCH", "/api/v3/repos/o/r/issues/2") => json(200, r#"{"number": 2, "state": "closed"}"#),
        _ => json(404, r#"{"message": "Not Found"}"#),
    }
}

/// curl, and urllib, which say `STATUS BODY`.
const SCRIPT: &str = r#"
A=https://api.test/api/v3
c() { name=$1; shift; printf '%s: %s\n' $name "$(curl -s -m 20 -w ' %{http_code}' -H "authorization: token $GH_ENTERPRISE_TOKEN" "$@" | tr '\n' ' ')"; }
c read $A/repos/o/r
c list "$A/repos/o/r/issues?state=open"
c open -X POST -d '{"title": "x"}' -H 'content-type: application/json' $A/repos/o/r/issues
c close -X PATCH -d '{"state": "closed"}' -H 'content-type: application/json' $A/repos/o/r/issues/2
c remove -X DELETE $A/repos/o/r
c keys $A/repos/o/r/keys
c secret $A/repos/secret/r
c sideways --path-as-is $A/repos/o/r/../../secret/r
c large -X POST -H 'content-type: application/json' -d "{\"title\": \"$(printf %05000d 1)\"}" $A/repos/o/r/issues
python3 - <<'END'
import json, os, urllib.error, urllib.request as u
def ask(name, method, path, body=None):
    head = {"authorization": "token " + os.environ["GH_ENTERPRISE_TOKEN"], "content-type": "application/json"}
    request = u.Request("https://api.test/api/v3" + path, data=body, method=method, headers=head)
    try:
        with u.urlopen(request, timeout=20) as r:
            print(f"{name}: {r.read().decode()} {r.status}")
    except urllib.error.HTTPError as e:
        print(f"{name}: {json.load(e)['detail']} {e.status}")
ask("urllib", "POST", "/repos/o/r/issues", b'{"title": "y"}')
ask("urllib_refused", "DELETE", "/repos/o/r/issues/1")
END
"#;

#[test]
fn methods_and_paths_are_judged_and_the_token_is_the_origins() {
    need_programs!("curl", "python3");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["api.test"]);
        let site = Https::start("192.0.2.10:443", &world.authority, &Options::of(&["api.test"]), respond);
        for mode in Mode::available() {
            let before = site.requests().len();
            let stockade = world.stockade(*mode, ENDPOINTS);
            fs::write(stockade.policy_path().with_file_name("token"), TOKEN).unwrap();
            let run = stockade.sh(SCRIPT);
            for (case, status) in [("read", 200), ("list", 200), ("open", 201), ("close", 200), ("urllib", 201)] {
                assert!(said(&run, case).ends_with(&format!(" {status}")), "{case} {mode:?} {run:?}");
            }
            for (case, status, words) in [
                ("remove", 403, "covers DELETE /api/v3/repos/o/r"),
                ("keys", 403, "covers GET /api/v3/repos/o/r/keys"),
                ("secret", 403, "denies GET /api/v3/repos/secret/r"),
                ("sideways", 403, "denies GET /api/v3/repos/secret/r"),
                ("large", 413, "limits.request_body"),
                ("urllib_refused", 403, "covers DELETE /api/v3/repos/o/r/issues/1"),
            ] {
                let text = said(&run, case);
                assert!(text.ends_with(&format!(" {status}")) && text.contains(words), "{case}: {text} {mode:?}");
            }
            let seen = site.requests().split_off(before);
            let wire = format!("token {TOKEN}");
            assert!(seen.iter().all(|r| r.header("authorization") == Some(&*wire)), "{mode:?} {seen:?}");
            let line = |r: &Request| r.line.split([' ', '?']).take(2).collect::<Vec<_>>().join(" ");
            assert_eq!(seen.iter().map(line).collect::<Vec<_>>(), requests(&run, "allowed"), "{mode:?} {run:?}");
            assert_eq!(requests(&run, "denied").len(), 6, "{mode:?} {run:?}");
            assert!(!format!("{}{}{:?}", run.text(), run.stderr, run.events).contains(TOKEN), "{mode:?}");
        }
    });
}

/// GitHub's own program, told of an Enterprise host.
#[test]
fn gh() {
    let program = clients().join("gh/usr/bin/gh");
    if let Some(why) = lacks(&program) {
        stockade_testkit::skip!("gh {why}: tests/e2e/clients/install.sh");
    }
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["api.test"]);
        let site = Https::start("192.0.2.10:443", &world.authority, &Options::of(&["api.test"]), respond);
        let script = format!(
            "export GH_HOST=api.test HOME=$PWD GH_NO_UPDATE_NOTIFIER=1 GH_PROMPT_DISABLED=1
try() {{ name=$1; shift; printf '%s: %s\\n' $name \"$({} api \"$@\" 2>&1 | tr '\\n' ' ')\"; }}
try read repos/o/r --jq .full_name
try open repos/o/r/issues -f title=x --jq .number
try remove -X DELETE repos/o/r
",
            program.display()
        );
        for mode in Mode::available() {
            let before = site.requests().len();
            let stockade = world.stockade(*mode, ENDPOINTS).timeout(Duration::from_secs(60));
            fs::write(stockade.policy_path().with_file_name("token"), TOKEN).unwrap();
            let run = stockade.sh(&script);
            assert_eq!((said(&run, "read").trim(), said(&run, "open").trim()), ("o/r", "2"), "{mode:?} {run:?}");
            let refused = said(&run, "remove");
            assert!(refused.contains("403") && refused.contains("covers DELETE"), "{mode:?} {run:?}");
            assert_eq!(requests(&run, "denied"), ["DELETE /api/v3/repos/o/r"], "{mode:?} {run:?}");
            let seen = site.requests().split_off(before);
            assert_eq!(seen.len(), 2, "{mode:?} {seen:?}");
            let wire = format!("token {TOKEN}");
            assert!(seen.iter().all(|r| r.header("authorization") == Some(&*wire)), "{mode:?} {seen:?}");
        }
    });
}
