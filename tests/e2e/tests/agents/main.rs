//! Four coding agents finish a turn inside, each with a placeholder for its key, through the intercepted host of its
//! provider. The provider is a mock behind a certificate of the test's own authority, and sees the real key only.
//!
//! The agents are looked for in `target/agents/node_modules/.bin` and in `PATH`; docs/agents.md says how to install
//! them. One that is not there is skipped and said.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use stockade_testkit::{
    Mode, Outer, Stockade,
    outer::RESOLVER,
    skip,
    upstream::{
        Dns, Https,
        https::{Authority, Options},
    },
};

/// What only the supervisor and the mock know.
const KEY: &str = "sk-THE-REAL-KEY-0123456789abcdefghij-THE-REAL-KEY";

/// One agent: what it is called, who its provider is, how the key gets there, what it may ask, and what to run.
struct Agent {
    name: &'static str,
    host: &'static str,
    variable: &'static str,
    inject: &'static str,
    allow: &'static str,
    script: &'static str,
}

#[test]
fn claude_code_finishes_a_turn() {
    turn(&Agent {
        name: "claude",
        host: "api.anthropic.com",
        variable: "ANTHROPIC_API_KEY",
        inject: r#"{header: x-api-key, value: "{secret}"}"#,
        allow: "{methods: [POST], paths: [/v1/messages]}",
        script: "claude -p 'create out.txt with the shell' --allowedTools Bash --output-format json",
    });
}

#[test]
fn codex_finishes_a_turn() {
    turn(&Agent {
        name: "codex",
        host: "api.openai.com",
        variable: "CODEX_API_KEY",
        inject: r#"{header: authorization, value: "Bearer {secret}"}"#,
        allow: "{methods: [GET, POST], paths: [/v1/responses]}",
        script: r#"
            mkdir -p $HOME/.codex
            printf 'model = "gpt-5"\n[analytics]\nenabled = false\n[features]\nplugins = false\n' >$HOME/.codex/config.toml
            codex exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox 'create out.txt with the shell'
        "#,
    });
}

#[test]
fn opencode_finishes_a_turn() {
    turn(&Agent {
        name: "opencode",
        host: "model.test",
        variable: "MODEL_API_KEY",
        inject: r#"{header: authorization, value: "Bearer {secret}"}"#,
        allow: "{methods: [POST], paths: [/v1/chat/completions]}",
        script: r#"
            cat >opencode.json <<'END'
            {"autoupdate": false, "share": "disabled", "permission": {"bash": "allow"}, "provider": {"mock": {
                "npm": "@ai-sdk/openai-compatible", "models": {"mock": {"tool_call": true}},
                "options": {"baseURL": "https://model.test/v1", "apiKey": "{env:MODEL_API_KEY}"}}}}
END
            opencode run -m mock/mock 'create out.txt with the shell'
        "#,
    });
}

#[test]
fn gemini_finishes_a_turn() {
    turn(&Agent {
        name: "gemini",
        host: "generativelanguage.googleapis.com",
        variable: "GEMINI_API_KEY",
        inject: r#"{header: x-goog-api-key, value: "{secret}"}"#,
        allow: r#"{methods: [POST], paths: ["/v1beta/models/*"]}"#,
        script: r#"
            mkdir -p $HOME/.gemini
            cat >$HOME/.gemini/settings.json <<'END'
            {"security": {"auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": false},
             "general": {"enableAutoUpdate": false}}
END
            GEMINI_CLI_TRUST_WORKSPACE=true gemini -m gemini-2.5-flash --approval-mode yolo --skip-trust \
                -p 'create out.txt with the shell'
        "#,
    });
}

fn turn(agent: &Agent) {
    let Some((program, tree)) = find(agent.name) else {
        skip!("{} is not installed where an ordinary user can run it", agent.name);
    };
    Outer::run_within(Duration::from_secs(175), |_| {
        let (authority, dns) = (Authority::new(), Dns::start((RESOLVER, 53)));
        dns.host(agent.host, "192.0.2.10");
        let options = Options::of(&[agent.host]);
        let mock = Https::start("192.0.2.10:443", &authority, &options, |request| model::answer(request, KEY));
        for mode in Mode::available() {
            one_turn(agent, *mode, &authority, &mock, (&program, &tree));
        }
    });
}

fn one_turn(agent: &Agent, mode: Mode, authority: &Authority, mock: &Https, (program, tree): (&Path, &Path)) {
    let policy = format!(
        "
version: 1
filesystem:
  read_only: [{tree}]
  read_write: [.]
network:
  endpoints:
    model:
      hosts: [{host}]
      private_addresses: [192.0.2.0/24]
      upstream: {{roots: ca.pem}}
      credentials: [model-key]
      allow: [{allow}]
credentials:
  model-key:
    env: {variable}
    source: env:REAL_KEY
    inject: {inject}
",
        tree = tree.display(),
        host = agent.host,
        variable = agent.variable,
        inject = agent.inject,
        allow = agent.allow,
    );
    // Brackets keep the pattern from finding itself.
    let script = format!(
        "export HOME=$PWD/home PATH={directory}:$PATH TERM=xterm-256color; mkdir -p $HOME
        {script}
        echo \"agent ended with $?\"
        echo \"placeholder=${variable}\"
        env | grep 'THE-[R]EAL-KEY'
        grep -rl --exclude-dir=node_modules 'THE-[R]EAL-KEY' . /tmp /var/tmp /dev/shm /proc/*/environ /proc/*/cmdline 2>/dev/null
        echo searched",
        directory = program.parent().unwrap().display(),
        script = agent.script.trim(),
        variable = agent.variable,
    );
    let before = mock.requests().len();
    let stockade = Stockade::new(mode).policy(&policy).env("REAL_KEY", KEY).timeout(Duration::from_secs(120));
    fs::write(stockade.policy_path().with_file_name("ca.pem"), authority.pem()).unwrap();
    let (work, run) = (stockade.work(), stockade.sh(&script));

    let text = run.text();
    assert!(text.contains(model::DONE) && text.contains("agent ended with 0"), "{mode:?} {run:?}");
    assert_eq!(fs::read_to_string(work.join("out.txt")).unwrap(), "hello-from-mock", "{mode:?} {run:?}");
    let rest = text.split("placeholder=").nth(1).unwrap();
    let (placeholder, found) = rest.split_once('\n').unwrap();
    assert!(placeholder.len() > 20 && placeholder != KEY, "{mode:?} {run:?}");
    assert_eq!(found, "searched\n", "the real key is inside: {mode:?} {run:?}");

    let seen = &mock.requests()[before..];
    assert!(seen.len() >= 2, "{mode:?} {run:?}");
    for request in seen {
        let held = [request.line.as_bytes(), &request.body].concat();
        let fields = request.headers.iter().map(|(_, value)| value.as_str()).collect::<String>();
        let held = format!("{}{fields}", String::from_utf8_lossy(&held));
        assert!(!held.contains(placeholder), "the placeholder left: {mode:?} {request:?}");
        assert_eq!(model::credential(request), Some(KEY), "{mode:?} {request:?}");
    }
    assert!(!format!("{:?}{}", run.events, run.stderr).contains(KEY), "{mode:?}: the key is in the log");
}

/// The program of that name, and the directory that it needs to run: its `node_modules`, or its own.
fn find(name: &str) -> Option<(PathBuf, PathBuf)> {
    let own = env::current_exe().ok()?.ancestors().nth(3)?.join("agents/node_modules/.bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let places = [own].into_iter().chain(env::split_paths(&path));
    let program = places.map(|place| place.join(name)).find(|program| program.is_file())?;
    let real = fs::canonicalize(&program).ok()?;
    let tree = real.ancestors().filter(|a| a.file_name().is_some_and(|n| n == "node_modules")).last();
    let tree = tree.or_else(|| real.parent())?.to_owned();
    let entered = |dir: &Path| fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    let program = if tree.join(".bin").join(name).is_file() { tree.join(".bin").join(name) } else { real.clone() };
    real.ancestors().all(entered).then_some((program, tree))
}
