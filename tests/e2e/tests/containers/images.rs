//! The images of deploy/docker: built here, and an agent finishes a turn in the example.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use stockade_testkit::{
    runner::program,
    skip,
    upstream::{
        Https,
        https::{Authority, Options},
    },
};

use crate::{
    engine,
    engine::{Engine, OPEN, Root, said},
    model,
};

/// What only the container's environment and the model know.
const KEY: &str = "sk-THE-REAL-KEY-0123456789abcdefghij-THE-REAL-KEY";
/// A network of documentation addresses with no way out of this machine.
const SUBNET: &str = "198.51.100.0/24";
const GATEWAY: &str = "198.51.100.1";

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/docker")
}

/// A network for one test, removed with the value.
struct Network(Engine);

impl Network {
    const NAME: &str = "stockade-test-net";

    fn new(engine: &Engine) -> Self {
        let made = engine
            .command()
            .args(["network", "create", "--internal", "--subnet", SUBNET, "--gateway", GATEWAY, Self::NAME])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", said(&made));
        Self(engine.clone())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What is left is named in the failure of the next run.
        let _ = self.0.command().args(["network", "rm", Self::NAME]).output();
    }
}

/// Claude Code, where it is installed.
fn claude() -> Option<PathBuf> {
    let own = env::current_exe().ok()?.ancestors().nth(3)?.join("agents/node_modules/.bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = [own].into_iter().chain(env::split_paths(&path)).map(|place| place.join("claude"));
    fs::canonicalize(places.find(|program| program.is_file())?).ok()
}

/// What stands for a distribution's image: Node, Python, a shell and the agent.
fn base(engine: &Engine, name: &str, agent: &Path) {
    let root = Root::new();
    for tool in [
        "/bin/sh",
        "/bin/bash",
        "/bin/cat",
        "/bin/ls",
        "/bin/grep",
        "/usr/bin/env",
        "/usr/bin/id",
        "/bin/sleep",
        "/bin/chown",
        "/bin/mkdir",
        "/bin/true",
    ] {
        root.install(Path::new(tool), None);
    }
    let which = |name: &str| {
        let found = Command::new("which").arg(name).output().unwrap();
        fs::canonicalize(String::from_utf8_lossy(&found.stdout).trim()).unwrap()
    };
    root.install(&which("node"), Some("/usr/bin/node"));
    root.install(Path::new("/usr/bin/python3"), Some("/usr/bin/python3"));
    let version =
        Command::new("/usr/bin/python3").args(["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]).output();
    let stdlib = String::from_utf8_lossy(&version.unwrap().stdout).trim().to_owned();
    root.tree(Path::new(&stdlib), &stdlib);
    root.install(agent, Some("/usr/bin/claude"));
    root.import(engine, name, &[]);
}

#[test]
fn an_agent_finishes_a_turn_in_the_example_image() {
    let docker = engine!(Engine::docker());
    let Some(agent) = claude() else { skip!("claude is not installed: docs/agents.md says how") };
    base(&docker, "stockade-test-node", &agent);
    let context = tempfile::tempdir().unwrap();
    fs::copy(program(false), context.path().join("stockade")).unwrap();
    docker.build(&sources().join("Dockerfile"), context.path(), "stockade-test-base", &[]);
    let example = sources().join("agent");
    let args = ["STOCKADE=stockade-test-base", "BASE=stockade-test-node"];
    docker.build(&example.join("Dockerfile"), &example, "stockade-test-agent", &args);

    let _network = Network::new(&docker);
    let authority = Authority::new();
    let options = Options::of(&["api.anthropic.com"]);
    let mock = Https::start(&format!("{GATEWAY}:443"), &authority, &options, |request| model::answer(request, KEY));
    let steering = tempfile::tempdir().unwrap();
    let policy = fs::read_to_string(example.join("policy.yaml")).unwrap();
    // The example's own policy, but for where its host is here and who signs for it.
    let here =
        format!("hosts: [api.anthropic.com]\n      private_addresses: [{SUBNET}]\n      upstream: {{roots: ca.pem}}");
    assert!(policy.contains("hosts: [api.anthropic.com]"));
    fs::write(steering.path().join("policy.yaml"), policy.replace("hosts: [api.anthropic.com]", &here)).unwrap();
    fs::write(steering.path().join("ca.pem"), authority.pem()).unwrap();
    let script =
        "claude -p 'create out.txt with the shell' --allowedTools Bash --output-format json; echo agent ended with $?
        cat out.txt; echo; echo \"placeholder=$ANTHROPIC_API_KEY\"; id; grep -E 'CapEff|Seccomp:' /proc/self/status
        python3 -c 'import urllib.request as u; u.urlopen(\"http://evil.test/\")'
        node -e 'require(\"net\").connect(22, \"203.0.113.9\").on(\"error\", e => console.log(\"direct\", e.code))'";
    let volume = format!("{}:/etc/stockade:ro", steering.path().display());
    let key = format!("ANTHROPIC_API_KEY={KEY}");
    let host = format!("api.anthropic.com:{GATEWAY}");
    let network = ["--network", Network::NAME, "--add-host", &host, "--volume", &volume, "--env", &key];
    let run = docker.run(&[&OPEN[..], &network].concat(), "stockade-test-agent", &["sh", "-c", script]);
    let text = said(&run);
    assert!(text.contains(model::DONE) && text.contains("agent ended with 0"), "{text}");
    assert!(text.contains("hello-from-mock\n") && text.contains("uid=1000"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000000") && text.contains("Seccomp:\t2"), "{text}");
    assert!(text.contains("403") && text.contains("direct ECONNREFUSED"), "denied hosts are denied: {text}");
    assert!(text.contains("evil.test"), "and the summary names them: {text}");
    assert!(text.contains("placeholder=") && !text.contains(KEY), "{text}");
    healthy(&docker);
    let seen = mock.requests();
    assert!(seen.len() >= 2 && seen.iter().all(|request| model::credential(request) == Some(KEY)), "{seen:?}");
}

/// The image's HEALTHCHECK asks the program in it, and the engine believes the answer.
fn healthy(docker: &Engine) {
    let run = docker.start(&OPEN, "stockade-test-agent", &["sh", "-c", "echo ready; exec sleep 300"]);
    run.wait_for("ready");
    assert_eq!(run.exec(&["/usr/bin/stockade", "health"]).status.code(), Some(0), "{}", run.logs());
    let status = ["inspect", "--format", "{{.State.Health.Status}}"];
    run.wait_until("the engine calls it healthy", |run| said(&run.order(&status)).trim() == "healthy");
    let began = std::time::Instant::now();
    run.order(&["stop"]);
    assert!(began.elapsed() < std::time::Duration::from_secs(9), "docker stop took {:?}", began.elapsed());
    assert_eq!(run.finish().status.code(), Some(143));
}

/// The distributed program needs nothing of an image: no shell, no library, no accounts, no certificates.
#[test]
fn the_static_program_runs_alone() {
    let docker = engine!(Engine::docker());
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dist");
    if !dist.join("stockade").is_file() {
        skip!("target/dist/stockade is not there: `make dist` builds it");
    }
    docker.build(&sources().join("Dockerfile"), &dist, "stockade-test-static", &[]);
    // The only program there is, as its own command.
    let inside = docker.run(&OPEN, "stockade-test-static", &["/usr/bin/stockade", "--version"]);
    assert_eq!(inside.status.code(), Some(0), "{}", said(&inside));
    assert!(said(&inside).contains("stockade 0."), "{}", said(&inside));
    let doctor =
        docker.run(&[&OPEN[..], &["--entrypoint", "/usr/bin/stockade"]].concat(), "stockade-test-static", &["doctor"]);
    // Every layer but for the limits that need cgroups which can be written.
    let weak = said(&doctor).lines().filter(|l| l.contains(" partial ") || l.contains(" absent ")).count();
    assert!(weak == 1 && said(&doctor).contains("memory: absent"), "{}", said(&doctor));
    assert_eq!(doctor.status.code(), Some(1), "{}", said(&doctor));
    let none = docker.run(&["--entrypoint", "/usr/bin/stockade"], "stockade-test-static", &["doctor"]);
    assert_eq!(none.status.code(), Some(1), "{}", said(&none));
    assert!(said(&none).contains("systempaths=unconfined"), "{}", said(&none));
    let absent = docker.run(&OPEN, "stockade-test-static", &["/bin/sh"]);
    assert_eq!(absent.status.code(), Some(127), "{}", said(&absent));
}
