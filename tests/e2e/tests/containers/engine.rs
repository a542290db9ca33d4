//! A container engine, images for it that need no registry, and what a container did.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use stockade_testkit::runner::{ORDINARY_UID, program};

/// The options with which a container can hold a sandbox.
pub(crate) const FILTER: &str = concat!("seccomp=", env!("CARGO_MANIFEST_DIR"), "/../../deploy/docker/seccomp.json");
pub(crate) const OPEN: [&str; 4] = ["--security-opt", FILTER, "--security-opt", "systempaths=unconfined"];

/// How long an engine may take to answer after it was started.
const START: Duration = Duration::from_secs(30);

/// A program that makes containers, `docker` or `podman`, with the words that come before its orders.
#[derive(Debug, Clone)]
pub(crate) struct Engine(Vec<String>);

impl Engine {
    pub(crate) fn new(words: &[&str]) -> Self {
        Self(words.iter().map(|word| (*word).to_owned()).collect())
    }

    /// Docker's, started if there is none and this is root; why not, otherwise. It goes on running: others use it too.
    pub(crate) fn docker() -> Result<Self, String> {
        let answers = || quiet(Command::new("docker").arg("version"));
        let _one = lock("engine");
        if answers() {
            return Ok(Self::new(&["docker"]));
        }
        if !nix::unistd::Uid::effective().is_root() {
            return Err("no Docker engine answers, and only root can start one".to_owned());
        }
        let log = File::create(std::env::temp_dir().join("stockade-test-dockerd.log")).map_err(|e| e.to_string())?;
        // A session of its own: the end of this test is not the engine's.
        Command::new("setsid")
            .args(["--fork", "dockerd"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .map_err(|e| format!("dockerd: {e}"))?;
        let began = Instant::now();
        while began.elapsed() < START {
            if answers() {
                return Ok(Self::new(&["docker"]));
            }
            thread::sleep(Duration::from_millis(200));
        }
        Err("dockerd was started and does not answer: see stockade-test-dockerd.log in the temporary directory"
            .to_owned())
    }

    /// Podman, where its containers start here.
    pub(crate) fn podman() -> Result<Self, String> {
        let podman = Self::new(&["podman"]);
        let image = podman.machine_image();
        let tried = podman.run(&["--network", "none"], &image, &["/bin/true"]);
        if tried.status.success() { Ok(podman) } else { Err(format!("podman starts no container: {}", said(&tried))) }
    }

    pub(crate) fn command(&self) -> Command {
        let mut line = Command::new(&self.0[0]);
        line.args(&self.0[1..]);
        line
    }

    /// Runs `words` in a container to their end.
    pub(crate) fn run(&self, options: &[&str], image: &str, words: &[&str]) -> Output {
        self.command().args(["run", "--rm"]).args(options).arg(image).args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts a container under a name of its own and leaves it running.
    pub(crate) fn start(&self, options: &[&str], image: &str, words: &[&str]) -> Container {
        let name = format!("stockade-test-{}-{:?}", std::process::id(), thread::current().id());
        let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let mut line = self.command();
        line.args(["run", "--name", &name]).args(options).arg(image).args(words);
        let client = line.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Container { engine: self.clone(), name, client: Some(client) }
    }

    /// Builds an image without a network: what it needs is there already.
    pub(crate) fn build(&self, file: &Path, context: &Path, name: &str, args: &[&str]) {
        let mut line = self.command();
        // The builder that every version has.
        line.env("DOCKER_BUILDKIT", "0").args(["build", "--network", "none", "--tag", name, "--file"]).arg(file);
        for arg in args {
            line.args(["--build-arg", arg]);
        }
        let made = line.arg(context).output().unwrap();
        assert!(made.status.success(), "{}", said(&made));
    }

    /// An image with the programs of this machine that the tests use, and the Stockade under test. Made once per build.
    pub(crate) fn machine_image(&self) -> String {
        let stockade = program(false);
        let meta = fs::metadata(&stockade).unwrap();
        let stamp = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let name = format!("localhost/stockade-test:{stamp}-{}", meta.len());
        let _one = lock("image");
        if !quiet(self.command().args(["image", "inspect", &name])) {
            let root = Root::new();
            for tool in TOOLS {
                root.install(Path::new(tool), None);
            }
            root.install(&stockade, Some("/usr/bin/stockade"));
            root.install(&probe(), Some("/usr/bin/probe"));
            root.import(self, &name, &["WORKDIR /work"]);
        }
        name
    }
}

/// Programs of the image.
const TOOLS: [&str; 17] = [
    "/bin/sh",
    "/bin/cat",
    "/bin/ls",
    "/usr/bin/id",
    "/bin/sleep",
    "/bin/grep",
    "/usr/bin/tr",
    "/usr/bin/env",
    "/bin/mkdir",
    "/usr/bin/seq",
    "/usr/bin/touch",
    "/usr/bin/curl",
    "/bin/true",
    "/bin/rm",
    "/bin/chmod",
    "/bin/ln",
    "/bin/echo",
];

fn probe() -> PathBuf {
    program(false).with_file_name("probe")
}

/// A root file system in the making.
pub(crate) struct Root(tempfile::TempDir);

impl Root {
    pub(crate) fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for dir in [
            "proc",
            "sys",
            "dev",
            "etc",
            "root",
            "run",
            "tmp",
            "var/tmp",
            "work",
            "home/agent",
            "usr/bin",
            "usr/lib",
            "usr/lib64",
        ] {
            fs::create_dir_all(root.at(dir)).unwrap();
        }
        for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/bin")] {
            symlink(target, root.at(link)).unwrap();
        }
        for dir in ["tmp", "var/tmp"] {
            fs::set_permissions(root.at(dir), fs::Permissions::from_mode(0o1777)).unwrap();
        }
        fs::set_permissions(root.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["work", "home/agent"] {
            chown(root.at(dir), Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
        }
        root.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n");
        root.write("etc/group", "root:x:0:\nagent:x:1000:\n");
        root
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    /// Puts a program and the libraries that it is linked with in place.
    pub(crate) fn install(&self, program: &Path, target: Option<&str>) {
        let name = program.file_name().unwrap().to_str().unwrap();
        let usual = format!("/usr/bin/{name}");
        self.copy(program, target.unwrap_or(&usual));
        let listed = Command::new("ldd").arg(program).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for library in listed.split_whitespace().filter(|word| word.starts_with('/')).collect::<BTreeSet<_>>() {
            let under_usr = if library.starts_with("/usr") { library.to_owned() } else { format!("/usr{library}") };
            self.copy(Path::new(library), &under_usr);
        }
    }

    fn copy(&self, from: &Path, to: &str) {
        let to = self.at(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(fs::canonicalize(from).unwrap(), to).unwrap();
    }

    /// Puts a directory in place, with everything below it.
    pub(crate) fn tree(&self, from: &Path, to: &str) {
        let to = self.at(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let copied = Command::new("cp").arg("-a").arg(from).arg(to).output().unwrap();
        assert!(copied.status.success(), "{}", said(&copied));
    }

    pub(crate) fn import(&self, engine: &Engine, name: &str, changes: &[&str]) {
        let mut tar =
            Command::new("tar").arg("-C").arg(self.0.path()).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = engine.command();
        line.arg("import");
        for change in changes {
            line.args(["--change", change]);
        }
        let made = line.args(["-", name]).stdin(tar.stdout.take().unwrap()).output().unwrap();
        assert!(tar.wait().unwrap().success() && made.status.success(), "{}", said(&made));
    }
}

/// A container that runs; removed when dropped.
pub(crate) struct Container {
    pub(crate) engine: Engine,
    pub(crate) name: String,
    client: Option<Child>,
}

impl Container {
    /// What it has written so far.
    pub(crate) fn logs(&self) -> String {
        said(&self.engine.command().args(["logs", &self.name]).output().unwrap())
    }

    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_until(&format!("`{text}` was written"), |c| c.logs().contains(text));
    }

    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < Duration::from_secs(60), "not within a minute: {what}\n{}", self.logs());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a command beside the entrypoint, as an operator does.
    pub(crate) fn exec(&self, words: &[&str]) -> Output {
        self.engine.command().args(["exec", &self.name]).args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// `stop`, `kill -s …`, and the like.
    pub(crate) fn order(&self, words: &[&str]) -> Output {
        let (order, options) = words.split_first().unwrap();
        self.engine.command().arg(order).args(options).arg(&self.name).output().unwrap()
    }

    /// Pid of its first process, outside.
    pub(crate) fn pid(&self) -> i32 {
        let out = self.engine.command().args(["inspect", "--format", "{{.State.Pid}}", &self.name]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse().unwrap()
    }

    /// Waits for its end and says how that was.
    pub(crate) fn finish(mut self) -> Output {
        self.client.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = quiet(self.engine.command().args(["rm", "--force", &self.name]));
        if let Some(mut client) = self.client.take() {
            let _ = client.wait();
        }
    }
}

/// Both streams.
pub(crate) fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn quiet(line: &mut Command) -> bool {
    line.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// One at a time, over all test processes; until the file is dropped.
fn lock(name: &str) -> File {
    let file = File::create(std::env::temp_dir().join(format!("stockade-test-{name}.lock"))).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}
