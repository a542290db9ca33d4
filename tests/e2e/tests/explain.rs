//! What `policy explain` says to a person, for programs and for what is wrong with the question: held in
//! tests/golden/explain.txt; `STOCKADE_BLESS=1` writes it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Command};

use stockade_testkit::runner::program;

const POLICY: &str = "version: 1
network:
  endpoints:
    everybody: {hosts: ['*.test.example'], allow: [{methods: [GET]}]}
    tool: {hosts: [api.test.example], binaries: [DIR/link]}
    pinned:
      hosts: [api.test.example]
      binaries: [{path: DIR/pinned, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}]
    script:
      hosts: [index.test.example]
      binaries: {any: [/usr/bin/python3, /bin/sh], ancestors: true, scripts: [/usr/bin/pip]}
";
const PIN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const API: &str = "api.test.example:443";
const INDEX: &str = "index.test.example:443";

#[test]
fn explain_says_what_a_program_may_do() {
    let questions: [&[&str]; 16] = [
        &[API],
        &[API, "--program", "DIR/tool"],
        &[API, "--program", "DIR/link"],
        &[API, "--program", "DIR/other"],
        &[API, "--program", "DIR/pinned", "--sha256", PIN],
        &[API, "--program", "DIR/pinned"],
        &["https://api.test.example/x", "-X", "POST", "--program", "DIR/other"],
        &["https://api.test.example/x", "-X", "POST", "--program", "DIR/tool"],
        &[INDEX, "--program", "/usr/bin/python3", "--script", "/usr/bin/pip"],
        &[
            INDEX,
            "--program",
            "/usr/bin/python3",
            "--script",
            "/usr/bin/pip",
            "--ancestor",
            "/bin/sh",
            "--ancestor",
            "/bin/x",
        ],
        &[INDEX, "--program", "/usr/bin/python3", "--json"],
        // What is wrong with the question.
        &[API, "--program", "tool"],
        &[API, "--script", "/usr/bin/pip"],
        &[API, "--ancestor", "/bin/sh"],
        &[API, "--program", "/bin/sh", "--sha256", "ABC"],
        &[API, "--program", "/bin/sh\x1b[31m\n/x"],
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().display().to_string();
    for file in ["tool", "other", "pinned"] {
        fs::write(dir.path().join(file), file).unwrap();
    }
    symlink("tool", dir.path().join("link")).unwrap();
    fs::write(dir.path().join("policy.yaml"), POLICY.replace("DIR", &path)).unwrap();
    let mut text = String::new();
    for question in questions {
        let arguments: Vec<_> = question.iter().map(|word| word.replace("DIR", &path)).collect();
        let mut explain = Command::new(program(false));
        explain.args(["policy", "explain", "--policy", "policy.yaml"]).args(arguments).current_dir(dir.path());
        let done = explain.env_remove("COLUMNS").output().unwrap();
        let said = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
        let code = done.status.code().unwrap();
        text += &format!("== {} ({code})\n{said}", question.join(" ").escape_debug());
    }
    let text = text.replace(&path, "DIR");
    assert!(!text.contains('\x1b'), "{text}");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/explain.txt");
    if env::var_os("STOCKADE_BLESS").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    let want = fs::read_to_string(&golden).unwrap();
    assert!(text == want, "not as in {}: `STOCKADE_BLESS=1` writes it\n{text}", golden.display());
}
