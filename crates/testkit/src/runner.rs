//! Running the real program as a user does: its files, its options, its two modes.

mod process;

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::unistd::Uid;
use tempfile::TempDir;

pub use process::{Finished, Outcome, Running};

/// See [`Stockade::by_session`].
const SESSION: &str = include_str!("runner/session.sh");
/// The uid that rootless runs have.
pub const ORDINARY_UID: u32 = 1000;

/// Who starts the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// uid 0.
    Root,
    /// [`ORDINARY_UID`], without capabilities.
    Rootless,
}

impl Mode {
    /// The modes that can be had here: both for root, rootless alone for anybody else.
    #[must_use]
    pub fn available() -> &'static [Self] {
        if is_root_of_the_machine() { &[Self::Root, Self::Rootless] } else { &[Self::Rootless] }
    }
}

/// A command line of the real program, with directories of its own.
#[derive(Debug)]
pub struct Stockade {
    mode: Mode,
    subcommand: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    timeout: Duration,
    dir: TempDir,
    log: Option<PathBuf>,
    tracer: Vec<OsString>,
    explicit_workspace: bool,
    unwrapped: bool,
}

impl Stockade {
    /// `stockade run` in `mode`, with an empty workspace, an audit log and no policy but the built-in one.
    ///
    /// # Panics
    /// When the directories cannot be made.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let dir = tempfile::Builder::new().prefix("stockade-run-").tempdir().expect("a temporary directory");
        let dirs = [("", 0o755), ("conf", 0o755), ("home", 0o700), ("work", 0o755), ("log", 0o700), ("ssh", 0o700)];
        for (name, mode) in dirs {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).expect("mkdir");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        }
        // As root the command runs as the workspace's owner, which is never root.
        for name in if mode == Mode::Root { &["work"][..] } else { &["conf", "home", "work", "log", "ssh"] } {
            if is_root_of_the_machine() {
                chown(dir.path().join(name), Some(ORDINARY_UID), Some(ORDINARY_UID)).expect("chown");
            }
        }
        Self {
            mode,
            subcommand: "run".into(),
            args: Vec::new(),
            env: Vec::new(),
            timeout: Duration::from_secs(30),
            dir,
            log: None,
            tracer: Vec::new(),
            explicit_workspace: false,
            unwrapped: false,
        }
    }

    /// The tripwire: the same command in the same directory, as the ordinary user, and no Stockade around it. What is
    /// refused inside must work here, or the refusal proves nothing.
    #[must_use]
    pub fn unwrapped(mut self) -> Self {
        self.unwrapped = true;
        self
    }

    /// A program that runs Stockade, such as strace with its options.
    #[must_use]
    pub fn under<S: AsRef<OsStr>>(mut self, tracer: &[S]) -> Self {
        self.tracer = tracer.iter().map(|w| w.as_ref().to_owned()).collect();
        self
    }

    /// Another audit log than the one outside the workspace.
    #[must_use]
    pub fn audit_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Another subcommand that takes a command, such as `learn`.
    #[must_use]
    pub fn subcommand(mut self, name: &str) -> Self {
        self.subcommand = name.into();
        self
    }

    /// Writes `text` to a policy file outside the workspace and names it.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn policy(self, text: &str) -> Self {
        let path = self.policy_path();
        fs::write(&path, text).expect("writing the policy");
        self.arg("--policy").arg(path)
    }

    /// Where [`Self::policy`] writes: for tests that reload.
    #[must_use]
    pub fn policy_path(&self) -> PathBuf {
        self.dir.path().join("conf/policy.yaml")
    }

    /// Adds an option.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Sets a variable for the program itself.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Another workspace than the empty one (`DIR[:ro|rw|none]`).
    #[must_use]
    pub fn workspace(mut self, workspace: impl AsRef<OsStr>) -> Self {
        self.explicit_workspace = true;
        self.arg("--workspace").arg(workspace)
    }

    /// Ends the run with a failure after this long; 30 seconds unless said.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The workspace that is used unless [`Self::workspace`] names another.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Runs `command` to its end.
    ///
    /// # Panics
    /// When the program cannot be started or does not end in time.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(self, command: &[S]) -> Finished {
        self.spawn(command).finish()
    }

    /// Runs a shell script to its end.
    ///
    /// # Panics
    /// As [`Self::run`].
    #[track_caller]
    pub fn sh(self, script: &str) -> Finished {
        self.run(&["/bin/sh", "-c", script])
    }

    /// Runs the probe program with these tries (see `src/bin/probe.rs`) to its end.
    ///
    /// # Panics
    /// As [`Self::run`], and when the probe was not built.
    #[track_caller]
    pub fn probe<S: AsRef<str>>(self, tries: &[S]) -> Finished {
        let probe = self.put_probe();
        let words = [probe.to_str().expect("a temporary path is text")].into_iter();
        let words: Vec<&str> = words.chain(tries.iter().map(AsRef::as_ref)).collect();
        self.run(&words)
    }

    /// Puts the probe program into the workspace, as `probe`, for scripts.
    ///
    /// # Panics
    /// When it was not built.
    #[track_caller]
    pub fn put_probe(&self) -> PathBuf {
        self.put("probe")
    }

    /// Puts a program of the testkit into the workspace.
    ///
    /// # Panics
    /// When it was not built.
    #[track_caller]
    pub fn put(&self, name: &str) -> PathBuf {
        let path = self.work().join(name);
        fs::copy(beside_the_test(name), &path).expect("copying a program");
        path
    }

    /// Starts `command`; its output is collected while it runs.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[track_caller]
    pub fn spawn<S: AsRef<OsStr>>(self, command: &[S]) -> Running {
        let log = self.log.clone().unwrap_or_else(|| self.dir.path().join("log/audit.jsonl"));
        let mut words = Vec::new();
        if !self.unwrapped {
            if self.by_session() {
                words.extend(["/bin/bash", "-c", SESSION, "session"].map(OsString::from));
                words.push(self.dir.path().join("ssh").into_os_string());
            }
            words.extend(self.tracer.iter().cloned());
            words.push(program(self.mode == Mode::Rootless).into_os_string());
            words.push(self.subcommand.clone());
            words.extend(self.args.iter().cloned());
            words.extend(["--audit-log".into(), log.clone().into_os_string()]);
            if !self.explicit_workspace {
                // Said in full: a policy without `filesystem` grants nothing by itself.
                words.extend(["--workspace".into(), format!("{}:rw", self.work().display()).into()]);
            }
            words.push("--".into());
        }
        words.extend(command.iter().map(|w| w.as_ref().to_owned()));
        let mut line = self.command(words);
        line.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(line, log, self.timeout, self.dir)
    }

    /// Whether the command is to be a session that comes in by SSH, and not the sandbox's first: `STOCKADE_VIA=ssh`
    /// repeats the tests of the wall and the door that way.
    fn by_session(&self) -> bool {
        self.subcommand == "run" && std::env::var_os("STOCKADE_VIA").is_some_and(|via| via == "ssh")
    }

    /// The words as this mode's user, in the workspace, with a small environment.
    fn command(&self, words: Vec<OsString>) -> Command {
        let mode = if self.unwrapped { Mode::Rootless } else { self.mode };
        let mut all = Vec::new();
        if mode == Mode::Rootless && !is_root_of_the_machine() {
            // Root only of an Outer world: a user namespace below it leaves that behind.
            all.extend(["unshare", "--user"].map(OsString::from));
            all.extend(["user", "group"].map(|id| format!("--map-{id}={ORDINARY_UID}").into()));
            all.push("--".into());
        }
        all.extend(words);
        let mut all = all.into_iter();
        let mut line = Command::new(all.next().expect("a program to run"));
        line.args(all);
        match mode {
            Mode::Root => assert!(is_root_of_the_machine(), "Mode::Root needs root; use Mode::available()"),
            Mode::Rootless if is_root_of_the_machine() => {
                line.uid(ORDINARY_UID).gid(ORDINARY_UID);
            }
            Mode::Rootless => {}
        }
        line.current_dir(self.work()).env_clear().envs(self.env.iter().map(|(k, v)| (k, v)));
        line.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("LANG", "C.UTF-8");
        line.env("HOME", self.dir.path().join("home"));
        line
    }
}

/// The program under test: `$STOCKADE_BIN`, or the one beside the test binary. With `everybody`, a copy where an
/// ordinary user can reach it, if the original is out of reach.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn program(everybody: bool) -> PathBuf {
    let path = match std::env::var_os("STOCKADE_BIN") {
        Some(path) => PathBuf::from(path),
        None => beside_the_test("stockade"),
    };
    let reachable = path.ancestors().skip(1).all(|dir| permits(dir, 0o001));
    if !everybody || (reachable && permits(&path, 0o005)) { path } else { copy_for_everybody(&path) }
}

/// A program of the workspace that was built into the same folder: target/debug/deps/NAME-HASH has target/debug/NAME.
fn beside_the_test(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join(name);
    assert!(path.is_file(), "{} does not exist: build it first (cargo build --workspace --bins)", path.display());
    path
}

fn permits(path: &Path, bits: u32) -> bool {
    fs::metadata(path).is_ok_and(|m| m.permissions().mode() & bits == bits)
}

/// One copy per build, shared by all tests: the program is large.
fn copy_for_everybody(path: &Path) -> PathBuf {
    let meta = fs::metadata(path).unwrap();
    let stamp = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let copy = std::env::temp_dir().join(format!("stockade-under-test-{stamp}-{}", meta.len()));
    if !copy.exists() {
        let mut fresh = tempfile::NamedTempFile::new().unwrap();
        std::io::copy(&mut fs::File::open(path).unwrap(), &mut fresh).unwrap();
        fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fresh.persist(&copy).unwrap();
    }
    copy
}

/// Root of a user namespace, such as an ordinary user's Outer world has, can give no file away.
fn is_root_of_the_machine() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    Uid::effective().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}
