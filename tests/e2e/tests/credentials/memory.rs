//! Where values are in memory: once in the supervisor, and in no process inside. Looked for as root does.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use stockade_testkit::{Mode, Outer, skip};

use crate::{
    LONG,
    world::{CANARY, KEY, POLICY, World, assert_nowhere},
};

/// Requests with a credential, in each of HTTP/1.1 and HTTP/2.
const ASKED: usize = 10;
/// Copies in buffers of open connections to the origin, the last request of each; see docs/credentials.md.
const LEFT_BEHIND: usize = 2;
/// Memory that is looked at in one go.
const STEP: usize = 1 << 20;

/// How often a text lies in the memory of a process that it can write.
fn copies(pid: i32, text: &str) -> usize {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut count = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (from, to) = words.next().unwrap().split_once('-').unwrap();
        if !words.next().unwrap().starts_with("rw") {
            continue;
        }
        let [from, to] = [from, to].map(|n| u64::from_str_radix(n, 16).unwrap());
        let mut at = from;
        while at < to {
            // What begins in this piece may end in the next.
            let size = (STEP + text.len() - 1).min(usize::try_from(to - at).unwrap());
            let mut piece = vec![0; size];
            // Regions come and go while the process runs.
            if memory.read_exact_at(&mut piece, at).is_ok() {
                count += found(&piece, text.as_bytes());
            }
            at += STEP as u64;
        }
    }
    count
}

fn found(piece: &[u8], text: &[u8]) -> usize {
    let first = piece.iter().enumerate().filter(|(_, b)| **b == text[0]);
    first.filter(|(at, _)| piece[*at..].starts_with(text)).count()
}

/// The process and all below it.
fn family(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children: Vec<i32> =
        lists.flat_map(|l| l.split_whitespace().map(|p| p.parse().unwrap()).collect::<Vec<_>>()).collect();
    std::iter::once(pid).chain(children.into_iter().flat_map(family)).collect()
}

#[test]
fn values_are_in_the_supervisor_once_and_in_no_process_inside() {
    if !Mode::available().contains(&Mode::Root) {
        skip!("only root may read the memory of the supervisor");
    }
    let script = format!(
        r#"
        A=https://api.test:8443; echo ready; read go
        for i in $(seq {ASKED}); do
            curl -s --http1.1 -H "authorization: Bearer $GITHUB_TOKEN" $A/echo $A/echo/base64
            curl -s --http2 -H "authorization: Bearer $GITHUB_TOKEN" $A/echo/json $A/user
        done > answers
        grep -c . answers; echo asked; read go
    "#
    );
    // The spoilt value is the same text.
    let policy: String = POLICY.lines().filter(|l| !l.contains("spoilt")).map(|l| format!("{l}\n")).collect();
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer);
        for mode in Mode::available() {
            let before = world.origin.requests().len();
            let mut run = world.stockade(*mode, &policy).spawn(&["/bin/sh", "-c", &script]);
            run.wait_for("ready");
            let pid = run.pid();
            assert_eq!(copies(pid, CANARY), 1, "{mode:?}: of a file, the value that is kept; control of the search");
            run.write(b"\n");
            run.wait_for("asked");
            let after = copies(pid, CANARY);
            let inside: Vec<i32> = family(pid).split_off(1);
            assert!(inside.len() >= 3, "init, launcher and command: {mode:?} {inside:?}");
            let kept = copies(pid, KEY);
            assert!(kept >= 1, "{mode:?}: of a variable, where Stockade was started with it; control of the search");
            for process in &inside {
                assert_eq!(copies(*process, CANARY), 0, "{mode:?}: process {process}");
                assert_eq!(copies(*process, KEY), 0, "{mode:?}: process {process} has the supervisor's environment");
            }
            eprintln!("{mode:?}: {after} copies after {} requests; of a variable: {kept}", 4 * ASKED);
            run.write(b"\n");
            let run = run.finish();
            assert_nowhere(&run);
            assert_eq!(world.origin.requests().len() - before, 4 * ASKED, "{mode:?} {run:?}");
            assert!((1..=1 + LEFT_BEHIND).contains(&after), "{mode:?}: {after} copies");
        }
    });
}
