//! `stockade learn` on a real tool, and then `stockade run` with what it wrote, unedited.

use std::time::Duration;

use stockade_testkit::{
    Mode, Outer, Stockade,
    outer::{RESOLVER, ip},
    upstream::{
        Dns, Http, Https, Response, Tcp,
        https::{Authority, Options, Reply},
    },
};

use crate::{
    need_tools,
    world::{HELLO, World},
};

#[test]
fn what_was_learned_is_what_works() {
    need_tools!(inside: "git", "curl", "bash");
    need_tools!(outside: "git");
    Outer::run_within(Duration::from_secs(170), |outer| {
        // Learning keeps the rules about addresses, so the site has one that counts as public. It is local in here.
        ip(&["route", "add", "local", "99.99.99.0/24", "dev", "lo"]);
        let world = World::start(outer);
        world.repository();
        let dir = outer.dir().join("site");
        let public = Http::start("99.99.99.10:80", move |request| {
            let path = request.target().trim_start_matches('/').split('?').next().unwrap_or_default().to_owned();
            match std::fs::read(dir.join(path)) {
                Ok(bytes) => Response::Whole(200, bytes),
                Err(_) => Response::Whole(404, Vec::new()),
            }
        });
        let echo = Tcp::echo("99.99.99.11:22");
        world.dns.host("code.up.test", "99.99.99.10");
        world.dns.host("echo.up.test", "99.99.99.11");
        let script = "git clone -q http://code.up.test/repo.git out && cat out/hello; rm -rf out
            bash -c 'exec 3<>/dev/tcp/echo.up.test/22; echo echoed >&3; head -n 1 <&3'";
        for mode in Mode::available() {
            let stockade = Stockade::new(*mode);
            let learned = stockade.work().with_file_name("conf").join("learned.yaml");
            let run = stockade.subcommand("learn").arg("-o").arg(&learned).sh(script);
            run.assert_code(0);
            assert_eq!(run.text(), format!("{HELLO}echoed\n"), "{mode:?} {run:?}");
            let text = std::fs::read_to_string(&learned).unwrap_or_else(|e| panic!("{e}: {run:?}"));
            assert!(text.contains("hosts: [code.up.test]") && text.contains("ports: [80]"), "{mode:?} {text}");
            assert!(text.contains("hosts: [echo.up.test]") && text.contains("ports: [22]"), "{mode:?} {text}");
            assert_eq!(text.matches("hosts:").count(), 2, "no more than was seen: {text}");

            let (before, echoed) = (public.requests().len(), echo.counters.arrivals());
            let script = format!("{script}; curl -sS -o /dev/null -w '%{{http_code}}' --max-time 10 http://up.test/");
            let run = Stockade::new(*mode).policy(&text).sh(&script);
            assert_eq!(run.text(), format!("{HELLO}echoed\n403"), "{mode:?} {run:?}\n{text}");
            assert!(public.requests().len() > before && echo.counters.arrivals() > echoed, "{mode:?} {run:?}");
            assert_eq!(
                run.events.one("no_policy").host(),
                Some("up.test"),
                "nothing else was refused: {mode:?} {run:?}"
            );
        }
        world.http.counters().assert_untouched();
    });
}

/// The requests of a tool over HTTP/2 and HTTP/1.1, and one by a program that takes no certificate but its own.
const REQUESTS: &str = "
ask() { curl -sS -o /dev/null -w '%{http_code} ' --max-time 10 \"$@\"; }
for n in 1 2 3; do ask https://api.up.test/users/$n?full=1; done
ask --http1.1 -d job=1 https://api.up.test/jobs
ask --cacert own.pem https://pinned.up.test/ 2>/dev/null || echo \"pinned $?\"
";

/// What the same tool must not do with what was learned.
const MORE: &str = "ask -X DELETE https://api.up.test/users/1; ask https://api.up.test/jobs; ask https://api.up.test/";

#[test]
fn requests_inside_tls_are_learned_when_asked_for() {
    need_tools!(inside: "curl", "bash");
    Outer::run_within(Duration::from_secs(170), |outer| {
        ip(&["route", "add", "local", "99.99.99.0/24", "dev", "lo"]);
        let dns = Dns::start((RESOLVER, 53));
        let (authority, own) = (Authority::new(), Authority::new());
        let ca = outer.dir().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let origin = |name: &str, at: &str| {
            dns.host(name, at);
            Https::start(&format!("{at}:443"), &authority, &Options::of(&[name]), |_| Reply::ok("here\n"))
        };
        let (api, pinned) = (origin("api.up.test", "99.99.99.10"), origin("pinned.up.test", "99.99.99.11"));
        let start = |mode| {
            let stockade = Stockade::new(mode).arg("--upstream-ca").arg(&ca);
            std::fs::write(stockade.work().join("own.pem"), own.pem()).unwrap();
            stockade
        };
        for mode in Mode::available() {
            let stockade = start(*mode);
            let learned = stockade.work().with_file_name("conf").join("learned.yaml");
            let run = stockade.subcommand("learn").arg("--inspect").arg("-o").arg(&learned).sh(REQUESTS);
            assert_eq!(run.text(), "200 200 200 200 000 pinned 60\n", "{mode:?} {run:?}");
            let text = std::fs::read_to_string(&learned).unwrap_or_else(|e| panic!("{e}: {run:?}"));
            let endpoint = "hosts: [api.up.test]\n      ports: [443]\n      allow:\n        \
                - {methods: [GET], paths: [\"/users/*\"]}\n        - {methods: [POST], paths: [/jobs]}\n";
            assert!(text.contains(endpoint), "{mode:?} {text}");
            assert!(text.contains("# not learned: pinned.up.test:443: "), "{mode:?} {text}");
            assert_eq!(text.matches("hosts:").count(), 1, "no more than was seen: {text}");
            let before = api.requests().len();

            let run = start(*mode).policy(&text).sh(&format!("{REQUESTS}{MORE}"));
            let want = "200 200 200 200 000 pinned 56\n403 403 403 ";
            assert_eq!(run.text(), want, "{mode:?} {run:?}\n{text}");
            assert_eq!(api.requests().len() - before, 4, "{mode:?} {run:?}");
        }
        assert_eq!(pinned.requests().len(), 0);

        // Control: as long as nobody asks for it nothing is decrypted, and hosts and ports are what is learned.
        let stockade = start(Mode::Rootless);
        let learned = stockade.work().with_file_name("conf").join("learned.yaml");
        let run = stockade.subcommand("learn").arg("-o").arg(&learned).sh("curl -sSk https://api.up.test/users/7");
        assert_eq!(run.text(), "here\n", "{run:?}");
        let text = std::fs::read_to_string(&learned).unwrap();
        assert!(text.contains("hosts: [api.up.test]\n      ports: [443]\n      tls: passthrough\n"), "{text}");
        assert!(!text.contains("allow:"), "{text}");
    });
}
