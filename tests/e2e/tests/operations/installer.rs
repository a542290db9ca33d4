//! `install.sh` and the systemd unit: what is installed is what was checked, or nothing is.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use stockade_testkit::{runner::program, skip};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
}

struct Done {
    code: i32,
    said: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Place {
    /// A dist directory as `make dist` makes it, with the real program.
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let dist = place.at("dist");
        fs::create_dir(&dist).unwrap();
        fs::copy(program(false), dist.join("stockade")).unwrap();
        fs::copy(repository().join("deploy/systemd/stockade@.service"), dist.join("stockade@.service")).unwrap();
        place.sum();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sum(&self) {
        let sums =
            Command::new("sha256sum").args(["stockade", "stockade@.service"]).current_dir(self.at("dist")).output();
        fs::write(self.at("dist/SHA256SUMS"), sums.unwrap().stdout).unwrap();
    }

    fn install(&self, more: &[&str]) -> Done {
        let mut line = Command::new("sh");
        line.arg(repository().join("install.sh")).arg("--from").arg(self.at("dist")).arg("--prefix").arg(self.at("to"));
        let done = line.args(more).env("STOCKADE_UNIT_DIR", self.at("units")).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        Done { code: done.status.code().unwrap_or(-1), said: String::from_utf8_lossy(&said).into_owned() }
    }

    /// Every file below the target, temporary ones too.
    fn installed(&self) -> Vec<String> {
        let files = fs::read_dir(self.at("to/bin")).into_iter().flatten().flatten();
        let mut names: Vec<String> = files.map(|f| f.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn it_installs_what_was_checked_and_does_nothing_twice() {
    let place = Place::new();
    let first = place.install(&["--systemd"]);
    assert_eq!(first.code, 0, "{}", first.said);
    let (there, unit) = (place.at("to/bin/stockade"), place.at("units/stockade@.service"));
    assert_eq!(fs::read(&there).unwrap(), fs::read(place.at("dist/stockade")).unwrap());
    assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o7777, 0o755);
    assert!(unit.is_file() && first.said.contains("installed"), "{}", first.said);
    let before = fs::metadata(&there).unwrap().modified().unwrap();
    let again = place.install(&["--systemd"]);
    assert!(again.code == 0 && again.said.matches("is there already").count() == 2, "{}", again.said);
    assert_eq!(fs::metadata(&there).unwrap().modified().unwrap(), before, "not written again");
    fs::write(&there, "an older one").unwrap();
    assert_eq!(place.install(&[]).code, 0, "an upgrade");
    assert_eq!(fs::read(&there).unwrap(), fs::read(place.at("dist/stockade")).unwrap());
    assert_eq!(place.installed(), ["stockade"], "nothing is left beside it");
    let version = Command::new(&there).arg("--version").output().unwrap();
    assert!(version.status.success());
    assert_eq!(place.install(&["--uninstall"]).code, 0);
    assert!(place.installed().is_empty() && !unit.exists());
    assert_eq!(place.install(&["--uninstall"]).code, 0, "nothing to remove is no error");
}

#[test]
fn what_is_not_as_listed_is_not_installed() {
    type Damage = fn(&Place);
    let cases: [(&str, Damage); 7] = [
        ("was damaged or changed", |p| fs::write(p.at("dist/stockade"), "#!/bin/sh\nexit 0\n").unwrap()),
        ("does not list stockade", |p| fs::write(p.at("dist/SHA256SUMS"), "").unwrap()),
        ("has no SHA256SUMS", |p| fs::remove_file(p.at("dist/SHA256SUMS")).unwrap()),
        ("is missing, or no regular file", |p| {
            fs::rename(p.at("dist/stockade"), p.at("elsewhere")).unwrap();
            symlink(p.at("elsewhere"), p.at("dist/stockade")).unwrap();
        }),
        ("has no SHA-256 for stockade", |p| fs::write(p.at("dist/SHA256SUMS"), "abc  stockade\n").unwrap()),
        ("no single SHA-256", |p| {
            let sums = fs::read_to_string(p.at("dist/SHA256SUMS")).unwrap();
            fs::write(p.at("dist/SHA256SUMS"), format!("{sums}{}  stockade\n", "0".repeat(64))).unwrap();
        }),
        ("does not run on this machine", |p| {
            fs::write(p.at("dist/stockade"), "not a program").unwrap();
            p.sum();
        }),
    ];
    for (said, damage) in cases {
        let place = Place::new();
        damage(&place);
        let done = place.install(&[]);
        assert!(done.code == 1 && done.said.contains(said), "{said}: {} {}", done.code, done.said);
        assert!(place.installed().is_empty(), "{said}: {:?}", place.installed());
    }
    let place = Place::new();
    let done = place.install(&["--expect", &"0".repeat(64)]);
    assert!(done.code == 1 && done.said.contains("is not the file whose SHA-256"), "{}", done.said);
    assert!(place.installed().is_empty());
    let done = place.install(&["--no-such-option"]);
    assert!(done.code == 1 && done.said.contains("unknown option"), "{}", done.said);
}

/// The unit means what it says to systemd, and is not weaker than it was.
#[test]
fn the_unit_is_valid_and_hardened() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        skip!("systemd-analyze is needed to check the unit");
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(repository().join("deploy/systemd/stockade@.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/stockade run "));
    // Seen under systemd 252: both answer openat2 with ENOSYS, and then there is no sandbox.
    assert!(!unit.contains("\nRestrictSUIDSGID=") && !unit.contains("\nDynamicUser="), "{unit}");
    let path = dir.path().join("stockade@agent.service");
    fs::write(&path, unit.replace("/usr/local/bin/stockade", program(false).to_str().unwrap())).unwrap();
    let analyze = |args: &[&str]| {
        let done = Command::new("systemd-analyze").args(args).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        (done.status.success(), said)
    };
    let (valid, said) = analyze(&["verify", "--man=no"]);
    assert!(valid && !said.contains("agent.service:"), "{said}");
    // 0 is safe, 10 is not; a unit with nothing set has 9.6. The rest is what every sandbox needs.
    let (hardened, said) = analyze(&["security", "--offline=yes", "--threshold=48", "--no-pager"]);
    assert!(hardened, "{said}");
    let (bare, _) = analyze(&["security", "--offline=yes", "--threshold=5", "--no-pager"]);
    assert!(!bare, "control: the threshold means something");
}

/// What is deployed names only what exists: files, options and metrics.
#[test]
fn the_compose_files_fit_the_program() {
    let dir = repository().join("deploy/compose");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let (compose, alerts) = (read("compose.yaml"), read("alerts.yaml"));
    let help = Command::new(program(false)).args(["supervise", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let options: Vec<&str> =
        compose.lines().filter_map(|l| l.trim().strip_prefix("- --")).filter(|o| !o.is_empty()).collect();
    assert!(options.len() >= 5, "{options:?}");
    for option in options {
        let name = format!("--{}", option.split(['=', ' ']).next().unwrap());
        assert!(help.contains(&name), "{name} is no option of supervise");
    }
    for file in ["../docker/seccomp.json", "prometheus.yaml", "alerts.yaml"] {
        assert!(compose.contains(file) && dir.join(file).is_file(), "{file}");
    }
    let docs = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let metrics =
        alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter_map(|w| w.strip_prefix("stockade_"));
    let metrics: Vec<&str> = metrics.collect();
    assert!(metrics.len() >= 10, "{metrics:?}");
    for name in metrics {
        assert!([format!("`{name}`"), format!("`{name}{{")].iter().any(|n| docs.contains(n)), "stockade_{name}");
    }
    match Command::new("promtool").args(["check", "rules"]).arg(dir.join("alerts.yaml")).output() {
        Ok(done) => assert!(done.status.success(), "{done:?}"),
        Err(_) => skip!("promtool is needed to check the alerts"),
    }
}
