//! A VS Code server inside, used from outside through `-L`.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use stockade_testkit::{Mode, skip};

use crate::{
    forwards::free_port,
    world::{Keys, World, good},
};

/// Where tests/e2e/clients/install.sh puts packages; `STOCKADE_CLIENTS` names another place.
fn clients() -> PathBuf {
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    env::var_os("STOCKADE_CLIENTS").map_or(target.join("clients"), PathBuf::from)
}

/// Whether an ordinary user can read what lies there.
fn is_there(path: &Path) -> bool {
    let entered = |dir: &Path| fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    path.exists() && path.ancestors().skip(1).all(entered)
}

#[test]
fn a_vs_code_server_shows_its_page_and_reads_a_file_through_a_forward() {
    let program = clients().join("node-codeserver/node_modules/code-server/out/node/entry.js");
    let websockets = clients().join("python-websockets");
    for needed in [&program, &websockets, Path::new("/usr/bin/node"), Path::new("/usr/bin/python3")] {
        if !is_there(needed) {
            skip!("{} is not there: tests/e2e/clients/install.sh", needed.display());
        }
    }
    let policy = format!(
        "version: 1\nfilesystem: {{baseline: true, read_only: [{}]}}\n",
        clients().join("node-codeserver").display()
    );
    for mode in Mode::available() {
        let keys = Keys::new();
        let line = keys.public("id");
        let world = World::with(*mode, keys, &line, |s| s.policy(&policy));
        let file = world.work.join("note.txt");
        fs::write(&file, "hello from a file inside\n").unwrap();
        let mut server = world.client("ssh");
        server.arg("sandbox@127.0.0.1").arg(format!(
            "exec node {} --auth none --disable-telemetry --disable-update-check --bind-addr 127.0.0.1:8099 \
             --user-data-dir \"$PWD/.data\" --extensions-dir \"$PWD/.extensions\" . 2>&1",
            program.display()
        ));
        let mut server = server.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
        assert!(said.any(|l| l.unwrap().contains("HTTP server listening")), "{mode:?}: it does not start");
        // It goes on talking, and somebody has to listen.
        let listening = thread::spawn(move || said.count());
        let port = free_port();
        let mut tunnel = world.client("ssh");
        tunnel.args(["-N", "-L", &format!("{port}:localhost:8099"), "sandbox@127.0.0.1"]);
        let mut tunnel = tunnel.spawn().unwrap();
        let up = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(100));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(up, "{mode:?}: no tunnel");
        let mut client = Command::new("/usr/bin/python3");
        client.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ssh/vscode.py"));
        client.arg(format!("127.0.0.1:{port}")).arg(&file).env("PYTHONPATH", &websockets);
        let read = good(&client.output().unwrap());
        assert_eq!(read, "page True\nhandshake sign\nmanagement ok\nfile hello from a file inside\n", "{mode:?}");
        // The end of the sandbox is the end of both.
        world.end();
        tunnel.wait().unwrap();
        server.wait().unwrap();
        listening.join().unwrap();
    }
}
