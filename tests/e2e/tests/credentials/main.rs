//! Secrets that the command uses and never has (CRED): the real program, real clients, an origin that shows what it got.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
mod live;
mod memory;
mod services;
mod world;

use std::{fs, time::Duration};

use stockade_testkit::{Mode, Outer};

use crate::world::{CANARY, POLICY, World, assert_nowhere, findings};

/// Longer than any of these takes on a busy machine.
const LONG: Duration = Duration::from_secs(170);

#[test]
fn only_placeholders_are_to_be_found_inside() {
    // The needle is put together by the search itself, so that the search is not what is found.
    let search = r#"
import os
needle = b"".join([b"cAnArY", b"0f7Hq2", b"LmVt9Z"])
key = b"".join([b"oThErK", b"eY3vNb"])
names = ["/proc/%s/%s" % (p, f) for p in os.listdir("/proc") if p.isdigit() for f in ("environ", "cmdline")]
for top in ("/etc", "/run", "/tmp", "/var/tmp", "/dev/shm", os.environ["HOME"], os.getcwd()):
    for at, _, files in os.walk(top):
        names += [os.path.join(at, f) for f in files]
seen = 0
for name in names:
    try:
        if not os.path.isfile(name): continue
        text = open(name, "rb").read(1 << 22)
    except OSError:
        continue
    seen += 1
    for what in (needle, key, needle[::-1], needle.hex().encode()):
        if what in text: print("found in", name.replace(os.getcwd(), "."))
print("seen", "enough" if seen > 20 else seen)
"#;
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer);
        for mode in Mode::available() {
            let stockade = world.stockade(*mode, POLICY);
            fs::write(stockade.work().join("search.py"), search).unwrap();
            let script = "echo ${#GITHUB_TOKEN} $GITHUB_TOKEN; python3 search.py
                printf %s cAnArY > planted; printf %s 0f7Hq2LmVt9Z >> planted
                PLANTED=$(cat planted) sh -c 'python3 search.py; :'; rm planted";
            let run = stockade.sh(script);
            assert_nowhere(&run);
            let text = run.text();
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines[0].starts_with(&format!("{} ghp_", CANARY.len())), "the shape stays: {mode:?} {run:?}");
            assert_eq!(lines[1], "seen enough", "{mode:?} {run:?}");
            let rest = &lines[2..];
            assert!(rest.contains(&"found in ./planted"), "tripwire: a file is found: {mode:?} {run:?}");
            assert!(rest.iter().any(|l| l.starts_with("found in /proc/")), "tripwire: a variable: {mode:?} {run:?}");
        }
    });
}

#[test]
fn a_placeholder_is_refused_at_other_hosts_ports_schemes_and_paths() {
    let script = r#"
        t control -H "$H" $A/user
        t host -H "$H" $F/user
        t provider -H "x-api-key: $T" $O/user
        t provided -H "authorization: Bearer $K" $A/user
        t port -H "$H" https://api.test:9443/user
        t scheme -H "$H" http://api.test/user
        t path -H "$H" $A/admin/keys
        t dots -H "$H" --path-as-is $A/user/../admin/keys
        t coded -H "$H" --path-as-is $A/user/%2e%2e/%61dmin/keys
    "#;
    let scope = |case| (case, 403, "cred_scope");
    let rule = |case| (case, 403, "policy_deny");
    let want = [
        scope("host"),
        scope("provider"),
        scope("provided"),
        scope("port"),
        scope("scheme"),
        rule("path"),
        rule("dots"),
        rule("coded"),
    ];
    Outer::run_within(LONG, |outer| {
        World::start(outer).each_refused(script, &want);
    });
}

#[test]
fn a_placeholder_where_nothing_is_replaced_is_refused() {
    let script = r#"
        t control -H "$H" $A/user
        t segment $A/files/$T
        t percented "$A/files/$(printf %s $T | percent)"
        t query "$A/user?a=$T"
        t cookie -b "session=$T" $A/user
        t field -H "x-note: $T" $A/user
        t agent -A "$T" $A/user
        t json -H 'content-type: application/json' -d "{\"t\":\"$T\"}" $A/user
        t form -d "note=$T" $A/user
        t multipart -F "note=$T" $A/user
        t upload -X POST -H 'content-type: application/octet-stream' --data-binary "$(printf %s us$T | base64 -w0)" $A/user
        t escaped -H 'content-type: application/json' -d "\"$(printf %s $T | percent | sed 's/%/\\u00/g')\"" $A/user
        t twice --data-binary "$(printf %s $T | percent | sed 's/%/%25/g')" $A/user
        (printf %s "$T" | cut -c1-20 | tr -d '\n'; sleep 0.3; printf %s "$T" | cut -c21- | tr -d '\n') | t split -X POST -T - $A/user
        (printf %s "$T" | cut -c1-20 | tr -d '\n'; sleep 0.3; printf %s "$T" | cut -c21- | tr -d '\n') | t split1 --http1.1 -X POST -T - $A/user
        printf %s $T | gzip | t gzip --data-binary @- -H 'content-encoding: gzip' $A/user
        t basic -u "$T:x" $F/user
        t password -u "me:$T" $F/user
        t free_body -d "{\"t\":\"$T\"}" $F/user
        t free_query --http1.1 "$F/?q=$T"
    "#;
    let at_home = ["segment", "percented", "query", "cookie", "field", "agent", "json", "form", "multipart", "upload"];
    let more = ["escaped", "twice", "split", "split1"];
    let abroad = ["basic", "password", "free_body", "free_query"];
    let mut want: Vec<_> = at_home.iter().chain(&more).map(|case| (*case, 403, "cred_surface")).collect();
    want.extend(abroad.map(|case| (case, 403, "cred_scope")));
    want.push(("gzip", 403, "uninspectable"));
    Outer::run_within(LONG, |outer| {
        World::start(outer).each_refused(script, &want);
    });
}

#[test]
fn an_origin_that_shows_the_secret_shows_the_placeholder() {
    // Without a token of the client's: what is echoed is what was put in. The last digit of base64 may be another.
    let script = r#"
        for how in "" /error /json /base64 /percent /location /pieces; do
            for version in --http1.1 --http2; do
                curl -s -m 20 -D head -o body $version $A/echo$how || echo failed
                for file in head body; do
                    { cat $file
                      base64 -d $file
                      python3 -c "import sys,urllib.parse as u; print(u.unquote(open('$file').read()))"
                      python3 -c "import json; print(json.load(open('$file'))['got'])"
                    } 2>/dev/null | grep -aqF "${T%????}" && echo "$how $version $file"
                done
            done
        done
        cat body; echo
        t gzip --http1.1 $A/echo/gzip
        t gzip2 --http2 $A/echo/gzip
    "#;
    let mut want: Vec<String> = Vec::new();
    for (how, place) in [("", "head"), ("", "body")] {
        want.extend(["--http1.1", "--http2"].map(|v| format!("{how} {v} {place}")));
    }
    for (how, place) in
        [("/error", "body"), ("/json", "body"), ("/base64", "body"), ("/percent", "body"), ("/location", "head")]
    {
        want.extend(["--http1.1", "--http2"].map(|v| format!("{how} {v} {place}")));
    }
    want.extend(["--http1.1", "--http2"].map(|v| format!("/pieces {v} body")));
    Outer::run_within(LONG, |outer| {
        World::start(outer).each(script, |mode, run, answers, arrived| {
            let text = run.text();
            for line in &want {
                assert!(text.lines().any(|l| l == line), "`{line}` {mode:?} {run:?}");
            }
            assert!(!text.contains("failed"), "{mode:?} {run:?}");
            for case in ["gzip", "gzip2"] {
                assert_eq!(answers[case], (502, "uninspectable".to_owned()), "{case} {mode:?} {run:?}");
            }
            let canary = format!("Bearer {CANARY}");
            assert!(arrived.iter().all(|r| r.header("authorization") == Some(&*canary)), "{mode:?} {arrived:?}");
            assert!(arrived.iter().all(|r| r.header("accept-encoding").is_none_or(|v| v == "identity")), "{arrived:?}");
            run.events.some("secret_in_response");
            assert!(findings(run).iter().any(|e| e.reason() == Some("secret_in_response")), "{mode:?} {run:?}");
        });
    });
}

#[test]
fn a_redirect_is_the_clients_to_follow_and_its_secret_stays_behind() {
    let script = r#"
        t stays -H "$H" $A/redirect
        t follows -L --location-trusted -H "$H" $A/redirect
    "#;
    Outer::run_within(LONG, |outer| {
        World::start(outer).each(script, |mode, run, answers, arrived| {
            assert_eq!(answers["stays"].0, 302, "{mode:?} {run:?}");
            assert_eq!(answers["follows"], (403, "cred_scope".to_owned()), "{mode:?} {run:?}");
            let targets: Vec<_> = arrived.iter().map(|r| r.target()).collect();
            assert_eq!(targets, ["/redirect", "/redirect"], "{mode:?} {run:?}");
            assert!(findings(run).iter().any(|e| e.reason() == Some("cred_scope")), "{mode:?} {run:?}");
        });
    });
}

#[test]
fn the_commands_own_token_never_takes_the_place_of_the_secret() {
    let script = r#"
        t replaced -H "authorization: Bearer ghp_attackers" $A/replaced
        t basic -u "me:attackers" $A/basic
        t beside -H "$H" -H "x-api-key: attackers" $A/beside
        t query -H "$H" "$A/query?access_token=attackers"
        t underscore -H "$H" -H "x_api_key: attackers" $A/underscore
        t free -H "authorization: Bearer attackers" $F/free
    "#;
    Outer::run_within(LONG, |outer| {
        World::start(outer).each(script, |mode, run, answers, arrived| {
            for case in ["replaced", "basic", "free"] {
                assert_eq!(answers[case].0, 200, "{case} {mode:?} {run:?}");
            }
            for case in ["beside", "query", "underscore"] {
                assert_eq!(answers[case], (403, "foreign_credential".to_owned()), "{case} {mode:?} {run:?}");
            }
            let field = |r: &stockade_testkit::upstream::Request| r.header("authorization").map(str::to_owned);
            let got: Vec<_> = arrived.iter().map(|r| (r.target().to_owned(), field(r))).collect();
            let canary = format!("Bearer {CANARY}");
            let want = [("/replaced", &*canary), ("/basic", &canary), ("/free", "Bearer attackers")];
            assert_eq!(got, want.map(|(t, v)| (t.to_owned(), Some(v.to_owned()))), "{mode:?}");
            run.events.some("foreign_credential");
        });
    });
}

#[test]
fn exactly_one_secret_arrives_whatever_the_client_doubles_or_nominates() {
    let script = r#"
        t doubled --http1.1 -H "$H" -H "$H" -H "AUTHORIZATION: Bearer x" $A/doubled
        t doubled2 --http2 -H "$H" -H "Authorization: Bearer x" $A/doubled2
        t spaced --http1.1 -H "Authorization : Bearer x" $A/spaced
        t nominated --http1.1 -H "$H" -H "Connection: Authorization" $A/nominated
        t listed --http1.1 -H "$H" -H "Connection: close, X-Injected, authorization" -H "X-Injected: 1" $A/listed
        cat > trailer.py <<'P'
import os, socket, ssl
s = socket.create_connection(("127.0.0.1", 3128))
s.sendall(b"CONNECT api.test:8443 HTTP/1.1\r\nHost: api.test:8443\r\n\r\n")
assert b" 200 " in s.recv(4096)
s = ssl.create_default_context().wrap_socket(s, server_hostname="api.test")
head = "POST /trailer HTTP/1.1\r\nHost: api.test:8443\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\nConnection: close\r\n\r\n"
s.sendall((head + "2\r\nhi\r\n0\r\nAuthorization: Bearer x\r\n\r\n").encode())
print("trailer", s.recv(4096).split()[1].decode())
P
        python3 trailer.py
    "#;
    Outer::run_within(LONG, |outer| {
        World::start(outer).each(script, |mode, run, answers, arrived| {
            let passed = ["doubled", "doubled2", "nominated", "listed", "trailer"];
            for case in passed {
                assert_eq!(answers[case].0, 200, "{case} {mode:?} {run:?}");
            }
            assert_eq!(answers["spaced"].0, 400, "{mode:?} {run:?}");
            let targets: Vec<_> = arrived.iter().map(|r| r.target().trim_start_matches('/')).collect();
            assert_eq!(targets, passed, "{mode:?} {run:?}");
            for request in arrived {
                let all: Vec<_> = request.headers.iter().filter(|(n, _)| n == "authorization").collect();
                assert_eq!(all.len(), 1, "{mode:?} {request:?}");
                assert_eq!(all[0].1, format!("Bearer {CANARY}"), "{mode:?}");
                assert_eq!(request.header("x-injected"), None, "{mode:?} {request:?}");
            }
        });
    });
}

#[test]
fn without_a_value_that_can_be_sent_nothing_is() {
    let script = r#"
        core=$(printf %s $T | cut -c1-28)
        t control -H "$H" $A/user
        t spoilt -H "authorization: Bearer $SPOILT" https://spoilt.test:8443/user
        t gone https://gone.test:8443/bot$GONE/send
        t forged -H "authorization: Bearer ${core}AAAAAAAAAABB" $A/user
        t short -H "x-note: $core" $A/user
        t forged_free -H "authorization: Bearer ${core}AAAAAAAAAABB" $F/user
        t forged_body -d "a=${core}AAAAAAAAAABB" $F/user
    "#;
    let want = [
        ("spoilt", 502, "cred_invalid"),
        ("gone", 502, "cred_unresolved"),
        ("forged", 403, "cred_unresolved"),
        ("short", 403, "cred_unresolved"),
        ("forged_free", 403, "cred_unresolved"),
        ("forged_body", 403, "cred_unresolved"),
    ];
    Outer::run_within(LONG, |outer| {
        World::start(outer).each_refused(script, &want);
    });
}
