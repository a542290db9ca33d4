//! Every runtime of `tests/runtimes.toml` starts and works under the locks that a command lives under.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
};
use serde::Deserialize;
use stockade_confine::{
    landlock,
    privileges::{Identity, become_user, drop_all},
    seccomp::{Arch, Filter},
};
use stockade_testkit::{child::Child, skip::record};

const USER: u32 = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    runtime: Vec<Runtime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Runtime {
    name: String,
    needs: Vec<String>,
    run: String,
    expect: String,
}

/// Where programs are found, for an ordinary user; the toolchain that built this test comes first, mounted at a place
/// that such a user may enter.
struct Tools {
    mount: tempfile::TempDir,
    toolchain: Option<PathBuf>,
}

impl Tools {
    fn find() -> Self {
        let mount = tempfile::tempdir().unwrap();
        fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Set by whoever runs the tests: TOOLCHAIN/bin/cargo.
        let cargo = env::var_os("CARGO").map(PathBuf::from);
        let toolchain =
            cargo.and_then(|c| Some(c.parent()?.parent()?.to_owned())).filter(|t| t.join("bin/rustc").exists());
        Self { mount, toolchain }
    }

    fn path(&self) -> String {
        format!("{}/bin:/usr/local/bin:/usr/bin:/bin", self.mount.path().display())
    }

    /// In a private mount namespace of this process.
    fn enter(&self) {
        let Some(toolchain) = &self.toolchain else { return };
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some(toolchain), self.mount.path(), none, MsFlags::MS_BIND, none).unwrap();
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env_clear().env("PATH", self.path()).env("LANG", "C.UTF-8");
        if let Some(packages) = env::var_os("PYTHONPATH") {
            command.env("PYTHONPATH", packages);
        }
        command
    }
}

/// What a default policy grants, without a view: system directories to read, this directory to write.
fn domain(home: &Path, tools: &Tools) -> landlock::Plan {
    let present = |paths: &[&str]| paths.iter().map(PathBuf::from).filter(|p| p.exists()).collect::<Vec<_>>();
    let mut read_only = present(&["/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev/urandom"]);
    read_only.push(tools.mount.path().to_owned());
    read_only.extend(env::var_os("PYTHONPATH").iter().flat_map(env::split_paths).filter(|p| p.exists()));
    landlock::Plan {
        read_only,
        read_write: [home.to_owned()].into_iter().chain(present(&["/dev/shm"])).collect(),
        devices: present(&["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts"]),
        ..landlock::Plan::default()
    }
}

/// Runs `body` as an ordinary user under every lock, in an empty directory of its own.
fn locked(tools: &Tools, body: impl FnOnce(&Path)) {
    let root = nix::unistd::geteuid().is_root();
    let dir = tempfile::tempdir().unwrap();
    if root {
        chown(dir.path(), Some(USER), Some(USER)).unwrap();
    }
    let filter = Filter::compile(Arch::native().unwrap(), &[]).unwrap();
    let namespaces = if root { CloneFlags::CLONE_NEWNS } else { CloneFlags::empty() };
    Child::new().namespaces(namespaces).run(|| {
        if root {
            tools.enter();
        }
        landlock::prepare(&domain(dir.path(), tools)).unwrap().restrict().unwrap();
        if root {
            become_user(&Identity { uid: USER, gid: USER, groups: vec![] }).unwrap();
        }
        drop_all().unwrap();
        filter.apply().unwrap();
        body(dir.path());
    });
}

fn run(runtime: &Runtime, tools: &Tools) {
    locked(tools, |dir| {
        let shell = &mut tools.shell(&runtime.run);
        let out = shell.current_dir(dir).env("TMPDIR", dir).env("HOME", dir).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(stdout.contains(&runtime.expect), "{}: {}\n{stdout}\n{stderr}", runtime.name, out.status);
    });
}

/// The first thing this runtime needs and the machine lacks for an ordinary user. Asked without the locks: a program
/// that is here and breaks under them is a failure, not a skip.
fn lacks<'a>(runtime: &'a Runtime, tools: &Tools) -> Option<&'a String> {
    let missing = tempfile::NamedTempFile::new().unwrap();
    let root = nix::unistd::geteuid().is_root();
    let namespaces = if root { CloneFlags::CLONE_NEWNS } else { CloneFlags::empty() };
    Child::new().namespaces(namespaces).run(|| {
        if root {
            tools.enter();
        }
        let here = |need: &str| {
            let ask = if need.contains(' ') { format!("{need} 2>/dev/null") } else { format!("command -v {need}") };
            let mut shell = tools.shell(&ask);
            if root {
                shell.uid(USER).gid(USER);
            }
            shell.current_dir("/").output().is_ok_and(|out| out.status.success())
        };
        if let Some(at) = runtime.needs.iter().position(|need| !here(need)) {
            fs::write(missing.path(), at.to_string()).unwrap();
        }
    });
    runtime.needs.get(fs::read_to_string(missing.path()).unwrap().parse::<usize>().ok()?)
}

#[test]
fn every_runtime_works() {
    let file: File = toml::from_str(include_str!("../../runtimes.toml")).unwrap();
    let tools = Tools::find();
    let mut missing = BTreeSet::new();
    let mut worked = 0;
    for runtime in &file.runtime {
        match lacks(runtime, &tools) {
            Some(program) => drop(missing.insert(format!("{} (no {program})", runtime.name))),
            None => {
                run(runtime, &tools);
                println!("works: {}", runtime.name);
                worked += 1;
            }
        }
    }
    assert!(worked >= 3, "a shell, at least, must be here");
    for name in &missing {
        record(format_args!("runtime {name}"));
    }
}
