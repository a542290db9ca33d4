//! One authority, servers that write down what reached them, and runs of clients.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use stockade_testkit::{Event, Finished, Mode, Outer, Stockade, upstream::https::Authority};

/// Longer than any of these takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(170);
/// Where every site is.
pub(crate) const ADDRESS: &str = "192.0.2.10";

/// All names of a test at [`ADDRESS`], and certificates for them.
pub(crate) struct World {
    pub(crate) authority: Authority,
    /// What the command may read besides the system.
    pub(crate) granted: Vec<PathBuf>,
    dir: PathBuf,
}

impl World {
    pub(crate) fn start(outer: &Outer, names: &[&str]) -> Self {
        let hosts: Vec<_> = names.iter().map(|name| (ADDRESS.parse().unwrap(), *name)).collect();
        outer.hosts(&hosts);
        let authority = Authority::new();
        let (cert, key) = authority.issue(names);
        for (file, text) in [("ca.pem", authority.pem()), ("cert.pem", &cert), ("key.pem", &key)] {
            fs::write(outer.dir().join(file), text).unwrap();
        }
        let granted = [clients()].into_iter().filter(|dir| dir.exists()).collect();
        Self { authority, granted, dir: outer.dir().to_owned() }
    }

    /// Starts a server's program: `PROGRAM ARGS… CERTIFICATE KEY LOG`. It says `ready` when it is.
    pub(crate) fn serve(&self, program: &mut Command) -> Server {
        let log = self.dir.join("server.log");
        fs::write(&log, "").unwrap();
        program.arg(self.dir.join("cert.pem")).arg(self.dir.join("key.pem")).arg(&log);
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{program:?}: {e}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{program:?}");
        Server { child, log, read: 0 }
    }

    /// `@site` stands for the port and the addresses that every site has.
    pub(crate) fn policy(&self, endpoints: &str) -> String {
        let site = "ports: [443]\n      private_addresses: [192.0.2.0/24]";
        let granted: Vec<_> = self.granted.iter().map(|dir| dir.display().to_string()).collect();
        format!(
            "version: 1\nfilesystem: {{baseline: true, read_only: [{}]}}\nnetwork:\n  endpoints:\n{}",
            granted.join(", "),
            endpoints.trim_start_matches('\n').replace("@site", site)
        )
    }

    pub(crate) fn stockade(&self, mode: Mode, endpoints: &str) -> Stockade {
        let stockade = Stockade::new(mode).policy(&self.policy(endpoints)).arg("--upstream-ca");
        stockade.arg(self.dir.join("ca.pem")).timeout(Duration::from_secs(80))
    }
}

/// A server's process, ended when dropped.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    read: usize,
}

impl Server {
    /// What it wrote down since it was last asked.
    pub(crate) fn seen(&mut self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap();
        let lines: Vec<String> = text.lines().skip(self.read).map(str::to_owned).collect();
        self.read += lines.len();
        lines
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where tests/e2e/clients/install.sh puts packages; `STOCKADE_CLIENTS` names another place.
pub(crate) fn clients() -> PathBuf {
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    env::var_os("STOCKADE_CLIENTS").map_or(target.join("clients"), PathBuf::from)
}

/// Skips the running test unless each of the packages is installed, where an ordinary user can read it.
#[macro_export]
macro_rules! need_packages {
    ($($package:expr),+) => {
        for package in [$($package),+] {
            if let Some(why) = $crate::world::lacks(&$crate::world::clients().join(package)) {
                stockade_testkit::skip!("{package} {why}: tests/e2e/clients/install.sh");
            }
        }
    };
}

pub(crate) fn lacks(path: &Path) -> Option<&'static str> {
    let entered = |dir: &Path| fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    match path.exists() {
        false => Some("is not installed"),
        true if !path.ancestors().skip(1).all(entered) => Some("is not where an ordinary user can read it"),
        true => None,
    }
}

/// Skips the running test unless each of the programs is where the command finds it too.
#[macro_export]
macro_rules! need_programs {
    ($($program:expr),+) => {
        for program in [$($program),+] {
            if $crate::world::program(program).is_none() {
                stockade_testkit::skip!("{program} is not installed");
            }
        }
    };
}

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// A file beside the tests.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocols").join(name)
}

/// Runs a command that has to succeed.
#[track_caller]
pub(crate) fn quiet(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What a script said of its case: the rest of the line `CASE: …`.
#[track_caller]
pub(crate) fn said(run: &Finished, case: &str) -> String {
    let text = run.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{case}: ")));
    line.unwrap_or_else(|| panic!("nothing was said of {case}: {run:?}")).to_owned()
}

/// `GET /path` of every request with this action, in order. Refusals stand for as many as they were.
pub(crate) fn requests(run: &Finished, action: &str) -> Vec<String> {
    let of = |event: &&Event| event.class() == 4002 && event.action() == Some(action);
    let line = |event: &Event| {
        let text = |pointer| event.text(pointer).unwrap_or_default().to_owned();
        format!("{} {}", text("/http_request/http_method"), text("/http_request/url/path"))
    };
    let count = |event: &Event| event.0["count"].as_u64().unwrap_or(1) as usize;
    run.events.iter().filter(of).flat_map(|event| vec![line(event); count(event)]).collect()
}
