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

/// A host inside, by a policy that says so, and one that it does not know.
const PRIVATE: &str = "
version: 1
network:
  endpoints:
    site: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]@}
";
const BOTH: &str =
    "for h in up.test other.test; do curl -sS -o /dev/null -w '%{http_code} ' --max-time 10 http://$h/; done";

#[test]
fn what_the_policy_in_force_says_is_not_lost() {
    need_tools!(inside: "curl", "bash");
    Outer::run_within(Duration::from_secs(170), |_| {
        let dns = Dns::start((RESOLVER, 53));
        let site = Http::hello("192.0.2.10:80");
        dns.host("up.test", "192.0.2.10");
        dns.host("other.test", "192.0.2.10");
        let learn = |mode: &Mode, policy: Option<&str>, script: &str| {
            let mut stockade = Stockade::new(*mode);
            let learned = stockade.work().with_file_name("conf").join("learned.yaml");
            if let Some(policy) = policy {
                stockade = stockade.policy(policy);
            }
            let run = stockade.subcommand("learn").arg("-o").arg(&learned).sh(script);
            let text = std::fs::read_to_string(&learned).unwrap_or_else(|e| panic!("{e}: {run:?}"));
            (run, text)
        };
        for mode in Mode::available() {
            // Private addresses are said again, so that the learned policy works alone. What was refused is told.
            let (run, text) = learn(mode, Some(&PRIVATE.replace('@', "")), BOTH);
            assert_eq!(run.text(), "200 403 ", "{mode:?} {run:?}");
            assert!(text.contains("      private_addresses: [\"192.0.2.0/24\"]\n"), "{mode:?} {text}");
            assert!(text.contains("# refused or failed: 1 × other.test:80  ssrf_internal: "), "{mode:?} {text}");
            assert!(run.stderr.contains("  1 × other.test:80  ssrf_internal: "), "{mode:?} {run:?}");
            let run = Stockade::new(*mode).policy(&text).sh(BOTH);
            assert_eq!(run.text(), "200 403 ", "{mode:?} {run:?}\n{text}");

            // What no run can show stays with the policy that said it, and both together are a policy.
            let base = PRIVATE.replace('@', ", limits: {requests_per_minute: 600}");
            let (run, text) = learn(mode, Some(&base), BOTH);
            assert!(text.contains("#   endpoint `site`: `limits`\n"), "{mode:?} {text}");
            assert!(text.contains("# not repeated: up.test:80 is in endpoint `site`"), "{mode:?} {text}");
            assert!(run.stderr.contains("nothing was learned that the policy does not have"), "{mode:?} {run:?}");
            let both = Stockade::new(*mode).policy(&base);
            let second = both.policy_path().with_file_name("learned.yaml");
            std::fs::write(&second, &text).unwrap();
            let run = both.arg("--policy").arg(&second).sh(BOTH);
            assert_eq!(run.text(), "200 403 ", "{mode:?} {run:?}\n{text}");

            // Without a policy that knows them, private hosts are not learned, and that is said.
            let (run, text) = learn(mode, None, "curl -sS -o /dev/null --max-time 10 http://up.test/");
            assert!(text.starts_with("version: 1\nnetwork:\n  endpoints: {}\n"), "{mode:?} {text}");
            assert!(run.stderr.contains("stockade: nothing was learned: "), "{mode:?} {run:?}");
            assert!(run.stderr.contains("  1 × up.test:80  ssrf_internal: "), "{mode:?} {run:?}");
        }
        assert!(site.requests().len() >= 3, "control: it was there to be reached");
    });
}

#[test]
fn a_place_that_cannot_be_written_is_refused_before_the_command_runs() {
    for mode in Mode::available() {
        let stockade = Stockade::new(*mode);
        let work = stockade.work();
        let run = stockade.subcommand("learn").arg("-o").arg(&work).sh("echo ran");
        run.assert_code(125);
        assert!(run.text().is_empty() && run.stderr.contains(&*work.to_string_lossy()), "{mode:?} {run:?}");
        let run = Stockade::new(*mode).subcommand("learn").arg("-o").arg("/proc/learned.yaml").sh("echo ran");
        run.assert_code(125);
        assert!(run.text().is_empty() && run.stderr.contains("-o /proc/learned.yaml: "), "{mode:?} {run:?}");
        assert!(run.stderr.contains("nothing was run"), "{mode:?} {run:?}");

        let stockade = Stockade::new(*mode);
        let learned = stockade.work().with_file_name("conf").join("learned.yaml");
        let run = stockade.subcommand("learn").arg("-o").arg(&learned).sh("echo ran");
        assert_eq!(run.text(), "ran\n", "control: {mode:?} {run:?}");
        let names: Vec<_> =
            std::fs::read_dir(learned.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!names.iter().any(|n| n.to_string_lossy().starts_with(".stockade")), "{mode:?} {names:?}");
    }
}
