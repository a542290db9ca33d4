use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, process::Command};

use stockade_testkit::Mode;

use crate::world::{World, fed, good, out};

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8).collect()
}

/// A file of ours, and where its copy goes.
fn pair(world: &World) -> (std::path::PathBuf, std::path::PathBuf) {
    let from = world.keys().path("from");
    fs::write(&from, noise(3_000_000)).unwrap();
    (from, world.keys().path("back"))
}

#[test]
fn sftp_and_scp_carry_files_both_ways() {
    for mode in Mode::available() {
        let world = World::new(*mode);
        let (from, back) = pair(&world);
        let same = || fs::read(&from).unwrap() == fs::read(&back).unwrap();
        let batch = format!("put {} a\nrename a b\nget b {}\nls -l\nrm b\n", from.display(), back.display());
        let mut sftp = world.client("sftp");
        sftp.args(["-b", "-", "sandbox@127.0.0.1"]);
        let listed = good(&fed(sftp, batch.as_bytes()));
        assert!(same() && listed.contains("3000000"), "{listed}");
        for old in [&[][..], &["-O"]] {
            fs::remove_file(&back).unwrap();
            let mut there = world.client("scp");
            there.args(old).arg(&from).arg("sandbox@127.0.0.1:c d");
            let mut here = world.client("scp");
            here.args(old).arg(if old.is_empty() { "sandbox@127.0.0.1:c d" } else { "sandbox@127.0.0.1:c\\ d" });
            here.arg(&back);
            if old.is_empty() {
                good(&fed(there, b""));
                good(&fed(here, b""));
                assert!(same());
            } else {
                let mut there = world.client("scp");
                there.args(old).arg(&from).arg("sandbox@127.0.0.1:cd");
                good(&fed(there, b""));
                let mut here = world.client("scp");
                here.args(old).arg("sandbox@127.0.0.1:cd").arg(&back);
                good(&fed(here, b""));
                assert!(same());
            }
        }
        world.end();
    }
}

#[test]
fn sftp_takes_names_that_are_no_text() {
    let world = World::new(Mode::available()[0]);
    good(&world.ssh(&[], "printf x > \"$(printf 'n\\377me')\""));
    let mut sftp = world.client("sftp");
    sftp.args(["-b", "-", "sandbox@127.0.0.1"]);
    let back = world.keys().path("odd");
    let mut batch = b"get n\xffme ".to_vec();
    batch.extend(back.as_os_str().as_bytes());
    good(&fed(sftp, &[&batch[..], b"\n"].concat()));
    assert_eq!(fs::read(back).unwrap(), b"x");
    assert!(fs::exists(world.work.join(OsStr::from_bytes(b"n\xffme"))).unwrap());
    world.end();
}

#[test]
fn sftp_reaches_what_the_command_reaches() {
    for mode in Mode::available() {
        let world = World::new(*mode);
        let outside = world.keys().write("outside", "not for inside", 0o644);
        fs::copy("/etc/hostname", world.keys().path("x")).ok();
        for path in [outside.to_str().unwrap(), "/proc/1/environ", "/proc/1/root/etc/shadow"] {
            let mut sftp = world.client("sftp");
            sftp.args(["-b", "-", "sandbox@127.0.0.1"]);
            let got = world.keys().path("got");
            let tried = fed(sftp, format!("get {path} {}\n", got.display()).as_bytes());
            assert!(!tried.status.success() && fs::read(&got).unwrap_or_default().is_empty(), "{path}: {tried:?}");
        }
        // The positive control, and the tripwire: the file is there for whoever is outside.
        let mut sftp = world.client("sftp");
        sftp.args(["-b", "-", "sandbox@127.0.0.1"]);
        let got = world.keys().path("got");
        good(&fed(sftp, format!("get /etc/hostname {}\n", got.display()).as_bytes()));
        assert_eq!(fs::read_to_string(&got).unwrap().trim(), "stockade");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "not for inside");
        world.end();
    }
}

#[test]
fn rsync_and_git_work_over_it() {
    if Command::new("rsync").arg("--version").output().is_err() {
        stockade_testkit::skip!("no rsync");
    }
    let world = World::new(Mode::available()[0]);
    let tree = world.keys().path("tree");
    fs::create_dir_all(tree.join("deep")).unwrap();
    fs::write(tree.join("deep/file"), noise(100_000)).unwrap();
    let shell = format!("ssh {}", world.options().join(" "));
    let rsync = |from: &str, to: &str| {
        let mut rsync = Command::new("timeout");
        rsync.args(["60", "rsync", "-a", "-e", &shell, from, to]);
        good(&fed(rsync, b""));
    };
    rsync(&format!("{}/", tree.display()), "sandbox@127.0.0.1:copy/");
    let back = world.keys().path("rsynced");
    rsync("sandbox@127.0.0.1:copy/", back.to_str().unwrap());
    assert_eq!(fs::read(back.join("deep/file")).unwrap(), noise(100_000));

    good(&world.ssh(
        &[],
        "git init -q -b main repo && cd repo && git config user.email a@b && git config user.name a && \
                          echo hello > f && git add f && git commit -qm one",
    ));
    let clone = world.keys().path("clone");
    let url = format!("ssh://sandbox@127.0.0.1:{}{}/repo", world.port, world.work.display());
    let mut git = Command::new("timeout");
    git.args(["60", "git", "clone", "-q", &url]).arg(&clone).env("GIT_SSH_COMMAND", &shell);
    let cloned = fed(git, b"");
    assert!(cloned.status.success(), "{}", out(&cloned));
    assert_eq!(fs::read_to_string(clone.join("f")).unwrap(), "hello\n");
    world.end();
}
