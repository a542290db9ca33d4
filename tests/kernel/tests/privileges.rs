//! What a child has left after it gave everything up, as root and rootless.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use caps::{CapSet, Capability};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Gid, getgroups, getuid, setgroups},
};
use stockade_confine::privileges::{
    Identity, OomScore, PrivilegesError, SUPERVISOR_KEEPS, become_user, drop_all, drop_supervisor, harden_supervisor,
};
use stockade_testkit::{Feature, child::Child, need};
use stockade_types::Enforcement;

const USER: u32 = 1000;

fn identity(groups: &[u32]) -> Identity {
    Identity { uid: USER, gid: USER, groups: groups.to_vec() }
}

fn status(key: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The kernel's own account of it, in a program started afterwards.
fn assert_nothing_left(of: &str) {
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        let line = of.lines().find_map(|l| l.strip_prefix(set)).unwrap().trim();
        assert_eq!(line, "0000000000000000", "{set}");
    }
    assert!(of.lines().any(|l| l == "NoNewPrivs:\t1"), "{of}");
}

fn in_a_program(file: &str) -> String {
    let out = Command::new("cat").arg(file).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn root_becomes_nobody_special() {
    need!(Feature::Root);
    Child::new().run(|| {
        // Something to lose: an ambient and an inheritable capability, and groups.
        caps::set(None, CapSet::Inheritable, &[Capability::CAP_NET_RAW].into()).unwrap();
        caps::set(None, CapSet::Ambient, &[Capability::CAP_NET_RAW].into()).unwrap();
        setgroups(&[Gid::from_raw(0), Gid::from_raw(4)]).unwrap();
        assert_eq!(become_user(&identity(&[2000, 3000])).unwrap(), Enforcement::Enforced);
        assert_eq!(drop_all().unwrap(), Enforcement::Enforced);
        let now = in_a_program("/proc/self/status");
        assert_nothing_left(&now);
        assert_eq!(status("Uid:"), "1000 1000 1000 1000");
        assert_eq!(status("Gid:"), "1000 1000 1000 1000");
        assert_eq!(status("Groups:"), "2000 3000");
        let limits = in_a_program("/proc/self/limits");
        let core: Vec<_> =
            limits.lines().find(|l| l.starts_with("Max core")).unwrap().split_whitespace().skip(4).take(2).collect();
        assert_eq!(core, ["0", "0"]);
        assert!(nix::unistd::setuid(0.into()).is_err(), "the way back is closed");
        assert!(setgroups(&[]).is_err());
    });
}

/// Tripwire: without the drop the sets are not empty, so the test above sees the drop.
#[test]
fn the_change_of_user_alone_leaves_capabilities() {
    need!(Feature::Root);
    Child::new().run(|| {
        become_user(&identity(&[])).unwrap();
        assert!(!caps::read(None, CapSet::Permitted).unwrap().is_empty());
        assert!(!caps::read(None, CapSet::Bounding).unwrap().is_empty());
    });
}

#[test]
fn rootless_in_a_user_namespace() {
    need!(Feature::Rootless);
    Child::new().uid(USER).run(|| {
        in_own_user_namespace();
        assert!(!caps::read(None, CapSet::Permitted).unwrap().is_empty(), "full in its own namespace at first");
        assert_eq!(become_user(&identity(&[])).unwrap(), Enforcement::Enforced, "no groups to keep");
        assert_eq!(drop_all().unwrap(), Enforcement::Enforced);
        assert_nothing_left(&in_a_program("/proc/self/status"));
    });
}

#[test]
fn rootless_groups_that_stay_are_named() {
    need!(Feature::Root);
    need!(Feature::Rootless);
    Child::new().run(|| {
        // As a login session has them; then without any right to change them.
        setgroups(&[Gid::from_raw(USER), Gid::from_raw(27)]).unwrap();
        nix::unistd::setresgid(USER.into(), USER.into(), USER.into()).unwrap();
        nix::unistd::setresuid(USER.into(), USER.into(), USER.into()).unwrap();
        nix::sys::prctl::set_dumpable(true).unwrap();
        in_own_user_namespace();
        let Enforcement::Partial(why) = become_user(&identity(&[])).unwrap() else { panic!("a group stays") };
        assert!(why.contains("65534") && !why.contains("1000"), "{why}");
        assert_eq!(getgroups().unwrap().len(), 2);
        assert_eq!(drop_all().unwrap(), Enforcement::Enforced);
    });
}

fn in_own_user_namespace() {
    let uid = getuid();
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("{uid} {uid} 1")).unwrap();
}

/// EPERM for the bounding set is accepted from somebody whose set is empty, and from nobody else.
#[test]
fn a_bounding_set_that_cannot_be_emptied_ends_the_start() {
    need!(Feature::Root);
    Child::new().run(|| {
        // Everything but CAP_SETPCAP: as in a container with a trimmed list.
        let mut all = caps::read(None, CapSet::Permitted).unwrap();
        all.remove(&Capability::CAP_SETPCAP);
        caps::set(None, CapSet::Effective, &all).unwrap();
        caps::set(None, CapSet::Permitted, &all).unwrap();
        become_user(&identity(&[])).unwrap();
        let e = drop_all().unwrap_err();
        assert!(matches!(&e, PrivilegesError::Step { .. }) && e.to_string().contains("CAP_SETPCAP"), "{e}");
    });
    Child::new().run(|| {
        caps::clear(None, CapSet::Bounding).unwrap();
        let mut all = caps::read(None, CapSet::Permitted).unwrap();
        all.remove(&Capability::CAP_SETPCAP);
        caps::set(None, CapSet::Effective, &all).unwrap();
        caps::set(None, CapSet::Permitted, &all).unwrap();
        become_user(&identity(&[])).unwrap();
        assert_eq!(drop_all().unwrap(), Enforcement::Enforced, "empty already");
    });
}

#[test]
fn set_user_id_programs_and_file_capabilities_give_nothing() {
    need!(Feature::Root);
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    let run = |program: &std::path::Path| {
        let out = Command::new(program).arg("-u").output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let control = program.clone();
    Child::new().uid(USER).run(move || {
        assert_eq!(run(&control), "0", "control: the bit works on this file system");
    });
    Child::new().run(move || {
        become_user(&identity(&[])).unwrap();
        drop_all().unwrap();
        assert_eq!(run(&program), "1000");
    });
}

#[test]
fn a_crash_leaves_no_core_and_real_time_is_refused() {
    need!(Feature::Root);
    Child::new().run(|| {
        become_user(&identity(&[])).unwrap();
        drop_all().unwrap();
        use nix::sys::wait::{WaitStatus, waitpid};
        let pid = stockade_sys::testing::fork_threaded(|| std::process::abort()).unwrap();
        match waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap() {
            WaitStatus::Signaled(_, _, dumped) => assert!(!dumped, "no core"),
            other => panic!("{other:?}"),
        }
        let fifo = Command::new("chrt").args(["-f", "1", "true"]).output();
        if let Ok(out) = fifo {
            assert!(!out.status.success(), "{out:?}");
        }
        let nice = Command::new("nice").args(["-n", "-5", "sh", "-c", "nice"]).output().unwrap();
        assert_eq!(String::from_utf8(nice.stdout).unwrap().trim(), "0", "no better priority");
    });
}

#[test]
fn the_command_is_the_oom_killer_s_first_choice_and_cannot_undo_it() {
    need!(Feature::Root);
    Child::new().run(|| {
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let score = OomScore::open().unwrap();
        let child = score.offering(|| {
            stockade_sys::testing::fork_threaded(|| {
                become_user(&identity(&[])).unwrap();
                drop_all().unwrap();
                assert_eq!(in_a_program("/proc/self/oom_score_adj").trim(), "500");
                let e = fs::write("/proc/self/oom_score_adj", "-1").unwrap_err();
                assert_eq!(e.kind(), std::io::ErrorKind::PermissionDenied);
                0
            })
        });
        assert_ended(child.unwrap().unwrap());
        assert_eq!(fs::read_to_string("/proc/self/oom_score_adj").unwrap(), own, "this process is none");
    });
}

/// As init needs it for a second launcher: its own files in /proc are root's by then.
#[test]
fn the_oom_score_can_be_offered_by_a_process_that_is_not_dumpable() {
    Child::new().uid(USER).run(|| {
        let score = OomScore::open().unwrap();
        nix::sys::prctl::set_dumpable(false).unwrap();
        assert!(fs::write("/proc/self/oom_score_adj", "500").is_err(), "control: the path is out of reach");
        for _ in 0..2 {
            let child = score.offering(|| {
                stockade_sys::testing::fork_threaded(|| {
                    assert_eq!(fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim(), "500");
                    0
                })
            });
            assert_ended(child.unwrap().unwrap());
        }
    });
}

#[track_caller]
fn assert_ended(pid: i32) {
    let done = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
    assert!(matches!(done, nix::sys::wait::WaitStatus::Exited(_, 0)), "{done:?}");
}

#[test]
fn uid_0_is_never_the_command_s() {
    Child::new().run(|| {
        let root = Identity { uid: 0, gid: USER, groups: vec![] };
        assert!(matches!(become_user(&root), Err(PrivilegesError::Root)));
    });
}

#[test]
fn the_supervisor_s_memory_is_closed_to_equal_users() {
    Child::new().uid(USER).run(|| {
        let read = |pid: i32| fs::File::open(format!("/proc/{pid}/mem")).is_ok();
        let me = nix::unistd::getpid().as_raw();
        let ask = |expected: bool| {
            let pid = stockade_sys::testing::fork_threaded(|| u8::from(read(me) != expected)).unwrap();
            let done = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
            assert!(matches!(done, nix::sys::wait::WaitStatus::Exited(_, 0)), "expected {expected}: {done:?}");
        };
        ask(true);
        harden_supervisor().unwrap();
        ask(false);
    });
}

#[test]
fn a_root_supervisor_keeps_only_its_list() {
    need!(Feature::Root);
    Child::new().run(|| {
        let kept = drop_supervisor(&[]).unwrap();
        assert_eq!(kept.len(), SUPERVISOR_KEEPS.len());
        for set in [CapSet::Effective, CapSet::Permitted, CapSet::Bounding] {
            assert_eq!(caps::read(None, set).unwrap(), SUPERVISOR_KEEPS.iter().copied().collect(), "{set:?}");
        }
        assert!(caps::read(None, CapSet::Inheritable).unwrap().is_empty());
        assert_eq!(status("NoNewPrivs:"), "1");
        assert_eq!(unshare(CloneFlags::CLONE_NEWNS), Err(nix::Error::EPERM));
    });
    Child::new().uid(USER).run(|| {
        assert_eq!(drop_supervisor(&[]).unwrap(), [], "rootless: there is nothing to keep");
    });
}

#[test]
fn a_supervisor_without_its_other_capabilities_still_signals_and_looks() {
    need!(Feature::Root);
    Child::new().run(|| {
        use nix::{sys::signal::Signal, unistd::Pid};
        let mut other = Command::new("sleep");
        std::os::unix::process::CommandExt::uid(&mut other, USER);
        let mut other = other.arg("100").spawn().unwrap();
        let pid = other.id();
        drop_supervisor(&[]).unwrap();
        assert!(fs::read_link(format!("/proc/{pid}/exe")).is_ok(), "CAP_SYS_PTRACE");
        assert!(fs::read_dir(format!("/proc/{pid}/fd")).is_ok(), "CAP_DAC_READ_SEARCH");
        nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
        assert!(!other.wait().unwrap().success());
    });
}
