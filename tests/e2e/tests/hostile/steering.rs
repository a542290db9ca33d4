//! FS: what the command could lead astray for the next look at the files that steer: links and directories on the way.

use std::{
    fs,
    os::unix::fs::{MetadataExt, lchown, symlink},
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use stockade_testkit::{Mode, Running, Stockade, upstream::https::Authority};

use crate::start::nothing_ran;

const WRITING: &str = "version: 1\nfilesystem: {baseline: true, read_write: [.]}\n";

/// `WRITING` with a secret from a file.
fn with_secret(file: &str) -> String {
    format!(
        "{WRITING}network: {{endpoints: {{api: {{hosts: [api.test], ports: [443], credentials: [key]}}}}}}\n\
         credentials:\n  key: {{env: KEY, source: \"file:{file}\", inject: {{header: x-key, value: \"{{secret}}\"}}}}\n"
    )
}

const MODULE: &str = "package stockade.custom\nimport rego.v1\ndeny contains \"x\" if input.destination.port == 1\n";

fn with_module(file: &str) -> String {
    format!("{WRITING}rego: [{file}]\n")
}

/// The policy's directory, which the command does not have, with `safe` in it; and the workspace, which is the command's.
struct Place {
    conf: PathBuf,
    work: PathBuf,
}

impl Place {
    fn of(stockade: &Stockade) -> Self {
        let place = Self { conf: stockade.policy_path().parent().unwrap().to_owned(), work: stockade.work() };
        fs::create_dir(place.conf.join("safe")).unwrap();
        place.give(&place.conf.join("safe"));
        place
    }

    /// To whoever has the directory.
    fn give(&self, path: &Path) {
        let owner = fs::metadata(path.parent().unwrap()).unwrap().uid();
        lchown(path, Some(owner), Some(owner)).unwrap();
    }

    fn file(&self, path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        self.give(path);
    }

    fn link(&self, at: &Path, to: &Path) {
        fs::remove_file(at).ok();
        symlink(to, at).unwrap();
        self.give(at);
    }

    /// `at` leads to `safe/NAME`, by a link that is the command's.
    fn astray(&self, at: &Path) {
        self.link(&self.work.join("link"), &self.conf.join("safe"));
        self.link(at, &self.work.join("link").join(at.file_name().unwrap()));
    }

    /// The same, and no link of the command's on the way.
    fn straight(&self, at: &Path) {
        self.link(&self.conf.join("link"), &self.conf.join("safe"));
        self.link(at, &self.conf.join("link").join(at.file_name().unwrap()));
    }
}

/// A kind of file, its name and text, and the policy that names it in the policy's directory.
fn kinds() -> [(&'static str, String, String); 4] {
    [
        ("policy.yaml", WRITING.to_owned(), String::new()),
        ("extra.rego", MODULE.to_owned(), with_module("extra.rego")),
        ("secret", "a-secret-of-some-length".to_owned(), with_secret("secret")),
        ("ca.pem", Authority::new().pem().to_owned(), WRITING.to_owned()),
    ]
}

/// FS-08: the link on the way to a file that steers would be the command's to turn, however far from its name.
#[test]
fn a_link_of_the_command_s_on_the_way_ends_the_start() {
    for mode in Mode::available() {
        for (name, text, policy) in kinds() {
            for turns in [false, true] {
                let context = format!("{mode:?} {name} {turns}");
                let stockade = Stockade::new(*mode);
                let place = Place::of(&stockade);
                place.file(&place.conf.join("safe").join(name), &text);
                let at = place.conf.join(name);
                if turns {
                    place.astray(&at)
                } else {
                    place.straight(&at)
                }
                let stockade = match name {
                    "policy.yaml" => stockade.arg("--policy").arg(&at),
                    "ca.pem" => stockade.policy(&policy).arg("--upstream-ca").arg(&at),
                    _ => stockade.policy(&policy),
                };
                let run = stockade.sh("echo ran");
                if turns {
                    nothing_ran(&run, &[name, "work/link", "granted"], &context);
                } else {
                    assert_eq!((run.code(), run.text().as_str()), (0, "ran\n"), "control: {context} {run:?}");
                }
            }
        }
    }
}

/// FS-08: so would a directory that `..` leads out of.
#[test]
fn a_directory_of_the_command_s_on_the_way_ends_the_start() {
    for mode in Mode::available() {
        for (back, refused) in [("own/../../conf/safe", true), ("../conf/safe", false)] {
            let stockade = Stockade::new(*mode);
            let place = Place::of(&stockade);
            fs::create_dir(place.work.join("own")).unwrap();
            place.give(&place.work.join("own"));
            place.file(&place.conf.join("safe/policy.yaml"), WRITING);
            let at = place.conf.join("policy.yaml");
            place.link(&at, &place.work.join(back).join("policy.yaml"));
            let run = stockade.arg("--policy").arg(&at).sh("echo ran");
            if refused {
                nothing_ran(&run, &["policy.yaml", "work/own"], &format!("{mode:?}"));
            } else {
                assert_eq!(run.text(), "ran\n", "control: its workspace itself is not: {mode:?} {run:?}");
            }
        }
    }
}

/// Puts a policy in the place of the one before, asks for a reload, and waits until it was told what became of it.
fn reload(run: &Running, told: &str) -> String {
    run.signal(Signal::SIGHUP);
    run.wait_to_be_told(told)
}

/// FS-08: a reload believes nothing that a start would not.
#[test]
fn a_reload_refuses_what_the_command_could_have_made() {
    type Change = fn(&Place);
    let changes: [(&str, Change); 4] = [
        ("work/link", |p| {
            p.file(&p.conf.join("safe/policy.yaml"), &format!("{WRITING}# other\n"));
            p.astray(&p.conf.join("policy.yaml"));
        }),
        ("work/policy.yaml", |p| {
            p.file(&p.work.join("policy.yaml"), &format!("{WRITING}# other\n"));
            p.link(&p.conf.join("policy.yaml"), &p.work.join("policy.yaml"));
        }),
        ("work/extra.rego", |p| {
            p.file(&p.work.join("extra.rego"), MODULE);
            p.file(&p.conf.join("policy.yaml"), &with_module("../work/extra.rego"));
        }),
        ("work/secret", |p| {
            p.file(&p.work.join("secret"), "a-secret-of-some-length");
            p.file(&p.conf.join("policy.yaml"), &with_secret("../work/secret"));
        }),
    ];
    for mode in Mode::available() {
        for (named, change) in &changes {
            let stockade = Stockade::new(*mode).policy(WRITING);
            let place = Place::of(&stockade);
            let run = stockade.spawn(&["sh", "-c", "trap '' HUP; echo ready; read x; exit 0"]);
            run.wait_for("ready");
            change(&place);
            let said = reload(&run, "is refused");
            assert!(said.contains(named), "{mode:?} {named}: {said}");
            fs::remove_file(place.conf.join("policy.yaml")).unwrap();
            place.file(&place.conf.join("policy.yaml"), &format!("{WRITING}# a third\n"));
            reload(&run, ", generation 2");
            assert_eq!(run.finish().code(), 0, "control: {mode:?} {named}");
        }
    }
}

/// FS-08: what was read-only for the command since the start may be read again.
#[test]
fn a_policy_in_the_workspace_is_read_again_when_it_was_held_from_the_start() {
    for mode in Mode::available() {
        let stockade = Stockade::new(*mode);
        let place = Place::of(&stockade);
        let at = place.work.join("policy.yaml");
        place.file(&at, WRITING);
        let run = stockade.arg("--policy").arg(&at).spawn(&["sh", "-c", "echo ready; read x; exit 0"]);
        run.wait_for("ready");
        fs::write(&at, format!("{WRITING}# other\n")).unwrap();
        reload(&run, ", generation 2");
        assert_eq!(run.finish().code(), 0, "{mode:?}");
    }
}
