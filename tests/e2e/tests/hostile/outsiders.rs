//! PROC and LOG: processes outside, set-user-id programs, crashes, and whether every refusal is told.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use nix::sys::{
    signal::Signal,
    stat::{Mode as Bits, SFlag, makedev, mknod},
};
use stockade_testkit::{Arena, Feature, Finished, Mode, Outer, Running, Stockade, in_every_mode, need};

const CANARY: &str = "canary-of-an-outsider";

/// A process of the ordinary user outside, which is who the command is, rootless.
fn outsider() -> Running {
    let run = Stockade::new(Mode::Rootless).unwrapped().env("CANARY", CANARY).timeout(Duration::from_secs(90));
    let run = run.spawn(&["sh", "-c", "echo up; exec sleep 80"]);
    run.wait_for("up");
    run
}

fn ended(run: &Running) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", run.pid())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// PROC-01, ENV-02: processes outside, the supervisor among them, are not there to be looked at.
#[test]
fn processes_outside_are_not_to_be_seen() {
    let script = r#"
        read outside; grep -q . /proc/self/environ && echo control
        for p in $(ls /proc | grep '^[0-9]*$'); do
            grep -q 'canary-of-an-outside[r]' /proc/$p/environ 2>/dev/null && echo environ
        done
        for p in $outside; do
            grep -q . /proc/$p/cmdline 2>/dev/null && echo cmdline
            for f in mem maps auxv; do [ "$(head -c 1 /proc/$p/$f 2>/dev/null | wc -c)" = 0 ] || echo $f; done
            for l in root cwd exe; do readlink /proc/$p/$l; done >/dev/null 2>&1 && echo links
            ls /proc/$p/fd 2>/dev/null | grep -q . && echo fds
        done; echo end"#;
    let outsider = outsider();
    let look = |stockade: Stockade, all: &dyn Fn(&Running) -> String| -> Finished {
        let mut run = stockade.spawn(&["sh", "-c", script]);
        let pids = all(&run);
        run.write(format!("{pids}\n").as_bytes());
        run.finish()
    };
    for mode in Mode::available() {
        let run = look(Stockade::new(*mode), &|run| format!("{} {}", outsider.pid(), run.pid()));
        assert_eq!(run.text(), "control\nend\n", "{mode:?} {run:?}");
    }
    let bare = look(Stockade::new(Mode::Rootless).unwrapped(), &|_| outsider.pid().to_string());
    for word in ["environ", "cmdline", "maps", "links", "fds"] {
        assert!(bare.text().lines().any(|l| l == word), "tripwire: without Stockade {word} is there: {bare:?}");
    }
}

/// PROC-08: no way to signal reaches a process outside, of the same user or not.
#[test]
fn signals_stay_inside() {
    // WAY PID, a line each.
    let script = format!(
        r#"use Socket; use Fcntl; $| = 1;
        my $own = fork // die; if (!$own) {{ sleep 60; exit }}
        while (<STDIN>) {{
            my ($way, $pid) = split; $! = 0; my $did;
            if ($way eq 'kill') {{ $did = kill 'KILL', $pid }}
            elsif ($way eq 'stop') {{ $did = kill 'STOP', $pid }}
            elsif ($way eq 'group') {{ $did = kill 'KILL', -$pid }}
            elsif ($way eq 'tgkill') {{ $did = syscall({tgkill}, $pid + 0, $pid + 0, 9) == 0 }}
            elsif ($way eq 'queue') {{ my $info = pack('x128'); $did = syscall({queue}, $pid + 0, 9, $info) == 0 }}
            elsif ($way eq 'pidfd') {{ my $fd = syscall(434, $pid + 0, 0); $did = $fd >= 0 && syscall(424, $fd, 9, 0, 0) == 0 }}
            elsif ($way eq 'owner') {{ socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0) or die;
                $did = fcntl($a, F_SETOWN, $pid + 0); fcntl($a, F_SETFL, O_ASYNC | O_NONBLOCK); syswrite $b, "x"; select undef, undef, undef, 0.1 }}
            print "$way ", ($did ? "done" : $! + 0), "\n";
        }}
        print "child ", (kill('KILL', $own) ? "done" : "no"), "\n";"#,
        tgkill = libc::SYS_tgkill,
        queue = libc::SYS_rt_sigqueueinfo,
    );
    let ways = ["kill", "stop", "group", "tgkill", "queue", "pidfd", "owner"];
    let line = ["perl", "-e", &script];
    let witness = outsider();
    for mode in Mode::available() {
        let mut run = Stockade::new(*mode).spawn(&line);
        for pid in [witness.pid(), run.pid()] {
            for way in ways {
                run.write(format!("{way} {pid}\n").as_bytes());
            }
        }
        let run = run.finish();
        assert!(run.text().ends_with("child done\n"), "control: one's own can be signalled: {mode:?} {run:?}");
        assert_eq!(run.code(), 0, "the supervisor lives: {mode:?} {run:?}");
        // An owner of a socket is only remembered by number; the signal goes nowhere.
        let done = run.text().lines().filter(|l| l.ends_with(" done") && !l.starts_with("owner")).count();
        assert_eq!(done, 1, "{mode:?} {run:?}");
        assert!(!ended(&witness), "{mode:?}");
    }
    for way in ways.into_iter().filter(|way| !["stop", "queue"].contains(way)) {
        let victim = outsider();
        let mut bare = Stockade::new(Mode::Rootless).unwrapped().spawn(&line);
        bare.write(format!("{way} {}\n", victim.pid()).as_bytes());
        let bare = bare.finish();
        let began = std::time::Instant::now();
        while !ended(&victim) && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(ended(&victim), "tripwire: without Stockade `{way}` ends it: {bare:?}");
    }
}

/// PROC-11: bits that make a program another user's, and device nodes, mean nothing.
#[test]
fn set_user_id_programs_give_nothing() {
    need!(Feature::Root);
    let script = "echo me $(id -u); echo suid $(./suid -u) $(./suid -g); cp ./plain own && chmod 6755 own && echo own $(./own -u)
        (head -c 1 zero | wc -c) 2>/dev/null; echo | su -c 'echo su $(id -u)' root 2>/dev/null
        newuidmap $$ 0 0 1 2>/dev/null && echo mapped; awk '$5 == ENVIRON[\"PWD\"] {print $6}' /proc/self/mountinfo";
    let place = |s: Stockade| {
        let id = fs::read("/usr/bin/id").unwrap();
        for (name, bits) in [("suid", 0o6755), ("plain", 0o755)] {
            let path = s.work().join(name);
            fs::write(&path, &id).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        }
        let zero = s.work().join("zero");
        mknod(&zero, SFlag::S_IFCHR, Bits::from_bits_truncate(0o666), makedev(1, 5)).unwrap();
        fs::set_permissions(&zero, fs::Permissions::from_mode(0o666)).unwrap();
        s
    };
    let field = |run: &Finished, key: &str| -> String {
        run.text().lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().trim().to_owned()
    };
    in_every_mode(place, script, |mode, run| {
        let me = field(run, "me ");
        assert!(!me.is_empty() && me != "0", "{mode:?} {run:?}");
        assert_eq!(field(run, "own "), me, "control: it runs, and as the same user: {mode:?} {run:?}");
        assert!(!field(run, "suid ").split(' ').any(|id| id == "0"), "{mode:?} {run:?}");
        let text = run.text();
        let words: Vec<&str> = text.lines().collect();
        assert!(words.contains(&"0") && !text.contains("su 0") && !text.contains("mapped"), "{mode:?} {run:?}");
        let options = text.lines().last().unwrap();
        assert!(options.contains("nosuid") && options.contains("nodev"), "{mode:?} {run:?}");
    });
    let bare = place(Stockade::new(Mode::Rootless).unwrapped()).sh(script);
    assert_eq!(field(&bare, "suid "), "0 0", "tripwire: without Stockade the bits work: {bare:?}");
    assert!(bare.text().lines().any(|l| l == "1"), "tripwire: and so does the device: {bare:?}");
}

fn core_in(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().any(|f| f.unwrap().file_name().to_string_lossy().starts_with("core"))
}

/// PROC-12: neither a crash of the command nor one of the supervisor writes its memory down.
#[test]
fn a_crash_leaves_no_core() {
    let unlimited = ["sh", "-c", "ulimit -c unlimited; exec \"$@\"", "sh"];
    let crash = "ulimit -c unlimited 2>/dev/null; perl -e 'kill ABRT => $$'; echo code=$?";
    for mode in Mode::available() {
        let run = Stockade::new(*mode).under(&unlimited).sh(crash);
        assert!(run.text().ends_with("code=134\n"), "control: it crashed: {mode:?} {run:?}");
        assert!(!core_in(&run.dir.as_ref().unwrap().path().join("work")), "the command: {mode:?}");

        let stockade = Stockade::new(*mode).under(&unlimited);
        let run = stockade.spawn(&["sh", "-c", "echo up; sleep 60"]);
        run.wait_for("up");
        run.signal(Signal::SIGABRT);
        let run = run.finish();
        assert!(!core_in(&run.dir.as_ref().unwrap().path().join("work")), "the supervisor: {mode:?} {run:?}");
    }
    let bare = Stockade::new(Mode::Rootless).unwrapped().sh(crash);
    // Where the pattern is a path or a program, what happens outside is not ours to look at.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let (own, may) = (bare.dir.as_ref().unwrap().path().join("work"), !pattern.contains(['/', '|']));
    let hard = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let hard = hard.lines().any(|l| l.starts_with("Max core file size") && l.split_whitespace().nth(5) != Some("0"));
    assert!(!(may && hard) || core_in(&own), "tripwire: without Stockade the same crash leaves one: {bare:?}");
}

const POLICY: &str = "
version: 1
network:
  endpoints:
    site: {hosts: [up.test, inner.test], ports: [80], private_addresses: [192.0.2.0/24]}
    named: {hosts: [named.test], ports: [80], binaries: [/usr/bin/env]}
";

/// LOG-02: a number of denied actions of each class; the log has as many of each, with reason, generation and, where
/// the policy asks who connects, the program.
#[test]
fn every_denied_action_is_in_the_log() {
    const EACH: u64 = 7;
    let get =
        |host: &str| format!("proxy:GET http://{host}/ HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n");
    type Try = Box<dyn Fn(u64) -> String>;
    let classes: Vec<(&str, Try)> = vec![
        ("no_policy", Box::new(move |n| get(&format!("h{n}.test")))),
        ("bad_authority", Box::new(move |n| get(&format!("up.test:0{n}x")))),
        ("ssrf_always_blocked", Box::new(move |_| get("inner.test"))),
        ("identity_no_match", Box::new(move |_| get("named.test"))),
        ("bypass", Box::new(|n| format!("tcp:198.51.100.1:{}", 4000 + n))),
        ("dns_no_policy", Box::new(|n| format!("resolve:q{n}.attacker.test"))),
    ];
    let tries: Vec<String> = classes.iter().flat_map(|(_, make)| (1..=EACH).map(make)).collect();
    Outer::run(move |_| {
        let arena = Arena::new(POLICY, "up.test");
        arena.dns.host("inner.test", "127.0.0.1");
        arena.run(&tries, |mode, run| {
            for (reason, _) in &classes {
                let events = run.events.with(reason);
                let told: u64 = events.iter().map(|e| e.0["count"].as_u64().unwrap_or(1)).sum();
                // A resolver's library asks for both families, so each name is two questions.
                let want = if *reason == "dns_no_policy" { EACH..=4 * EACH } else { EACH..=EACH };
                assert!(want.contains(&told), "{mode:?} {reason}: {told}\n{run:?}");
                for event in events {
                    assert_eq!(event.action(), Some("denied"), "{mode:?} {event:?}");
                    assert!(event.0.pointer("/unmapped/generation").is_some(), "{mode:?} {event:?}");
                    // What is no request of a program, or none that is understood, has nobody to name.
                    if event.text("/unmapped/door") == Some("forward") && *reason != "bad_authority" {
                        let program = event.text("/actor/process/file/path").unwrap_or_default();
                        assert!(program.ends_with("/probe"), "{mode:?} {reason} {event:?}");
                    }
                }
            }
        });
        // Tripwire: what is allowed is no refusal, so it is the refusals that are counted.
        let allowed: Vec<String> = (1..=EACH).map(|_| get("up.test")).collect();
        for mode in Mode::available() {
            let run = arena.stockade(*mode).probe(&allowed);
            assert_eq!(run.events.refusals(), 0, "{mode:?} {run:?}");
        }
    });
}
