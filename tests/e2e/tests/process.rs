//! The command as a process (S1): exit codes, signals, orphans, standard streams, each as if it were not wrapped.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{fs::chown, net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Uid};
use rustix::fs::{Mode as Bits, OFlags};
use stockade_testkit::{
    Feature, Mode, Running, Stockade, need,
    runner::{ORDINARY_UID, program},
};

/// `program`, run as the user of `mode`, in a directory that this user owns, which is a good workspace.
fn as_user(mode: Mode, program: impl AsRef<Path>, dir: &Path) -> Command {
    let mut line = Command::new(program.as_ref());
    if Uid::effective().is_root() {
        chown(dir, Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
        if mode == Mode::Rootless {
            line.uid(ORDINARY_UID).gid(ORDINARY_UID);
        }
    }
    line.current_dir(dir).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/nonexistent");
    line
}

/// Runs a script of the shell outside, where `$S` is `stockade run`.
fn outside(mode: Mode, script: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let program = program(mode == Mode::Rootless);
    let mut line = as_user(mode, "bash", dir.path());
    line.arg("-c").arg(script).env("S", format!("{} run", program.display())).stdin(Stdio::null());
    line.output().unwrap()
}

/// What the script printed, trimmed.
fn said(mode: Mode, script: &str) -> String {
    String::from_utf8_lossy(&outside(mode, script).stdout).trim().to_owned()
}

fn spawn(mode: Mode, script: &str) -> Running {
    Stockade::new(mode).spawn(&["sh", "-c", script])
}

/// Waits until a process outside is in this state (`T` stopped, ...).
fn wait_for_state(pid: i32, state: char) {
    let began = Instant::now();
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let now = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if now == Some(state) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "process {pid} is not in state {state}: {stat}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn exit_codes_are_the_command_s_or_say_who_failed() {
    let cases = [
        ("$S -- true", 0),
        ("$S -- sh -c 'exit 7'", 7),
        ("$S -- sh -c 'exit 255'", 255),
        ("$S -- sh -c 'kill -9 $$'", 137),
        ("$S -- sh -c 'kill -TERM $$'", 143),
        ("$S --timeout 300ms -- sleep 60", 124),
        ("$S --timeout 300ms -- sh -c 'trap \"exit 0\" TERM; while :; do sleep 0.05; done'", 124),
        ("$S --no-such-option -- true", 125),
        ("$S --timeout 3d -- true", 125),
        ("$S --policy absent.yaml -- true", 125),
        ("echo 'version: 2' > p.yaml; $S --policy p.yaml -- true", 125),
        ("touch file; $S --workspace file -- true", 125),
        ("mkdir dir; ln -s dir link; $S --workspace link -- true", 125),
        ("$S --workspace absent -- true", 125),
        ("touch plain; $S -- ./plain", 126),
        ("$S -- /usr", 126),
        ("$S -- no-such-program", 127),
        ("$S -- /no/such/program", 127),
        ("printf 'exit 9' > script; chmod +x script; $S -- ./script", 9),
    ];
    for mode in Mode::available() {
        for (script, code) in cases {
            let run = outside(*mode, script);
            assert_eq!(run.status.code(), Some(code), "{mode:?} {script}\n{run:?}");
            let said = String::from_utf8_lossy(&run.stderr);
            let explained = said.contains("stockade: ") || said.contains("error: ");
            assert_eq!(explained, (124..=127).contains(&code), "{mode:?} {script}\n{run:?}");
        }
    }
}

#[test]
fn signals_reach_the_command_and_decide_its_code() {
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];
    for mode in Mode::available() {
        for signal in signals {
            let name = signal.as_str().trim_start_matches("SIG");
            let handled = format!("trap 'echo heard; exit 42' {name}; echo ready; while :; do sleep 0.05; done");
            let run = spawn(*mode, &handled);
            run.wait_for("ready");
            run.signal(signal);
            let run = run.finish().expect_code(42);
            assert!(run.text().contains("heard"), "{mode:?} {run:?}");
            let run = Stockade::new(*mode).spawn(&["perl", "-e", "$| = 1; print 'ready'; sleep 60"]);
            run.wait_for("ready");
            run.signal(signal);
            run.finish().assert_code(128 + signal as i32);
        }
    }
}

#[test]
fn signals_go_to_the_whole_group() {
    for mode in Mode::available() {
        let script = "(trap 'echo child; exit' USR1; echo one; while :; do sleep 0.05; done) &
            trap 'wait; echo parent; exit 3' USR1; echo two; while :; do sleep 0.05; done";
        let run = spawn(*mode, script);
        run.wait_for("one");
        run.wait_for("two");
        run.signal(Signal::SIGUSR1);
        let run = run.finish().expect_code(3);
        assert!(run.text().ends_with("child\nparent\n"), "{mode:?} {run:?}");
    }
}

#[test]
fn hangup_reloads_and_does_not_reach_the_command() {
    const POLICY: &str = "version: 1\nnetwork: {endpoints: {a: {hosts: [a.test], ports: [80]}}}\n";
    for mode in Mode::available() {
        let stockade = Stockade::new(*mode).policy(POLICY);
        let file = stockade.policy_path();
        let script = "trap 'echo hung up' HUP; echo ready; read line; echo got $line";
        let mut run = stockade.spawn(&["sh", "-c", script]);
        run.wait_for("ready");
        fs::write(file, POLICY.replace("a.test", "b.test")).unwrap();
        run.signal(Signal::SIGHUP);
        run.write(b"this\n");
        let run = run.finish().expect_code(0);
        assert_eq!(run.text(), "ready\ngot this\n", "{mode:?} {run:?}");
    }
}

/// The whole of the documented sequence, with its real times: TERM, ten seconds, KILL.
#[test]
fn a_command_that_ignores_term_is_killed_after_the_grace() {
    let mode = Mode::available().last().copied().unwrap();
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let run = Stockade::new(mode).arg("--timeout").arg("1s").spawn(&["sh", "-c", script]);
    let run = run.finish().expect_code(124);
    assert!(run.took > Duration::from_secs(11) && run.took < Duration::from_secs(20), "{run:?}");
}

#[test]
fn a_second_term_does_not_wait_for_the_grace() {
    for mode in Mode::available() {
        let run = spawn(*mode, "trap 'echo first' TERM; echo ready; while :; do sleep 0.05; done");
        run.wait_for("ready");
        run.signal(Signal::SIGTERM);
        run.wait_for("first");
        run.signal(Signal::SIGTERM);
        let run = run.finish().expect_code(137);
        assert!(run.took < Duration::from_secs(9), "{mode:?} {run:?}");
    }
}

#[test]
fn a_stopped_command_still_ends_on_term() {
    for mode in Mode::available() {
        let run = spawn(*mode, "trap 'exit 9' TERM; echo ready $$; kill -STOP $$; while :; do sleep 0.05; done");
        run.wait_for("ready");
        thread::sleep(Duration::from_millis(200));
        run.signal(Signal::SIGTERM);
        run.finish().assert_code(9);
    }
}

/// A job-control shell stops and continues us as it would the command.
#[test]
fn stopped_and_continued_with_its_supervisor() {
    for mode in Mode::available() {
        let mut run =
            spawn(*mode, "trap 'echo went on' CONT; echo ready; while :; do read x && exit 5; sleep 0.02; done");
        run.wait_for("ready");
        run.signal(Signal::SIGTSTP);
        wait_for_state(run.pid(), 'T');
        run.signal(Signal::SIGCONT);
        run.wait_for("went on");
        run.write(b"x\n");
        run.finish().assert_code(5);
    }
}

/// A command that stops itself does not take its time limit with it.
#[test]
fn a_command_that_stops_itself_is_timed_out() {
    for mode in Mode::available() {
        let run = Stockade::new(*mode).arg("--timeout").arg("500ms").sh("kill -STOP $$; sleep 60");
        run.assert_code(124);
    }
}

#[test]
fn thousands_of_orphans_are_reaped() {
    let storm = r#"
        for (1..2000) {
            my $p = fork;
            if (!$p) { fork // die; exit 0 }
            waitpid($p, 0);
        }
        for (1..250) {
            $z = grep { open(F, $_) && <F> =~ /\) Z / } glob '/proc/[0-9]*/stat';
            last unless $z;
            select(undef, undef, undef, 0.02);
        }
        $| = 1;
        print "zombies $z\n";
        <STDIN>;
    "#;
    for mode in Mode::available() {
        let mut run = Stockade::new(*mode).timeout(Duration::from_secs(90)).spawn(&[
            "perl",
            "-e",
            &format!("$| = 1; print qq(ready\\n); <STDIN>; {storm}"),
        ]);
        run.wait_for("ready");
        let before = descriptors_of_init(run.pid());
        run.write(b"\n");
        run.wait_for("zombies");
        assert_eq!(descriptors_of_init(run.pid()), before, "{mode:?}");
        run.write(b"\n");
        let run = run.finish().expect_code(0);
        assert_eq!(run.text(), "ready\nzombies 0\n", "{mode:?} {run:?}");
    }
}

/// How many descriptors the supervisor's only child has open; only root may look.
fn descriptors_of_init(supervisor: i32) -> Option<usize> {
    let child = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
    let fds = fs::read_dir(format!("/proc/{}/fd", child.trim()));
    assert!(fds.is_ok() || !Uid::effective().is_root(), "{child}");
    fds.ok().map(Iterator::count)
}

#[test]
fn binary_data_passes_through_pipes_intact() {
    for (index, mode) in Mode::available().iter().rev().enumerate() {
        let bytes = if index == 0 { 1_u64 << 30 } else { 64 << 20 };
        let script = format!(
            "set -o pipefail
            head -c {bytes} /dev/urandom | tee >(sha256sum > sent) | $S -- sh -c 'tee seen | cat' | sha256sum > got
            echo $? $(stat -c %s seen); sha256sum < seen > inside; cmp sent got && cmp sent inside && echo same"
        );
        assert_eq!(said(*mode, &script), format!("0 {bytes}\nsame"), "{mode:?}");
    }
}

#[test]
fn pipes_end_as_they_would_unwrapped() {
    let cases = [
        ("$S -- yes | head -1; echo ${PIPESTATUS[@]}", "y\n141 0"),
        ("$S -- cat < /dev/null; echo $?", "0"),
        ("printf abc | $S -- sh -c 'cat; echo =$?'", "abc=0"),
        ("$S -- head -c 300000 /dev/zero | (sleep 0.5; wc -c)", "300000"),
        ("$S -- sh -c 'echo out; echo err >&2' 2>&1 >/dev/null | grep -v ^stockade", "err"),
        ("printf 'one\\ntwo\\n' | (read a; $S -- cat)", "two"),
        ("echo x > f; $S -- sh -c 'echo y' >> f; cat f", "x\ny"),
    ];
    for mode in Mode::available() {
        for (script, want) in cases {
            assert_eq!(said(*mode, script), want, "{mode:?} {script}");
        }
    }
}

#[test]
fn closed_descriptors_are_empty_ones() {
    let cases = [
        ("$S -- sh -c 'cat; echo $?' 0<&-", "0"),
        ("$S -- sh -c 'echo lost; echo kept >&2' 2>&1 1>&-", "kept"),
        ("$S -- sh -c 'echo kept; echo lost >&2' 2>&-", "kept"),
        ("$S -- sh -c 'exit 3' 0<&- 1>&- 2>&-; echo $?", "3"),
        // Nobody reads what Stockade says: no reason to end.
        ("$S --log-level debug -- sh -c 'sleep 0.3; exit 6' 2> >(true); echo $?", "6"),
        ("exec 7< /etc/passwd; $S -- sh -c 'ls /proc/self/fd | tr -d \"\\n\"'", "0123"),
    ];
    for mode in Mode::available() {
        for (script, want) in cases {
            assert_eq!(said(*mode, script), want, "{mode:?} {script}");
        }
    }
}

#[test]
fn descriptors_that_are_more_than_bytes_are_refused() {
    for mode in Mode::available() {
        let dir = tempfile::tempdir().unwrap();
        let directory = OFlags::RDONLY | OFlags::DIRECTORY;
        for (flags, path, what) in [
            (directory, "/", "a directory"),
            (OFlags::PATH, "/", "a path handle"),
            (OFlags::PATH, "/etc/passwd", "a path handle"),
        ] {
            let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, Bits::empty()).unwrap();
            let mut line = as_user(*mode, program(*mode == Mode::Rootless), dir.path());
            let run = line.args(["run", "--", "touch", "ran"]).stdin(Stdio::from(fd)).output().unwrap();
            let said = String::from_utf8_lossy(&run.stderr);
            assert_eq!(run.status.code(), Some(125), "{mode:?} {path} {said}");
            assert!(said.contains("stdin is ") && said.contains(what), "{mode:?} {path} {said}");
            assert!(!dir.path().join("ran").exists(), "nothing was run");
        }
    }
}

/// A socket carries more than bytes, so the command gets pipes; the bytes are the same.
#[test]
fn sockets_are_pumped_both_ways() {
    for mode in Mode::available() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut line = as_user(*mode, program(*mode == Mode::Rootless), dir.path());
        line.args(["run", "--", "sh", "-c", "ls -l /proc/self/fd/0 /proc/self/fd/1 >&2; exec cat"]);
        line.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(OwnedFd::from(theirs)).stderr(Stdio::piped());
        let child = line.spawn().unwrap();
        drop(line);
        let sent: Vec<u8> = (0..8 << 20).map(|i: u32| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let mut writer = ours.try_clone().unwrap();
        let bytes = sent.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&bytes).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        // A slow reader: what the command wrote just before its end is still to come.
        thread::sleep(Duration::from_millis(500));
        let mut got = Vec::new();
        ours.read_to_end(&mut got).unwrap();
        writing.join().unwrap();
        let run = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && got == sent, "{mode:?} {} of {} bytes\n{said}", got.len(), sent.len());
        assert_eq!(said.matches("pipe:").count(), 2, "{mode:?} {said}");
    }
}

/// A laptop's user is in groups such as `audio` or `docker`, and no namespace made without root can drop them.
#[test]
fn supplementary_groups_are_named_and_refuse_the_start_only_where_privileges_are_required() {
    need!(Feature::Root);
    need!(Feature::Rootless);
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
    let run = |groups: &str, more: &[&str]| {
        let ids = [format!("--reuid={ORDINARY_UID}"), format!("--regid={ORDINARY_UID}"), format!("--groups={groups}")];
        let mut line = Command::new("setpriv");
        line.args(ids).arg("--").arg(program(true)).arg("run").args(more).args(["--", "sh", "-c", "echo ran; id -G"]);
        let out = line.current_dir(dir.path()).env("HOME", "/nonexistent").output().unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
    };
    let (code, out, err) = run("1000,29,4242", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("ran\n"), "{out}");
    assert!(err.contains("partial") && err.contains("4242"), "{err}");
    let (code, out, err) = run("1000,29,4242", &["--require", "privileges"]);
    assert_eq!((code, out.as_str()), (125, ""), "{err}");
    assert!(err.contains("privileges") && err.contains("supplementary groups"), "{err}");
    let (code, _, err) = run("1000", &["--require", "privileges"]);
    assert_eq!(code, 0, "control: no other group, nothing to refuse: {err}");
    assert!(!err.contains("partial"), "{err}");
}
