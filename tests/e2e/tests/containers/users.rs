//! Engines whose containers live in a user namespace: Podman of an ordinary user, Docker with remapped users. The
//! subordinate ids that they need are given in a mount namespace of their own, not to the machine.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User},
};
use stockade_testkit::runner::ORDINARY_UID;

use crate::engine::{Engine, said};

/// Gives `$1` as the machine's subordinate ids to the rest of the words.
const WITH_IDS: &str = "mount --bind \"$1\" /etc/subuid && mount --bind \"$1\" /etc/subgid && shift && exec \"$@\"";

struct Ids {
    dir: tempfile::TempDir,
    user: String,
}

impl Ids {
    fn new() -> Result<Self, String> {
        if !Uid::effective().is_root() {
            return Err("only root can give subordinate ids".to_owned());
        }
        if !fs::exists("/etc/subuid").unwrap_or(false) || !fs::exists("/etc/subgid").unwrap_or(false) {
            return Err("there is no /etc/subuid to put other ids over".to_owned());
        }
        let user = User::from_uid(Uid::from_raw(ORDINARY_UID)).ok().flatten();
        let user =
            user.ok_or_else(|| format!("uid {ORDINARY_UID} has no account, and subordinate ids go by names"))?.name;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("ids"), format!("{user}:100000:65536\n")).unwrap();
        Ok(Self { dir, user })
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// The words before a program that shall have the ids.
    fn words(&self) -> Vec<String> {
        let words = ["unshare", "--mount", "--net", "sh", "-c", WITH_IDS, "sh"];
        words.iter().map(|word| (*word).to_owned()).chain([self.at("ids")]).collect()
    }
}

/// Podman as an ordinary user, with storage of its own.
pub(crate) struct Rootless {
    pub(crate) engine: Engine,
    _ids: Ids,
}

impl Rootless {
    pub(crate) fn new() -> Result<Self, String> {
        let ids = Ids::new()?;
        for dir in ["home", "run"] {
            fs::create_dir(ids.at(dir)).unwrap();
            chown(ids.at(dir), Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
        }
        let uid = ORDINARY_UID.to_string();
        let (home, run) = (format!("HOME={}", ids.at("home")), format!("XDG_RUNTIME_DIR={}", ids.at("run")));
        let mut words = ids.words();
        let as_user = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "env", "--chdir=/", "-i"];
        let podman = ["podman", "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs"];
        let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        words.extend(as_user.iter().chain(&[path, &home, &run]).chain(&podman).map(|word| (*word).to_owned()));
        let engine = Engine::new(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let info = engine.command().arg("info").output().map_err(|e| e.to_string())?;
        if info.status.success() { Ok(Self { engine, _ids: ids }) } else { Err(format!("podman: {}", said(&info))) }
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        // Ends the process that keeps its user namespace.
        let _ = self.engine.command().args(["system", "migrate"]).output();
    }
}

/// A Docker engine of its own, with remapped users.
pub(crate) struct Remapped {
    pub(crate) engine: Engine,
    daemon: Child,
    _ids: Ids,
}

impl Remapped {
    pub(crate) fn new() -> Result<Self, String> {
        let ids = Ids::new()?;
        let socket = format!("unix://{}", ids.at("socket"));
        let words = ids.words();
        let mut line = Command::new(&words[0]);
        line.args(&words[1..]).args(["dockerd", "--userns-remap", &format!("{0}:{0}", ids.user), "--host", &socket]);
        line.args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--pidfile", &ids.at("pid")]);
        line.args(["--data-root", &ids.at("data"), "--exec-root", &ids.at("exec")]);
        let log = fs::File::create(ids.at("log")).unwrap();
        let daemon =
            line.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().map_err(|e| format!("dockerd: {e}"))?;
        let this = Self { engine: Engine::new(&["docker", "--host", &socket]), daemon, _ids: ids };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) {
            if this.engine.command().arg("version").output().is_ok_and(|out| out.status.success()) {
                return Ok(this);
            }
            thread::sleep(Duration::from_millis(200));
        }
        Err("a second dockerd, with remapped users, does not answer".to_owned())
    }
}

impl Drop for Remapped {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.daemon.id()).unwrap()), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}
