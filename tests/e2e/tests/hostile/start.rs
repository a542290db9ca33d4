//! Starts that must fail, and what is said of a weak machine.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    process::Command,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
    sys::{signal::Signal, stat::Mode as Bits},
    unistd::{Gid, Uid, mkfifo},
};
use stockade_testkit::{Finished, Mode, Outer, Stockade, child::Child, skip, upstream::Tcp};

/// Stockade with one of its system calls changed by strace. `None` where that cannot be done.
pub(crate) fn sabotaged(mode: Mode, calls: &str, how: &str) -> Option<Stockade> {
    Command::new("strace").arg("-V").output().ok().filter(|o| o.status.success())?;
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{how}"));
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    Some(Stockade::new(mode).under(&words))
}

#[track_caller]
pub(crate) fn nothing_ran(run: &Finished, words: &[&str], context: &str) {
    assert_eq!((run.code(), run.text().as_str()), (125, ""), "{context} {run:?}");
    for word in words {
        assert!(run.stderr.contains(word), "{context}: `{word}` in {}", run.stderr);
    }
    let failed: Vec<_> = run.events.iter().filter(|e| e.text("/activity_name") == Some("fail")).collect();
    assert_eq!(failed.len(), 1, "the log tells it, once: {context} {run:?}");
    assert!(!run.events.iter().any(|e| e.class() == 1007), "no program was started: {context} {run:?}");
}

/// NET-20, and the start of PRX-10: whichever step of links, routes, fence or listeners fails, nothing runs.
#[test]
fn no_step_of_the_fence_may_fail() {
    for mode in Mode::available() {
        let steps: &[(&str, &str, &[u32])] = match mode {
            Mode::Root => &[
                ("sendto", "error=EPERM", &[1, 3, 5, 7, 8, 9, 10, 11, 12]),
                ("sendto", "error=EOPNOTSUPP", &[8]),
                ("socket", "error=EPROTONOSUPPORT", &[1, 2]),
                ("bind", "error=EADDRINUSE", &[1, 2, 3]),
            ],
            Mode::Rootless => &[("sendto", "error=EPERM", &[3, 8, 10]), ("socket", "error=EPROTONOSUPPORT", &[2])],
        };
        for (call, error, whens) in steps {
            for when in *whens {
                let Some(stockade) = sabotaged(*mode, call, &format!("{error}:when={when}")) else {
                    skip!("strace is not installed, or may not trace");
                };
                let run = stockade.sh("echo ran");
                let context = format!("{mode:?} {call} {error} {when}");
                nothing_ran(&run, &["nothing was run"], &context);
                assert!(run.stderr.contains("fence: ") || run.stderr.contains("netns: "), "{context} {}", run.stderr);
                run.events.one("fence_unavailable");
            }
        }
        let run = sabotaged(*mode, "sendto", "error=EPERM:when=10000").unwrap().sh("echo ran");
        assert_eq!((run.code(), run.text().as_str()), (0, "ran\n"), "tripwire: traced, it starts: {run:?}");
    }
}

/// NET-21: the command's first act meets fence and door, however slowly they are made.
#[test]
fn the_command_starts_behind_the_fence() {
    Outer::run(|_| {
        let sink = Tcp::sink("198.51.100.1:22");
        let tries = ["tcp:198.51.100.1:22", "proxy:GET http://evil.test/ HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n"];
        for mode in Mode::available() {
            let slow = sabotaged(*mode, "sendto", "delay_enter=20000");
            let runs = (0..6).map(|_| Stockade::new(*mode)).chain(slow);
            for stockade in runs {
                let run = stockade.probe(&tries);
                assert_eq!(run.outcome(tries[0]).what, "ECONNREFUSED", "{mode:?} {run:?}");
                assert!(run.outcome(tries[1]).what.starts_with("ok HTTP/1.1 403"), "{mode:?} {run:?}");
                run.events.one("bypass");
                let at = |what: &str| {
                    run.events.iter().position(|e| e.text("/message").is_some_and(|m| m.starts_with(what)))
                };
                let (ready, launched) = (at("sandbox ready"), at("launched"));
                assert!(ready.is_some() && ready < launched, "{mode:?} {ready:?} {launched:?} {run:?}");
            }
        }
        sink.counters.assert_untouched();
        Stockade::new(Mode::Rootless).unwrapped().probe(&tries[..1]);
        assert_eq!(sink.counters.arrivals(), 1, "tripwire: without Stockade it arrives");
    });
}

/// NET-31: there is no weaker mode to fall back to.
#[test]
fn without_namespaces_there_is_no_sandbox() {
    let weak = "version: 1\nprocess: {require: []}\n";
    for mode in Mode::available() {
        let run = Stockade::new(*mode).arg("--isolation").arg("landlock").sh("echo ran");
        assert_eq!((run.code(), run.text().as_str()), (125, ""), "asked for by name: {mode:?} {run:?}");
        assert!(run.stderr.contains("--isolation"), "{mode:?} {run:?}");
    }
    if !Path::new("/proc/sys/user/max_net_namespaces").exists() {
        skip!("this kernel cannot limit namespaces");
    }
    let (uid, gid) = (Uid::effective(), Gid::effective());
    Child::new().namespaces(CloneFlags::CLONE_NEWUSER).run(|| {
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        let run = Stockade::new(Mode::Rootless).policy(weak).sh("echo ran");
        assert_eq!((run.code(), run.text().as_str()), (0, "ran\n"), "tripwire: {run:?}");
        for kind in ["net", "pid", "mnt", "ipc", "uts"] {
            let limit = format!("/proc/sys/user/max_{kind}_namespaces");
            let before = fs::read_to_string(&limit).unwrap();
            fs::write(&limit, "0").unwrap();
            let run = Stockade::new(Mode::Rootless).policy(weak).sh("echo ran");
            nothing_ran(&run, &["namespaces"], kind);
            fs::write(&limit, before.trim()).unwrap();
        }
    });
}

/// PROC-21: who the command is, is said by one regular file of sober size, once.
#[test]
fn account_files_that_lie_stop_the_start() {
    Outer::run(|outer| {
        let etc = outer.dir().join("etc");
        // What an ordinary user may not read is not needed.
        Command::new("cp").args(["-a", "/etc"]).arg(&etc).output().unwrap();
        mount(Some(&etc), "/etc", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let passwd = Path::new("/etc/passwd");
        let good = fs::read_to_string(passwd).unwrap();
        let put = |write: &dyn Fn()| {
            fs::remove_dir(passwd).or_else(|_| fs::remove_file(passwd)).unwrap();
            write();
        };
        for mode in Mode::available() {
            let broken: [(&str, &dyn Fn()); 4] = [
                ("symbolic link", &|| symlink("/etc/group", passwd).unwrap()),
                ("not a regular file", &|| mkfifo(passwd, Bits::S_IRUSR | Bits::S_IRGRP | Bits::S_IROTH).unwrap()),
                ("not a regular file", &|| fs::create_dir(passwd).unwrap()),
                ("not a regular file", &|| fs::write(passwd, "x".repeat(5 << 20)).unwrap()),
            ];
            for (word, write) in broken {
                put(write);
                let run = Stockade::new(*mode).sh("echo ran");
                nothing_ran(&run, &["/etc/passwd", word], &format!("{mode:?}"));
                assert!(run.took < Duration::from_secs(5), "{mode:?} {run:?}");
            }
            put(&|| {
                let more = "twin:x:1000:1000::/:/\ntwin:x:0:0::/:/\nzero:x:0:1000::/:/\nbent:x:abc:1000::/:/\nwheel:x:1000:0::/:/\n";
                fs::write(passwd, format!("{good}{more}")).unwrap();
            });
            for user in ["twin", "zero", "bent", "wheel"] {
                let run = Stockade::new(*mode).arg("--user").arg(user).sh("echo ran");
                // Rootless nobody becomes somebody else; a name for the caller itself is no other.
                if *mode == Mode::Root || user != "wheel" {
                    nothing_ran(&run, &[user], &format!("{mode:?} {user}"));
                }
            }
            fs::write("/etc/group", "root:x:0:\ndocker:x:999:sandbox,ubuntu,user\nadm:x:4:sandbox\n").unwrap();
            let run = Stockade::new(*mode).sh("id -G");
            assert_eq!(
                run.text().split_whitespace().count(),
                1,
                "control, and no group besides its own: {mode:?} {run:?}"
            );
            assert!(!["0", "999", "4"].contains(&run.text().trim()), "{mode:?} {run:?}");
        }
    });
}

/// ENV-04: inside a container that shares what it should not, a finding names each.
#[test]
fn a_weak_container_is_reported() {
    Outer::run(|_| {
        mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
        let weak = |run: &Finished| -> Vec<String> {
            run.events.with("outer_weak").iter().map(|e| e.text("/message").unwrap().to_owned()).collect()
        };
        for mode in Mode::available() {
            fs::write("/run/.containerenv", "").unwrap();
            let before = weak(&Stockade::new(*mode).sh("true").expect_code(0));
            assert!(!before.iter().any(|w| w.contains("docker.sock")), "control: {mode:?} {before:?}");
            let engine = UnixListener::bind("/run/docker.sock").unwrap();
            let after = Stockade::new(*mode).sh("true").expect_code(0);
            assert!(weak(&after).iter().any(|w| w.contains("/run/docker.sock")), "{mode:?} {after:?}");
            let has = |word: &str| weak(&after).iter().any(|w| w.contains(word));
            // What the machine of the test is decides the others; the kernel's own number says which pids these are.
            let host_pids = fs::read_link("/proc/self/ns/pid").unwrap() == Path::new("pid:[4026531836]");
            assert_eq!(has("processes"), host_pids, "{mode:?} {after:?}");
            assert_eq!(has("privileged"), *mode == Mode::Root && privileged(), "{mode:?} {after:?}");
            drop(engine);
            fs::remove_file("/run/docker.sock").unwrap();
        }
    });
    // Granting either is no weakness to report: it is refused.
    for mode in Mode::available() {
        for path in ["/", "/run", "/run/docker.sock"] {
            let run = Stockade::new(*mode)
                .policy(&format!("version: 1\nfilesystem: {{read_write: [{path}]}}\n"))
                .sh("echo ran");
            nothing_ran(&run, &[path], &format!("{mode:?} {path}"));
        }
    }
}

fn privileged() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|l| l.strip_prefix("CapPrm:")).unwrap().trim();
    // CAP_SYS_MODULE is 16, CAP_SYS_RAWIO 17, CAP_SYS_ADMIN 21.
    u64::from_str_radix(mask, 16).unwrap() & (1 << 16 | 1 << 17 | 1 << 21) == 1 << 16 | 1 << 17 | 1 << 21
}

/// What a file is instead of a file, and how to make one.
type Place<'a> = (&'a str, &'a dyn Fn(&Path));

/// FS-13: what lies where the supervisor reads is a regular file, or the start fails at once.
#[test]
fn files_that_never_end_hold_nobody_up() {
    let all = Bits::S_IRUSR | Bits::S_IWUSR;
    let own = |path: &Path| {
        let user = Some(Uid::from_raw(stockade_testkit::runner::ORDINARY_UID));
        nix::unistd::chown(path, user, None).ok();
    };
    for mode in Mode::available() {
        let places: [Place<'_>; 3] = [
            ("fifo", &|p| mkfifo(p, all).unwrap()),
            ("endless", &|p| symlink("/dev/zero", p).unwrap()),
            ("socket", &|p| drop(UnixListener::bind(p).unwrap())),
        ];
        for (what, make) in places {
            let context = format!("{mode:?} {what}");
            let policy = |s: Stockade| {
                let path = s.work().join("policy.yaml");
                make(&path);
                if what != "endless" {
                    own(&path);
                }
                s.arg("--policy").arg(path)
            };
            let run = policy(Stockade::new(*mode)).timeout(Duration::from_secs(10)).sh("echo ran");
            nothing_ran(&run, &["policy.yaml"], &context);
            let s = Stockade::new(*mode);
            let log = s.work().join("audit.jsonl");
            make(&log);
            if what != "endless" {
                own(&log);
            }
            let run = s.audit_log(&log).timeout(Duration::from_secs(10)).sh("echo ran");
            assert_eq!((run.code(), run.text().as_str()), (125, ""), "{context} {run:?}");
            assert!(run.stderr.contains("audit.jsonl"), "{context} {run:?}");
            let s = Stockade::new(*mode);
            make(&s.policy_path().with_file_name("extra.rego"));
            let run = s.policy("version: 1\nrego: [extra.rego]\n").timeout(Duration::from_secs(10)).sh("echo ran");
            nothing_ran(&run, &["extra.rego"], &context);
        }
    }
}

/// FS-13 while it runs: a policy in the workspace cannot be exchanged for something that never ends.
#[test]
fn a_policy_cannot_be_exchanged_for_a_fifo() {
    let script = "f=policy.yaml; (rm -f $f; mkfifo $f; ln -sf /dev/zero $f; mv $f old; mkfifo new && mv new $f) 2>/dev/null; echo ready; read x; \
                  curl -s -o /dev/null -w '%{http_code}\\n' http://evil.test/";
    let place = |s: Stockade| {
        let path = s.work().join("policy.yaml");
        fs::write(&path, "version: 1\nfilesystem: {baseline: true, read_write: [.]}\n").unwrap();
        nix::unistd::chown(&path, Some(Uid::from_raw(stockade_testkit::runner::ORDINARY_UID)), None).ok();
        (s.arg("--policy").arg(&path), path)
    };
    for mode in Mode::available() {
        let (stockade, path) = place(Stockade::new(*mode));
        let mut run = stockade.spawn(&["sh", "-c", script]);
        run.wait_for("ready");
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{mode:?}");
        run.signal(Signal::SIGHUP);
        run.write(b"\n");
        run.wait_for("403");
        assert_eq!(run.finish().code(), 0, "{mode:?}");
    }
    let (bare, path) = place(Stockade::new(Mode::Rootless).unwrapped());
    let mut bare = bare.spawn(&["sh", "-c", script]);
    bare.wait_for("ready");
    assert!(!fs::symlink_metadata(&path).unwrap().is_file(), "tripwire");
    bare.write(b"\n");
    drop(bare);
}
