//! What a person or a machine gets wrong: each a clear sentence and the documented exit code, and nothing was run.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
    sys::stat::Mode as Bits,
    unistd::{Uid, mkfifo},
};
use stockade_testkit::{Finished, Mode, Stockade, child::Child, skip};

/// Runs in every mode; nothing may have been run, and standard error must hold each of `words`.
#[track_caller]
fn refused(code: i32, words: &[&str], prepare: impl Fn(Stockade) -> Stockade) {
    for mode in Mode::available() {
        let run = prepare(Stockade::new(*mode)).sh("echo it ran");
        check(&run, code, words, *mode);
    }
}

#[track_caller]
fn check(run: &Finished, code: i32, words: &[&str], mode: Mode) {
    assert_eq!(run.code(), code, "{mode:?} {run:?}");
    assert_eq!(run.text(), "", "nothing was run: {mode:?} {run:?}");
    for word in words {
        assert!(run.stderr.contains(word), "`{word}` is not said: {mode:?} {run:?}");
    }
    assert!(!run.stderr.contains("panicked"), "{mode:?} {run:?}");
    assert!(run.stderr.starts_with("stockade: ") || run.stderr.starts_with("error: "), "{mode:?} {run:?}");
}

fn rejected(policy: &str, words: &[&str]) {
    refused(125, &[words, &["policy.yaml"]].concat(), |s| s.policy(policy));
}

#[test]
fn a_policy_that_cannot_be_read() {
    refused(125, &["absent.yaml", "No such file"], |s| s.arg("--policy").arg("absent.yaml"));
    refused(125, &["is a directory", "regular file"], |s| s.arg("--policy").arg("/etc"));
    refused(125, &["not a regular file"], |s| s.arg("--policy").arg("/dev/zero"));
    refused(125, &["fifo", "not a regular file"], |s| {
        let fifo = s.policy_path().with_file_name("fifo");
        mkfifo(&fifo, Bits::S_IRUSR).unwrap();
        fs::set_permissions(&fifo, fs::Permissions::from_mode(0o644)).unwrap();
        s.arg("--policy").arg(fifo)
    });
    refused(125, &["UTF-8"], |s| {
        fs::write(s.policy_path(), [0xff, 0xfe, 0]).unwrap();
        let path = s.policy_path();
        s.arg("--policy").arg(path)
    });
    let stockade = Stockade::new(Mode::Rootless).policy("version: 1");
    fs::set_permissions(stockade.policy_path(), fs::Permissions::from_mode(0o000)).unwrap();
    check(&stockade.sh("echo it ran"), 125, &["policy.yaml", "Permission denied"], Mode::Rootless);
}

#[test]
fn yaml_errors_say_where() {
    rejected("version: [1", &["policy.yaml:1:10", "not valid YAML"]);
    rejected("version: 1\nnetwork: {a: 1, a: 2}\n", &["policy.yaml:2:"]);
    rejected("version: 1\n\tnetwork: {}\n", &["policy.yaml:1:", "tab"]);
    rejected("version: 1\n---\nversion: 1\n", &["policy.yaml"]);
    rejected("version: 1\nnetwork: !!python/object:os.system {}\n", &["policy.yaml"]);
}

#[test]
fn unknown_words_are_errors_with_a_suggestion() {
    rejected("version: 1\nnetwrok: {}\n", &["policy.yaml:2:1", "unknown key `netwrok`", "did you mean `network`?"]);
    rejected("version: 2\n", &["policy.yaml:1:", "version"]);
    rejected("version: 1\nnetwork: {unmatched: alow}\n", &["policy.yaml:2:", "alow"]);
    rejected("version: 1\nprocess: {relax: [ptracee]}\n", &["ptracee", "did you mean `ptrace`?"]);
    rejected("version: 1\nprocess: {require: [fences]}\n", &["fences", "did you mean `fence`?"]);
    rejected("version: 1\nnetwork: {endpoints: {a: {hosts: ['a b'], ports: [80]}}}\n", &["a b"]);
    rejected("version: 1\nnetwork: {endpoints: {a: {hosts: [a.test], ports: [70000]}}}\n", &["70000"]);
}

#[test]
fn an_empty_policy_grants_nothing_and_is_not_an_error() {
    // A file that was cut to nothing is not an empty policy.
    for cut in ["", "# version: 1\n"] {
        rejected(cut, &["policy.yaml", "`version` is missing", "begin with `version: 1`"]);
    }
    for mode in Mode::available() {
        let run = Stockade::new(*mode).policy("version: 1\n").sh("echo it ran; curl -sS --max-time 5 http://a.test/");
        assert!(run.text().starts_with("it ran\n"), "{mode:?} {run:?}");
        assert!(run.text().contains("no_policy"), "{mode:?} {run:?}");
        assert_eq!(run.events.one("no_policy").host(), Some("a.test"));
    }
}

#[test]
fn a_hundred_thousand_rules_load_within_seconds_and_more_are_refused() {
    let hosts = |n: usize| {
        let hosts: Vec<_> = (0..n).map(|i| format!("h{i}.a.test")).collect();
        format!("version: 1\nnetwork: {{endpoints: {{all: {{tls: passthrough, hosts: [{}]}}}}}}\n", hosts.join(","))
    };
    let endpoints = |n: usize| {
        let rules: String = (0..n).map(|i| format!("  e{i}: {{hosts: [h{i}.a],ports: [80]}}\n")).collect();
        format!("version: 1\nnetwork:\n endpoints:\n{rules}")
    };
    // Each once: it is the same reading in every mode.
    for (mode, policy) in Mode::available().iter().cycle().zip([hosts(100_000), endpoints(100_000)]) {
        let run = Stockade::new(*mode).timeout(Duration::from_secs(60)).policy(&policy);
        let run = run.sh("curl -sS -o /dev/null -w '%{http_code}' --max-time 5 http://evil.test/");
        assert_eq!(run.text(), "403", "loaded and deciding: {mode:?} {}", run.stderr);
        eprintln!("{mode:?}: {} bytes of policy, {:?} in all", policy.len(), run.took);
    }
    rejected(&hosts(100_001), &["more than 100000 hosts"]);
    rejected(&endpoints(100_001), &["more than 100000 endpoints"]);
    rejected(&format!("version: 1\n# {}\n", "x".repeat(5 << 20)), &["too large", "4 MiB"]);
}

#[test]
fn bombs_are_refused_at_once() {
    let mut aliases = "version: 1\na0: &a0 [x, x]\n".to_owned();
    for i in 1..20 {
        aliases += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","));
    }
    let deep = format!("version: 1\nnetwork: {}", "[".repeat(100_000));
    let wide = format!("version: 1\nnetwork: [{}]", "[],".repeat(200_000));
    for policy in [aliases, deep, wide] {
        for mode in Mode::available() {
            let run = Stockade::new(*mode).policy(&policy).sh("echo it ran");
            check(&run, 125, &["policy.yaml:"], *mode);
            assert!(run.stderr.len() < 20_000, "a bomb is not echoed: {} bytes", run.stderr.len());
            assert!(run.took < Duration::from_secs(25), "{mode:?} {:?}", run.took);
        }
    }
}

#[test]
fn paths_that_are_not_there() {
    let absent = "version: 1\nfilesystem: {baseline: true, read_write: [/srv/no-such-directory]}\n";
    refused(125, &["/srv/no-such-directory", "does not exist", "create: true"], |s| s.policy(absent));
    let absent = "version: 1\nfilesystem: {baseline: true, read_only: [/srv/no-such-directory]}\n";
    refused(125, &["/srv/no-such-directory", "does not exist"], |s| s.policy(absent));

    let made = "version: 1\nfilesystem: {baseline: true, read_write: [., {path: out/deep, create: true}], hidden: [nothing-here, .env]}\n";
    for mode in Mode::available() {
        let stockade = Stockade::new(*mode).policy(made);
        fs::write(stockade.work().join(".env"), "SECRET=1\n").unwrap();
        let run = stockade.sh("cat .env; echo x > out/deep/file && echo wrote");
        assert_eq!(run.text(), "wrote\n", "made when asked, hidden where it is: {mode:?} {run:?}");
        let file = run.dir.as_ref().unwrap().path().join("work/out/deep/file");
        assert_eq!(fs::read_to_string(file).unwrap(), "x\n", "{mode:?}");
    }
}

#[test]
fn a_workspace_that_is_none() {
    let at = |s: &Stockade, name: &str| s.work().join(name);
    refused(125, &["absent", "No such file"], |s| {
        let path = at(&s, "absent");
        s.workspace(path)
    });
    refused(125, &["is not a directory"], |s| {
        fs::write(at(&s, "file"), "").unwrap();
        let path = at(&s, "file");
        s.workspace(path)
    });
    refused(125, &["symbolic link", "/etc"], |s| {
        symlink("/etc", at(&s, "link")).unwrap();
        let path = at(&s, "link");
        s.workspace(path)
    });
    refused(125, &["/usr", "never granted as a whole"], |s| s.workspace("/usr"));
    refused(125, &["the directory is missing"], |s| s.workspace(":rw"));
    refused(125, &["--workspace", "`xx` is no access"], |s| s.workspace(".:xx"));
}

#[test]
fn options_that_make_no_sense() {
    let table: [(&[&str], &[&str]); 16] = [
        (&["--memory", "1"], &["--memory 1", "at least 8MiB"]),
        (&["--cpus", "abc"], &["--cpus", "a number of cores"]),
        (&["--upstream-ca", "absent.pem"], &["--upstream-ca absent.pem"]),
        (&["--memory", "lots"], &["--memory", "lots", "4GiB"]),
        (&["--memory=-1"], &["--memory"]),
        (&["--cpus", "0"], &["--cpus", "above 0"]),
        (&["--cpus", "NaN"], &["--cpus"]),
        (&["--pids", "0"], &["--pids", "above 0"]),
        (&["--timeout", "0"], &["--timeout", "zero"]),
        (&["--timeout", "soon"], &["--timeout", "90s"]),
        (&["--require", "nonsense"], &["--require", "unknown layer `nonsense`", "landlock"]),
        (&["--env", "=x"], &["--env", "K=V"]),
        (&["--allow", "a b"], &["--allow", "a b"]),
        (&["--allow", "a.test:99999"], &["--allow", "99999"]),
        (&["--user", "no-such-user"], &["no-such-user"]),
        (&["--no-such-option"], &["--no-such-option"]),
    ];
    for (args, words) in table {
        refused(125, words, |s| args.iter().fold(s, |s, arg| s.arg(arg)));
    }
    if Mode::available().contains(&Mode::Root) {
        for user in ["root", "0:0", "1000:0"] {
            check(
                &Stockade::new(Mode::Root).arg("--user").arg(user).sh("echo it ran"),
                125,
                &["never runs as root"],
                Mode::Root,
            );
        }
    }
    check(
        &Stockade::new(Mode::Rootless).arg("--user").arg("0:0").sh("echo it ran"),
        125,
        &["--user", "0:0"],
        Mode::Rootless,
    );
}

#[test]
fn a_command_that_cannot_start() {
    for mode in Mode::available() {
        let run = Stockade::new(*mode).run(&["no-such-program"]);
        check(&run, 127, &["no-such-program", "not found"], *mode);
        let run = Stockade::new(*mode).run(&["/no/such/program"]);
        check(&run, 127, &["/no/such/program", "not found"], *mode);
        let run = Stockade::new(*mode).run(&["/etc/passwd"]);
        check(&run, 126, &["/etc/passwd", "cannot be executed"], *mode);
        let run = Stockade::new(*mode).run(&["/etc"]);
        check(&run, 126, &["/etc", "cannot be executed"], *mode);
        let run = Stockade::new(*mode).run(&[""]);
        assert!(matches!(run.code(), 125..=127) && run.text().is_empty(), "{mode:?} {run:?}");
        let none: [&str; 0] = [];
        check(&Stockade::new(*mode).run(&none), 125, &["<CMD>"], *mode);
    }
}

#[test]
fn an_audit_log_that_cannot_be_opened() {
    // The runner names a log itself; the option twice is refused too, so the program is asked by a command of its own.
    for mode in Mode::available() {
        let stockade = Stockade::new(*mode);
        fs::remove_dir_all(stockade.work().with_file_name("log")).unwrap();
        check(&stockade.sh("echo it ran"), 125, &["audit log", "audit.jsonl", "No such file"], *mode);
    }
}

/// Where there is no room for the supervisor's threads it says so and ends, however far it got.
#[test]
fn no_room_for_threads() {
    const ROOM: u64 = 200;
    let (mut said, mut ran) = (0, 0);
    // How many processes of this user there are already is not ours to know: every number is tried.
    for most in (1..40).chain([ROOM]) {
        let few = format!("--nproc={most}:{most}");
        let run =
            Stockade::new(Mode::Rootless).under(&["prlimit", &few]).timeout(Duration::from_secs(30)).sh("echo ran");
        match run.code() {
            0 => ran += 1,
            125 => said += u32::from(run.stderr.contains("threads") && run.stderr.contains("ulimit -u")),
            // Where not even the program's own helper, or the command's shell, could be forked.
            _ => assert!(!run.stderr.contains("panicked") && run.text() != "ran\n", "{most}: {run:?}"),
        }
        assert!(run.took < Duration::from_secs(20), "{most}: {run:?}");
        assert!(most < ROOM || run.code() == 0, "control: {run:?}");
    }
    assert!(said > 0 && ran > 0, "{said} said, {ran} ran");
}

/// Named limits need a cgroup; without one that can be written, they are refused by name, and the rest works.
#[test]
fn a_read_only_cgroup_tree() {
    if !Uid::effective().is_root() {
        skip!("making /sys/fs/cgroup read-only needs root");
    }
    Child::new().namespaces(CloneFlags::CLONE_NEWNS).run(|| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let under = mounts.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| p.starts_with("/sys/fs/cgroup"));
        for path in under {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
        }
        assert!(fs::create_dir("/sys/fs/cgroup/stockade-probe").is_err(), "read-only now");
        for mode in Mode::available() {
            let run = Stockade::new(*mode).arg("--memory").arg("1GiB").sh("echo it ran");
            check(&run, 125, &["memory", "nothing was run"], *mode);
            let run = Stockade::new(*mode).sh("echo it ran");
            assert_eq!((run.code(), run.text().as_str()), (0, "it ran\n"), "{mode:?} {run:?}");
        }
    });
}

/// Where user namespaces are used up or switched off, an ordinary user is told so.
#[test]
fn no_user_namespaces() {
    let limit = Path::new("/proc/sys/user/max_user_namespaces");
    if !limit.exists() {
        skip!("this kernel cannot limit user namespaces");
    }
    let (uid, gid) = (Uid::effective(), nix::unistd::Gid::effective());
    Child::new().namespaces(CloneFlags::CLONE_NEWUSER).run(|| {
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        fs::write(limit, "2").unwrap();
        let run = Stockade::new(Mode::Rootless).sh("echo it ran");
        assert_eq!((run.code(), run.text().as_str()), (0, "it ran\n"), "the control: {run:?}");
        // One is for the caller's own identity; the sandbox's would be the second.
        fs::write(limit, "1").unwrap();
        let run = loop {
            let run = Stockade::new(Mode::Rootless).sh("echo it ran");
            // The kernel frees the control's namespaces in its own time.
            if !run.stderr.starts_with("unshare:") {
                break run;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        check(&run, 125, &["user namespace", "nothing was run"], Mode::Rootless);
        assert!(run.took < Duration::from_secs(10));
    });
}
