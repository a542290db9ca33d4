//! FS: the audit log, and disks that fill up.

use std::{fs, path::Path, process::Command};

use nix::mount::{MsFlags, mount, umount};
use stockade_testkit::{Finished, Mode, Outer, Stockade, runner::program};

fn verify(log: &Path) -> String {
    let out = Command::new(program(false)).args(["audit", "verify"]).arg(log).output().unwrap();
    format!("{:?} {} {}", out.status.code(), String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// What the command does to a log that it can see.
const ATTACK: &str = r#"
    f=audit.jsonl; d=$(basename "$PWD")
    (echo forged >> $f; : > $f; truncate -s 0 $f; cp /dev/null $f; rm -f $f; mv $f gone; ln -sf /dev/null $f; rm -f $f; mkfifo $f
     chmod 666 $f; echo x > $f.next; echo x > $f.1; perl -e 'rename "next", $ARGV[0]' $f; cd .. && mv "$d" moved; mkdir "$d") 2>/dev/null
    curl -s -o /dev/null -w '%{http_code}\n' http://evil.test/; head -c 100 $f 2>/dev/null; echo end"#;

/// FS-09: the log is out of reach where it lies outside, and is neither to be read nor changed where it lies in the workspace.
#[test]
fn the_log_is_not_the_command_s_to_change() {
    for mode in Mode::available() {
        let run = Stockade::new(*mode).sh("cat ../log/audit.jsonl; ls ..; echo x > ../log/audit.jsonl; echo end");
        assert!(run.text().ends_with("end\n") && !run.text().contains("class_uid"), "absent: {mode:?} {run:?}");

        let stockade = Stockade::new(*mode);
        let log = stockade.work().join("audit.jsonl");
        let run = stockade.audit_log(&log).sh(ATTACK);
        assert_eq!(run.text(), "403\nend\n", "{mode:?} {run:?}");
        assert_eq!(run.events.one("no_policy").host(), Some("evil.test"), "{mode:?}");
        let first = run.events.iter().next().unwrap();
        assert_eq!(first.class(), 1008, "the whole log is there: {mode:?} {run:?}");
        assert!(run.events.with("protected_write").is_empty(), "and stays covered: {mode:?} {run:?}");
        let checked = verify(&log);
        assert!(checked.starts_with("Some(0)"), "{mode:?} {checked}");
        let lines = fs::read_to_string(&log).unwrap();
        assert!(lines.lines().all(|l| l.starts_with('{')), "{mode:?} {lines}");
    }
    // Tripwire: without Stockade the same attack leaves no log.
    let bare = Stockade::new(Mode::Rootless).unwrapped();
    let log = bare.work().join("audit.jsonl");
    fs::write(&log, "line\n").unwrap();
    std::os::unix::fs::chown(&log, Some(1000), Some(1000)).ok();
    let work = bare.work();
    let bare = bare.sh("f=audit.jsonl; : > $f; rm -f $f; mkfifo $f; echo end");
    assert!(bare.text().ends_with("end\n"), "{bare:?}");
    let kind = fs::symlink_metadata(work.join("audit.jsonl")).map(|m| m.is_file());
    assert!(!matches!(kind, Ok(true)), "tripwire: {kind:?}");
}

/// FS-09: a full disk stops the log and nothing else, and stderr says so.
#[test]
fn a_full_disk_stops_the_log_and_not_the_door() {
    const MANY: usize = 300;
    let tries: Vec<String> = (0..MANY)
        .map(|n| {
            format!("proxy:GET http://h{n}.test/ HTTP/1.1\\r\\nHost: h{n}.test\\r\\nConnection: close\\r\\n\\r\\n")
        })
        .collect();
    Outer::run(|outer| {
        let dir = outer.dir().join("disk");
        fs::create_dir(&dir).unwrap();
        for mode in Mode::available() {
            let on_disk = |size: &str| -> Finished {
                mount(
                    Some("none"),
                    &dir,
                    Some("tmpfs"),
                    MsFlags::empty(),
                    Some(format!("mode=1777,size={size}").as_str()),
                )
                .unwrap();
                let run = Stockade::new(*mode).audit_log(dir.join("audit.jsonl")).probe(&tries);
                let checked = verify(&dir.join("audit.jsonl"));
                umount(&dir).unwrap();
                assert!(checked.starts_with("Some(0)"), "what is there is whole: {mode:?} {checked}");
                for attempt in &tries {
                    assert!(run.outcome(attempt).what.starts_with("ok HTTP/1.1 403"), "{mode:?} {size} {attempt}");
                }
                assert_eq!(run.code(), 0, "{mode:?} {run:?}");
                run
            };
            let full = on_disk("64k");
            assert!(full.events.with("no_policy").len() < MANY, "control: it did fill up");
            assert_eq!(
                full.stderr.matches("enforcement goes on").count(),
                1,
                "said, and once: {mode:?} {}",
                full.stderr
            );
            assert!(
                full.stderr.contains(&format!("{MANY} connections blocked")),
                "and counted: {mode:?} {}",
                full.stderr
            );
            let room = on_disk("8m");
            assert_eq!(room.events.with("no_policy").len(), MANY, "tripwire: with room all are there: {mode:?}");
            assert!(!room.stderr.contains("enforcement goes on"), "{mode:?} {}", room.stderr);
        }
    });
}

/// FS-19: scratch space has an end, and what the supervisor needs does not lie there.
#[test]
fn scratch_space_is_bounded() {
    let mode = *Mode::available().last().unwrap();
    let script = "head -c 1100000000 /dev/zero > /tmp/fill; echo code $?; wc -c < /tmp/fill; rm /tmp/fill; echo x > /tmp/again && echo again
        echo x > here && echo workspace; curl -s -o /dev/null -w '%{http_code}\\n' http://evil.test/";
    let run = Stockade::new(mode).sh(script);
    let text = run.text();
    let lines: Vec<&str> = text.lines().collect();
    let [code, size, rest @ ..] = &lines[..] else { panic!("{run:?}") };
    assert_eq!(*code, "code 1", "{run:?}");
    assert!(size.parse::<u64>().unwrap() <= 1 << 30, "{run:?}");
    assert_eq!(rest, ["again", "workspace", "403"], "{run:?}");
    run.events.one("no_policy");
}

/// FS-01, FS-05, FS-06, FS-11 from inside: what is not granted is absent, what is read-only stays, what runs by itself
/// later cannot be planted.
#[test]
fn files_outside_the_grants_stay_as_they_are() {
    let script = r#"
        try() { name=$1; shift; "$@" >/dev/null 2>&1 && echo "did $name"; }
        try control sh -c 'echo x > mine'
        try read cat ../conf/secret; try stat stat ../conf/secret; try home cat ../home/key
        try rowrite sh -c 'echo x >> ../conf/ro/file'; try rotouch touch ../conf/ro/file; try rochmod chmod 777 ../conf/ro/file
        try rotrunc truncate -s 0 ../conf/ro/file; try romake touch ../conf/ro/new; try rorm rm -f ../conf/ro/file
        try rolink ln ../conf/ro/file linked; try roread cat ../conf/ro/file
        try hook sh -c 'echo x > .git/hooks/post-checkout'; try config sh -c 'echo x >> .git/config'
        try rename mv .git .git2; try renameback mv .git2 .git; try hooks mv .git/hooks .git/h2
        try hidden cat .env; try envmv mv .env env2
        try etc sh -c 'echo x >> /etc/hosts'; try usr touch /usr/x"#;
    let place = |s: Stockade| {
        let (conf, work) = (s.policy_path().parent().unwrap().to_owned(), s.work());
        fs::create_dir_all(conf.join("ro")).unwrap();
        fs::create_dir_all(work.join(".git/hooks")).unwrap();
        for file in [conf.join("secret"), conf.join("ro/file"), work.join(".git/config"), work.join(".env")] {
            fs::write(&file, "content\n").unwrap();
        }
        let user = Some(stockade_testkit::runner::ORDINARY_UID);
        for path in [
            conf.join("secret"),
            conf.join("ro"),
            conf.join("ro/file"),
            work.join(".git"),
            work.join(".git/hooks"),
            work.join(".git/config"),
            work.join(".env"),
        ] {
            std::os::unix::fs::chown(path, user, user).ok();
        }
        let policy = format!(
            "version: 1\nfilesystem: {{baseline: true, read_only: [{}], read_write: [.], hidden: [.env], protected: [.git/hooks, .git/config]}}\n",
            conf.join("ro").display()
        );
        s.policy(&policy)
    };
    for mode in Mode::available() {
        let run = place(Stockade::new(*mode)).sh(script);
        let text = run.text();
        let did: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("did ")).collect();
        assert_eq!(did, ["control", "roread"], "{mode:?} {run:?}");
        let dir = run.dir.as_ref().unwrap().path();
        assert_eq!(fs::read_to_string(dir.join("conf/ro/file")).unwrap(), "content\n", "{mode:?}");
        assert_eq!(fs::read_to_string(dir.join("work/.env")).unwrap(), "content\n", "{mode:?}");
        assert!(!dir.join("work/.git/hooks/post-checkout").exists(), "{mode:?}");
    }
    let bare = place(Stockade::new(Mode::Rootless).unwrapped()).sh(script);
    let did = bare.text().lines().filter(|l| l.starts_with("did ")).count();
    assert!(did >= 14, "tripwire: without Stockade most of it works: {bare:?}");
}

/// FS-05: a policy that grants the directory does not open what the host obeys in it; one that says so does, and is
/// told so.
#[test]
fn granting_the_workspace_leaves_what_the_host_obeys_as_it_is() {
    const STEERS: [&str; 3] = [".git/hooks/pre-commit", ".git/config", ".claude/settings.json"];
    let script =
        format!("for at in plain.txt {}; do echo x 2>/dev/null >> $at && echo did $at; done; exit 0", STEERS.join(" "));
    let place = |mode, more: &str| {
        let s = Stockade::new(mode).policy(&format!("version: 1\nfilesystem: {{read_write: [.]{more}}}\n"));
        for path in STEERS {
            let at = s.work().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(&at, "mine\n").unwrap();
        }
        fs::write(s.work().join("plain.txt"), "mine\n").unwrap();
        let chown = Command::new("chown").args(["-R", "1000:1000"]).arg(s.work()).output().unwrap();
        assert!(chown.status.success() || mode == Mode::Rootless, "{chown:?}");
        s
    };
    for mode in Mode::available() {
        let run = place(*mode, "").sh(&script);
        assert_eq!(run.text(), "did plain.txt\n", "{mode:?} {run:?}");
        assert!(!run.stderr.contains("not protected by policy"), "{mode:?} {run:?}");

        let run = place(*mode, ", protected: []").sh(&script);
        assert_eq!(run.text().lines().count(), 1 + STEERS.len(), "tripwire: {mode:?} {run:?}");
        assert!(run.stderr.contains("not protected by policy"), "{mode:?} {run:?}");
    }
}

/// FS-05: what would run by itself later and is not there yet can be made, and is told before the host uses it.
#[test]
fn what_runs_by_itself_later_is_told_when_it_is_made() {
    const LATER: [&str; 6] =
        [".git/hooks", ".git/config", ".claude/settings.json", ".mcp.json", ".vscode/tasks.json", ".envrc"];
    let script = r#"
        try() { mkdir -p "$(dirname "$1")" && echo x > "$1" && echo "made $1"; }
        try .git/hooks/post-checkout; try .git/config; try .claude/settings.json; try .mcp.json; try .vscode/tasks.json
        try .envrc; try plain.txt"#;
    for mode in Mode::available() {
        let run = Stockade::new(*mode).sh(script);
        assert!(run.text().ends_with("made plain.txt\n"), "control: {mode:?} {run:?}");
        let findings: Vec<&str> =
            run.events.with("protected_write").iter().map(|e| e.text("/message").unwrap()).collect();
        for path in LATER {
            let told = findings.iter().filter(|text| text.contains(path)).count();
            assert_eq!(told, 1, "in the log, once: {mode:?} {path} {run:?}");
            assert!(run.stderr.contains(path), "and said: {mode:?} {path} {}", run.stderr);
        }
        assert!(!findings.iter().any(|text| text.contains("plain.txt")), "tripwire: {mode:?} {findings:?}");
        let stockade = Stockade::new(*mode);
        for path in LATER {
            let at = stockade.work().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            if path.ends_with("hooks") { fs::create_dir(&at).unwrap() } else { fs::write(&at, "mine\n").unwrap() }
        }
        let chown = Command::new("chown").args(["-R", "1000:1000"]).arg(stockade.work()).output().unwrap();
        let run = stockade.sh(script);
        assert_eq!(run.text(), "made plain.txt\n", "what is there stays as it is: {mode:?} {chown:?} {run:?}");
    }
}
