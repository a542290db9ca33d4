//! Real servers, each of which keeps a list of the requests it saw.

use std::{
    collections::BTreeMap,
    env, fs,
    net::TcpStream,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::Value;
use stockade_testkit::{
    Outer,
    skip::record,
    upstream::{
        Https,
        https::{Authority, Options, Reply},
    },
};

/// One of them.
pub(crate) struct Origin {
    /// Its name, and the domain of its hosts.
    pub(crate) name: &'static str,
    pub(crate) addr: &'static str,
    kind: Kind,
}

enum Kind {
    /// In this process, with and without TLS.
    Hyper(Box<[Https; 2]>),
    /// Another program, and the file in which it lists its requests.
    Program(Child, PathBuf),
}

/// A request that an origin saw.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Saw {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Bytes of the body, where it knows.
    pub(crate) body: Option<usize>,
    /// Whether it refused it, or knows that it did not get all of it.
    pub(crate) broken: bool,
}

/// Where their programs and configurations are.
pub(crate) const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential/origins");

/// Those that are installed. Their certificates are for any host directly below `NAME.test` and `free-NAME.test`.
pub(crate) fn start(outer: &Outer, authority: &Authority) -> Vec<Origin> {
    let kinds: [(&str, &str, Start); 6] = [
        ("hyper", "192.0.2.21", hyper),
        ("nginx", "192.0.2.22", nginx),
        ("apache", "192.0.2.23", apache),
        ("node", "192.0.2.24", node),
        ("python", "192.0.2.25", python),
        ("golang", "192.0.2.26", golang),
    ];
    let mut all = Vec::new();
    for (name, addr, start) in kinds {
        let dir = outer.dir().join(name);
        fs::create_dir(&dir).unwrap();
        let names = vec![format!("*.{name}.test"), format!("*.free-{name}.test")];
        let place = Place { dir, addr, names };
        match start(&place, authority) {
            Ok(kind) => all.push(Origin { name, addr, kind }.ready()),
            Err(why) => record(format_args!("{name} is no origin of the differential run: {why}")),
        }
    }
    all
}

type Start = fn(&Place, &Authority) -> Result<Kind, String>;

/// Where an origin lives.
struct Place {
    dir: PathBuf,
    addr: &'static str,
    names: Vec<String>,
}

impl Place {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Writes key, certificate and an empty log, whose paths a program is given with its address.
    fn files(&self, authority: &Authority) -> [String; 4] {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let (certificate, key) = authority.issue(&names);
        let [log, at_key, at_cert] = ["log", "key", "cert"].map(|f| self.path(f));
        for (path, text) in [(&log, ""), (&at_key, &*key), (&at_cert, &*certificate)] {
            fs::write(path, text).unwrap();
        }
        [log, at_key, at_cert, self.addr.to_owned()]
    }

    /// Fills in a configuration file.
    fn configuration(&self, name: &str, authority: &Authority, extra: &[(&str, &str)]) -> String {
        let [log, key, cert, addr] = self.files(authority);
        let mut text = fs::read_to_string(Path::new(SOURCES).join(name)).unwrap();
        let dir = self.dir.display().to_string();
        let own = [("DIR", &*dir), ("LOG", &log), ("KEY", &key), ("CERT", &cert), ("ADDRESS", &addr)];
        for (word, value) in extra.iter().chain(&own) {
            text = text.replace(word, value);
        }
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, program: &Path, args: &[String]) -> Result<Kind, String> {
        let mut line = Command::new(program);
        line.args(args).current_dir(&self.dir).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        line.stderr(fs::File::create(self.dir.join("stderr")).unwrap());
        let child = line.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        Ok(Kind::Program(child, self.dir.join("log")))
    }
}

/// A program of this machine.
fn installed(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|p| p.is_file()).ok_or_else(|| format!("no {name}"))
}

/// As whom a server that starts as root goes on.
fn user(line: &'static str) -> &'static str {
    if nix::unistd::Uid::effective().is_root() { line } else { "" }
}

fn hyper(place: &Place, authority: &Authority) -> Result<Kind, String> {
    let names: Vec<&str> = place.names.iter().map(String::as_str).collect();
    let secure = Https::start(&format!("{}:443", place.addr), authority, &Options::of(&names), |_| Reply::ok("ok"));
    let plain = Https::plain(&format!("{}:80", place.addr), |_| Reply::ok("ok"));
    Ok(Kind::Hyper(Box::new([secure, plain])))
}

fn nginx(place: &Place, authority: &Authority) -> Result<Kind, String> {
    let program = installed("nginx")?;
    let file = place.configuration("nginx.conf", authority, &[("USER", user("user root;"))]);
    place.run(&program, &["-c".into(), file, "-e".into(), place.path("early")])
}

fn apache(place: &Place, authority: &Authority) -> Result<Kind, String> {
    let program = installed("apache2").or_else(|_| installed("httpd"))?;
    let modules = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules"];
    let modules = modules.into_iter().find(|m| Path::new(m).join("mod_lua.so").exists()).ok_or("no mod_lua")?;
    fs::copy(Path::new(SOURCES).join("apache.lua"), place.dir.join("apache.lua")).unwrap();
    let extra = [("MODULES", modules), ("USER", user("User nobody\nGroup #65534"))];
    let file = place.configuration("apache.conf", authority, &extra);
    place.run(&program, &["-f".into(), file, "-D".into(), "FOREGROUND".into()])
}

fn node(place: &Place, authority: &Authority) -> Result<Kind, String> {
    script(place, authority, &installed("node")?, "node.js")
}

fn python(place: &Place, authority: &Authority) -> Result<Kind, String> {
    script(place, authority, &installed("python3")?, "python.py")
}

fn script(place: &Place, authority: &Authority, program: &Path, name: &str) -> Result<Kind, String> {
    let mut args = vec![format!("{SOURCES}/{name}")];
    args.extend(place.files(authority));
    place.run(program, &args)
}

fn golang(place: &Place, authority: &Authority) -> Result<Kind, String> {
    let (go, built) = (installed("go")?, place.dir.join("origin"));
    // Kept from run to run: the first build compiles the standard library.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
    let mut line = Command::new(go);
    line.args(["build", "-o"]).arg(&built).arg(format!("{SOURCES}/go.go")).current_dir(&place.dir);
    line.env("GOCACHE", cache.join("cache")).env("GOPATH", cache.join("path")).env("GOFLAGS", "-mod=mod");
    let done = line.env("GO111MODULE", "off").env("CGO_ENABLED", "0").output().map_err(|e| e.to_string())?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    place.run(&built, &place.files(authority))
}

/// A chat over WebSockets for these hosts, and the authority that vouches for it.
pub(crate) fn chat(outer: &Outer, hosts: &[&str]) -> Result<(Origin, PathBuf), String> {
    let (authority, ca) = (Authority::new(), outer.dir().join("ca.pem"));
    fs::write(&ca, authority.pem()).unwrap();
    let (dir, addr) = (outer.dir().join("chat"), "192.0.2.20");
    fs::create_dir(&dir).unwrap();
    let place = Place { dir, addr, names: hosts.iter().map(|h| (*h).to_owned()).collect() };
    let kind = script(&place, &authority, &installed("node")?, "chat.js")?;
    Ok((Origin { name: "chat", addr, kind }.ready(), ca))
}

impl Origin {
    /// What its program wrote so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Kind::Program(_, log) = &self.kind else { return Vec::new() };
        fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits until it listens.
    fn ready(mut self) -> Self {
        let began = Instant::now();
        while TcpStream::connect((self.addr, 443)).is_err() {
            if let Kind::Program(child, log) = &mut self.kind {
                let told = || fs::read_to_string(log.with_file_name("stderr")).unwrap_or_default();
                assert!(child.try_wait().unwrap().is_none(), "{} ended: {}", self.name, told());
                assert!(began.elapsed() < Duration::from_secs(20), "{} does not listen: {}", self.name, told());
            }
            thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// Every request so far, by host.
    pub(crate) fn saw(&self) -> BTreeMap<String, Vec<Saw>> {
        let mut all = BTreeMap::<String, Vec<Saw>>::new();
        let mut add = |line: &str, host: &str, body, broken| {
            let mut words = line.splitn(3, ' ').map(str::to_owned);
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let host = host.split(':').next().unwrap_or_default().to_owned();
            all.entry(host).or_default().push(Saw { method, target, body, broken });
        };
        match &self.kind {
            Kind::Hyper(both) => {
                for r in both.iter().flat_map(Https::requests) {
                    let host = r.header("host").or(r.header(":authority")).unwrap_or_default().to_owned();
                    add(&r.line, &host, Some(r.body.len()), false);
                }
            }
            Kind::Program(_, log) => {
                // Apache writes `\x09` for what JSON has as `\u0009`.
                let text = String::from_utf8_lossy(&fs::read(log).unwrap()).replace("\\x", "\\u00");
                // A line that is being written has no end yet.
                for line in text.split_inclusive('\n').filter(|l| l.ends_with('\n')) {
                    let value: Value =
                        serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.name));
                    let text = |name: &str| value[name].as_str().unwrap_or_default();
                    let read = match value["read"].as_str() {
                        Some(read) => read.parse().ok(),
                        None => Some(text("text").len()),
                    };
                    let body = value["body"].as_u64().map_or(read, |n| usize::try_from(n).ok());
                    let status = value["status"].as_u64().unwrap_or(200);
                    let broken = value["cut"].as_bool().unwrap_or(false) || status >= 400;
                    // nginx and Apache also list connections on which nothing came.
                    if !matches!(text("line"), "" | "-") {
                        add(text("line"), text("host"), body, broken);
                    }
                }
            }
        }
        all
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Kind::Program(child, _) = &mut self.kind {
            // With its workers.
            killpg(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGKILL).ok();
            child.wait().ok();
        }
    }
}
