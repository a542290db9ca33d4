//! `supervise` as the first process of a container: stop, kill, exec, files.

use std::time::{Duration, Instant};

use crate::{
    engine,
    engine::{Container, Engine, OPEN, said},
};

fn start(engine: &Engine, script: &str) -> Container {
    let image = engine.machine_image();
    engine.start(&OPEN, &image, &["stockade", "supervise", "--", "/bin/sh", "-c", script])
}

/// Descendants of a process, itself included, by the parents that /proc shows.
fn processes_of(pid: i32) -> Vec<i32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
        next += 1;
    }
    found
}

#[test]
fn stop_ends_in_time_with_the_command_s_code() {
    let docker = engine!(Engine::docker());
    let polite = start(&docker, "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done");
    polite.wait_for("ready");
    let began = Instant::now();
    polite.order(&["stop"]);
    assert!(began.elapsed() < Duration::from_secs(8), "docker stop took {:?}", began.elapsed());
    let out = polite.finish();
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    assert!(said(&out).contains("bye"), "{}", said(&out));
    // One that does not listen: KILL comes from Stockade, before it would from Docker, which then says 137 for us too.
    let deaf = start(&docker, "trap '' TERM; echo ready; while :; do sleep 0.1; done");
    deaf.wait_for("ready");
    deaf.order(&["stop", "--time", "30"]);
    assert_eq!(deaf.finish().status.code(), Some(137));
}

#[test]
fn signals_of_the_engine_reach_the_command() {
    let docker = engine!(Engine::docker());
    let run = start(
        &docker,
        "trap 'echo one' USR1; trap 'echo hup' HUP; trap 'exit 9' QUIT; echo ready; while :; do sleep 0.1; done",
    );
    run.wait_for("ready");
    for (signal, heard) in [("USR1", "one"), ("HUP", "hup")] {
        run.order(&["kill", "--signal", signal]);
        run.wait_for(heard);
    }
    run.order(&["kill", "--signal", "QUIT"]);
    assert_eq!(run.finish().status.code(), Some(9));
}

#[test]
fn orphans_of_exec_are_reaped() {
    let docker = engine!(Engine::docker());
    let run = start(&docker, "echo ready; sleep 300");
    run.wait_for("ready");
    let pid_1 = run.pid();
    let before = processes_of(pid_1).len();
    let script = "i=0; while [ $i -lt 50 ]; do (sleep 4 >/dev/null 2>&1 &); i=$((i+1)); done";
    let exec = run.exec(&["/bin/sh", "-c", script]);
    assert!(exec.status.success(), "{}", said(&exec));
    run.wait_until("they are children of PID 1", |_| processes_of(pid_1).len() >= before + 40);
    run.wait_until("they are reaped", |_| processes_of(pid_1).len() == before);
}

#[test]
fn killed_from_outside_it_leaves_nothing() {
    let docker = engine!(Engine::docker());
    let run = start(&docker, "sleep 300 & sleep 301 & echo ready; wait");
    run.wait_for("ready");
    let all = processes_of(run.pid());
    assert!(all.len() >= 5, "supervisor, init, launcher, shell and two: {all:?}");
    run.order(&["kill", "--signal", "KILL"]);
    run.wait_until("every process is gone", |_| {
        all.iter().all(|pid| !std::fs::exists(format!("/proc/{pid}")).unwrap())
    });
    assert_eq!(run.finish().status.code(), Some(137));
}

/// Its file system is the same after a kill: whatever was left in it is in nobody's way.
#[test]
fn a_killed_container_starts_again() {
    let docker = engine!(Engine::docker());
    let run = start(&docker, "echo ready; trap 'exit 4' TERM; while :; do sleep 0.1; done");
    for round in 1..=3 {
        run.wait_until("the command runs", |run| run.logs().matches("ready").count() == round);
        let (last, order) = (round == 3, if round == 3 { ["stop", "--time=9"] } else { ["kill", "--signal=KILL"] });
        run.order(&order);
        let code = String::from_utf8_lossy(&run.order(&["wait"]).stdout).trim().to_owned();
        assert_eq!(code, if last { "4" } else { "137" }, "{}", run.logs());
        if !last {
            assert!(run.order(&["start"]).status.success());
        }
    }
}

/// What an image brings along steers nothing, and is not executed outside of the sandbox.
#[test]
fn an_image_s_settings_and_programs_count_for_nothing() {
    let docker = engine!(Engine::docker());
    let image = docker.machine_image();
    let run = |more: &[&str], words: &[&str]| docker.run(&[&OPEN[..], more].concat(), &image, words);
    for weak in
        ["STOCKADE_ALLOW=evil.test", "STOCKADE_USER=0:0", "STOCKADE_POLICY=/etc/passwd", "STOCKADE_WORKSPACE=/etc"]
    {
        let out = run(&["-e", weak], &["stockade", "supervise", "--", "/bin/echo", "it ran"]);
        assert_eq!(out.status.code(), Some(125), "{weak}: {}", said(&out));
    }
    // A volume of the image's own is writable, and so is no operator's.
    let volume = run(
        &["-v", "/conf", "-e", "STOCKADE_POLICY=/conf/policy.yaml", "--entrypoint", "/bin/sh"],
        &["-c", "echo 'version: 1' >/conf/policy.yaml; exec stockade supervise -- /bin/true"],
    );
    assert_eq!(volume.status.code(), Some(125), "{}", said(&volume));
    assert!(said(&volume).contains("mount that can be written"), "{}", said(&volume));
    // The control: one that the operator mounts.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    std::fs::write(&file, "version: 1\nfilesystem: {read_write: [.]}\nprocess: {user: \"1000:1000\"}\n").unwrap();
    let mount = format!("{}:/conf/policy.yaml:ro", file.display());
    let mounted =
        run(&["-v", &mount, "-e", "STOCKADE_POLICY=/conf/policy.yaml"], &["stockade", "supervise", "--", "/bin/true"]);
    assert_eq!(mounted.status.code(), Some(0), "{}", said(&mounted));
    // Tools that a supervisor might call, first in PATH: each would leave a mark.
    let plant = "mkdir /canary; for t in ip nft iptables iptables-restore mount nsenter getent sh newuidmap; do \
        printf '#!/bin/sh\\necho ran >>/canary/mark\\n' >/canary/$t; /bin/chmod 755 /canary/$t; done; \
        PATH=/canary:$PATH LD_PRELOAD=/canary/none.so /usr/bin/stockade supervise -- /bin/true; code=$?; /bin/cat /canary/mark; exit $code";
    let out = run(&["--entrypoint", "/bin/sh"], &["-c", plant]);
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    assert!(!said(&out).lines().any(|line| line == "ran"), "{}", said(&out));
}

/// An image without a shell, without accounts, with accounts that lie.
#[test]
fn bare_and_hostile_images() {
    let docker = engine!(Engine::docker());
    let image = docker.machine_image();
    let script = |before: &str, command: &str| {
        let line = format!("{before}; exec stockade supervise -- {command}");
        docker.run(&[&OPEN[..], &["--entrypoint", "/bin/sh"]].concat(), &image, &["-c", &line])
    };
    let bare = script("/bin/rm -f /etc/passwd /etc/group", "/usr/bin/id");
    assert_eq!(bare.status.code(), Some(0), "{}", said(&bare));
    assert!(said(&bare).contains("uid=1000"), "{}", said(&bare));
    let missing = script(":", "/no/such/shell");
    assert_eq!(missing.status.code(), Some(127), "{}", said(&missing));
    let linked = script("/bin/rm /etc/passwd; /bin/ln -s /proc/self/environ /etc/passwd", "/bin/true");
    assert_eq!(linked.status.code(), Some(125), "{}", said(&linked));
    assert!(said(&linked).contains("/etc/passwd"), "{}", said(&linked));
}
