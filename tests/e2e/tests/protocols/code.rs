//! git: one repository that may be read, one that may be written as well.

use std::{fs, path::Path, process::Command};

use stockade_testkit::{Mode, Outer};

use crate::{
    need_programs,
    world::{ADDRESS, LONG, World, beside, quiet, requests, said},
};

const ENDPOINTS: &str = "
    code:
      hosts: [code.test]
      @site
      allow:
        - {methods: [GET], paths: [/theirs.git/info/refs], query: {service: [git-upload-pack]}}
        - {methods: [POST], paths: [/theirs.git/git-upload-pack]}
        - {methods: [GET, POST], paths: [/mine.git/**]}
";

const SCRIPT: &str = r#"
export HOME=$PWD GIT_TERMINAL_PROMPT=0
git config --global user.name tester && git config --global user.email tester@code.test
try() { name=$1; shift; "$@" >out 2>err && echo "$name: ok" || printf '%s: %s\n' $name "$(grep -v '^Cloning' err | tr '\n' ' ')"; }
site=https://code.test
change() { echo change >>$1/hello && git -C $1 commit -qam change; }

try read git clone -q $site/theirs.git theirs
cat theirs/hello
change theirs
try forbidden_push git -C theirs push -q
try fetch git -C theirs fetch -q
try clone git clone -q $site/mine.git mine
change mine
try push git -C mine push -q origin HEAD
try second git clone -q $site/mine.git second
change mine
try again git -C mine push -q origin HEAD
try pull git -C second pull -q
echo "pulled: $(grep -c change second/hello)"
try unknown git clone -q $site/others.git others
"#;

#[test]
fn a_repository_is_read_and_another_is_written_too() {
    need_programs!("git", "python3");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["code.test"]);
        for mode in Mode::available() {
            let root = outer.dir().join(format!("{mode:?}"));
            repositories(&root);
            let mut server = Command::new("python3");
            let mut server = world.serve(server.arg(beside("code.py")).arg(ADDRESS).arg(&root));
            let run = world.stockade(*mode, ENDPOINTS).sh(SCRIPT);

            for done in ["read", "fetch", "clone", "push", "second", "again", "pull"] {
                assert_eq!(said(&run, done), "ok", "{mode:?} {run:?}");
            }
            assert_eq!(said(&run, "pulled"), "2", "{mode:?} {run:?}");
            for refused in ["forbidden_push", "unknown"] {
                let text = said(&run, refused);
                assert!(text.contains("The requested URL returned error: 403"), "{refused} {mode:?} {run:?}");
            }
            let seen = server.seen();
            assert!(!seen.iter().any(|l| l.contains("others") || l.contains("theirs.git/git-receive")), "{seen:?}");
            assert!(!seen.iter().any(|l| l.contains("theirs.git/info/refs?service=git-receive")), "{seen:?}");
            assert!(seen.iter().any(|l| l == "POST /mine.git/git-receive-pack"), "{seen:?}");
            let denied = ["GET /theirs.git/info/refs", "GET /others.git/info/refs"];
            assert_eq!(requests(&run, "denied"), denied, "{mode:?} {run:?}");
            let without_query = |line: &String| line.split('?').next().unwrap().to_owned();
            assert_eq!(requests(&run, "allowed"), seen.iter().map(without_query).collect::<Vec<_>>(), "{mode:?}");
            // What would allow it: reading by the same path is allowed already.
            let rule = "{methods: [GET], paths: [/theirs.git/info/refs], query: {service: [git-receive-pack]}}";
            assert!(run.stderr.contains(rule), "{mode:?} {run:?}");
        }
    });
}

fn repositories(root: &Path) {
    fs::create_dir(root).unwrap();
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=t", "-c", "user.email=t@code.test", "-c", "init.defaultBranch=main"];
        quiet(Command::new("git").env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(root).args(who).args(args));
    };
    git(&["init", "-q", "work"]);
    fs::write(root.join("work/hello"), "hello\n").unwrap();
    git(&["-C", "work", "add", "hello"]);
    git(&["-C", "work", "commit", "-q", "-m", "first"]);
    for name in ["theirs.git", "mine.git"] {
        git(&["clone", "-q", "--bare", "work", name]);
    }
}
