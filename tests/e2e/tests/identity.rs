//! Who asks (BIN): rules that name programs, and programs that try to pass for them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![forbid(unsafe_code)]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use stockade_testkit::{Finished, Mode, Outer, Stockade, skip, upstream::Http};

/// The allowed program: an interpreter, so that it can try everything.
const PYTHON: &str = "/usr/bin/python3";
const ATTACK: &str = include_str!("identity/attack.py");
const SITE: &str = "192.0.2.10";

fn policy(binaries: &str) -> String {
    let site = format!("{{hosts: [{SITE}], ports: [80], private_addresses: [192.0.2.0/24], binaries: {binaries}}}");
    format!("{{version: 1, network: {{endpoints: {{site: {site}}}}}}}")
}

/// A sandbox whose workspace holds the attack and `evil`, a copy of the allowed program.
fn sandbox(mode: Mode, binaries: &str) -> Stockade {
    sandbox_with(mode, &policy(binaries))
}

fn sandbox_with(mode: Mode, policy: &str) -> Stockade {
    let run = Stockade::new(mode).policy(policy);
    fs::write(run.work().join("attack.py"), ATTACK).unwrap();
    fs::copy(fs::canonicalize(PYTHON).unwrap(), run.work().join("evil")).unwrap();
    run.arg("--env")
        .arg("PYTHONHOME=/usr")
        .arg("--env")
        .arg("PYTHONDONTWRITEBYTECODE=1")
        .timeout(Duration::from_secs(90))
}

fn attack(mode: Mode, what: &str) -> Finished {
    sandbox(mode, &format!("[{PYTHON}]")).run(&[PYTHON, "attack.py", what])
}

/// What a request got: `200 -`, `403 identity_changed`, `closed ...`.
#[track_caller]
fn got(run: &Finished, name: &str) -> String {
    let text = run.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no answer to `{name}`: {run:?}")).to_owned()
}

#[track_caller]
fn refused(run: &Finished, name: &str, reason: &str) {
    assert_eq!(got(run, name), format!("403 {reason}"), "{run:?}");
    run.events.some(reason);
}

/// Runs in every mode that there is, where the allowed program is installed.
fn in_every_mode(body: impl Fn(Mode, &Http)) {
    if !PathBuf::from(PYTHON).exists() {
        skip!("no {PYTHON}");
    }
    Outer::run(|_| {
        let site = Http::hello(format!("{SITE}:80"));
        for mode in Mode::available() {
            body(*mode, &site);
        }
    });
}

/// Paths of the requests that arrived since the last call.
fn arrived(site: &Http, before: usize) -> Vec<String> {
    site.requests().iter().skip(before).map(|r| r.target().to_owned()).collect()
}

#[test]
fn the_program_that_is_named_may_and_others_may_not() {
    in_every_mode(|mode, site| {
        let before = site.requests().len();
        let run = attack(mode, "plain");
        for name in ["first", "second", "mapped", "direct"] {
            assert_eq!(got(&run, name), "200 -", "{mode:?} {run:?}");
        }
        let real = fs::canonicalize(PYTHON).unwrap();
        let event = run.events.iter().find(|e| e.action() == Some("allowed")).unwrap();
        assert_eq!(event.text("/actor/process/file/path"), real.to_str(), "{event:?}");
        assert_eq!(event.text("/actor/process/file/hashes/0/value").map(str::len), Some(64), "{event:?}");
        assert!(event.text("/unmapped/script").is_some_and(|s| s.ends_with("/attack.py")), "{event:?}");
        assert!(run.stderr.contains(&format!("{PYTHON} is {}", real.display())), "both names: {}", run.stderr);
        assert!(run.stderr.contains("grants any code"), "an interpreter: {}", run.stderr);
        assert_eq!(arrived(site, before).len(), 4);

        // Copies, other names, other loaders, no name at all: none is the file that the policy names.
        let before = site.requests().len();
        let script = "
            ln -s /usr/bin/python3 link && ./link attack.py once | sed 's/once/link/'
            ./evil attack.py once | sed 's/once/copy/'
            mkdir bin && cp evil bin/python3 && PATH=$PWD/bin python3 attack.py once | sed 's/once/path/'
            bash -c 'exec -a /usr/bin/python3 ./evil attack.py once' | sed 's/once/argv/'
            cp evil 'python3 (deleted)' && './python3 (deleted)' attack.py once | sed 's/once/deleted/'
            cp evil unlinked && (./unlinked -c 'import time; time.sleep(1); exec(open(\"attack.py\").read())' once \\
                | sed 's/once/unlinked/' & sleep .3; rm unlinked; cp /usr/bin/python3 unlinked; wait)
            name=$(printf 'a\\033[31m\\nb\\377'); cp evil \"$name\" && \"./$name\" attack.py once | sed 's/once/odd/'
            loader=$(ls /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 2>/dev/null | head -1)
            $loader /usr/bin/python3 attack.py once | sed 's/once/loader/'
            ./evil attack.py decoy /usr/bin/python3 | sed 's/first/decoy/'
            /usr/bin/python3 attack.py memory | sed 's/once/memory/'
        ";
        let run = sandbox(mode, &format!("[{PYTHON}]")).sh(script);
        for name in ["copy", "path", "argv", "deleted", "unlinked", "odd", "loader", "decoy"] {
            refused(&run, name, "identity_no_match");
        }
        let memory = got(&run, "memory");
        assert!(memory == "403 identity_no_match" || memory.starts_with("refused"), "{memory} {run:?}");
        assert_eq!(got(&run, "link"), "200 -", "a link leads to the allowed file itself: {run:?}");
        assert_eq!(arrived(site, before), ["/once"], "{mode:?} {run:?}");
        assert!(!run.stderr.contains('\u{1b}'), "{}", run.stderr);
    });
}

#[test]
fn a_connection_that_changes_hands_is_refused() {
    in_every_mode(|mode, site| {
        for (what, reason) in [
            ("pass_on", "identity_ambiguous"),
            ("becomes", "identity_changed"),
            ("shares", "identity_ambiguous"),
            ("queued", "identity_unresolved"),
            ("outlives", "identity_changed"),
        ] {
            let before = site.requests().len();
            let run = attack(mode, what);
            assert_eq!(got(&run, "first"), "200 -", "the control: {what} {mode:?} {run:?}");
            refused(&run, "second", reason);
            assert_eq!(arrived(site, before), ["/first"], "{what} {mode:?} {run:?}");
        }
        let run = attack(mode, "hides");
        assert_eq!(got(&run, "unshare"), "-1 1", "{mode:?} {run:?}");
    });
}

#[test]
fn ancestors_narrow_and_an_orphan_has_none() {
    in_every_mode(|mode, site| {
        let rule = format!("{{any: [{PYTHON}], ancestors: true}}");
        let before = site.requests().len();
        let run = sandbox(mode, &rule).run(&[PYTHON, "attack.py", "once"]);
        assert_eq!(got(&run, "once"), "200 -", "{mode:?} {run:?}");
        let run = sandbox(mode, &rule).sh("/usr/bin/python3 attack.py once; true");
        refused(&run, "once", "identity_no_match");
        let run = sandbox(mode, &rule).run(&[PYTHON, "attack.py", "orphan"]);
        refused(&run, "orphan", "identity_no_match");
        assert_eq!(arrived(site, before), ["/once"], "{mode:?} {run:?}");
    });
}

#[test]
fn a_replaced_program_is_not_the_one_that_was_named() {
    in_every_mode(|mode, site| {
        let before = site.requests().len();
        let tools = tempfile::tempdir().unwrap();
        fs::set_permissions(tools.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let tool = tools.path().join("tool");
        fs::copy(fs::canonicalize(PYTHON).unwrap(), &tool).unwrap();
        let endpoint = policy(&format!("[{}]", tool.display()));
        let filesystem = format!("{{version: 1, filesystem: {{read_only: [{}]}},", tools.path().display());
        let run = sandbox_with(mode, &endpoint.replacen("{version: 1,", &filesystem, 1));
        let go = run.work().join("go");
        let script = "$0 attack.py once; echo ready; while [ ! -e go ]; do sleep .05; done; $0 attack.py once | sed s/once/again/";
        let running = run.spawn(&["/bin/sh", "-c", script, tool.to_str().unwrap()]);
        running.wait_for("ready");
        // The same size, the same times, the same path, even the same file.
        let (old, bytes) = (fs::metadata(&tool).unwrap(), fs::read(&tool).unwrap());
        fs::write(&tool, &bytes).unwrap();
        let times = fs::FileTimes::new().set_modified(old.modified().unwrap()).set_accessed(old.accessed().unwrap());
        fs::File::options().write(true).open(&tool).unwrap().set_times(times).unwrap();
        fs::write(go, "").unwrap();
        let run = running.finish();
        assert_eq!(got(&run, "once"), "200 -", "{mode:?} {run:?}");
        refused(&run, "again", "identity_no_match");
        assert_eq!(arrived(site, before), ["/once"], "{mode:?} {run:?}");
    });
}

#[test]
fn a_program_that_cannot_be_relied_upon_stops_the_start() {
    in_every_mode(|mode, _| {
        let run = Stockade::new(mode);
        let own = run.work().join("tool");
        fs::copy("/bin/true", &own).unwrap();
        let own = own.display().to_string();
        let run = run.policy(&policy(&format!("['{own}']"))).sh("echo ran").expect_code(125);
        assert!(run.stderr.contains("the command can write there") && !run.text().contains("ran"), "{run:?}");

        let tools = tempfile::tempdir().unwrap();
        fs::set_permissions(tools.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let huge = tools.path().join("huge");
        let file = fs::File::create(&huge).unwrap();
        file.set_len(4 << 30).unwrap();
        fs::set_permissions(&huge, fs::Permissions::from_mode(0o755)).unwrap();
        let link = tools.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        for (path, why) in [(&huge, "at most 1 GiB"), (&link, "no such file inside")] {
            let filesystem = format!("{{version: 1, filesystem: {{read_only: [{}]}},", tools.path().display());
            let text = policy(&format!("['{}']", path.display())).replacen("{version: 1,", &filesystem, 1);
            let run = Stockade::new(mode).policy(&text).sh("echo ran");
            assert!(run.stderr.contains(why), "{run:?}");
            assert_eq!(run.text().contains("ran"), path == &link, "{run:?}");
        }
        let run = Stockade::new(mode).policy(&policy("[/usr/bin/**]")).sh("echo ran").expect_code(125);
        assert!(run.stderr.contains("patterns are not expanded"), "{run:?}");
        let pinned = format!("[{{path: {PYTHON}, sha256: {}}}]", "0".repeat(64));
        let run = Stockade::new(mode).policy(&policy(&pinned)).sh("echo ran").expect_code(125);
        assert!(run.stderr.contains("not the one that the policy names"), "{run:?}");

        let relaxed =
            policy(&format!("[{PYTHON}]")).replacen("{version: 1,", "{version: 1, process: {relax: [ptrace]},", 1);
        let run = Stockade::new(mode).policy(&relaxed).sh("echo ran").expect_code(125);
        assert!(run.stderr.contains("a program can pass for another"), "{run:?}");
    });
}
