//! Services that check what they are shown, as they are run elsewhere: a store that verifies each signature (s3s), git
//! behind nginx with HTTP Basic, an OAuth token endpoint by authlib. Clients have placeholders only.

mod logins;
mod store;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use stockade_testkit::{Finished, Mode, Outer, Stockade, upstream::https::Authority};

use crate::world::{CANARY, assert_nowhere};

const NAMES: [&str; 4] = ["store.test", "code.test", "token.test", "other.test"];
const ADDRESS: &str = "192.0.2.10";
const READY: Duration = Duration::from_secs(30);

/// Where tests/e2e/clients/install.sh puts programs and packages; `STOCKADE_CLIENTS` names another place.
fn clients() -> PathBuf {
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    env::var_os("STOCKADE_CLIENTS").map_or(target.join("clients"), PathBuf::from)
}

fn nginx() -> Option<PathBuf> {
    let dirs = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&dirs).chain(["/usr/sbin".into()]).collect::<Vec<_>>();
    dirs.iter().map(|dir| dir.join("nginx")).find(|path| path.is_file())
}

/// Skips the running test unless nginx and each of the clients are installed.
macro_rules! need_services {
    ($($path:expr),+) => {
        if $crate::services::nginx().is_none() {
            stockade_testkit::skip!("nginx is not installed");
        }
        for path in [$($path),+] {
            if !$crate::services::clients().join(path).exists() {
                stockade_testkit::skip!("{path} is not installed: tests/e2e/clients/install.sh");
            }
        }
    };
}
use need_services;

/// A file beside this one.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/credentials/services").join(name)
}

/// Services with nginx in front of them, ended when dropped.
struct Services {
    dir: PathBuf,
    children: Vec<Child>,
    /// Lines of nginx's list that were looked at.
    read: usize,
}

impl Services {
    fn start(outer: &Outer) -> Self {
        outer.hosts(&NAMES.map(|name| (ADDRESS.parse().unwrap(), name)));
        let dir = outer.dir().to_owned();
        let authority = Authority::new();
        let (cert, key) = authority.issue(&NAMES);
        let hash = format!("robot:{{PLAIN}}{CANARY}\n");
        for (file, text) in
            [("ca.pem", authority.pem()), ("cert.pem", &cert), ("key.pem", &key), ("htpasswd", &hash), ("log", "")]
        {
            fs::write(dir.join(file), text).unwrap();
        }
        let root = nix::unistd::Uid::effective().is_root();
        let text = fs::read_to_string(beside("nginx.conf")).unwrap();
        let text =
            text.replace("DIR", &dir.display().to_string()).replace("LOG", &dir.join("log").display().to_string());
        fs::write(dir.join("nginx.conf"), text.replace("USER", if root { "user root;" } else { "" })).unwrap();
        let mut services = Self { dir, children: Vec::new(), read: 0 };
        let (file, early) = (services.dir.join("nginx.conf"), services.dir.join("early"));
        services.run(Command::new(nginx().unwrap()).arg("-c").arg(file).arg("-e").arg(early), "192.0.2.10:443");
        services
    }

    /// Starts one more, and waits until it listens.
    fn run(&mut self, program: &mut Command, at: &str) {
        let quiet = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(quiet.spawn().unwrap_or_else(|e| panic!("{program:?}: {e}")));
        let since = Instant::now();
        while TcpStream::connect(at).is_err() {
            assert!(since.elapsed() < READY, "{program:?} does not listen at {at}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same for one that says `ready`.
    fn run_told(&mut self, program: &mut Command) {
        let mut child = program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.children.push(child);
        assert_eq!(line, "ready\n", "{program:?}");
    }

    /// What nginx was shown since this was last asked: status, request, authorization and more.
    fn shown(&mut self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("log")).unwrap();
        let lines: Vec<String> = text.lines().skip(self.read).map(str::to_owned).collect();
        self.read += lines.len();
        lines
    }

    /// A run whose policy has these endpoints and credentials; `secret` is the file with [`CANARY`], `@site` what every
    /// endpoint has.
    fn stockade(&self, mode: Mode, policy: &str) -> Stockade {
        let granted = format!(
            "version: 1\nfilesystem: {{baseline: true, read_only: [{}], read_write: [.]}}\n",
            clients().display()
        );
        let policy = policy.replace("@site", "private_addresses: [192.0.2.0/24]");
        let stockade =
            Stockade::new(mode).policy(&(granted + &policy)).arg("--upstream-ca").arg(self.dir.join("ca.pem"));
        fs::write(stockade.policy_path().with_file_name("secret"), CANARY).unwrap();
        stockade.timeout(Duration::from_secs(80))
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// What a script said of its case: the rest of the line `CASE: …`.
#[track_caller]
fn said(run: &Finished, case: &str) -> String {
    let text = run.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{case}: ")));
    line.unwrap_or_else(|| panic!("nothing was said of {case}: {run:?}")).to_owned()
}

/// That the services never saw a placeholder, of which the command said `placeholder: …`, nor the command a value.
#[track_caller]
fn assert_kept_apart(run: &Finished, shown: &[String]) {
    assert_nowhere(run);
    let placeholder = said(run, "placeholder");
    assert!(placeholder.len() >= 34 && !shown.is_empty(), "{placeholder} {shown:?}");
    // The part that all placeholders of a sandbox have, whatever is around it.
    let at = placeholder.len() - 34;
    let core = &placeholder[at..at + 24];
    assert!(!shown.iter().any(|line| line.contains(core)), "{core} {shown:#?}");
}
