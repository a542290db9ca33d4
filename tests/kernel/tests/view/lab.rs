//! A sandbox of mounts only: the same steps as init takes, without supervisor, fence and filter.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sched::CloneFlags,
    sys::wait::{WaitStatus, waitpid},
    unistd::{Gid, Pid, Uid, chown},
};
use rustix::{
    fs::{Mode as Bits, OFlags},
    io::Errno,
};
use stockade_confine::{
    privileges::{Identity, become_user, drop_all},
    view::{Access, BuiltView, Grant, Protected, View, ViewError, ViewFile, ViewPlan},
};
use stockade_testkit::child::Child;

/// The user that commands run as, in both modes.
pub(crate) const USER: u32 = 1000;

/// Who makes the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Root,
    Rootless,
}

/// A directory of the machine's that belongs to the command's user, and what to do with it.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) mode: Mode,
    pub(crate) dir: PathBuf,
}

/// Runs `body` as root and rootless, each in a child of its own with a directory of its own.
#[track_caller]
pub(crate) fn both(body: impl Fn(&Lab)) {
    for mode in [Mode::Root, Mode::Rootless] {
        one(mode, &body);
    }
}

#[track_caller]
pub(crate) fn one(mode: Mode, body: impl Fn(&Lab)) {
    assert!(Uid::effective().is_root(), "these tests make both kinds of sandbox: run them as root");
    // Not below /tmp: there the view has a directory of its own.
    let dir = tempfile::Builder::new().prefix("stockade-view-").tempdir_in("/var/tmp").unwrap();
    chown(dir.path(), Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let lab = Lab { mode, dir: dir.path().to_owned() };
    let child = if mode == Mode::Rootless { Child::new().uid(USER) } else { Child::new() };
    // In a mount namespace of its own, so that what a test mounts on "the host" is nobody else's.
    let namespaces = if mode == Mode::Root { CloneFlags::CLONE_NEWNS } else { CloneFlags::empty() };
    child.namespaces(namespaces).run(|| body(&lab));
}

impl Lab {
    /// A plan with the system directories and `work` for writing.
    pub(crate) fn plan(&self) -> ViewPlan {
        fs::create_dir_all(self.work()).unwrap();
        self.own(&self.work());
        ViewPlan {
            baseline: true,
            grants: vec![grant(self.work(), Access::ReadWrite)],
            hidden: vec![],
            protected: vec![],
            workspace: Some(self.work()),
            gpu: None,
            uid: USER,
            gid: USER,
            home: "/home/agent".into(),
            scratch_bytes: 16 << 20,
            files: vec![file("/etc/resolv.conf", "nameserver 127.0.0.1\n"), file("/etc/hosts", "127.0.0.1 inside\n")],
        }
    }

    /// The granted directory.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Makes a file of the command's user below `work`, with the directories above it.
    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.work().join(name);
        for dir in path.parent().unwrap().ancestors().take_while(|a| a.starts_with(&self.dir)).collect::<Vec<_>>() {
            fs::create_dir_all(dir).unwrap();
            self.own(dir);
        }
        fs::write(&path, text).unwrap();
        self.own(&path);
        path
    }

    /// Gives `path` to the command's user.
    pub(crate) fn own(&self, path: &Path) {
        if self.mode == Mode::Root {
            chown(path, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
        }
    }

    /// Builds the view as PID 1 of new namespaces and runs `inside` there.
    #[track_caller]
    pub(crate) fn sandbox(&self, plan: &ViewPlan, inside: impl FnOnce(BuiltView)) {
        self.start(plan, inside).join();
    }

    /// The same, without waiting for it.
    pub(crate) fn start(&self, plan: &ViewPlan, inside: impl FnOnce(BuiltView)) -> Running {
        self.start_init(|| inside(View::build(plan).unwrap_or_else(|e| panic!("{e}"))))
    }

    /// What `View::build` refuses, and how.
    #[track_caller]
    pub(crate) fn refused(&self, plan: &ViewPlan, check: impl FnOnce(ViewError)) {
        self.start_init(|| check(View::build(plan).expect_err("the view must be refused"))).join();
    }

    /// Builds the view and hands the time that took to `inside`.
    pub(crate) fn start_timed(&self, plan: &ViewPlan, inside: impl FnOnce(Duration)) -> Running {
        self.start_init(|| {
            let before = Instant::now();
            View::build(plan).unwrap_or_else(|e| panic!("{e}"));
            inside(before.elapsed());
        })
    }

    /// Lets the other side of `stream` go on.
    pub(crate) fn say(&self, mut stream: &UnixStream) {
        stream.write_all(&[1]).unwrap();
    }

    /// Waits until the other side says so.
    pub(crate) fn hear(&self, mut stream: &UnixStream) {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }

    /// Sends a number.
    pub(crate) fn tell(&self, mut stream: &UnixStream, number: u128) {
        stream.write_all(&number.to_ne_bytes()).unwrap();
    }

    /// Receives a number.
    pub(crate) fn told(&self, mut stream: &UnixStream) -> u128 {
        let mut bytes = [0; 16];
        stream.read_exact(&mut bytes).unwrap();
        u128::from_ne_bytes(bytes)
    }

    /// Runs `body` beside, until it is killed.
    pub(crate) fn background(&self, body: impl FnOnce()) -> Running {
        let child = stockade_sys::process::fork(CloneFlags::empty(), false, || {
            body();
            0
        });
        Running(child.unwrap().pid)
    }

    /// Whether a view comes of it.
    pub(crate) fn attempt(&self, plan: &ViewPlan) -> bool {
        let (host, inside) = UnixStream::pair().unwrap();
        self.start_init(|| self.tell(&inside, u128::from(View::build(plan).is_ok()))).join();
        self.told(&host) == 1
    }

    fn start_init(&self, body: impl FnOnce()) -> Running {
        let mut flags = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET;
        if self.mode == Mode::Rootless {
            flags |= CloneFlags::CLONE_NEWUSER;
        }
        let child = stockade_sys::process::fork(flags, false, || {
            if self.mode == Mode::Rootless {
                fs::write("/proc/self/setgroups", "deny").unwrap();
                fs::write("/proc/self/uid_map", format!("{USER} {USER} 1")).unwrap();
                fs::write("/proc/self/gid_map", format!("{USER} {USER} 1")).unwrap();
            }
            body();
            0
        });
        Running(child.unwrap().pid)
    }
}

/// A process of the lab.
pub(crate) struct Running(i32);

impl Running {
    pub(crate) fn kill(self) {
        nix::sys::signal::kill(Pid::from_raw(self.0), nix::sys::signal::Signal::SIGKILL).unwrap();
        let status = waitpid(Pid::from_raw(self.0), None).unwrap();
        assert!(matches!(status, WaitStatus::Signaled(..)), "it ended before: {status:?}");
    }

    #[track_caller]
    pub(crate) fn join(self) {
        let status = waitpid(Pid::from_raw(self.0), None).unwrap();
        assert_eq!(status, WaitStatus::Exited(Pid::from_raw(self.0), 0), "the process inside failed; see its message");
    }
}

/// Runs `body` as the sandboxed command does: its user, no capability.
#[track_caller]
pub(crate) fn as_command(body: impl FnOnce()) {
    let child = stockade_sys::process::fork(CloneFlags::empty(), false, || {
        become_user(&Identity { uid: USER, gid: USER, groups: vec![] }).unwrap();
        drop_all().unwrap();
        body();
        0
    });
    Running(child.unwrap().pid).join();
}

pub(crate) fn grant(path: impl Into<PathBuf>, access: Access) -> Grant {
    Grant { path: path.into(), access, create: false }
}

pub(crate) fn steering(path: impl Into<PathBuf>) -> Protected {
    Protected { path: path.into(), steers: true }
}

pub(crate) fn file(path: &str, text: &str) -> ViewFile {
    ViewFile { path: path.into(), bytes: text.into(), mode: 0o644 }
}

/// Asserts that the command can move `path` neither within its directory nor elsewhere (`away`, on another mount).
#[track_caller]
pub(crate) fn assert_pinned(path: &Path, away: &Path) {
    let beside = fs::rename(path, path.with_file_name("renamed")).unwrap_err();
    assert_eq!(beside.raw_os_error(), Some(libc::EBUSY), "{path:?}: {beside}");
    let elsewhere = fs::rename(path, away.join("moved")).unwrap_err();
    assert!(matches!(elsewhere.raw_os_error(), Some(libc::EBUSY | libc::EXDEV)), "{path:?}: {elsewhere}");
}

/// The error of opening `path` for reading.
pub(crate) fn read(path: impl AsRef<Path>) -> Result<(), Errno> {
    rustix::fs::open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Bits::empty()).map(drop)
}

/// The error of opening (or making) `path` for writing.
pub(crate) fn write(path: impl AsRef<Path>) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::open(path.as_ref(), flags, Bits::from_raw_mode(0o644)).map(drop)
}
