//! HTTP Basic in front of git, and the form of an OAuth token endpoint.

use std::{fs, path::Path, process::Command};

use stockade_testkit::{Mode, Outer};

use super::{Services, assert_kept_apart, beside, clients, need_services, said};
use crate::{
    LONG,
    world::{CANARY, base64},
};

const CODE: &str = r#"
network:
  endpoints:
    code: {hosts: [code.test], @site, credentials: [git]}
    other: {hosts: [other.test], @site}
credentials:
  git: {env: GIT_PASSWORD, source: "file:secret", inject: {basic: robot}}
"#;
const FREE: &str = "
network:
  endpoints:
    code: {hosts: [code.test], @site}
    token: {hosts: [token.test], @site}
";

fn repository(root: &Path) {
    fs::create_dir(root).unwrap();
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=t", "-c", "user.email=t@code.test", "-c", "init.defaultBranch=main"];
        let mut git = Command::new("git");
        let done = git.env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(root).args(who).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "-q", "work"]);
    fs::write(root.join("work/hello"), "hello\n").unwrap();
    git(&["-C", "work", "add", "hello"]);
    git(&["-C", "work", "commit", "-q", "-m", "first"]);
    git(&["clone", "-q", "--bare", "work", "ours.git"]);
}

#[test]
fn git_logs_in_with_a_placeholder() {
    if Command::new("git").arg("--version").output().is_err() {
        stockade_testkit::skip!("git is not installed");
    }
    need_services!(".");
    let setup = "
        export HOME=$PWD GIT_TERMINAL_PROMPT=0
        git config --global user.name tester && git config --global user.email tester@code.test
        try() { name=$1; shift; \"$@\" >out 2>&1 && echo \"$name: ok\" || echo \"$name: $(tr '\\n' ' ' <out)\"; }
    ";
    let script = r#"
        echo placeholder: $GIT_PASSWORD
        try named git clone -q https://robot:$GIT_PASSWORD@code.test/ours.git named
        try asked git -c credential.helper='!f() { echo username=robot; echo password=$GIT_PASSWORD; }; f' \
            clone -q https://code.test/ours.git asked
        echo change >>named/hello && git -C named commit -qam change
        try pushed git -C named push -q origin HEAD
        try own git clone -q https://robot:attackers@code.test/ours.git own
        echo "content: $(tr '\n' ' ' <own/hello)"
        try elsewhere git clone -q https://robot:$GIT_PASSWORD@other.test/ours.git elsewhere
    "#;
    Outer::run_within(LONG, |outer| {
        let mut services = Services::start(outer);
        for mode in Mode::available() {
            let (root, dir) = (outer.dir().join(format!("{mode:?}")), outer.dir());
            repository(&root);
            let backend = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocols/code.py");
            let mut code = Command::new("python3");
            code.arg(backend)
                .arg("127.0.0.3")
                .arg(&root)
                .args(["cert.pem", "key.pem", "code.log"].map(|f| dir.join(f)));
            services.run_told(&mut code);
            let run = services.stockade(*mode, CODE).sh(&format!("{setup}{script}"));
            let shown = services.shown();
            for case in ["named", "asked", "pushed", "own"] {
                assert_eq!(said(&run, case), "ok", "{case} {mode:?} {run:?} {shown:#?}");
            }
            assert_eq!(said(&run, "content"), "hello change ", "{mode:?} {run:?}");
            assert!(said(&run, "elsewhere").contains("403"), "{mode:?} {run:?}");
            run.events.some("cred_scope");
            assert_kept_apart(&run, &shown);
            let real = format!(" Basic {} ", base64(&format!("robot:{CANARY}")));
            let (taken, asked): (Vec<_>, Vec<_>) = shown.iter().partition(|line| line.starts_with("200 "));
            assert!(taken.len() >= 8 && taken.iter().all(|line| line.contains(&real)), "{mode:?} {shown:#?}");
            // git shows a password when it is asked for one: elsewhere only that question went through.
            let bare = |line: &&String| line.starts_with("401 ") && !line.contains("Basic");
            assert!(asked.len() == 1 && asked.iter().all(bare), "{mode:?} {shown:#?}");

            // The control: where nothing is put in, the server asks for the password that nobody has.
            let placeholder = said(&run, "placeholder");
            let bare = format!("{setup}try named git clone -q https://robot:{placeholder}@code.test/ours.git named");
            let refused = services.stockade(*mode, FREE).sh(&bare);
            assert!(said(&refused, "named").contains("Authentication failed"), "{mode:?} {refused:?}");
            assert!(services.shown().iter().all(|line| line.starts_with("401 ")), "{mode:?}");
            // The next mode has a server of its own at the same place.
            let mut code = services.children.pop().unwrap();
            code.kill().unwrap();
            code.wait().unwrap();
        }
    });
}

#[test]
fn an_oauth_client_gets_a_token_for_a_placeholder() {
    need_services!("python/requests", "python-oauth/authlib", "python-oauth/flask");
    let packages = format!("PYTHONPATH={0}/python:{0}/python-oauth", clients().display());
    let form = "
network:
  endpoints:
    token: {hosts: [token.test], @site, credentials: [robot]}
credentials:
  robot: {env: CLIENT_SECRET, source: \"file:secret\", inject: {body: form, field: client_secret}}
";
    let basic = form.replace("{body: form, field: client_secret}", "{basic: robot}");
    Outer::run_within(LONG, |outer| {
        let mut services = Services::start(outer);
        let path = format!("{}/python-oauth", clients().display());
        let mut endpoint = Command::new("/usr/bin/python3");
        // A secret with what a form has a meaning for. In Basic, OAuth would have it percent-encoded.
        let secret = "rEaL/FoRm+SeCrEt=0123&4";
        endpoint.env("PYTHONPATH", path).arg(beside("oauth_server.py")).args(["127.0.0.1", "8015", secret]);
        services.run_told(&mut endpoint);
        let token = "Bearer read & write 42";
        for mode in Mode::available() {
            // What is bound to one way of logging in is refused in the other.
            for (policy, good, bad) in [(form, "post", "basic"), (&basic, "basic", "post")] {
                let stockade = services.stockade(*mode, policy);
                fs::write(stockade.policy_path().with_file_name("secret"), secret).unwrap();
                fs::copy(beside("oauth_client.py"), stockade.work().join("client.py")).unwrap();
                let run = stockade.sh(&format!(
                    "echo placeholder: $CLIENT_SECRET
                    {packages} python3 client.py post client_secret_post basic client_secret_basic"
                ));
                let shown = services.shown();
                assert_eq!(said(&run, good), token, "{mode:?} {run:?} {shown:#?}");
                assert!(said(&run, bad).contains("denied by stockade"), "{mode:?} {run:?}");
                run.events.some("cred_surface");
                assert_kept_apart(&run, &shown);
                assert!(!run.text().contains(secret) && !run.stderr.contains(secret), "{mode:?} {run:?}");
                assert_eq!(shown.iter().filter(|line| line.starts_with("200 ")).count(), 1, "{mode:?} {shown:#?}");
            }
        }
        // The control: a placeholder that nobody replaces is a wrong secret.
        let stockade = services.stockade(Mode::available()[0], FREE);
        fs::copy(beside("oauth_client.py"), stockade.work().join("client.py")).unwrap();
        let other = "CLIENT_SECRET=0123456789abcdefghijABCDEFGHIJ0123456789";
        let refused = stockade.sh(&format!("{packages} {other} python3 client.py post client_secret_post"));
        assert!(said(&refused, "post").contains("invalid_client"), "{refused:?}");
    });
}
