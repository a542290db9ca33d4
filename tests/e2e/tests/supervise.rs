//! `supervise`: an entrypoint and PID 1 (S1). PID 1 is made here with a pid namespace; in real containers, see
//! `containers`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stockade_testkit::{Feature, Mode, Running, Stockade, need, runner::program};

/// Makes what it runs PID 1 of a pid namespace, as a container engine does.
const AS_PID_1: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

fn supervise(mode: Mode) -> Stockade {
    Stockade::new(mode).subcommand("supervise")
}

fn as_pid_1() -> Stockade {
    supervise(Mode::Root).under(&AS_PID_1)
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// Stockade itself, below the program that made the namespace.
fn stockade(run: &Running) -> Pid {
    let found = children(run.pid());
    assert_eq!(found.len(), 1, "unshare has one child");
    Pid::from_raw(found[0])
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a script in the pid namespace of `pid`, as `docker exec` does: what it leaves behind is given to PID 1 there.
fn exec_beside(pid: Pid, script: &str) {
    let status = Command::new("nsenter")
        .args(["--pid", "--target", &pid.to_string(), "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn orphans_of_others_are_reaped_and_the_command_s_status_is_not_lost() {
    need!(Feature::Root);
    let mut run = as_pid_1().spawn(&["sh", "-c", "echo ready; read line; exit 7"]);
    run.wait_for("ready");
    let pid_1 = stockade(&run);
    // Each leaves a child that ends only after it: the child's parent is then PID 1.
    exec_beside(pid_1, "for i in $(seq 100); do (sh -c 'sleep 3' &); done");
    wait_until("the orphans were adopted", || children(pid_1.as_raw()).len() > 90);
    wait_until("they were reaped", || children(pid_1.as_raw()).len() == 1);
    run.write(b"\n");
    run.finish().assert_code(7);
}

/// The tripwire of the test above: a PID 1 that reaps nothing keeps them.
#[test]
fn a_pid_1_that_does_not_wait_keeps_its_orphans() {
    need!(Feature::Root);
    let mut idle = Command::new("unshare").args(&AS_PID_1[1..]).args(["sleep", "60"]).spawn().unwrap();
    let outer = i32::try_from(idle.id()).unwrap();
    wait_until("sleep runs", || children(outer).len() == 1);
    let pid_1 = Pid::from_raw(children(outer)[0]);
    wait_until("sleep is executed", || fs::read_to_string(format!("/proc/{pid_1}/comm")).is_ok_and(|c| c == "sleep\n"));
    exec_beside(pid_1, "for i in $(seq 20); do (sh -c 'sleep 0.05' &); done");
    wait_until("zombies pile up", || children(pid_1.as_raw()).into_iter().filter(|c| is_zombie(*c)).count() == 20);
    idle.kill().unwrap();
    idle.wait().unwrap();
}

#[test]
fn thousands_of_orphans_of_the_command_are_reaped() {
    for mode in Mode::available() {
        let script = "i=0; while [ $i -lt 3000 ]; do (sleep 0 &); i=$((i+1)); done; sleep 0.3
            n=0; for s in /proc/[0-9]*/stat; do read -r line <$s || continue; case ${line##*) } in Z*) n=$((n+1));; esac; done
            echo zombies $n; exit 5";
        let run = supervise(*mode).timeout(Duration::from_secs(60)).sh(script).expect_code(5);
        assert!(run.text().ends_with("zombies 0\n"), "{mode:?} {run:?}");
    }
}

#[test]
fn signals_to_pid_1_reach_the_command_and_decide_its_code() {
    need!(Feature::Root);
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH] {
        let name = signal.as_str().trim_start_matches("SIG");
        let script = format!("trap 'echo heard; exit 42' {name}; echo ready; while :; do sleep 0.05; done");
        let run = as_pid_1().spawn(&["sh", "-c", &script]);
        run.wait_for("ready");
        kill(stockade(&run), signal).unwrap();
        let run = run.finish().expect_code(42);
        assert!(run.text().contains("heard"), "{signal} {run:?}");
        if signal == SIGWINCH {
            continue;
        }
        let run = as_pid_1().spawn(&["perl", "-e", "$| = 1; print 'ready'; sleep 60"]);
        run.wait_for("ready");
        kill(stockade(&run), signal).unwrap();
        run.finish().assert_code(128 + signal as i32);
    }
}

#[test]
fn the_grace_ends_with_kill_and_a_second_term_ends_the_grace() {
    need!(Feature::Root);
    const DEAF: [&str; 3] = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.2; done"];
    let run = as_pid_1().arg("--grace").arg("1s").spawn(&DEAF);
    run.wait_for("ready");
    let (pid_1, began) = (stockade(&run), Instant::now());
    kill(pid_1, Signal::SIGTERM).unwrap();
    run.finish().assert_code(137);
    assert!(began.elapsed() >= Duration::from_secs(1), "not before the grace is over");
    let run = as_pid_1().arg("--grace").arg("1h").spawn(&DEAF);
    run.wait_for("ready");
    kill(stockade(&run), Signal::SIGTERM).unwrap();
    thread::sleep(Duration::from_millis(100));
    kill(stockade(&run), Signal::SIGTERM).unwrap();
    run.finish().assert_code(137);
}

#[test]
fn a_term_while_the_sandbox_is_built_is_not_lost() {
    need!(Feature::Root);
    let run = as_pid_1().spawn(&["sleep", "60"]);
    wait_until("it has begun", || children(run.pid()).len() == 1);
    let pid_1 = stockade(&run);
    let is_stockade = || fs::read_to_string(format!("/proc/{pid_1}/comm")).is_ok_and(|c| c == "stockade\n");
    wait_until("it is Stockade", is_stockade);
    // The signals that it waits with are blocked before init is forked.
    wait_until("init is forked", || !children(pid_1.as_raw()).is_empty());
    kill(pid_1, Signal::SIGTERM).unwrap();
    run.finish().assert_code(143);
}

#[test]
fn pid_1_stops_and_continues_the_command_and_not_itself() {
    need!(Feature::Root);
    let run = as_pid_1().spawn(&["perl", "-e", "$| = 1; print 'ready'; sleep 1 while 1"]);
    run.wait_for("ready");
    let pid_1 = stockade(&run);
    // Below init: the launcher and the command.
    let command = || {
        let init = children(pid_1.as_raw());
        let below: Vec<i32> = init.iter().flat_map(|pid| children(*pid)).collect();
        let named = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "perl\n");
        below.into_iter().find(named)
    };
    let state = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    let command = command().unwrap();
    kill(pid_1, Signal::SIGTSTP).unwrap();
    wait_until("the command stopped", || state(command) == Some('T'));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(state(command), Some('T'), "nobody continued it");
    kill(pid_1, Signal::SIGCONT).unwrap();
    wait_until("it goes on", || state(command) != Some('T'));
    kill(pid_1, Signal::SIGTERM).unwrap();
    run.finish().assert_code(143);
}

#[test]
fn when_pid_1_is_killed_nothing_is_left() {
    need!(Feature::Root);
    let run = as_pid_1().spawn(&["sh", "-c", "sleep 300 & echo ready; wait"]);
    run.wait_for("ready");
    let pid_1 = stockade(&run);
    let inside: Vec<i32> = children(pid_1.as_raw());
    assert!(!inside.is_empty());
    kill(pid_1, Signal::SIGKILL).unwrap();
    run.finish();
    wait_until("all are gone", || inside.iter().all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap()));
}

#[test]
fn a_hangup_reloads_the_policy_and_reaches_the_command() {
    const POLICY: &str = "version: 1\nnetwork: {endpoints: {a: {hosts: [a.test], ports: [80]}}}\n";
    for mode in Mode::available() {
        let stockade = supervise(*mode).policy(POLICY);
        let file = stockade.policy_path();
        let run = stockade.spawn(&["sh", "-c", "trap 'echo hung up' HUP; echo ready; while :; do sleep 0.05; done"]);
        run.wait_for("ready");
        fs::write(file, POLICY.replace("a.test", "b.test")).unwrap();
        run.signal(Signal::SIGHUP);
        run.wait_for("hung up");
        run.signal(Signal::SIGTERM);
        let run = run.finish().expect_code(143);
        assert!(run.stderr.contains("policy reloaded"), "{mode:?} {run:?}");
    }
}

#[test]
fn the_environment_adds_and_is_listed() {
    for mode in Mode::available() {
        let timed = supervise(*mode).env("STOCKADE_TIMEOUT", "300ms").env("STOCKADE_REQUIRE", "netns,fence");
        let run = timed.run(&["sleep", "60"]).expect_code(124);
        assert!(run.stderr.contains("set by the environment: STOCKADE_REQUIRE, STOCKADE_TIMEOUT"), "{run:?}");
        // `run` knows no settings: a developer's shell is nobody's decision.
        Stockade::new(*mode).env("STOCKADE_TIMEOUT", "300ms").run(&["sleep", "0.6"]).assert_code(0);
    }
}

#[test]
fn the_environment_cannot_weaken() {
    let weak = [
        ("STOCKADE_ALLOW", "evil.test"),
        ("STOCKADE_USER", "0:0"),
        ("STOCKADE_WORKSPACE", "/etc:rw"),
        ("STOCKADE_POLICY", "/etc/hostname"),
        ("STOCKADE_POLICY", "version: 1\nnetwork: {endpoints: {all: {hosts: [\"**\"]}}}"),
        ("STOCKADE_UPSTREAM_CA", "/etc/hostname"),
        ("STOCKADE_ENV", "SECRET"),
        ("STOCKADE_LOG_LEVEL", "error"),
        ("STOCKADE_GATEWAY", "https://gateway.test"),
    ];
    let mode = Mode::available()[0];
    for (name, value) in weak {
        let run = supervise(mode).env(name, value).env("SECRET", "s").sh("echo it runs").expect_code(125);
        assert!(run.stderr.contains(name) && run.text().is_empty(), "{run:?}");
    }
    // The control: the same start without them; and what only looks like a setting is named, not obeyed.
    let run = supervise(mode).env("STOCKADE_REQURE", "netns").env("COMPLETE", "bash").sh("echo it runs").expect_code(0);
    assert_eq!(run.text(), "it runs\n", "{run:?}");
    assert!(run.stderr.contains("did you mean STOCKADE_REQUIRE?"), "{run:?}");
}

#[test]
fn the_command_never_sees_settings() {
    for mode in Mode::available() {
        let run = supervise(*mode)
            .env("STOCKADE_TIMEOUT", "1h")
            .env("STOCKADE_ENV", "A=1\nB=2 3")
            .env("GITHUB_TOKEN", "ghp_secret")
            .sh("cat /proc/self/environ | tr '\\0' '\\n' | sort | grep -E '^(STOCKADE|A=|B=|GITHUB)'")
            .expect_code(0);
        assert_eq!(run.text(), "A=1\nB=2 3\nSTOCKADE=1\n", "{mode:?} {run:?}");
        let named = supervise(*mode).arg("--env").arg("STOCKADE_TIMEOUT").run(&["true"]).expect_code(125);
        assert!(named.stderr.contains("--env STOCKADE_TIMEOUT"), "{named:?}");
    }
}

/// A file of root's on a read-only mount of its own is the operator's, and may hold a policy.
#[test]
fn a_policy_that_the_operator_mounted_counts() {
    need!(Feature::Root);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    fs::write(&file, "version: 1\nfilesystem: {read_write: [.]}\nprocess: {limits: {pids: 77}}\n").unwrap();
    let script = |mount: &str| format!("{mount}; exec {} supervise --user 1000:1000 -- true", program(true).display());
    let path = file.display();
    let run = |script: String| {
        Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("STOCKADE_POLICY", &file)
            .current_dir("/srv")
            .output()
            .unwrap()
    };
    let mounted = run(script(&format!("mount --bind {path} {path} && mount -o remount,bind,ro {path}")));
    let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
    assert_eq!(mounted.status.code(), Some(0), "{said}");
    assert!(said.contains("set by the environment: STOCKADE_POLICY"), "{said}");
    for image in [":".to_owned(), format!("mount --bind {path} {path}")] {
        let refused = run(script(&image));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(125), "{image}: {said}");
        assert!(said.contains("mount the file read-only"), "{image}: {said}");
    }
}

#[test]
fn options_that_will_come_are_refused_by_name() {
    for option in ["--gateway", "--skills", "--inference-routes", "--isolation"] {
        let run = supervise(Mode::available()[0]).arg(format!("{option}=x")).run(&["true"]).expect_code(125);
        assert!(run.stderr.contains(&format!("{option} is not available yet")), "{run:?}");
    }
}
