//! Runs leave nothing behind on the machine: no process, mount, cgroup, namespace or file (one after another, many at
//! once, and ended by force).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    errno::Errno,
    sched::CloneFlags,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid},
};
use stockade_testkit::{
    Finished, Mode, Outer, Running, Stockade,
    child::Child,
    outer::RESOLVER,
    skip,
    upstream::{Dns, Http},
};

/// Runs one after another, and at once. `STOCKADE_LEFTOVERS` sets another number for a machine with less room.
fn runs() -> usize {
    std::env::var("STOCKADE_LEFTOVERS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

const POLICY: &str = "
version: 1
filesystem: {baseline: true, read_write: [., {path: made, create: true}], hidden: [.env]}
network:
  endpoints:
    site: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]}
";

/// Uses everything that a sandbox is made of, and leaves a process and files of its own behind inside.
const SCRIPT: &str = "
    echo x > /tmp/file; mkdir -p ~/dir /dev/shm/dir; echo x > ~/dir/file; echo x > made/file
    (trap '' TERM HUP; sleep 300) & setsid sleep 300 &
    curl -sS --max-time 20 http://up.test/; curl -sS --max-time 20 -o /dev/null http://evil.test/
    exit 7";

/// What the machine has before the runs, to be compared with afterwards.
struct Before {
    mounts: String,
    temporary: PathBuf,
}

impl Before {
    fn take(outer: &Outer) -> Self {
        // Whatever a run leaves alive becomes a child of the test.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let temporary = outer.dir().join("tmp");
        fs::create_dir(&temporary).unwrap();
        fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        Self { mounts: mounts(), temporary }
    }

    fn stockade(&self, mode: Mode) -> Stockade {
        Stockade::new(mode).env("TMPDIR", &self.temporary).timeout(Duration::from_secs(90))
    }

    #[track_caller]
    fn compare(&self, ids: &BTreeSet<String>, context: &str) {
        assert_eq!(
            waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)),
            Err(Errno::ECHILD),
            "a process is left: {context}"
        );
        assert_eq!(mounts(), self.mounts, "{context}");
        let files: Vec<_> = fs::read_dir(&self.temporary).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files, [] as [PathBuf; 0], "temporary files: {context}");
        assert_eq!(cgroups_of(ids), [] as [PathBuf; 0], "{context}");
    }
}

/// The machine's mounts. Those of container engines come and go while other tests run.
fn mounts() -> String {
    let engines = [" /var/lib/docker/", " /var/lib/containers/", " /run/docker/"];
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| !engines.iter().any(|engine| line.contains(engine))).collect::<Vec<_>>().join("\n")
}

/// Cgroups of these sandboxes, in every hierarchy.
fn cgroups_of(ids: &BTreeSet<String>) -> Vec<PathBuf> {
    fn walk(dir: &Path, ids: &BTreeSet<String>, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().strip_prefix("stockade-").is_some_and(|id| ids.contains(id)) {
                found.push(entry.path());
            }
            walk(&entry.path(), ids, found);
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), ids, &mut found);
    found
}

/// The sandbox's id, which names its cgroup.
fn id(run: &Finished) -> String {
    let id = run.events.iter().find_map(|e| e.text("/device/uid"));
    id.unwrap_or_else(|| panic!("no event names the sandbox: {run:?}")).to_owned()
}

fn world() -> (Dns, Http) {
    let dns = Dns::start((RESOLVER, 53));
    dns.host("up.test", "192.0.2.10");
    (dns, Http::hello("192.0.2.10:80"))
}

/// It worked, and the workspace has what the command put there and no more.
#[track_caller]
fn check(run: &Finished) {
    assert_eq!((run.code(), run.text().as_str()), (7, "hello from upstream\n"), "{run:?}");
    let work = run.dir.as_ref().unwrap().path().join("work");
    let files: BTreeSet<_> = fs::read_dir(&work).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, BTreeSet::from(["made".into()]), "{run:?}");
}

#[test]
fn one_after_another() {
    Outer::run_within(Duration::from_secs(170), |outer| {
        let (before, _world) = (Before::take(outer), world());
        let mut ids = BTreeSet::new();
        for index in 0..runs() {
            let mode = Mode::available()[index % Mode::available().len()];
            let run = before.stockade(mode).policy(POLICY).sh(SCRIPT);
            check(&run);
            ids.insert(id(&run));
            if index == 0 {
                before.compare(&ids, "after the first run");
            }
        }
        assert_eq!(ids.len(), runs(), "each has an id of its own");
        before.compare(&ids, "after all");
    });
}

#[test]
fn many_at_once() {
    Outer::run_within(Duration::from_secs(170), |outer| {
        let (before, world) = (Before::take(outer), world());
        let script = ["sh", "-c", SCRIPT];
        let modes = Mode::available().iter().cycle().take(runs());
        let runs: Vec<Running> = modes.map(|m| before.stockade(*m).policy(POLICY).spawn(&script)).collect();
        let runs: Vec<Finished> = runs.into_iter().map(Running::finish).collect();
        runs.iter().for_each(check);
        before.compare(&runs.iter().map(id).collect(), "all at once");
        assert_eq!(world.1.requests().len(), runs.len());
    });
}

/// Failures, the command's own and Stockade's, at each stage of a start.
#[test]
fn after_failures() {
    Outer::run(|outer| {
        let (before, _world) = (Before::take(outer), world());
        for mode in Mode::available() {
            let mut ids = BTreeSet::new();
            let runs = [
                (127, before.stockade(*mode).run(&["no-such-program"])),
                (126, before.stockade(*mode).run(&["/etc/passwd"])),
                (125, before.stockade(*mode).workspace("absent").sh("true")),
                (
                    125,
                    before.stockade(*mode).policy("version: 1\nfilesystem: {read_write: [/srv/absent]}\n").sh("true"),
                ),
                (124, before.stockade(*mode).arg("--timeout").arg("1s").sh("trap '' TERM; sleep 300 & sleep 300")),
                (139, before.stockade(*mode).sh("sleep 300 & kill -SEGV $$")),
            ];
            for (code, run) in runs {
                run.assert_code(code);
                ids.extend(run.events.iter().find_map(|e| e.text("/device/uid")).map(str::to_owned));
            }
            before.compare(&ids, &format!("{mode:?}"));
        }
    });
}

/// Nobody is left to clean up then: the kernel does, and what it cannot do the next run does.
#[test]
fn after_the_supervisor_is_killed() {
    Outer::run(|outer| {
        let (before, _world) = (Before::take(outer), world());
        for mode in Mode::available() {
            let script = "(trap '' TERM HUP; sleep 300) & setsid sleep 300 & echo ready; sleep 300";
            let run = before.stockade(*mode).spawn(&["sh", "-c", script]);
            run.wait_for("ready");
            let events = run.events();
            let ids = BTreeSet::from([events.iter().find_map(|e| e.text("/device/uid")).unwrap().to_owned()]);
            kill(Pid::from_raw(run.pid()), Signal::SIGKILL).unwrap();
            let run = run.finish();
            run.assert_code(137);
            // The supervisor's children are the test's now; they have been told to end.
            let began = Instant::now();
            loop {
                match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                    Err(e) => break assert_eq!(e, Errno::ECHILD),
                    Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(10)),
                    Ok(_) => {}
                }
                assert!(began.elapsed() < Duration::from_secs(5), "still alive: {mode:?} {run:?}");
            }
            // The next run removes its cgroups, once they are too old to belong to a sandbox that is just being made.
            let left = cgroups_of(&ids);
            before.stockade(*mode).sh("exit 7").assert_code(7);
            assert_eq!(cgroups_of(&ids), left, "not yet: {mode:?}");
            let old = SystemTime::now() - Duration::from_secs(3600);
            left.iter().for_each(|dir| File::open(dir).unwrap().set_modified(old).unwrap());
            before.stockade(*mode).sh("exit 7").assert_code(7);
            before.compare(&ids, &format!("{mode:?}"));
        }
        let script = "setsid sleep 300 > /dev/null 2>&1 & echo $!; sleep 300";
        let bare = before.stockade(Mode::Rootless).unwrapped().spawn(&["sh", "-c", script]);
        bare.wait_for("\n");
        let starter = Pid::from_raw(bare.pid());
        kill(starter, Signal::SIGKILL).unwrap();
        // Ends with its group; the other is in a group of its own.
        nix::sys::signal::killpg(starter, Signal::SIGKILL).ok();
        let left = Pid::from_raw(bare.finish().text().trim().parse().unwrap());
        assert_eq!(kill(left, None), Ok(()), "tripwire: without Stockade what was started lives on");
        kill(left, Signal::SIGKILL).unwrap();
    });
}

/// The kernel itself counts: with room for 25 namespaces of each kind, 50 runs succeed only if each gives its own back.
#[test]
fn namespaces_are_given_back() {
    const ROOM: usize = 25;
    if !Path::new("/proc/sys/user/max_net_namespaces").exists() {
        skip!("this kernel does not count namespaces");
    }
    let (uid, gid) = (Uid::effective(), Gid::effective());
    Child::new().namespaces(CloneFlags::CLONE_NEWUSER).timeout(Duration::from_secs(170)).run(|| {
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
            fs::write(format!("/proc/sys/user/max_{kind}_namespaces"), ROOM.to_string()).unwrap();
        }
        // Each run has two: the runner's, which stands for the caller, and the sandbox's.
        fs::write("/proc/sys/user/max_user_namespaces", (2 * ROOM).to_string()).unwrap();
        for _ in 0..2 * ROOM {
            Stockade::new(Mode::Rootless).sh("exit 7").assert_code(7);
        }
        // The limit is one: it refuses.
        fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
        Stockade::new(Mode::Rootless).sh("exit 7").assert_code(125);
    });
}
