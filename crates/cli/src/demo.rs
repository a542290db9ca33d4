//! `demo`: everything at once, offline. An upstream of its own, a sandbox, what works in it and what does not, and the
//! audit of it. Nothing is relaxed for it: the upstream lives on a documentation address (RFC 5737) that the demo's
//! policy names.

mod inside;
mod upstream;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt, chown},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use stockade_audit::{Follow, export::text, follow::From, verify};
use stockade_supervisor::{
    self as supervisor, Access, Config, Duty, Limits, Operations, Posture, TerminalChoice, Voice, Workspace, offline,
};

use crate::{
    Failure,
    args::{DemoArgs, DemoPart},
};

const POLICY: &str = "\
version: 1
filesystem:
  read_write: [.]
network:
  endpoints:
    api:
      hosts: [api.demo.test]
      ports: [443]
      private_addresses: [192.0.2.0/24]
      allow: [{methods: [GET]}]
      credentials: [token]
credentials:
  token:
    env: DEMO_TOKEN
    source: file:token
    inject: {header: authorization, value: \"Bearer {secret}\"}
";

/// Who the sandboxed part is when root shows the demo.
const NOBODY: u32 = 65534;

pub(crate) fn run(args: &DemoArgs) -> Result<u8, Failure> {
    match args.part {
        Some(DemoPart::Inside) => inside::run(),
        Some(DemoPart::Upstream) => upstream::run(),
        None => show(),
    }
}

fn show() -> Result<u8, Failure> {
    let program = env::current_exe()?;
    let stage = Stage::set()?;
    println!("policy:\n{}", indent(POLICY));
    let (hosts, resolv) = (stage.file("hosts", "192.0.2.10 api.demo.test\n")?, stage.file("resolv.conf", "")?);
    let policy = stage.file("policy.yaml", POLICY)?;
    let log = stage.root.join("audit.log");
    offline::enter(&hosts, &resolv).map_err(|e| {
        Failure::new(format_args!("the demo's network cannot be made: {e}; `stockade doctor` says what is missing"))
    })?;
    let (mut upstream, token, authority) = upstream(&program)?;
    stage.file("token", &token)?;
    let authority = stage.file("upstream-ca.pem", &authority)?;
    let finished = supervisor::run(&config(&program, &stage, (&policy, authority), &log));
    // It has answered everything it was asked.
    let _ = upstream.kill().and_then(|()| upstream.wait());
    let finished = finished?;
    println!("\naudit log:");
    let mut events = Follow::open(&log, From::Beginning)?;
    events.poll(|line| println!("  {}", text(line)))?;
    let verified = verify(&log, None).map_err(Failure::new)?;
    println!("\nhash chain: whole, {} lines, head {}", verified.lines, verified.head);
    println!("next: stockade run -- COMMAND        docs: README.md");
    Ok(finished.code)
}

fn config(program: &Path, stage: &Stage, (policy, authority): (&Path, PathBuf), log: &Path) -> Config {
    Config {
        command: vec![program.into(), "demo".into(), "inside".into()],
        policy: vec![policy.to_owned()],
        allow: Vec::new(),
        posture: Posture::Enforce,
        workspace: Workspace { path: Some(stage.work.clone()), access: Some(Access::ReadWrite) },
        env: Vec::new(),
        user: None,
        limits: Limits::default(),
        upstream_ca: vec![authority],
        timeout: Some(std::time::Duration::from_secs(30)),
        grace: None,
        audit_log: Some(log.to_owned()),
        require: Vec::new(),
        terminal: TerminalChoice::Never,
        voice: Voice::Errors,
        read_only: vec![program.to_owned()],
        duty: Duty::default(),
        operations: Operations::default(),
        ssh: None,
    }
}

/// The upstream is a process of its own, because this one must stay single-threaded; it inherits the listener, and says
/// which token it wants and which authority signed for it.
fn upstream(program: &Path) -> io::Result<(Child, String, String)> {
    let listener = TcpListener::bind(("192.0.2.10", 443))?;
    let mut upstream = Command::new(program);
    upstream.args(["demo", "upstream"]).stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::piped());
    let mut upstream = upstream.spawn()?;
    let (mut token, mut pem) = (String::new(), String::new());
    if let Some(said) = upstream.stdout.take() {
        let mut said = BufReader::new(said);
        said.read_line(&mut token)?;
        while said.read_line(&mut pem)? > 0 && !pem.ends_with("-----END CERTIFICATE-----\n") {}
    }
    Ok((upstream, token, pem))
}

/// The demo's files; gone when it ends.
struct Stage {
    root: PathBuf,
    work: PathBuf,
}

impl Stage {
    fn set() -> io::Result<Self> {
        let root = fs::canonicalize(env::temp_dir())?.join(format!("stockade-demo-{}", std::process::id()));
        fs::create_dir(&root)?;
        let work = root.join("work");
        fs::create_dir(&work)?;
        // Fails for everybody but root, who else would have to run the inner part as nobody in a directory of root's.
        let _ = chown(&work, Some(NOBODY), Some(NOBODY));
        Ok(Self { root, work })
    }

    fn file(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Temporary files; what is left is the system's to clean.
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|l| format!("  {l}\n")).collect()
}
