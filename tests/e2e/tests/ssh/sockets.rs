use std::{
    fs,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use stockade_testkit::{Mode, Running, Stockade, runner};

use crate::world::{Keys, fed, good};

/// A user that every machine has: OpenSSH's client runs for no other.
const NOBODY: u32 = 65_534;

struct Socket {
    run: Running,
    path: PathBuf,
    keys: Keys,
    _dir: tempfile::TempDir,
}

fn start(mode: Mode) -> Socket {
    let keys = Keys::new();
    let dir = tempfile::Builder::new().prefix("stockade-sock-").tempdir().unwrap();
    keys.give(dir.path(), mode);
    let authorized = keys.write("authorized_keys", &keys.public("id"), 0o644);
    let path = dir.path().join("ssh");
    let stockade = Stockade::new(mode).timeout(Duration::from_secs(120));
    let stockade = stockade.arg("--ssh").arg(format!("unix:{}", path.display()));
    let script = format!(
        "echo up; python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{}\")' 2>&1 | tail -1; \
         ls {} 2>&1; echo tried; cat",
        path.display(),
        dir.path().display()
    );
    let run = stockade.arg("--ssh-authorized-keys").arg(authorized).spawn(&["/bin/sh", "-c", &script]);
    run.wait_for("tried");
    run.wait_to_be_told(", host key SHA256:");
    Socket { run, path, keys, _dir: dir }
}

impl Socket {
    /// Through the program that `ssh-config` names; as another user, if one is said.
    fn ssh(&self, script: &str, uid: Option<u32>) -> std::process::Output {
        let program = runner::program(true);
        let proxy = format!("ProxyCommand={} ssh-connect {}", program.display(), self.path.display());
        let mut command = Command::new("timeout");
        command.arg("60");
        if let Some(uid) = uid {
            command.args(["setpriv", &format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]);
        }
        command.args(["ssh", "-F", "none", "-o", &proxy, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i"]);
        command.arg(self.keys.path("id")).args(["sandbox@box", script]);
        fed(command, b"")
    }
}

#[test]
fn a_unix_socket_serves_its_user_and_the_command_does_not_see_it() {
    for mode in Mode::available() {
        let socket = start(*mode);
        assert_eq!(good(&socket.ssh("echo came in", None)), "came in\n");
        let meta = fs::metadata(&socket.path).unwrap();
        assert_eq!(meta.mode() & 0o777, 0o600);
        let path = socket.path.clone();
        let finished = socket.run.finish();
        assert!(!path.exists(), "its file is gone with it");
        let text = finished.text();
        assert!(text.contains("No such file or directory"), "the command found it: {text}");
        finished.assert_code(0);
    }
}

#[test]
fn another_user_is_turned_away_by_the_kernel_s_word() {
    if Mode::available().len() < 2 {
        stockade_testkit::skip!("needs root, to be two users");
    }
    let socket = start(Mode::Root);
    // Even where the file's mode would let it through.
    fs::set_permissions(socket.path.parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket.path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::set_permissions(socket.keys.path("id"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(socket.keys.path("id"), Some(NOBODY), Some(NOBODY)).unwrap();
    let refused = socket.ssh("echo came in", Some(NOBODY));
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    socket.run.wait_for_event("ssh_auth");
    std::os::unix::fs::chown(socket.keys.path("id"), Some(0), Some(0)).unwrap();
    assert_eq!(good(&socket.ssh("echo came in", None)), "came in\n", "the positive control");
    let events = socket.run.finish().events;
    assert!(events.one("ssh_auth").text("/status_detail").unwrap().contains("this user may not connect"));
}

#[test]
fn a_place_that_is_not_safe_or_not_free_is_refused() {
    let mode = Mode::available()[0];
    let keys = Keys::new();
    let authorized = keys.write("authorized_keys", &keys.public("id"), 0o644);
    let dir = tempfile::Builder::new().prefix("stockade-sock-").tempdir().unwrap();
    keys.give(dir.path(), mode);
    fs::write(dir.path().join("taken"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    keys.give(&open, mode);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let work = Stockade::new(mode);
    let inside = work.work().join("sock").display().to_string();
    for (path, told) in [
        (at("taken"), "there is something already"),
        (at("link"), "a symbolic link already"),
        (at("open/sock"), "may be written by others"),
        (at(&"x".repeat(120)), "longer than 107 bytes"),
        (at("no/such/sock"), "No such file"),
    ] {
        let run =
            Stockade::new(mode).arg("--ssh").arg(format!("unix:{path}")).arg("--ssh-authorized-keys").arg(&authorized);
        let run = run.run(&["/bin/echo", "it ran"]);
        run.assert_code(125);
        assert!(run.stderr.contains(told) && run.stdout.is_empty(), "{path}\n{run:?}");
    }
    let granted = work.arg("--ssh").arg(format!("unix:{inside}")).arg("--ssh-authorized-keys").arg(&authorized);
    let granted = granted.run(&["/bin/echo", "it ran"]);
    granted.assert_code(125);
    assert!(granted.stderr.contains("to the command") || granted.stderr.contains("by others"), "{granted:?}");
    assert!(UnixStream::connect(at("link")).is_err());
}
