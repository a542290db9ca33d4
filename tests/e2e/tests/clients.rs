//! Every client of tests/clients.toml makes a verified request to an inspected host: with what it finds inside it
//! works, and without it fails.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde::Deserialize;
use stockade_testkit::{
    Mode, Outer, Stockade,
    audit::Event,
    outer::RESOLVER,
    skip,
    skip::record,
    upstream::{
        Dns, Https,
        https::{Authority, Options, Reply},
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    client: Vec<Client>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    name: String,
    told: Vec<String>,
    from: String,
    #[serde(default)]
    needs: Vec<PathBuf>,
    build: Option<String>,
    run: Option<String>,
    skip: Option<String>,
}

/// Where clients lie, as an ordinary user can read them.
struct Places {
    /// What tests/e2e/clients/install.sh installed.
    clients: PathBuf,
    /// What rows of the file built just now.
    built: PathBuf,
}

impl Places {
    fn new(built: &Path) -> Self {
        fs::set_permissions(built, fs::Permissions::from_mode(0o755)).unwrap();
        let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
        let clients = env::var_os("STOCKADE_CLIENTS").map_or(target.join("clients"), PathBuf::from);
        Self { clients, built: built.to_owned() }
    }

    /// Why this client cannot be run here.
    fn lacks(&self, client: &Client) -> Option<String> {
        if let Some(path) = client.needs.iter().find(|path| !self.clients.join(path).exists()) {
            return Some(format!("{} is not installed", path.display()));
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let build = client.build.as_ref()?;
        let done = Command::new("sh").args(["-ec", build]).current_dir(sources).env("BUILT", &self.built).output();
        let done = done.unwrap();
        (!done.status.success()).then(|| format!("could not be built: {}", String::from_utf8_lossy(&done.stderr)))
    }

    fn policy(&self) -> String {
        let granted = [&self.clients, &self.built].into_iter().filter(|p| p.exists());
        let granted: Vec<_> = granted.map(|p| p.display().to_string()).collect();
        format!(
            "version: 1
filesystem: {{baseline: true, read_only: [{}]}}
network:
  endpoints:
    site:
      hosts: [up.test]
      ports: [443]
      private_addresses: [192.0.2.0/24]
",
            granted.join(", ")
        )
    }
}

/// `run.sh` with what the sandbox gives.
const TOLD: &str = "
once() (
    mkdir $1 && cd $1 && export URL=https://up.test/$1
    timeout 40 sh ../run.sh > ../$1.out 2>&1 </dev/null
    echo \"$1: exit code $?\"; head -c 2000 ../$1.out
)
once told
";

/// Then without the variables.
const UNTOLD: &str = "
for name in $(env | grep -F /run/stockade/tls | cut -d= -f1); do unset $name; done
once untold
";

#[test]
fn clients_verify_with_what_they_find_inside() {
    // That a client verifies at all is its own doing, whoever started it: once is enough.
    walk(Mode::available()[0], &[TOLD, UNTOLD].concat());
}

#[test]
fn clients_verify_rootless_too() {
    match Mode::available() {
        [_, second, ..] => walk(*second, TOLD),
        _ => skip!("the tests do not run as root: the one mode there is has its test"),
    }
}

fn walk(mode: Mode, script: &str) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients.toml")).unwrap();
    let file: File = toml::from_str(&text).unwrap();
    let built = tempfile::tempdir().unwrap();
    let places = Places::new(built.path());
    let only = env::var("STOCKADE_CLIENT").unwrap_or_default();
    let rows: Vec<_> = file.client.into_iter().filter(|c| c.name.contains(&only)).collect();
    assert!(!rows.is_empty(), "no client has {only} in its name");
    for client in rows {
        let name = &client.name;
        assert!(!client.told.is_empty() && !client.from.is_empty(), "{name}");
        let lacks = match (&client.run, &client.skip) {
            (Some(_), None) => places.lacks(&client),
            (None, Some(why)) => Some(why.clone()),
            _ => panic!("{name}: one of `run` and `skip`"),
        };
        match lacks {
            Some(why) => record(format_args!("{name}: {why}")),
            None => {
                let since = Instant::now();
                trial(mode, &client, &places, script);
                println!("{mode:?} {name}: {:?}", since.elapsed());
            }
        }
    }
}

fn trial(mode: Mode, client: &Client, places: &Places, script: &str) {
    Outer::run(|outer| {
        let dns = Dns::start((RESOLVER, 53));
        dns.host("up.test", "192.0.2.10");
        let authority = Authority::new();
        let site = Https::start("192.0.2.10:443", &authority, &Options::of(&["up.test"]), |_| Reply::ok("hello\n"));
        let ca = outer.dir().join("origin.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let stockade = Stockade::new(mode).policy(&places.policy()).timeout(Duration::from_secs(90));
        let (clients, built) = (places.clients.display(), places.built.display());
        let run = format!("CLIENTS='{clients}' BUILT='{built}'\n{}\n", client.run.as_deref().unwrap_or_default());
        fs::write(stockade.work().join("run.sh"), run).unwrap();
        let done = stockade.arg("--upstream-ca").arg(&ca).sh(script);
        let arrived: Vec<String> = site.requests().iter().map(|r| r.target().to_owned()).collect();
        let name = &client.name;
        assert!(arrived.iter().any(|path| path.starts_with("/told")), "{name}: nothing arrived\n{done:?}");
        assert!(!arrived.iter().any(|path| path.starts_with("/untold")), "{name}: it does not verify\n{done:?}");
        // The command trusts the origin's authority too. The door read the request, so the certificate was the door's.
        let read = |e: &Event| e.text("/http_request/url/path").is_some_and(|path| path.starts_with("/told"));
        assert!(done.events.iter().any(read), "{name}: not read by the door\n{done:?}");
    });
}

#[test]
fn the_install_script_is_a_shell_script() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/install.sh");
    assert!(Command::new("sh").arg("-n").arg(script).status().unwrap().success());
}
