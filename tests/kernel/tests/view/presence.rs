//! What is there, what is not, and with which mount options.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    time::Instant,
};

use rustix::{fs::CWD, io::Errno};
use stockade_confine::{
    landlock,
    view::{Access, PathAccess},
};
use stockade_testkit::skip;
use stockade_types::Enforcement;

use crate::lab::{Lab, Mode, USER, as_command, both, file, grant, one, read, write};

fn names(dir: impl AsRef<Path>) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_is_granted_is_there_and_the_rest_is_absent() {
    both(|lab| {
        let plan = lab.plan();
        lab.put("file", "hello");
        fs::write(lab.dir.join("sibling"), "s").unwrap();
        lab.sandbox(&plan, |view| {
            assert_eq!((view.mounts(), view.hidden()), (&Enforcement::Enforced, &Enforcement::Enforced));
            as_command(|| {
                assert_eq!(fs::read_to_string(lab.work().join("file")).unwrap(), "hello");
                assert_eq!(write(lab.work().join("new")), Ok(()));
                assert_eq!(read(lab.dir.join("sibling")), Err(Errno::NOENT));
                assert_eq!(names(&lab.dir), BTreeSet::from(["work".into()]));
                for absent in ["/root", "/opt", "/srv", "/mnt", "/boot", "/var/lib", "/run/user", "/work"] {
                    assert_eq!(read(absent), Err(Errno::NOENT), "{absent}");
                }
                assert_eq!(names("/home"), BTreeSet::from(["agent".into()]));
                assert_eq!(names("/run"), BTreeSet::from(["stockade".into()]));
                for present in ["/usr/bin/env", "/bin/sh", "/etc/passwd", "/etc/ssl"] {
                    assert_eq!(read(present), Ok(()), "{present}");
                }
            });
        });
    });
}

#[test]
fn sockets_of_daemons_are_absent() {
    one(Mode::Root, |lab| {
        // A /run as a machine with Docker and a session has it, instead of the real one.
        rustix::mount::mount("run", "/run", "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        let sockets = ["/run/docker.sock", "/run/user/1000/bus", "/run/systemd/private", "/run/dbus/system_bus_socket"];
        let _listening = sockets.map(|path| {
            fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
            UnixListener::bind(path).unwrap()
        });
        UnixStream::connect("/run/docker.sock").expect("the control: outside it answers");
        let mut plan = lab.plan();
        lab.sandbox(&plan, |_| {
            as_command(|| {
                for path in sockets.into_iter().chain(["/var/run/docker.sock"]) {
                    let refused = UnixStream::connect(path).unwrap_err();
                    assert_eq!(refused.raw_os_error(), Some(libc::ENOENT), "{path}");
                }
            });
        });
        for path in
            ["/run", "/var/run", "/run/dbus", "/run/user/1000", "/run/docker.sock", "/tmp", "/", "/proc/1", "/sys"]
        {
            plan.grants = vec![grant(lab.work(), Access::ReadWrite), grant(path, Access::ReadOnly)];
            lab.refused(&plan, |e| assert!(e.to_string().contains("cannot be granted"), "{path}: {e}"));
        }
    });
}

#[test]
fn dev_holds_what_programs_need_and_no_more() {
    both(|lab| {
        lab.sandbox(&lab.plan(), |_| {
            as_command(|| {
                let want =
                    ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout"];
                let want: BTreeSet<String> =
                    want.into_iter().chain(["tty", "urandom", "zero"]).map(Into::into).collect();
                assert_eq!(names("/dev"), want);
                fs::write("/dev/null", "x").unwrap();
                assert_eq!(fs::write("/dev/full", "x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
                fs::write("/dev/shm/x", "x").unwrap();
                assert_eq!(write("/dev/new"), Err(Errno::ROFS));
                let chmod = fs::set_permissions("/dev/null", fs::Permissions::from_mode(0o600)).unwrap_err();
                assert!(matches!(chmod.raw_os_error(), Some(libc::EROFS | libc::EPERM)), "{chmod}");
                let (ours, _terminal) = pty();
                assert!(ours.starts_with("/dev/pts/"), "{ours}");
            });
        });
    });
}

/// A new terminal in the sandbox's own devpts.
fn pty() -> (String, std::os::fd::OwnedFd) {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
    (name, master)
}

#[test]
fn proc_is_fresh_and_tells_nothing_of_the_machine() {
    both(|lab| {
        let outside = std::process::id();
        lab.sandbox(&lab.plan(), |_| {
            assert_eq!(fs::read_link("/proc/self").unwrap(), Path::new("1"), "init is PID 1 of it");
            as_command(|| {
                let pids: Vec<u32> = names("/proc").iter().filter_map(|n| n.parse().ok()).collect();
                assert!(pids.len() <= 2 && !pids.contains(&outside), "{pids:?}");
                for path in ["/proc/kcore", "/proc/keys", "/proc/sysrq-trigger", "/proc/timer_list"] {
                    assert!(matches!(read(path), Err(Errno::ACCESS | Errno::NOENT)), "{path}");
                }
                for path in ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname"] {
                    assert!(matches!(write(path), Err(Errno::ROFS | Errno::ACCESS)), "{path}");
                    assert_eq!(read(path), Ok(()), "{path}");
                }
                assert_eq!(read("/proc/self/status"), Ok(()));
                assert!(fs::read_dir("/sys/firmware").map_or(true, |d| d.count() == 0));
                assert_eq!(read("/sys/devices/system/cpu/online"), Ok(()));
                assert!(matches!(write("/sys/kernel/new"), Err(Errno::ROFS)));
            });
            if lab.mode == Mode::Root {
                // Not only because the command is nobody: root, as init still is, cannot either.
                assert_eq!(write("/proc/sys/kernel/core_pattern"), Err(Errno::ROFS));
            }
        });
    });
}

#[test]
fn every_mount_is_nosuid_and_nodev_and_only_what_is_meant_to_be_is_writable() {
    both(|lab| {
        let mut plan = lab.plan();
        fs::create_dir_all(lab.dir.join("tools")).unwrap();
        plan.grants.push(grant(lab.dir.join("tools"), Access::ReadOnly));
        lab.sandbox(&plan, |_| {
            let mut writable = BTreeSet::new();
            for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
                let fields: Vec<_> = line.split(' ').collect();
                let (path, options) = (fields[4], fields[5].split(',').collect::<Vec<_>>());
                let device = ["null", "zero", "full", "random", "urandom", "tty", "pts"].map(|n| format!("/dev/{n}"));
                assert!(options.contains(&"nosuid"), "{line}");
                assert!(options.contains(&"nodev") || device.contains(&path.to_owned()), "{line}");
                assert!(!line.contains("shared:") && !line.contains("master:"), "{line}");
                if options.contains(&"rw") {
                    writable.insert(path.to_owned());
                }
            }
            let work = lab.work().to_str().unwrap().to_owned();
            let want = ["/proc", "/dev/pts", "/dev/mqueue", "/dev/shm", "/tmp", "/var/tmp", "/home/agent", &work];
            assert_eq!(writable, want.map(str::to_owned).into());
            as_command(|| {
                for path in ["/new", "/usr/new", "/etc/new", "/home/new", "/run/new", "/run/stockade/new"] {
                    assert!(matches!(write(path), Err(Errno::ROFS)), "{path}");
                }
                assert_eq!(write(lab.dir.join("tools/new")), Err(Errno::ROFS));
                for path in ["/tmp/new", "/var/tmp/new", "/home/agent/new"] {
                    assert_eq!(write(path), Ok(()), "{path}");
                }
            });
        });
    });
}

#[test]
fn device_nodes_and_set_user_id_programs_in_the_workspace_do_nothing() {
    one(Mode::Root, |lab| {
        let plan = lab.plan();
        let node = lab.work().join("disk");
        let (kind, bits) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(CWD, &node, kind, bits, rustix::fs::makedev(1, 5)).unwrap();
        fs::set_permissions(&node, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(read(&node), Ok(()), "the control: outside it opens");
        let copy = lab.work().join("id");
        fs::copy("/usr/bin/id", &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).unwrap();
        assert_eq!(fs::metadata(&copy).unwrap().uid(), 0);
        lab.sandbox(&plan, |_| {
            as_command(|| {
                assert!(fs::metadata(&node).unwrap().file_type().is_char_device());
                assert_eq!(read(&node), Err(Errno::ACCESS));
                let out = std::process::Command::new(&copy).arg("-u").output().unwrap();
                assert_eq!(String::from_utf8(out.stdout).unwrap().trim(), USER.to_string());
            });
        });
    });
}

#[test]
fn files_of_the_view_stand_in_for_the_machines() {
    both(|lab| {
        let plan = lab.plan();
        let outside = fs::read_to_string("/etc/hosts").unwrap();
        lab.sandbox(&plan, |_| {
            as_command(|| {
                assert_eq!(fs::read_to_string("/etc/resolv.conf").unwrap(), "nameserver 127.0.0.1\n");
                assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), "127.0.0.1 inside\n");
                // Rootless it even belongs to the command's user.
                let refusal = if lab.mode == Mode::Root { Errno::ACCESS } else { Errno::ROFS };
                assert_eq!(write("/etc/hosts"), Err(refusal));
                let renamed = fs::rename("/etc/hosts", "/etc/hosts.old").unwrap_err();
                assert!(matches!(renamed.raw_os_error(), Some(libc::EBUSY | libc::EROFS | libc::EACCES)), "{renamed}");
            });
        });
        assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), outside);
    });
}

#[test]
fn a_resolv_conf_that_is_a_link_into_run_is_provided_there() {
    one(Mode::Root, |lab| {
        // An /etc as systemd-resolved leaves it.
        let etc = lab.dir.join("etc");
        fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", etc.join("resolv.conf")).unwrap();
        fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        rustix::mount::mount_bind(&etc, "/etc").unwrap();
        lab.sandbox(&lab.plan(), |view| {
            assert!(view.notes().iter().any(|n| n.contains("/etc/hosts is absent")), "{:?}", view.notes());
            as_command(|| {
                assert_eq!(fs::read_to_string("/etc/resolv.conf").unwrap(), "nameserver 127.0.0.1\n");
                assert!(matches!(write("/etc/resolv.conf"), Err(Errno::ROFS | Errno::ACCESS)));
                let passwd = fs::read_to_string("/etc/passwd").unwrap();
                assert_eq!(passwd, "root:x:0:0::/:/bin/sh\nsandbox:x:1000:1000:Stockade sandbox:/home/agent:/bin/sh\n");
            });
        });
    });
}

#[test]
fn without_the_baseline_only_grants_are_there() {
    both(|lab| {
        let mut plan = lab.plan();
        plan.baseline = false;
        plan.files = vec![file("/etc/resolv.conf", "x\n")];
        lab.sandbox(&plan, |_| {
            as_command(|| {
                assert_eq!(names("/etc"), ["group", "passwd", "resolv.conf"].map(str::to_owned).into());
                assert_eq!((read("/usr"), read("/bin")), (Err(Errno::NOENT), Err(Errno::NOENT)));
                assert_eq!(write(lab.work().join("new")), Ok(()));
            });
        });
    });
}

#[test]
fn what_the_host_mounts_later_does_not_appear() {
    one(Mode::Root, |lab| {
        let plan = lab.plan();
        lab.put("later/inner", "outside");
        rustix::mount::mount_change(
            "/",
            rustix::mount::MountPropagationFlags::SHARED | rustix::mount::MountPropagationFlags::REC,
        )
        .unwrap();
        let (host, inside) = UnixStream::pair().unwrap();
        let running = lab.start(&plan, |_| {
            lab.say(&inside);
            lab.hear(&inside);
            assert_eq!(names(lab.work().join("later")), BTreeSet::from(["inner".into()]));
        });
        lab.hear(&host);
        let later = lab.work().join("later");
        rustix::mount::mount("late", &later, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        assert!(names(&later).is_empty(), "the control: outside it covers");
        lab.say(&host);
        running.join();
    });
}

#[test]
fn a_tree_with_mounts_below_comes_along_as_restricted_as_the_rest() {
    for mode in [Mode::Root, Mode::Rootless] {
        // The mounts are root's even where the sandbox is not: in its user namespace they are locked together.
        one(Mode::Root, |machine| {
            let plan = machine.plan();
            machine.put("below/x", "covered");
            let below = machine.work().join("below");
            let flags = rustix::mount::MountFlags::NOATIME | rustix::mount::MountFlags::NOEXEC;
            rustix::mount::mount("below", &below, "tmpfs", flags, None).unwrap();
            fs::write(below.join("y"), "seen").unwrap();
            fs::set_permissions(&below, fs::Permissions::from_mode(0o777)).unwrap();
            let lab = Lab { mode, dir: machine.dir.clone() };
            if mode == Mode::Rootless {
                stockade_testkit::child::become_user(USER);
                nix::sys::prctl::set_dumpable(true).unwrap();
            }
            lab.sandbox(&plan, |view| {
                assert_eq!(view.mounts(), &Enforcement::Enforced);
                as_command(|| {
                    assert_eq!(names(&below), BTreeSet::from(["y".into()]));
                    assert_eq!(write(below.join("new")), Ok(()));
                });
                let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
                let line = table.lines().find(|l| l.split(' ').nth(4) == below.to_str()).unwrap();
                assert!(line.contains("rw,nosuid,nodev,noexec,noatime"), "what it forbade it forbids: {line}");
                let covers = rustix::mount::unmount(&below, rustix::mount::UnmountFlags::DETACH);
                if mode == Mode::Rootless {
                    assert_eq!(covers, Err(Errno::INVAL), "locked: what lies under it stays covered");
                }
            });
        });
    }
}

#[test]
fn magic_links_lead_nowhere_else() {
    both(|lab| {
        let outside = fs::metadata("/var").unwrap().ino();
        lab.sandbox(&lab.plan(), |_| {
            as_command(|| {
                std::env::set_current_dir(lab.work()).unwrap();
                for escape in [
                    "/proc/self/root/var",
                    "/proc/1/root/var",
                    "../../../../../../../../var",
                    "/proc/self/cwd/../../../../var",
                ] {
                    if let Ok(there) = fs::metadata(escape) {
                        assert_ne!(there.ino(), outside, "{escape}");
                    }
                }
                assert_eq!(read("/proc/self/root/usr/bin/env"), Ok(()), "the control");
                let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
                let held = rustix::fs::open("/usr/bin/env", flags, rustix::fs::Mode::empty()).unwrap();
                let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
                assert!(matches!(write(again), Err(Errno::ROFS | Errno::ACCESS)));
            });
        });
    });
}

#[test]
fn programs_work_under_the_landlock_rules_of_the_view() {
    both(|lab| {
        lab.sandbox(&lab.plan(), |view| {
            let domain = landlock::prepare(&view.landlock_plan()).unwrap();
            as_command(|| {
                domain.restrict().unwrap();
                let script = "set -e; ls / /home /run /dev /tmp >/dev/null; id -un; echo x >/dev/null; echo x >/tmp/t; \
                    cd \"$1\"; git init -q repo; cp /usr/bin/env own-env; ./own-env true; cat /proc/self/status >/dev/null; \
                    echo done";
                let out = std::process::Command::new("/bin/sh")
                    .args(["-c", script, "sh", lab.work().to_str().unwrap()])
                    .env_clear()
                    .envs([("PATH", "/usr/bin:/bin"), ("HOME", "/home/agent")])
                    .output()
                    .unwrap();
                let (out, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
                assert!(out.ends_with("done\n") && err.is_empty(), "{out}{err}");
                assert_eq!(write("/proc/self/comm"), Err(Errno::ACCESS), "only where a GPU needs it");
            });
        });
    });
}

#[test]
fn gpu_nodes_are_taken_by_name_and_only_real_ones() {
    both(|lab: &Lab| {
        if lab.mode == Mode::Rootless {
            skip!("device nodes cannot be made in a user namespace");
        }
        let dev = lab.dir.join("dev");
        for dir in ["nvidia-caps", "dri"] {
            fs::create_dir_all(dev.join(dir)).unwrap();
        }
        let nodes =
            ["nvidiactl", "nvidia0", "nvidia12", "nvidia-uvm", "nvidia-caps/nvidia-cap1", "dri/renderD128", "kfd"];
        for name in nodes.into_iter().chain(["nvidia-other", "kvm", "dri/control"]) {
            let (kind, bits) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
            rustix::fs::mknodat(CWD, dev.join(name), kind, bits, rustix::fs::makedev(1, 3)).unwrap();
            fs::set_permissions(dev.join(name), fs::Permissions::from_mode(0o666)).unwrap();
        }
        fs::write(dev.join("nvidia-modeset"), "a file, no device").unwrap();
        std::os::unix::fs::symlink("/dev/kvm", dev.join("nvidia1")).unwrap();
        let mut plan = lab.plan();
        plan.gpu = Some(dev);
        lab.sandbox(&plan, |view| {
            let listed = |path: &str| {
                view.landlock_paths().iter().any(|p| p.path == Path::new(path) && p.access == PathAccess::Device)
            };
            as_command(|| {
                for name in nodes {
                    let path = Path::new("/dev").join(name);
                    assert!(listed(path.to_str().unwrap()), "{name}");
                    fs::write(&path, "x").unwrap_or_else(|e| panic!("{name}: {e}"));
                }
                for name in ["nvidia-other", "kvm", "dri/control", "nvidia-modeset", "nvidia1"] {
                    assert_eq!(read(Path::new("/dev").join(name)), Err(Errno::NOENT), "{name}");
                }
                assert!(names("/run/nvidia-persistenced").is_empty());
            });
        });
        lab.sandbox(&lab.plan(), |_| assert_eq!(read("/run/nvidia-persistenced"), Err(Errno::NOENT)));
    });
}

#[test]
fn building_takes_little_time() {
    both(|lab| {
        let mut plan = lab.plan();
        lab.put(".git/hooks/x", "");
        lab.put(".env", "");
        plan.hidden = vec![lab.work().join(".git/hooks"), lab.work().join(".env")];
        let mut best = u128::MAX;
        for _ in 0..30 {
            let (host, inside) = UnixStream::pair().unwrap();
            let before = Instant::now();
            let running = lab.start_timed(&plan, |elapsed| lab.tell(&inside, elapsed.as_micros()));
            best = best.min(lab.told(&host));
            running.join();
            assert!(before.elapsed().as_secs() < 30);
        }
        println!("{:?}: the view is built in {best} µs", lab.mode);
        // The goal is 3 ms on an idle machine; this bound only catches what is off by an order of magnitude.
        assert!(best < 10_000, "{best} µs");
    });
}
