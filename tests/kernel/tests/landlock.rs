//! The Landlock domain on the running kernel, at every ABI up to its own.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, unlockpt},
    termios::{Winsize, tcgetwinsize, tcsetwinsize},
};
use stockade_confine::{
    landlock::{LandlockError, Plan, prepare},
    seccomp::{Arch, Filter},
};
use stockade_sys::filter::landlock_abi;
use stockade_testkit::{Feature, child::Child, need};
use stockade_types::Enforcement;

/// A tree with a read-only part, a writable part, and one that no plan mentions.
struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["ro", "rw", "rw/a", "rw/b", "secret"] {
            fs::create_dir(root.path().join(dir)).unwrap();
            fs::write(root.path().join(dir).join("file"), "text").unwrap();
        }
        Self { root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn plan(&self) -> Plan {
        Plan {
            read_only: vec!["/usr".into(), "/etc".into(), "/lib".into(), "/proc".into(), self.at("ro")],
            read_write: vec![self.at("rw")],
            ..Plan::default()
        }
    }
}

fn denied<T>(result: io::Result<T>, what: &str) {
    match result {
        Ok(_) => panic!("{what}: went through"),
        Err(e) => assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{what}: {e}"),
    }
}

/// As the command is: an ordinary user whose files these are, so that only Landlock stands between.
fn inside(plan: Plan, body: impl FnOnce()) {
    Child::new().run(|| {
        assert_eq!(prepare(&plan).unwrap().restrict().unwrap(), Enforcement::Enforced);
        body();
    });
}

#[test]
fn reads_writes_and_programs() {
    need!(Feature::Landlock);
    let tree = Tree::new();
    inside(tree.plan(), || {
        assert_eq!(fs::read_to_string(tree.at("ro/file")).unwrap(), "text");
        assert!(fs::read_dir(tree.at("ro")).is_ok());
        denied(OpenOptions::new().append(true).open(tree.at("ro/file")), "write a read-only file");
        denied(fs::write(tree.at("ro/new"), ""), "create in a read-only directory");
        denied(fs::remove_file(tree.at("ro/file")), "remove a read-only file");
        denied(fs::read(tree.at("secret/file")), "read what is not granted");
        denied(fs::read_dir(tree.at("secret")), "list what is not granted");

        fs::write(tree.at("rw/new"), "new").unwrap();
        fs::create_dir(tree.at("rw/dir")).unwrap();
        std::os::unix::fs::symlink("new", tree.at("rw/link")).unwrap();
        drop(UnixListener::bind(tree.at("rw/socket")).unwrap());
        fs::rename(tree.at("rw/new"), tree.at("rw/a/moved")).unwrap();
        fs::remove_file(tree.at("rw/a/moved")).unwrap();

        assert!(std::process::Command::new("/usr/bin/true").status().unwrap().success());
        fs::copy("/usr/bin/true", tree.at("rw/true")).unwrap();
        assert!(std::process::Command::new(tree.at("rw/true")).status().unwrap().success(), "what was built runs");
    });
}

#[test]
fn truncating_linking_and_moving_out_of_read_only() {
    need!(Feature::Landlock);
    let tree = Tree::new();
    inside(tree.plan(), || {
        denied(OpenOptions::new().write(true).truncate(true).open(tree.at("ro/file")), "O_TRUNC");
        let cut = nix::unistd::truncate(&tree.at("ro/file"), 0).map_err(io::Error::from);
        denied(cut, "truncate(2)");
        let linked = fs::hard_link(tree.at("ro/file"), tree.at("rw/linked"));
        assert!(
            matches!(linked.as_ref().unwrap_err().kind(), ErrorKind::PermissionDenied | ErrorKind::CrossesDevices),
            "{linked:?}"
        );
        let moved = fs::rename(tree.at("ro/file"), tree.at("rw/moved"));
        assert!(
            matches!(moved.as_ref().unwrap_err().kind(), ErrorKind::PermissionDenied | ErrorKind::CrossesDevices),
            "{moved:?}"
        );
    });
    assert_eq!(fs::read_to_string(tree.at("ro/file")).unwrap(), "text");
}

/// Ways around a path rule: none gives more than the rule.
#[test]
fn magic_links_give_no_wider_right() {
    need!(Feature::Landlock);
    let tree = Tree::new();
    inside(tree.plan(), || {
        let root = |p: PathBuf| PathBuf::from(format!("/proc/self/root{}", p.display()));
        denied(fs::read(root(tree.at("secret/file"))), "/proc/self/root");
        assert!(fs::read(root(tree.at("ro/file"))).is_ok(), "control");

        // O_PATH needs no right; using it does.
        let path = rustix::fs::open(tree.at("ro/file"), OFlags::PATH, Mode::empty()).unwrap();
        let through = |dir: &str| {
            use std::os::fd::AsRawFd;
            PathBuf::from(format!("{dir}/{}", path.as_raw_fd()))
        };
        for dir in ["/proc/self/fd", "/dev/fd"].into_iter().filter(|d| Path::new(d).exists()) {
            denied(OpenOptions::new().append(true).open(through(dir)), dir);
            assert!(File::open(through(dir)).is_ok(), "control: {dir}");
        }
        let linked = rustix::fs::linkat(path.as_fd(), "", CWD, tree.at("rw/l"), AtFlags::EMPTY_PATH);
        assert!(linked.is_err(), "linkat(AT_EMPTY_PATH) from read-only to writable");
    });
}

#[test]
fn existing_files_may_be_updated_and_nothing_else() {
    need!(Feature::Landlock);
    let tree = Tree::new();
    let plan = Plan { update: vec![tree.at("rw")], read_write: vec![], ..tree.plan() };
    inside(plan, || {
        fs::write(tree.at("rw/file"), "updated").unwrap();
        denied(fs::write(tree.at("rw/new"), ""), "create");
        denied(fs::remove_file(tree.at("rw/file")), "remove");
    });
}

#[test]
fn terminals_answer_ioctls_only_where_granted() {
    need!(Feature::Landlock);
    if landlock_abi().unwrap() < 5 {
        stockade_testkit::skip!("Landlock ABI below 5: no right for device ioctls");
    }
    let size = Winsize { ws_row: 10, ws_col: 20, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = || {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(io::Error::from)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        Ok::<_, io::Error>(master)
    };
    let devices = vec!["/dev/ptmx".into(), "/dev/pts".into(), "/dev/tty".into(), "/dev/null".into()];
    inside(Plan { devices, ..Plan::default() }, || {
        let master = terminal().unwrap();
        tcsetwinsize(&master, size).unwrap();
        assert_eq!(tcgetwinsize(&master).unwrap().ws_col, 20);
        let name = rustix::pty::ptsname(&master, vec![]).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        assert_eq!(tcgetwinsize(&slave).unwrap().ws_row, 10);
        fs::write("/dev/null", "x").unwrap();
    });
    // Tripwire: readable and writable alone is not enough.
    inside(Plan { read_write: vec!["/dev/ptmx".into(), "/dev/pts".into()], ..Plan::default() }, || {
        denied(terminal(), "ioctl on a terminal without the right");
    });
}

/// Listens on an abstract name from outside the domain, and from inside.
#[test]
fn abstract_sockets_of_outsiders_are_out_of_reach() {
    need!(Feature::Landlock);
    if landlock_abi().unwrap() < 6 {
        stockade_testkit::skip!("Landlock ABI below 6: no scopes");
    }
    let test = std::process::id();
    let address = |who: &str| SocketAddr::from_abstract_name(format!("stockade-test-{who}-{test}")).unwrap();
    let _outside = UnixListener::bind_addr(&address("outside")).unwrap();
    let reach = || UnixStream::connect_addr(&address("outside"));
    inside(Plan::default(), || {
        denied(reach(), "a listener outside");
        let _inside = UnixListener::bind_addr(&address("inside")).unwrap();
        assert!(UnixStream::connect_addr(&address("inside")).is_ok(), "its own");
    });
    // Tripwire: the ABI before scopes lets it through (there the network namespace is the control).
    inside(Plan { force_abi: Some(5), ..Plan::default() }, || assert!(reach().is_ok(), "without the scope"));
}

#[test]
fn signals_stay_inside() {
    need!(Feature::Landlock);
    if landlock_abi().unwrap() < 6 {
        stockade_testkit::skip!("Landlock ABI below 6: no scopes");
    }
    let outside = Pid::this();
    inside(Plan::default(), || {
        assert_eq!(kill(outside, None), Err(nix::Error::EPERM), "probe the starter");
        assert_eq!(kill(outside, Signal::SIGCONT), Err(nix::Error::EPERM));
        let mut own = std::process::Command::new("/proc/self/exe");
        // Nothing is granted, so nothing starts; a forked child is enough to signal.
        assert!(own.status().is_err());
        let child = stockade_sys::testing::fork_threaded(|| {
            std::thread::sleep(std::time::Duration::from_secs(100));
            0
        })
        .unwrap();
        kill(Pid::from_raw(child), Signal::SIGKILL).expect("its own child");
        nix::sys::wait::waitpid(Pid::from_raw(child), None).unwrap();
    });
    inside(Plan { force_abi: Some(5), ..Plan::default() }, || {
        assert_eq!(kill(outside, None), Ok(()), "tripwire: without the scope");
    });
}

/// Programs started from one domain share it; one in a domain of its own could not signal them.
#[test]
fn children_of_one_domain_signal_each_other() {
    need!(Feature::Landlock);
    inside(Plan::default(), || {
        let sleeper = || {
            stockade_sys::testing::fork_threaded(|| {
                std::thread::sleep(std::time::Duration::from_secs(100));
                0
            })
            .unwrap()
        };
        let (a, victim) = (sleeper(), Pid::from_raw(sleeper()));
        let killer = stockade_sys::testing::fork_threaded(|| u8::from(kill(victim, Signal::SIGKILL).is_err())).unwrap();
        use nix::sys::wait::{WaitStatus, waitpid};
        assert_eq!(waitpid(Pid::from_raw(killer), None), Ok(WaitStatus::Exited(Pid::from_raw(killer), 0)));
        waitpid(victim, None).unwrap();
        kill(Pid::from_raw(a), Signal::SIGKILL).unwrap();
        waitpid(Pid::from_raw(a), None).unwrap();
    });
}

/// Each ABI enforces all it has, and says for each right it lacks what holds instead.
#[test]
fn every_abi_up_to_the_kernel_s() {
    need!(Feature::Landlock);
    let kernel = landlock_abi().unwrap();
    for abi in 1..=kernel.min(9) {
        let tree = Tree::new();
        let plan = Plan { force_abi: Some(u8::try_from(abi).unwrap()), ..tree.plan() };
        let report = prepare(&plan).unwrap().report().unwrap().clone();
        assert_eq!((report.abi, report.kernel_abi), (abi, kernel));
        let lacks = |right: &str| report.lacking.iter().any(|l| l.right.starts_with(right) && !l.instead.is_empty());
        for (right, since) in [("refer", 2), ("truncate", 3), ("ioctl_dev", 5), ("scope", 6), ("resolve_unix", 9)] {
            assert_eq!(lacks(right), abi < since, "ABI {abi}: {right}");
        }
        inside(plan, || {
            denied(fs::read(tree.at("secret/file")), "read");
            denied(OpenOptions::new().append(true).open(tree.at("ro/file")), "write");
            fs::write(tree.at("rw/new"), "").unwrap();
            let moved = fs::rename(tree.at("rw/a/file"), tree.at("rw/b/moved"));
            assert_eq!(moved.is_ok(), abi >= 2, "before `refer` no rename leaves its directory: {moved:?}");
            let cut = nix::unistd::truncate(&tree.at("ro/file"), 0);
            assert_eq!(cut.is_err(), abi >= 3, "before `truncate` a read-only mount must hold: {cut:?}");
        });
    }
}

#[test]
fn a_container_profile_that_blocks_the_calls_is_told() {
    need!(Feature::Landlock);
    // A filter as an outer runtime would have it; the row is ours to choose in a test.
    Child::new().run(|| {
        let deny = "[[row]]\ncalls = [\"landlock_create_ruleset\"]\naction = \"EPERM\"\nreason = \"test\"\n";
        Filter::from_rows(Arch::native().unwrap(), deny).unwrap().apply().unwrap();
        let Enforcement::Absent(why) = prepare(&Plan::default()).unwrap().restrict().unwrap() else { panic!("absent") };
        assert!(why.contains("profile"), "{why}");
    });
}

#[test]
fn a_path_that_is_gone_ends_the_start() {
    let plan = Plan { read_write: vec!["/no/such/workspace".into()], ..Plan::default() };
    match prepare(&plan) {
        Err(LandlockError::Open { path, .. }) => assert_eq!(path, Path::new("/no/such/workspace")),
        Ok(p) => assert!(p.report().is_none(), "only a kernel without Landlock does not look"),
        Err(e) => panic!("{e}"),
    }
}
