//! A session is what the command is.

use std::{collections::BTreeMap, fs};

use stockade_testkit::Mode;

use crate::world::{Keys, World, fed, good};

/// What a process is, in lines: namespaces, privileges, limits, cgroup, environment.
const WHAT: &str = "for n in /proc/self/ns/*; do echo \"$n $(readlink $n)\"; done; \
    grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Seccomp_filters|NStgid)' /proc/self/status | grep -v NStgid; \
    cat /proc/self/limits /proc/self/cgroup; cat /proc/self/attr/current 2>/dev/null; umask; pwd; env | sort";

/// Lines that differ by nature: each shell sets these for itself, and SSH says that it is there.
fn comparable(text: &str) -> BTreeMap<String, String> {
    let own = ["_=", "SHLVL=", "OLDPWD=", "SSH_CONNECTION=", "SSH_CLIENT=", "TERM=", "PWD="];
    let lines = text.lines().map(|l| l.trim_end_matches('\r')).filter(|l| !own.iter().any(|o| l.starts_with(o)));
    lines.map(|l| (l.split([' ', '=', '\t']).next().unwrap_or_default().to_owned() + l, l.to_owned())).collect()
}

#[test]
fn every_way_in_leads_to_the_same_place() {
    for mode in Mode::available() {
        let keys = Keys::new();
        let line = keys.public("id");
        let world = World::with(*mode, keys, &line, |s| s.env("TERM", "dumb"));
        // The command itself wrote down what it is, before it said that it is up.
        let own = {
            let run = stockade_testkit::Stockade::new(*mode).env("TERM", "dumb").sh(WHAT);
            comparable(&run.text())
        };
        let exec = comparable(&good(&world.ssh(&[], WHAT)));
        let shell = comparable(&good(&world.fed(&["-T"], "", WHAT.as_bytes())));
        let terminal = comparable(&good(&world.ssh(&["-tt"], WHAT)));
        let command = comparable(&fs::read_to_string(world.work.join("what")).unwrap_or_default());
        assert!(command.is_empty());
        assert_eq!(exec, shell, "{mode:?}: exec and shell");
        assert_eq!(exec, terminal, "{mode:?}: exec and terminal");
        // Another sandbox has other namespaces, another workspace and another cgroup; all else is as the command's.
        let rest = |all: &BTreeMap<String, String>| {
            let part = |l: &&String| {
                !l.starts_with("/proc/self/ns/")
                    && !l.contains("stockade-run-")
                    && !l.contains(":/")
                    && !l.contains("stockade-")
            };
            all.values().filter(part).cloned().collect::<Vec<_>>()
        };
        assert_eq!(rest(&exec), rest(&own), "{mode:?}: exec and a command");
        assert!(exec.values().any(|l| l.contains("NoNewPrivs") && l.ends_with('1')), "{exec:?}");
        assert!(exec.values().filter(|l| l.starts_with("Cap")).all(|l| l.ends_with("0000000000000000")), "{exec:?}");
        // The tripwire: a process outside differs in all that matters.
        let outside = std::process::Command::new("/bin/sh").args(["-c", WHAT]).output().unwrap();
        let outside = comparable(&String::from_utf8_lossy(&outside.stdout));
        let differing = outside.values().filter(|l| !exec.values().any(|e| e == *l)).count();
        assert!(differing > 8, "{differing} lines differ outside");
        namespaces(&world);
        files(&world, &exec);
        world.end();
    }
}

/// The command's own process, as a session sees it: they share every namespace, cgroup and filter.
fn namespaces(world: &World) {
    let script = "p=$(pgrep -x cat | head -1); for n in /proc/$p/ns/*; do readlink $n; done; cat /proc/$p/cgroup; \
                  grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/$p/status; cat /proc/$p/limits";
    let of_command = good(&world.ssh(&[], script));
    let of_session = good(&world.ssh(&[], &script.replace("$(pgrep -x cat | head -1)", "self")));
    assert!(of_command.contains("net:["), "{of_command}");
    assert_eq!(of_command, of_session);
}

/// The program that serves files is a process like the others: it says so of itself.
fn files(world: &World, exec: &BTreeMap<String, String>) {
    let mut sftp = world.client("sftp");
    sftp.args(["-b", "-", "sandbox@127.0.0.1"]);
    let names = ["status", "limits", "cgroup", "environ"];
    let at = |name: &str| world.keys().path(&format!("sftp-{name}"));
    let batch: String = names.iter().map(|n| format!("get /proc/self/{n} {}\n", at(n).display())).collect();
    good(&fed(sftp, batch.as_bytes()));
    let read = |name: &str| String::from_utf8_lossy(&fs::read(at(name)).unwrap()).into_owned();
    for name in names {
        assert!(!read(name).is_empty(), "{name}");
    }
    let lines = read("status") + &read("limits") + &read("cgroup");
    for line in exec
        .values()
        .filter(|l| ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "Max "].iter().any(|p| l.starts_with(p)))
    {
        assert!(lines.lines().any(|l| l.trim_end() == line.trim_end()), "sftp differs in {line}:\n{lines}");
    }
    assert!(read("environ").contains("HTTPS_PROXY=http://127.0.0.1:3128"));
}
