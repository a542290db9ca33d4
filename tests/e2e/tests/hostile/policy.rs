//! POL: what changes at run time, and what `mode: audit` does not switch off.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::unistd::Uid;
use stockade_testkit::{Arena, Mode, Outer, Running, Stockade, skip, upstream::Tcp};

/// Waits until the policy was reloaded `times` times.
#[track_caller]
fn wait_for_reloads(run: &Running, times: usize) {
    let began = Instant::now();
    while run.events().iter().filter(|e| e.class() == 5019).count() < times + 1 {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", run.events());
        thread::sleep(Duration::from_millis(20));
    }
}

fn policy(port: u16, rest: &str) -> String {
    format!(
        "version: 1\nfilesystem: {{baseline: true, read_write: [.]{rest}}}\nnetwork:\n  endpoints:\n    e: {{hosts: [a.test], ports: [{port}], tls: passthrough}}\n"
    )
}

/// POL-07: a change of something else leaves the packet filter as it is, rule by rule.
#[test]
fn a_change_elsewhere_leaves_the_filter_alone() {
    let nsenter = Command::new("nsenter").arg("-V").output().is_ok();
    if !Uid::effective().is_root() || !nsenter || Command::new("nft").arg("-v").output().is_err() {
        skip!("root, nsenter and nft are needed to look at a sandbox's filter");
    }
    for mode in Mode::available() {
        let stockade = Stockade::new(*mode).policy(&policy(80, ""));
        let file = stockade.policy_path();
        let mut run = stockade.spawn(&["sh", "-c", "echo ready; read x"]);
        run.wait_for("ready");
        let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.pid())).unwrap();
        let rules = || {
            let nft = Command::new("nsenter")
                .args(["-t", child.trim(), "-n", "nft", "-s", "-a", "list", "ruleset"])
                .output()
                .unwrap();
            assert!(nft.status.success(), "{nft:?}");
            String::from_utf8_lossy(&nft.stdout).into_owned()
        };
        let before = rules();
        assert!(before.contains("stockade") && before.contains("80"), "control: {before}");
        fs::write(&file, policy(80, ", hidden: [.env]").replace("a.test", "b.test")).unwrap();
        wait_for_reloads(&run, 1);
        assert_eq!(rules(), before, "{mode:?}");
        fs::write(&file, policy(8088, "")).unwrap();
        wait_for_reloads(&run, 2);
        let began = Instant::now();
        while rules() == before {
            assert!(began.elapsed() < Duration::from_secs(5), "tripwire: a change of ports changes it: {mode:?}");
            thread::sleep(Duration::from_millis(20));
        }
        run.write(b"\n");
        run.finish().assert_code(0);
    }
}

/// POL-14: sections that are fixed at the start are reported as not applied, and the next start applies them.
#[test]
fn fixed_sections_are_not_applied_while_it_runs() {
    for mode in Mode::available() {
        let stockade = Stockade::new(*mode).policy(&policy(80, ""));
        let (file, secret) = (stockade.policy_path(), stockade.work().join("secret"));
        fs::write(&secret, "content\n").unwrap();
        let hidden = policy(80, ", hidden: [secret]");
        let mut run = stockade.spawn(&["sh", "-c", "echo ready; read x; cat secret"]);
        run.wait_for("ready");
        fs::write(&file, &hidden).unwrap();
        wait_for_reloads(&run, 1);
        run.write(b"\n");
        let done = run.finish();
        assert!(done.text().ends_with("content\n"), "not applied: {mode:?} {done:?}");
        let reloaded = done.events.iter().filter(|e| e.class() == 5019).last().unwrap();
        let said = reloaded.text("/message").unwrap();
        for text in [said, &done.stderr] {
            assert!(text.contains("; changes of `filesystem` take effect at the next start only"), "{mode:?} {text}");
        }
        let next = Stockade::new(*mode).policy(&hidden);
        fs::write(next.work().join("secret"), "content\n").unwrap();
        let next = next.sh("cat secret; echo end");
        assert_eq!(next.text(), "end\n", "tripwire: a start applies them: {mode:?} {next:?}");
    }
}

const WATCHED: &str = "
version: 1
rego: [deny.rego]
network:
  endpoints:
    site: {hosts: [up.corp.test], ports: [80], private_addresses: [192.0.2.0/24]}
    watched: {hosts: [watched.corp.test, inside.corp.test, meta.corp.test], ports: [80], private_addresses: [192.0.2.0/24], MODE}
";
const DENY: &str = "package stockade.custom\nimport rego.v1\ndeny contains \"not today\" if input.destination.host != \"up.corp.test\"\n";

/// POL-08: `mode: audit` has to be written, and lets only the policy's own denials through.
#[test]
fn audit_mode_lifts_no_safety_rule() {
    Outer::run(|_| {
        let inside = Tcp::sink("127.0.0.1:80");
        let get = |host: &str| {
            format!("proxy:GET http://{host}/ HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n")
        };
        let watched = get("watched.corp.test");
        let held = [
            (get("inside.corp.test"), 403, "ssrf_always_blocked"),
            (get("meta.corp.test"), 403, "ssrf_metadata"),
            (get("other.corp.test"), 403, "no_policy"),
            ("proxy:GET http://watched.corp.test/ HTTP/1.1\\r\\nHost: up.corp.test\\r\\n\\r\\n".to_owned(), 421, "authority_mismatch"),
            ("proxy:POST http://watched.corp.test/ HTTP/1.1\\r\\nHost: watched.corp.test\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n".to_owned(), 400, "framing"),
            ("proxy:GET http://watched.corp.test@evil.test/ HTTP/1.1\\r\\nHost: watched.corp.test\\r\\n\\r\\n".to_owned(), 400, "bad_authority"),
        ];
        let arena = Arena::new("version: 1\n", "up.corp.test");
        arena.dns.host("watched.corp.test", "192.0.2.10");
        arena.dns.host("inside.corp.test", "127.0.0.1");
        arena.dns.host("meta.corp.test", "169.254.169.254");
        for mode in Mode::available() {
            for (word, wanted) in [("mode: enforce", 403), ("mode: audit", 200), ("limits: {}", 403)] {
                let tries: Vec<&str> = held.iter().map(|(t, ..)| t.as_str()).chain([&*watched]).collect();
                let stockade = Stockade::new(*mode);
                fs::write(stockade.policy_path().with_file_name("deny.rego"), DENY).unwrap();
                let run = stockade.policy(&WATCHED.replace("MODE", word).replace(", limits: {}", "")).probe(&tries);
                let said = run.outcome(&watched).what;
                assert!(said.starts_with(&format!("ok HTTP/1.1 {wanted}")), "{mode:?} {word} {said}\n{run:?}");
                if wanted == 200 {
                    let event = run.events.some("custom_deny");
                    assert_eq!(event.action(), Some("allowed"), "what would be denied is told: {mode:?} {run:?}");
                    for (attempt, status, reason) in &held {
                        let what = run.outcome(attempt).what;
                        assert!(
                            what.starts_with(&format!("ok HTTP/1.1 {status}")) && what.contains(reason),
                            "{mode:?} {attempt} {what}"
                        );
                        run.events.one(reason);
                    }
                }
            }
        }
        inside.counters.assert_untouched();
    });
}
