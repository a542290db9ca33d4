//! pip, npm and cargo against look-alikes of their registries, in which one package is allowed and another is not.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::mount::{MsFlags, mount};
use stockade_testkit::{
    Mode, Outer, skip,
    upstream::https::{Https, Options, Reply},
};

use crate::{
    need_programs,
    world::{LONG, World, quiet, requests, said},
};

/// Answers by path.
type Files = BTreeMap<String, (&'static str, Vec<u8>)>;

const SCRIPT: &str = r#"
export HOME=$PWD
try() { name=$1; shift; "$@" >$name.log 2>&1 && echo "$name: ok" || printf '%s: %s\n' $name "$(tr '\n' ' ' <$name.log)"; }
"#;

/// Runs `script` in every mode: `fine` is installed, `evil` is refused by one request of `denied`, and nothing of it
/// reached the registry.
fn registry(world: &World, files: Files, (endpoint, script, denied): (&str, &str, &[&str])) {
    let name = endpoint.split("hosts: [").nth(1).unwrap().split(']').next().unwrap();
    let options = Options::of(&[name]);
    let site = Https::start("192.0.2.10:443", &world.authority, &options, move |request| {
        match files.get(request.target().split('?').next().unwrap()) {
            Some((kind, bytes)) => {
                let mut reply = Reply::ok("").header("content-type", kind);
                reply.pieces[0].1.clone_from(bytes);
                reply
            }
            None => Reply { status: 404, ..Reply::ok("not here\n") },
        }
    });
    for mode in Mode::available() {
        let before = site.requests().len();
        let run = world.stockade(*mode, endpoint).sh(&format!("{SCRIPT}{script}"));
        assert_eq!(said(&run, "fine"), "ok", "{mode:?} {run:?}");
        let refused = said(&run, "evil");
        // pip looks elsewhere when an index refuses, and finds nothing.
        let words = ["403", "No matching distribution found for evil"];
        assert!(words.iter().any(|word| refused.contains(word)), "{mode:?} {run:?}");
        let got = requests(&run, "denied");
        assert!(!got.is_empty() && got.iter().all(|line| denied.contains(&&**line)), "{got:?} {mode:?} {run:?}");
        let seen = site.requests().split_off(before);
        assert!(!seen.is_empty() && seen.iter().all(|r| !r.target().contains("evil")), "{mode:?} {seen:?}");
        let lines = |r: &stockade_testkit::upstream::Request| {
            let mut words = r.line.split([' ', '?']);
            format!("{} {}", words.next().unwrap(), words.next().unwrap())
        };
        let (mut seen, mut allowed): (Vec<_>, _) = (seen.iter().map(lines).collect(), requests(&run, "allowed"));
        // Requests that went at the same time are written down as they end.
        seen.sort();
        allowed.sort();
        assert_eq!(seen, allowed, "{mode:?} {run:?}");
    }
}

#[test]
fn pip() {
    need_programs!("python3");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["index.test"]);
        let make = r#"
import hashlib, zipfile
name, info = "fine-1.0-py3-none-any.whl", "fine-1.0.dist-info"
with zipfile.ZipFile(name, "w") as wheel:
    wheel.writestr("fine.py", "print('fine')\n")
    wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\nName: fine\nVersion: 1.0\n")
    wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "/RECORD", "fine.py,,\n%s/METADATA,,\n%s/WHEEL,,\n%s/RECORD,,\n" % (info, info, info))
print(hashlib.sha256(open(name, "rb").read()).hexdigest())
"#;
        let hash = quiet(Command::new("python3").args(["-c", make]).current_dir(outer.dir()));
        let wheel = "fine-1.0-py3-none-any.whl";
        let page = format!("<a href=\"/files/{wheel}#sha256={}\">{wheel}</a>\n", hash.trim());
        let files = Files::from([
            ("/simple/fine/".to_owned(), ("text/html", page.into_bytes())),
            (format!("/files/{wheel}"), ("application/zip", fs::read(outer.dir().join(wheel)).unwrap())),
        ]);
        let endpoint = "
    index:
      hosts: [index.test]
      @site
      allow: [{methods: [GET], paths: [/simple/fine/, '/files/fine-*']}]
";
        let script = "
get() { try $1 python3 -m pip install --isolated --no-input --disable-pip-version-check --retries 0 --target got \
    --index-url https://index.test/simple $1==1.0; }
get fine
get evil
python3 -c 'import sys; sys.path.insert(0, \"got\"); import fine'
";
        registry(&world, files, (endpoint, script, &["GET /simple/evil/"]));
    });
}

#[test]
fn npm() {
    need_programs!("npm", "node");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["npm.test"]);
        let package = outer.dir().join("package");
        fs::create_dir(&package).unwrap();
        fs::write(package.join("package.json"), r#"{"name": "fine", "version": "1.0.0"}"#).unwrap();
        fs::write(package.join("index.js"), "console.log('fine')\n").unwrap();
        quiet(Command::new("tar").args(["czf", "fine-1.0.0.tgz", "package"]).current_dir(outer.dir()));
        let page = r#"{"name": "fine", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "fine",
            "version": "1.0.0", "dist": {"tarball": "https://npm.test/fine/-/fine-1.0.0.tgz"}}}}"#;
        let files = Files::from([
            ("/fine".to_owned(), ("application/json", page.as_bytes().to_vec())),
            (
                "/fine/-/fine-1.0.0.tgz".to_owned(),
                ("application/octet-stream", fs::read(outer.dir().join("fine-1.0.0.tgz")).unwrap()),
            ),
        ]);
        let endpoint = "
    npm:
      hosts: [npm.test]
      @site
      allow: [{methods: [GET], paths: [/fine, /fine/-/*]}]
";
        // What is installed is also sent to be audited, which npm does without.
        let script = "
get() { try $1 npm install --registry https://npm.test --fetch-retries 0 --no-fund --no-update-notifier $1@1.0.0; }
get fine
get evil
node -e 'require(\"fine\")'
";
        let audit = "POST /-/npm/v1/security/advisories/bulk";
        let quick = "POST /-/npm/v1/security/audits/quick";
        registry(&world, files, (endpoint, script, &["GET /evil", audit, quick]));
    });
}

#[test]
fn cargo() {
    let Ok(out) = Command::new("rustc").args(["--print", "sysroot"]).output() else { skip!("no rustc") };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
    if !sysroot.join("bin/cargo").is_file() {
        skip!("no cargo in {}", sysroot.display());
    }
    Outer::run_within(LONG, |outer| {
        let mut world = World::start(outer, &["crates.test"]);
        let toolchain = outer.dir().join("toolchain");
        fs::create_dir(&toolchain).unwrap();
        fs::set_permissions(&toolchain, fs::Permissions::from_mode(0o755)).unwrap();
        // Where an ordinary user can read it.
        mount(Some(&sysroot), &toolchain, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let endpoint = "
    crates:
      hosts: [crates.test]
      @site
      allow: [{methods: [GET], paths: [/index/config.json, /index/fi/ne/fine, '/dl/fine/*']}]
";
        let script = format!(
            "export CARGO_HOME=$PWD/home PATH={}/bin:$PATH
mkdir -p home
printf '[registries.look]\\nindex = \"sparse+https://crates.test/index/\"\\n[net]\\nretry = 0\\n' >home/config.toml
get() {{
    mkdir -p $1-user/src && : >$1-user/src/lib.rs
    printf '[package]\\nname = \"user\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[dependencies]\\n%s = {{ version = \"1\", registry = \"look\" }}\\n' $1 >$1-user/Cargo.toml
    try $1 cargo fetch --manifest-path $1-user/Cargo.toml
}}
get fine
get evil
cat home/registry/src/*/fine-1.0.0/src/lib.rs
",
            toolchain.display()
        );
        world.granted.push(toolchain);
        registry(&world, crate_files(outer.dir()), (endpoint, &script, &["GET /index/ev/il/evil"]));
    });
}

/// A sparse index with one crate.
fn crate_files(dir: &Path) -> Files {
    let source = dir.join("fine-1.0.0");
    fs::create_dir_all(source.join("src")).unwrap();
    fs::write(source.join("Cargo.toml"), "[package]\nname = \"fine\"\nversion = \"1.0.0\"\nedition = \"2021\"\n")
        .unwrap();
    fs::write(source.join("src/lib.rs"), "// fine\n").unwrap();
    quiet(Command::new("tar").args(["czf", "fine.crate", "fine-1.0.0"]).current_dir(dir));
    let sum = quiet(Command::new("sha256sum").arg("fine.crate").current_dir(dir));
    let row = format!(
        r#"{{"name":"fine","vers":"1.0.0","deps":[],"cksum":"{}","features":{{}},"yanked":false}}"#,
        sum.split(' ').next().unwrap()
    );
    let config = r#"{"dl": "https://crates.test/dl/{crate}/{version}"}"#;
    Files::from([
        ("/index/config.json".to_owned(), ("application/json", config.as_bytes().to_vec())),
        ("/index/fi/ne/fine".to_owned(), ("text/plain", format!("{row}\n").into_bytes())),
        ("/dl/fine/1.0.0".to_owned(), ("application/gzip", fs::read(dir.join("fine.crate")).unwrap())),
    ])
}
