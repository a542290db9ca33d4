//! What the tools talk to: one site over HTTP and HTTPS with a file and a git repository, on a documentation address.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use stockade_testkit::{
    Outer,
    outer::RESOLVER,
    upstream::{Dns, Http, Response},
};

/// What the site's file says.
pub(crate) const HELLO: &str = "hello from upstream\n";

/// `up.test` with everything that the site serves. What is not here is denied.
pub(crate) const POLICY: &str = "
version: 1
network:
  endpoints:
    site:
      hosts: [up.test]
      ports: [80, 443]
      tls: passthrough
      private_addresses: [192.0.2.0/24]
";

/// Serves a directory over TLS: address, port, directory, certificate with key.
const TLS_SERVER: &str = "
import http.server, ssl, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def __init__(self, *args):
        super().__init__(*args, directory=sys.argv[2])
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3])
# The handshake happens on the connection's own thread, at the first read.
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print('ready', flush=True)
server.serve_forever()
";

/// The site is at 192.0.2.10, and the resolver knows `evil.test` there as well.
pub(crate) struct World {
    pub(crate) dns: Dns,
    pub(crate) http: Http,
    dir: PathBuf,
    tls: Option<Child>,
}

impl World {
    pub(crate) fn start(outer: &Outer) -> Self {
        let dns = Dns::start((RESOLVER, 53));
        for name in ["up.test", "evil.test"] {
            dns.host(name, "192.0.2.10");
        }
        let dir = outer.dir().join("site");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("hello"), HELLO).unwrap();
        let root = dir.clone();
        let http = Http::start("192.0.2.10:80", move |request| {
            let path = request.target().trim_start_matches('/').split('?').next().unwrap_or_default();
            match fs::read(root.join(path)) {
                Ok(bytes) => Response::Whole(200, bytes),
                Err(_) => Response::Whole(404, Vec::new()),
            }
        });
        Self { dns, http, dir, tls: None }
    }

    /// Adds HTTPS, with a certificate for `up.test` that is returned. Needs openssl and Python outside.
    pub(crate) fn tls(&mut self, outer: &Outer) -> PathBuf {
        let (key, cert) = (outer.dir().join("key.pem"), outer.dir().join("cert.pem"));
        let subject = ["-subj", "/CN=up.test", "-addext", "subjectAltName=DNS:up.test,DNS:evil.test"];
        let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509"]).args(kind).args(subject).arg("-keyout").arg(&key).arg("-out").arg(&cert);
        quiet(&mut openssl);
        let both = outer.dir().join("both.pem");
        fs::write(&both, [fs::read(&key).unwrap(), fs::read(&cert).unwrap()].concat()).unwrap();
        let mut server = Command::new("python3");
        server.args(["-c", TLS_SERVER, "192.0.2.10"]).arg(&self.dir).arg(both);
        self.tls = Some(ready(&mut server));
        cert
    }

    /// Adds a git repository, `/repo.git`, with the site's file in it.
    pub(crate) fn repository(&self) {
        let work = self.dir.join("work");
        let git = |args: &[&str]| {
            let mut git = Command::new("git");
            let who = ["-c", "user.name=t", "-c", "user.email=t@up.test", "-c", "init.defaultBranch=main"];
            git.env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(&self.dir).args(who).args(args);
            quiet(&mut git);
        };
        git(&["init", "-q", "work"]);
        fs::copy(self.dir.join("hello"), work.join("hello")).unwrap();
        git(&["-C", "work", "add", "hello"]);
        git(&["-C", "work", "commit", "-q", "-m", "first"]);
        git(&["clone", "-q", "--bare", "work", "repo.git"]);
        git(&["-C", "repo.git", "update-server-info"]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = &mut self.tls {
            server.kill().ok();
            server.wait().ok();
        }
    }
}

/// Starts a server and waits until it says that it is ready.
fn ready(server: &mut Command) -> Child {
    let mut child = server.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{server:?}: {e}"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{server:?}");
    child
}

/// Runs a command that has to succeed.
pub(crate) fn quiet(command: &mut Command) {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Where a tool is that the command can run too: the directories that the runner gives it.
pub(crate) fn inside(tool: &str) -> Option<PathBuf> {
    let dirs = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];
    dirs.into_iter().map(|d| Path::new(d).join(tool)).find(|p| p.is_file())
}

/// Where a tool is that only the test itself runs.
pub(crate) fn outside(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|d| d.join(tool)).find(|p| p.is_file())
}

/// Skips the running test unless each of the tools is installed.
#[macro_export]
macro_rules! need_tools {
    ($place:ident: $($tool:expr),+) => {
        for tool in [$($tool),+] {
            if $crate::world::$place(tool).is_none() {
                stockade_testkit::skip!("{tool} is not installed");
            }
        }
    };
}
