//! Limits that hold, on whatever cgroups this machine has, and rootless without any.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use stockade_confine::{
    limits::{Cgroup, Limit, Limits, Rlimits, Usage, establish},
    privileges::{Identity, become_user, drop_all},
};
use stockade_testkit::{Feature, child::Child, need, skip};
use stockade_types::{Enforcement, SandboxId};

const USER: u32 = 1000;

fn id(n: u8) -> SandboxId {
    let pid = std::process::id().to_be_bytes();
    SandboxId::from_random([0xee, n, pid[0], pid[1], pid[2], pid[3], 0, 0])
}

/// Every directory of that sandbox under any cgroup mount.
fn directories(id: &SandboxId) -> Vec<PathBuf> {
    let out = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("stockade-{id}")])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(PathBuf::from).collect()
}

/// A cgroup with `limits`, all enforced; or the reason why this machine cannot.
fn cgroup(n: u8, limits: &Limits) -> Result<Cgroup, String> {
    let made = establish(&id(n), limits, false);
    match made.unmet() {
        Some(why) => Err(why),
        None => made.cgroup.ok_or_else(|| "no cgroup".to_owned()),
    }
}

macro_rules! cgroup_or_skip {
    ($n:expr, $limits:expr) => {
        match cgroup($n, &$limits) {
            Ok(cgroup) => cgroup,
            Err(why) => skip!("this machine has no writable cgroup with this limit: {why}"),
        }
    };
}

/// Starts a shell script that runs only once it is in the cgroup.
fn start_in(cgroup: &Cgroup, script: &str) -> std::process::Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("read go; {script}")]);
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    cgroup.add(child.id().cast_signed()).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

fn run_in(cgroup: &Cgroup, script: &str) -> std::process::Output {
    start_in(cgroup, script).wait_with_output().unwrap()
}

#[test]
fn a_fork_bomb_is_bounded_in_a_cgroup() {
    need!(Feature::Root);
    let cgroup = cgroup_or_skip!(1, Limits { pids: Some(20), ..Limits::default() });
    // Every process that could be made waits, so that they are alive together.
    let out = run_in(&cgroup, "i=0; while [ $i -lt 60 ]; do sleep 2 & i=$((i+1)); done; wait");
    let said = String::from_utf8_lossy(&out.stderr).to_lowercase();
    assert!(said.contains("fork"), "a fork was refused: {said}");
    let usage = cgroup.usage();
    assert!(usage.peak_processes.is_none_or(|n| (10..=20).contains(&n)), "{usage:?}");
    cgroup.remove().unwrap();
    assert_eq!(directories(&id(1)), Vec::<PathBuf>::new(), "nothing left behind");
}

/// Tripwire: the same script goes through under a limit that is wide enough.
#[test]
fn the_same_forks_pass_under_a_wider_limit() {
    need!(Feature::Root);
    let cgroup = cgroup_or_skip!(2, Limits { pids: Some(100), ..Limits::default() });
    let out = run_in(&cgroup, "i=0; while [ $i -lt 60 ]; do sleep 0.3 & i=$((i+1)); done; wait");
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    cgroup.remove().unwrap();
}

#[test]
fn memory_ends_the_eater_and_counts_it() {
    need!(Feature::Root);
    let cgroup = cgroup_or_skip!(3, Limits { memory: Some(64 << 20), ..Limits::default() });
    let eat = "head -c 200000000 /dev/zero | tail | true; python3 -c 'x = bytearray(200 << 20)' || \
               perl -e '$x = \"a\" x (200 << 20)'; echo $?";
    let out = run_in(&cgroup, eat);
    let usage = cgroup.usage();
    assert!(usage.oom_kills > 0, "{usage:?} {out:?}");
    assert!(usage.peak_memory.is_some_and(|n| n <= 64 << 20), "{usage:?}");
    cgroup.remove().unwrap();
}

#[test]
fn cpu_time_is_bounded_and_counted() {
    need!(Feature::Root);
    let cgroup = cgroup_or_skip!(4, Limits { cpus: Some(0.2), ..Limits::default() });
    let start = Instant::now();
    let out = run_in(&cgroup, "timeout 1 sh -c 'while :; do :; done'");
    assert_eq!(out.status.code(), Some(124), "{out:?}");
    let (usage, took) = (cgroup.usage(), start.elapsed());
    assert!(usage.cpu > Duration::from_millis(50), "{usage:?}");
    assert!(usage.cpu < took / 2, "{usage:?} in {took:?}: a fifth was granted");
    cgroup.remove().unwrap();
}

#[test]
fn everything_inside_can_be_ended() {
    need!(Feature::Root);
    let cgroup = cgroup_or_skip!(5, Limits::default());
    let mut child = start_in(&cgroup, "sleep 100 & sleep 100 & echo ready; sleep 100");
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let start = Instant::now();
    std::thread::scope(|s| {
        let reaped = s.spawn(|| child.wait().unwrap());
        cgroup.kill().unwrap();
        assert!(!reaped.join().unwrap().success());
    });
    drop(cgroup);
    assert_eq!(directories(&id(5)), Vec::<PathBuf>::new(), "dropping removes, once the last one is gone");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_process_moves_itself_quickly_even_from_its_own_user_namespace() {
    need!(Feature::Root);
    need!(Feature::CgroupV1);
    let cgroup = cgroup_or_skip!(6, Limits { pids: Some(50), ..Limits::default() });
    let name = format!("stockade-{}", id(6));
    Child::new().namespaces(CloneFlags::CLONE_NEWUSER).run(|| {
        let start = Instant::now();
        cgroup.entry().join().unwrap();
        let took = start.elapsed();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        assert!(own.lines().any(|l| l.contains(":pids:") && l.contains(&name)), "{own}");
        println!("joined in {took:?}");
    });
    cgroup.remove().unwrap();
}

#[test]
fn version_2_is_entered_by_birth() {
    need!(Feature::Root);
    need!(Feature::CgroupV2);
    let cgroup = cgroup_or_skip!(7, Limits::default());
    let Some(place) = cgroup.entry().birthplace() else { skip!("cgroup v2 is mounted, and not writable") };
    let own = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place))).unwrap();
    assert!(own.join("cgroup.procs").exists() && own.ends_with(format!("stockade-{}", id(7))), "{own:?}");
    cgroup.remove().unwrap();
}

/// Rootless without a cgroup: processes are bounded by the user namespace, memory and CPU are honestly absent.
#[test]
fn rootless_bounds_processes_only() {
    need!(Feature::Rootless);
    Child::new().uid(USER).run(|| {
        let limits = Limits { pids: Some(20), memory: Some(1 << 30), ..Limits::default() };
        let made = establish(&id(8), &limits, true);
        if made.cgroup.is_some() {
            // A delegated cgroup: nothing of this is needed.
            return;
        }
        let state = |l| &made.status.iter().find(|s| s.limit == l).unwrap().enforcement;
        assert_eq!(state(Limit::Pids), &Enforcement::Enforced);
        assert!(matches!(state(Limit::Memory), Enforcement::Absent(_)));
        assert!(made.unmet().unwrap().contains("the limit of memory"));
        assert!(matches!(made.enforcement(), Enforcement::Partial(_)));
        in_own_user_namespace();
        made.rlimits.apply().unwrap();
        become_user(&Identity { uid: USER, gid: USER, groups: vec![] }).unwrap();
        drop_all().unwrap();
        let bomb = "i=0; while [ $i -lt 60 ]; do sleep 1 & i=$((i+1)); done; wait";
        let out = Command::new("sh").args(["-c", bomb]).output().unwrap();
        assert!(String::from_utf8_lossy(&out.stderr).to_lowercase().contains("fork"), "{out:?}");
    });
}

fn in_own_user_namespace() {
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("{USER} {USER} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("{USER} {USER} 1")).unwrap();
}

#[test]
fn open_files_are_bounded_and_cannot_be_raised() {
    Child::new().uid(USER).run(|| {
        Rlimits { open_files: Some(32), processes: None }.apply().unwrap();
        let open: Vec<_> = (0..64).map_while(|_| fs::File::open("/dev/null").ok()).collect();
        assert!(open.len() < 32, "{}", open.len());
        drop(open);
        let out = Command::new("sh").args(["-c", "ulimit -n; ulimit -n 64"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "32");
        assert!(!out.status.success(), "raised");
    });
}

#[test]
fn a_read_only_cgroup_tree_is_absent_at_once() {
    need!(Feature::Root);
    Child::new().namespaces(CloneFlags::CLONE_NEWNS).run(|| {
        use nix::mount::{MsFlags, mount};
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for at in mounts.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4)) {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, at, none, flags, none).unwrap();
        }
        let start = Instant::now();
        let limits = Limits { memory: Some(1 << 30), ..Limits::default() };
        let made = establish(&id(9), &limits, false);
        assert!(start.elapsed() < Duration::from_millis(100));
        assert!(made.cgroup.is_none());
        let why = made.unmet().unwrap();
        assert!(why.contains("the limit of memory") && why.contains("read-only"), "{why}");
    });
}

/// Without any limit there is still an account at the end.
#[test]
fn usage_without_a_cgroup_comes_from_the_children() {
    Child::new().run(|| {
        let before = Usage::of_children();
        let status = Command::new("sh").args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]).status();
        assert!(status.unwrap().success());
        let after = Usage::of_children();
        assert!(after.cpu > before.cpu && after.peak_memory.is_some_and(|n| n > 500_000), "{after:?}");
    });
}

#[test]
fn a_hundred_come_and_go_without_a_trace() {
    need!(Feature::Root);
    for n in 100..200 {
        let cgroup = cgroup_or_skip!(n, Limits { pids: Some(5), ..Limits::default() });
        drop(cgroup);
    }
    for n in 100..200 {
        assert_eq!(directories(&id(n)), Vec::<PathBuf>::new());
    }
}
