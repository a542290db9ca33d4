//! A sandbox with an SSH server, a user with a key, and a client.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use stockade_testkit::{Finished, Mode, Running, Stockade, runner::ORDINARY_UID};

/// Longest that a client may take.
const PATIENCE: &str = "60";

/// A sandbox whose command waits, and a user who may come in.
pub(crate) struct World {
    pub(crate) run: Running,
    pub(crate) port: u16,
    pub(crate) work: PathBuf,
    keys: Keys,
}

/// A user's key, and a directory for more.
pub(crate) struct Keys(tempfile::TempDir);

impl Keys {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("stockade-keys-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let keys = Self(dir);
        keys.make("id");
        keys
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new key pair; its private part.
    pub(crate) fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
        assert!(made.unwrap().success(), "ssh-keygen");
        path
    }

    pub(crate) fn public(&self, name: &str) -> String {
        fs::read_to_string(self.path(name).with_extension("pub")).unwrap()
    }

    /// A file that the one who runs the sandbox can read.
    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Gives a file to whoever runs the sandbox in this mode.
    pub(crate) fn give(&self, path: &Path, mode: Mode) {
        if mode == Mode::Rootless && nix::unistd::Uid::effective().is_root() {
            chown(path, Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
        }
    }
}

impl World {
    /// With the user's key and whatever else is said.
    pub(crate) fn with(mode: Mode, keys: Keys, lines: &str, more: impl FnOnce(Stockade) -> Stockade) -> Self {
        let authorized = keys.write("authorized_keys", lines, 0o644);
        let stockade = Stockade::new(mode).timeout(Duration::from_secs(180));
        let stockade = stockade.arg("--ssh").arg("127.0.0.1:0").arg("--ssh-authorized-keys").arg(authorized);
        let stockade = more(stockade);
        let work = stockade.work();
        let run = stockade.spawn(&["/bin/sh", "-c", "echo up; cat"]);
        run.wait_for("up");
        let port = port(&run);
        Self { run, port, work, keys }
    }

    pub(crate) fn new(mode: Mode) -> Self {
        let keys = Keys::new();
        let line = keys.public("id");
        Self::with(mode, keys, &line, |s| s)
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What every client is told: nobody's configuration, this key, this port.
    pub(crate) fn options(&self) -> Vec<String> {
        let identity = format!("IdentityFile={}", self.keys.path("id").display());
        let port = format!("Port={}", self.port);
        ["-F", "none", "-o", &identity, "-o", &port].into_iter().chain(TRUSTING).map(str::to_owned).collect()
    }

    /// A client program of OpenSSH that gives up after a while.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).arg(program).args(self.options());
        command
    }

    /// `ssh OPTIONS HOST SCRIPT` to its end.
    pub(crate) fn ssh(&self, options: &[&str], script: &str) -> Output {
        self.fed(options, script, b"")
    }

    /// The same with this key and no other.
    pub(crate) fn only(&self, identity: &str, script: &str) -> Output {
        let identity = format!("IdentityFile={}", self.keys.path(identity).display());
        let options = self.options().into_iter();
        let options = options.map(|o| if o.starts_with("IdentityFile=") { identity.clone() } else { o });
        let mut command = Command::new("timeout");
        command.args([PATIENCE, "ssh"]).args(options).args(["sandbox@127.0.0.1", script]);
        fed(command, b"")
    }

    /// The same with something on its standard input.
    pub(crate) fn fed(&self, options: &[&str], script: &str, input: &[u8]) -> Output {
        let mut command = self.client("ssh");
        command.args(options).arg("sandbox@127.0.0.1");
        if !script.is_empty() {
            command.arg(script);
        }
        fed(command, input)
    }

    /// Ends the command, and with it the sandbox.
    pub(crate) fn end(self) -> Finished {
        let finished = self.run.finish();
        finished.assert_code(0);
        finished
    }
}

const TRUSTING: [&str; 12] = [
    "-o",
    "IdentitiesOnly=yes",
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "LogLevel=ERROR",
    "-o",
    "BatchMode=yes",
    "-o",
    "IdentityAgent=none",
];

/// The port that the start said.
fn port(run: &Running) -> u16 {
    let told = run.wait_to_be_told(", host key SHA256:");
    let place = told.split("ssh on 127.0.0.1:").nth(1).unwrap().split(',').next().unwrap();
    place.parse().unwrap()
}

/// Runs a program to its end with this on its standard input.
pub(crate) fn fed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that reads no more is no failure of the test.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that it ended well, and returns what it printed.
#[track_caller]
pub(crate) fn good(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    out(output)
}
