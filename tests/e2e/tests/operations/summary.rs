//! The last lines of a run: what was blocked or failed, why, and the smallest thing that changes it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use stockade_testkit::{Finished, Mode, Outer, Stockade, runner::program};

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
        let origin = Http::hello("192.0.2.10:9000");
        let script = "curl -s -m 5 --noproxy '*' -o /dev/null -w '%{http_code}\\n' http://192.0.2.10:9000/
            echo x > /dev/udp/192.0.2.10/9001";
        for mode in Mode::available() {
            let before = origin.counters().arrivals();
            let run = Stockade::new(*mode).run(&["/bin/bash", "-c", script]);
            assert_eq!(origin.counters().arrivals(), before, "{mode:?} {run:?}");
            summary(
                &run,
                &[
                    "192.0.2.10:9000  bypass\n          to allow it: --allow 192.0.2.10:9000\n",
                    "192.0.2.10:9001  bypass: UDP that goes around the proxy is refused, which no policy can allow\n",
                ],
            );
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

/// As an installer lays it out: a link on the PATH to a version that lies elsewhere.
#[test]
fn a_program_is_followed_through_its_link_and_the_hint_does_what_it_says() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(home.path());
    fs::create_dir(at("bin")).unwrap();
    fs::create_dir(at("share")).unwrap();
    fs::write(at("share/2.1"), "#!/bin/sh\necho started\n").unwrap();
    open(&at("share/2.1"));
    symlink("../share/2.1", at("bin/agent")).unwrap();
    for mode in Mode::available() {
        let run = Stockade::new(*mode).run(&[at("bin/agent")]);
        run.assert_code(127);
        let hint =
            format!("filesystem: {{read_write: [.], read_only: [{}, {}]}}", at("bin").display(), at("share").display());
        let link = format!(", a link to {};", at("share/2.1").display());
        summary(&run, &[&link, "a policy file (`--policy FILE`)", &format!("version: 1\n  {hint}\n")]);
        let run = Stockade::new(*mode).policy(&format!("version: 1\n{hint}\n")).run(&[at("bin/agent")]);
        assert_eq!(run.text(), "started\n", "{mode:?} {run:?}");
        let run = Stockade::new(*mode).arg("--env").arg("PATH=/nope").run(&["ls"]);
        summary(&run, &["ls: not in the PATH that the command has (/nope); it is "]);
        let run = Stockade::new(*mode)
            .workspace(at("share"))
            .policy("version: 1\nfilesystem: {baseline: true}\n")
            .run(&["pwd"]);
        summary(&run, &["is not granted, the command starts in "]);
    }
}

#[test]
fn what_is_asked_for_in_vain_is_said() {
    for mode in Mode::available() {
        let run = Stockade::new(*mode).arg("--env").arg("NO_SUCH_NAME").arg("--timeout=300ms").sh("sleep 20");
        run.assert_code(124);
        summary(&run, &["--env NO_SUCH_NAME: not set here", "its time (--timeout) was up"]);
        let policy =
            "version: 1\nnetwork: {endpoints: {api: {hosts: [api.test], mode: audit, deny: [{methods: [PUT]}]}}}\n";
        let run = Stockade::new(*mode).policy(policy).sh("true");
        summary(&run, &["not enforced by policy (mode: audit): api\n"]);
        let loaded = run.events.iter().find(|e| e.class() == 5019).unwrap();
        assert!(loaded.text("/message").unwrap().contains("mode: audit"), "{loaded:?}");
        let ended = run.events.iter().filter(|e| e.class() == 1007).last().unwrap();
        assert!(ended.text("/message").unwrap().starts_with("exited \"/bin/sh\" "), "{ended:?}");
    }
}

#[test]
fn a_file_that_is_no_log_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    fs::write(&file, "version: 1\n").unwrap();
    for (args, shown) in
        [(&["export"][..], ""), (&["export", "--format", "csv"], "time,"), (&["tail"], "unreadable line")]
    {
        let out = Command::new(program(false)).arg("audit").args(args).arg(&file).output().unwrap();
        let (text, said) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(1), "{args:?} {said}");
        assert!(said.ends_with("policy.yaml: 1 line is no event of an audit log\n"), "{args:?} {said}");
        assert!(!text.contains("version: 1") || args == ["tail"], "{args:?} {text}");
        assert!(text.starts_with(shown), "{args:?} {text}");
    }
}

#[test]
fn a_command_without_its_dashes_is_told_where_they_go() {
    for sub in ["run", "supervise"] {
        let out = Command::new(program(false)).args([sub, "ls"]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(125), "{sub} {said}");
        assert!(said.contains("put `--` before the command"), "{sub} {said}");
        let other = Command::new(program(false)).args([sub, "--nonsense"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&other.stderr).contains("put `--`"), "control: an option is none: {sub}");
    }
}
