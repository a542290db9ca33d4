//! The last lines of a run: what was blocked or failed, why, and the smallest thing that changes it.

use stockade_testkit::{Finished, Mode, Outer, Stockade};

use super::*;

/// A script that says nothing by itself, and the summary of its run.
#[track_caller]
fn summary(run: &Finished, words: &[&str]) {
    for word in words {
        assert!(run.stderr.contains(word), "`{word}` is not said: {run:?}");
    }
}

const GET: &str = "curl -s -m 10 -o body -w '%{http_code}\\n' http://up.test/";

#[test]
fn a_private_address_has_the_line_that_allows_it() {
    Outer::run(|_| {
        let (site, _dns) = world();
        let policy = |rest: &str| {
            format!("version: 1\nnetwork:\n  endpoints:\n    site:\n      hosts: [up.test]\n      ports: [80]\n{rest}")
        };
        for mode in Mode::available() {
            let before = site.counters().arrivals();
            let run = Stockade::new(*mode).policy(&policy("")).sh(&format!("{GET}; cat body"));
            let line = "      private_addresses: [\"192.0.2.10/32\"]\n";
            summary(
                &run,
                &[
                    "stockade: 1 connection blocked\n      1 × up.test:80  ssrf_internal\n",
                    "to allow it: add to the policy\n",
                    &format!("site:\n            {line}"),
                ],
            );
            assert!(run.text().starts_with("403\n"), "{mode:?} {run:?}");
            assert!(!run.text().contains("192.0.2.10"), "the command is not told: {mode:?} {run:?}");
            let event = run.events.one("ssrf_internal");
            assert!(event.text("/unmapped/suggestion").is_some_and(|s| s.contains("192.0.2.10/32")), "{event:?}");
            assert_eq!(site.counters().arrivals(), before, "{mode:?}");
            let allowed = Stockade::new(*mode).policy(&policy(line)).sh(GET);
            assert_eq!(allowed.text(), "200\n", "the line does what is said: {mode:?} {allowed:?}");
            let run = Stockade::new(*mode).arg("--allow").arg("up.test:80").sh(GET);
            let whole =
                "up.test:\n                  {hosts: [up.test], ports: [80], private_addresses: [\"192.0.2.10/32\"]}\n";
            summary(&run, &["write a policy file (`--policy FILE`) with\n", whole]);
        }
    });
}

#[test]
fn what_goes_around_the_proxy_can_be_allowed_where_it_is_tcp() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        let script = "curl -s -m 5 --noproxy '*' -o /dev/null -w '%{http_code}\\n' http://192.0.2.10:9000/
            echo x > /dev/udp/192.0.2.10/9001";
        for mode in Mode::available() {
            let run = Stockade::new(*mode).run(&["/bin/bash", "-c", script]);
            summary(
                &run,
                &[
                    "192.0.2.10:9000  bypass\n          to allow it: --allow 192.0.2.10:9000\n",
                    "192.0.2.10:9001  bypass: UDP that goes around the proxy is refused, which no policy can allow\n",
                ],
            );
            let _origin = Http::hello("192.0.2.10:9000");
            let run = Stockade::new(*mode).arg("--allow").arg("192.0.2.10:9000").run(&["/bin/bash", "-c", script]);
            assert_eq!(run.text(), "200\n", "the option does what is said: {mode:?} {run:?}");
        }
    });
}

#[test]
fn failures_are_said_with_their_reason() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        for mode in Mode::available() {
            let stockade = Stockade::new(*mode).arg("--allow").arg("gone.test");
            let run = stockade.sh("curl -s -m 10 https://gone.test/; curl -s -m 10 https://gone.test/; true");
            let want = "stockade: 2 connections failed\n      2 × gone.test:443  upstream_dns: cannot resolve the host: \
                        the name does not exist\n";
            summary(&run, &[want]);
            assert!(!run.stderr.contains("blocked"), "{mode:?} {run:?}");
        }
    });
}

#[test]
fn the_head_of_the_log_is_said_when_nothing_was_blocked() {
    for mode in Mode::available() {
        let run = Stockade::new(*mode).sh("true");
        let line = run.stderr.lines().find(|l| l.starts_with("stockade: audit log ")).unwrap_or_default();
        let head = line.rsplit(' ').next().unwrap_or_default();
        let last = run.events.iter().last().unwrap();
        assert_eq!(last.text("/unmapped/hash"), Some(head), "{mode:?} {run:?}");
        let quiet = Stockade::new(*mode).arg("--log-level=error").sh("true");
        assert_eq!(quiet.stderr, "", "{mode:?}");
    }
}
