//! Package managers against the registries that this machine is configured for. Their hosts are found when the test
//! runs, by running each tool outside through a proxy that writes down where it goes; that run is also the control.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
    unistd::Uid,
};
use stockade_testkit::{Mode, Stockade, child::Child, skip};

use crate::need_tools;

/// Where tools are told of certificates; passed on where they are set.
const TRUST: [&str; 8] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
];

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// One package manager at work.
struct Tool<'a> {
    name: &'a str,
    /// Run by `sh`, in an empty directory; prints `installed` at its end.
    script: &'a str,
    /// Said by the tool when its registry is refused.
    words: &'a [&'a str],
    /// Put in front of PATH, and readable inside.
    bin: Option<&'a Path>,
    /// Readable inside besides the system's directories.
    grant: Option<&'a Path>,
}

/// The script once outside, then in every mode once with its hosts in the policy and once without.
fn install(tool: &Tool<'_>, furnish: impl Fn(&Path)) {
    let path = tool.bin.map_or(PATH.to_owned(), |bin| format!("{}:{PATH}", bin.display()));
    let proxy = Recorder::start();
    let outside = tempfile::tempdir().unwrap();
    furnish(outside.path());
    let mut control = Command::new("sh");
    control.args(["-c", tool.script]).current_dir(outside.path()).env_clear();
    control.env("PATH", &path).env("HOME", outside.path()).env("TMPDIR", outside.path());
    control.envs(TRUST.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        control.env(name, format!("http://{}", proxy.addr));
    }
    let out = control.output().unwrap();
    let hosts = proxy.seen();
    if !out.status.success() || hosts.is_empty() {
        let why = String::from_utf8_lossy(&out.stderr);
        skip!(
            "{} does not reach its registry from here: {}",
            tool.name,
            why.trim().chars().take(300).collect::<String>()
        );
    }
    for mode in Mode::available() {
        let start = |policy: &str| {
            let mut stockade = Stockade::new(*mode).policy(policy).timeout(Duration::from_secs(100));
            for name in TRUST.iter().filter(|n| env::var_os(n).is_some()) {
                stockade = stockade.env(name, env::var_os(name).unwrap()).arg("--env").arg(name);
            }
            furnish(&stockade.work());
            stockade.arg("--env").arg(format!("PATH={path}")).sh(tool.script)
        };
        let run = start(&policy(tool, &hosts));
        assert!(run.code() == 0 && run.text().ends_with("installed\n"), "allowed: {mode:?} {run:?}");
        assert_eq!(run.events.with("no_policy").len(), 0, "{mode:?} {run:?}");
        for (host, _) in &hosts {
            let allowed = run.events.iter().any(|e| e.host() == Some(host) && e.action() == Some("allowed"));
            assert!(allowed, "{host}: {mode:?} {run:?}");
        }

        let run = start(&policy(tool, &BTreeSet::new()));
        assert!(run.code() != 0 && !run.text().contains("installed"), "denied: {mode:?} {run:?}");
        let said = format!("{}{}", run.text(), run.stderr);
        assert!(tool.words.iter().any(|w| said.contains(w)), "none of {:?} is said: {mode:?} {run:?}", tool.words);
        let host = run.events.some("no_policy").host();
        assert!(hosts.iter().any(|(h, _)| Some(&**h) == host), "{mode:?} {run:?}");
        assert!(run.took < Duration::from_secs(40), "its own retries are all that it waits for: {mode:?} {run:?}");
    }
}

/// These hosts, with the addresses that they have here: a mirror's may be private ones.
fn policy(tool: &Tool<'_>, hosts: &BTreeSet<(String, u16)>) -> String {
    let grant: Vec<_> = tool.grant.iter().chain(&tool.bin).map(|p| p.display().to_string()).collect();
    let mut text = format!("version: 1\nfilesystem: {{baseline: true, read_only: [{}]}}\n", grant.join(", "));
    if !hosts.is_empty() {
        text += "network:\n  endpoints:\n";
    }
    for (index, (host, port)) in hosts.iter().enumerate() {
        let addrs = (&**host, *port).to_socket_addrs().unwrap().map(|a| a.ip());
        let addrs: BTreeSet<_> = addrs.map(|a| format!("'{a}/{}'", if a.is_ipv4() { 32 } else { 128 })).collect();
        let addrs: Vec<_> = addrs.into_iter().collect();
        text +=
            &format!("    registry{index}:\n      hosts: [{host}]\n      ports: [{port}]\n      tls: passthrough\n");
        text += &format!("      private_addresses: [{}]\n", addrs.join(", "));
    }
    text
}

#[test]
fn pip() {
    need_tools!(inside: "python3");
    let script = "python3 -m venv --without-pip v && python3 -m pip --python v/bin/python install --no-input six && v/bin/python -c 'import six' && echo installed";
    let words = &["403 Forbidden", "No matching distribution"];
    install(&Tool { name: "pip", script, words, bin: None, grant: None }, |_| {});
}

#[test]
fn npm() {
    need_tools!(inside: "npm", "node");
    // The user's own configuration is not visible inside; its registry is.
    let registry = Command::new("npm").args(["config", "get", "registry"]).output().unwrap();
    let registry = String::from_utf8_lossy(&registry.stdout).trim().to_owned();
    let script = format!(
        "npm install --registry {registry} is-number@7.0.0 && node -e 'require(\"is-number\")' && echo installed"
    );
    let words = &["403", "E403"];
    install(&Tool { name: "npm", script: &script, words, bin: None, grant: None }, |_| {});
}

/// A whole build, with the toolchain mounted where an ordinary user can read it.
#[test]
fn cargo() {
    need_tools!(outside: "rustc");
    need_tools!(inside: "cc");
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if !sysroot.join("bin/cargo").is_file() {
        skip!("no cargo in {}", sysroot.display());
    }
    let furnish = |dir: &Path| {
        let manifest =
            "[package]\nname = \"program\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"1\"\n";
        fs::write(dir.join("Cargo.toml"), manifest).unwrap();
        fs::create_dir(dir.join("src")).unwrap();
        fs::write(dir.join("src/main.rs"), "fn main() { println!(\"{}\", itoa::Buffer::new().format(7)) }\n").unwrap();
    };
    let script = "export CARGO_TARGET_DIR=$PWD/target CARGO_NET_GIT_FETCH_WITH_CLI=false
        cargo build -q && test $(target/debug/program) = 7 && echo installed";
    let work = |toolchain: &Path| {
        let bin = toolchain.join("bin");
        let words = &["403"];
        install(&Tool { name: "cargo", script, words, bin: Some(&bin), grant: Some(toolchain) }, furnish);
    };
    if !Uid::effective().is_root() {
        return work(&sysroot);
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Child::new().namespaces(CloneFlags::CLONE_NEWNS).timeout(Duration::from_secs(170)).run(|| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some(&sysroot), place.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        work(place.path());
    });
}

/// `apt-get update` into directories of its own, with the smallest of the configured sources.
#[test]
fn apt() {
    need_tools!(inside: "apt-get");
    let Some(source) = apt_source() else {
        skip!("no source in deb822 form is configured for apt");
    };
    let furnish = |dir: &Path| {
        fs::write(dir.join("one.sources"), &source).unwrap();
    };
    let script = "mkdir -p state/lists/partial cache/archives/partial
        apt-get -o Dir::State=$PWD/state -o Dir::State::status=/dev/null -o Dir::Cache=$PWD/cache -o Dir::Etc::sourceparts=/dev/null \
            -o Dir::Etc::sourcelist=$PWD/one.sources -o APT::Sandbox::User= -o APT::Update::Error-Mode=any update \
            && ls state/lists | grep -q Packages && echo installed";
    install(&Tool { name: "apt-get", script, words: &["403  Forbidden"], bin: None, grant: None }, furnish);
}

/// A stanza of the machine's sources: one of security updates where there is one, because they are small.
fn apt_source() -> Option<String> {
    let dir = fs::read_dir("/etc/apt/sources.list.d").ok()?;
    let files = dir.flatten().map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "sources"));
    let stanzas: Vec<String> = files
        .filter_map(|p| fs::read_to_string(p).ok())
        .flat_map(|t| t.split("\n\n").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let usable = || stanzas.iter().filter(|s| s.contains("URIs:"));
    usable().find(|s| s.contains("-security")).or_else(|| usable().next()).cloned()
}

/// A proxy outside that forwards everything and remembers where to.
struct Recorder {
    addr: SocketAddr,
    hosts: Arc<Mutex<BTreeSet<(String, u16)>>>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let recorder = Self { addr: listener.local_addr().unwrap(), hosts: Arc::default() };
        let hosts = Arc::clone(&recorder.hosts);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let hosts = Arc::clone(&hosts);
                thread::spawn(move || drop(forward(client, &hosts)));
            }
        });
        recorder
    }

    fn seen(&self) -> BTreeSet<(String, u16)> {
        self.hosts.lock().unwrap().clone()
    }
}

/// CONNECT, or requests in absolute form, all of one connection to one host.
fn forward(client: TcpStream, hosts: &Mutex<BTreeSet<(String, u16)>>) -> io::Result<()> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a proxy request");
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next().ok_or_else(wrong)?, words.next().ok_or_else(wrong)?);
    let tunnel = method == "CONNECT";
    let authority = target.trim_start_matches("http://").split('/').next().ok_or_else(wrong)?;
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let port = port.parse().map_err(io::Error::other)?;
    let mut server = TcpStream::connect((host, port))?;
    hosts.lock().unwrap().insert((host.to_owned(), port));
    if tunnel {
        while line.trim_end() != "" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    } else {
        server.write_all(line.as_bytes())?;
    }
    let (mut from, mut to) = (server.try_clone()?, client);
    let back = thread::spawn(move || {
        let done = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write).ok();
        done
    });
    copy(&mut reader, &mut server)?;
    server.shutdown(Shutdown::Write).ok();
    back.join().map_err(|_| wrong())?.map(drop)
}

/// What the reader holds already goes first.
fn copy(reader: &mut BufReader<TcpStream>, server: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            n => server.write_all(&buffer[..n])?,
        }
    }
}
