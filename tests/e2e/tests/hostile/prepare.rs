//! FS: layers that are missing, and links that a command left where the supervisor works.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use stockade_testkit::{Mode, Stockade, runner::ORDINARY_UID, skip};

use crate::start::{nothing_ran, sabotaged};

fn granting(list: &str, grants: &str) -> String {
    format!("version: 1\nfilesystem: {{baseline: true, {list}: [{grants}]}}\n")
}

/// FS-02: without Landlock, for whatever reason, nothing runs; a policy that does without is told so, where it is seen.
#[test]
fn without_landlock_nothing_runs_unless_it_is_asked_for() {
    const WEAK: &str = "version: 1\nprocess: {require: [namespaces, netns, fence, mounts, seccomp]}\n";
    for mode in Mode::available() {
        for (error, why) in [("ENOSYS", "no Landlock"), ("EOPNOTSUPP", "lsm="), ("EPERM", "container profile")] {
            let context = format!("{mode:?} {error}");
            let without = || sabotaged(*mode, "landlock_create_ruleset", &format!("error={error}"));
            let Some(strict) = without() else { skip!("strace is not installed, or may not trace") };
            let run = strict.sh("echo ran");
            nothing_ran(&run, &["landlock", why], &context);
            run.events.one("layer_unavailable");
            let run = without().unwrap().policy(WEAK).sh("echo ran");
            assert_eq!((run.code(), run.text().as_str()), (0, "ran\n"), "{context} {run:?}");
            let ready = run.events.iter().find(|e| e.text("/activity_name") == Some("Enable")).unwrap();
            assert!(ready.0.to_string().contains(why), "in the log: {context} {ready:?}");
            assert!(run.stderr.contains("landlock"), "and on the terminal: {context} {}", run.stderr);
        }
        let run = sabotaged(*mode, "landlock_create_ruleset", "error=ENOSYS:when=10000").unwrap().sh("echo ran");
        assert_eq!((run.code(), run.text().as_str()), (0, "ran\n"), "tripwire: traced, it starts: {mode:?} {run:?}");
    }
}

/// FS-02: nor without the calls that the view is made with, and what is said is not some other fault. systemd's
/// RestrictSUIDSGID answers openat2 like this.
#[test]
fn without_the_calls_of_the_view_nothing_runs() {
    for mode in Mode::available() {
        for call in ["openat2", "open_tree", "mount_setattr"] {
            let without = sabotaged(*mode, call, "error=ENOSYS");
            let Some(without) = without else { skip!("strace is not installed, or may not trace") };
            let run = without.sh("echo ran");
            nothing_ran(&run, &["the system call is not there", call, "systemd"], &format!("{mode:?} {call}"));
            run.events.one("layer_unavailable");
        }
    }
}

/// FS-02: a path that is granted and not there ends the start.
#[test]
fn a_granted_path_that_is_not_there_ends_the_start() {
    for mode in Mode::available() {
        for list in ["read_only", "read_write"] {
            let run = Stockade::new(*mode).policy(&granting(list, "out/deep")).sh("echo ran");
            nothing_ran(&run, &["out/deep"], &format!("{mode:?} {list}"));
        }
        let made = "{path: out/deep, create: true}";
        let run = Stockade::new(*mode).policy(&granting("read_write", made)).sh("echo x > out/deep/x && echo ran");
        assert_eq!((run.code(), run.text().as_str()), (0, "ran\n"), "tripwire: it may be made: {mode:?} {run:?}");
    }
}

/// A directory that the command must not get at, with a file in it. It belongs to whoever runs Stockade.
struct Precious(PathBuf);

impl Precious {
    fn beside(stockade: &Stockade) -> Self {
        let dir = stockade.policy_path().with_file_name("precious");
        let file = dir.join("file");
        fs::create_dir(&dir).unwrap();
        // A policy and a line of a log, so that it is not its contents that is refused.
        fs::write(&file, "{\"version\": 1}\n").unwrap();
        let owner = fs::metadata(dir.parent().unwrap()).unwrap().uid();
        for path in [&dir, &file] {
            std::os::unix::fs::chown(path, Some(owner), Some(owner)).unwrap();
        }
        Self(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("file")
    }

    /// Owner, mode and contents of both.
    fn state(&self) -> String {
        let of = |path: &Path| {
            let meta = fs::metadata(path).unwrap();
            format!("{}:{}:{:o}:{}", meta.uid(), meta.gid(), meta.mode(), meta.nlink())
        };
        let entries: Vec<_> = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name()).collect();
        format!("{} {entries:?} {} {}", of(&self.0), of(&self.file()), fs::read_to_string(self.file()).unwrap())
    }
}

/// A link of a kind, what it is put at, and the run that meets it.
type Trap = (&'static str, fn(&Path, &Precious), fn(Stockade) -> Stockade);

const TRAPS: &[Trap] = &[
    ("a made directory", to_directory, |s| s.policy(&granting("read_write", "., {path: at, create: true}"))),
    ("one below it", to_directory, |s| s.policy(&granting("read_write", "., {path: at/sub, create: true}"))),
    ("a granted directory", to_directory, |s| s.policy(&granting("read_write", "., at"))),
    ("a directory granted for reading", to_directory, |s| s.policy(&granting("read_only", "at"))),
    ("a granted file", to_file, |s| s.policy(&granting("read_write", "at"))),
    ("the log", to_file, |s| {
        let log = s.work().join("at");
        s.audit_log(log)
    }),
    ("the log, by another name", another_name, |s| {
        let log = s.work().join("at");
        s.audit_log(log)
    }),
    ("the policy", to_file, |s| {
        let policy = s.work().join("at");
        s.arg("--policy").arg(policy)
    }),
    ("the log's directory", to_directory, |s| {
        let log = s.work().join("at/audit.jsonl");
        s.audit_log(log)
    }),
    ("the policy's directory", to_directory, |s| {
        let policy = s.work().join("at/file");
        s.arg("--policy").arg(policy)
    }),
    ("the directory of what is learned", to_directory, |s| {
        let output = s.work().join("at/file");
        s.subcommand("learn").arg("-o").arg(output)
    }),
];

fn to_directory(at: &Path, precious: &Precious) {
    symlink(&precious.0, at).unwrap();
}

fn to_file(at: &Path, precious: &Precious) {
    symlink(precious.file(), at).unwrap();
}

fn another_name(at: &Path, precious: &Precious) {
    fs::hard_link(precious.file(), at).unwrap();
}

/// FS-03: where an earlier command left a link, the supervisor makes, gives away and writes nothing.
#[test]
fn links_in_prepared_directories_lead_nowhere() {
    for mode in Mode::available() {
        for (what, place, with) in TRAPS {
            let context = format!("{mode:?} {what}");
            let stockade = Stockade::new(*mode);
            let precious = Precious::beside(&stockade);
            place(&stockade.work().join("at"), &precious);
            // A link of the command's own.
            std::os::unix::fs::lchown(stockade.work().join("at"), Some(ORDINARY_UID), Some(ORDINARY_UID)).ok();
            let before = precious.state();
            let run = with(stockade).sh("echo ran; echo x >> at; echo x > at/x");
            assert_eq!((run.code(), run.text().as_str()), (125, ""), "{context} {run:?}");
            assert!(run.stderr.contains("at"), "the place is named: {context} {run:?}");
            assert_eq!(precious.state(), before, "{context} {run:?}");
        }
        let run = Stockade::new(*mode).policy(&granting("read_write", "., {path: at, create: true}"));
        let log = run.work().join("audit.jsonl");
        let run = run.audit_log(&log).sh("echo x > at/x && echo ran");
        assert_eq!((run.code(), run.text().as_str()), (0, "ran\n"), "control: without links: {mode:?} {run:?}");
        let work = run.dir.as_ref().unwrap().path().join("work");
        assert_eq!(fs::metadata(work.join("at")).unwrap().uid(), ORDINARY_UID, "{mode:?}");
    }
    let stockade = Stockade::new(Mode::Rootless);
    let precious = Precious::beside(&stockade);
    to_directory(&stockade.work().join("at"), &precious);
    let before = precious.state();
    fs::create_dir(stockade.work().join("at/sub")).unwrap();
    assert_ne!(precious.state(), before, "tripwire: a tool that follows the link makes it there");
}

/// FS-04: the same, while the command of another sandbox swaps directory and link all the time: as fast as it can, and now
/// and then with a rest, or a start that looks several times would never find the directory each time.
#[test]
fn a_race_of_links_reaches_nothing_behind_them() {
    const ROUNDS: usize = 2000;
    // So often it is won and lost, or it proves nothing.
    const ENOUGH: usize = 8;
    let swap = format!(
        "my ($a, $b) = ('real', 'link'); $| = 1; my $n = 0;
        while (1) {{ syscall({}, -100, $a, -100, $b, 2) == 0 or die $!; print qq(racing\n) if !$n++;
            select undef, undef, undef, rand 0.004 if rand() < 0.005 }}",
        libc::SYS_renameat2
    );
    for mode in Mode::available() {
        let racer = Stockade::new(*mode).timeout(Duration::from_secs(150));
        let (work, precious) = (racer.work(), Precious::beside(&racer));
        let before = precious.state();
        fs::create_dir(work.join("real")).unwrap();
        std::os::unix::fs::chown(work.join("real"), Some(ORDINARY_UID), Some(ORDINARY_UID)).ok();
        symlink(&precious.0, work.join("link")).unwrap();
        let race = racer.spawn(&["perl", "-e", &swap]);
        race.wait_for("racing");
        let (mut made, mut refused) = (0, 0);
        for round in 0..ROUNDS {
            if made >= ENOUGH && refused >= ENOUGH {
                break;
            }
            let run = Stockade::new(*mode)
                .policy(&granting("read_write", &format!("{{path: real/made-{round}, create: true}}")))
                .workspace(format!("{}:rw", work.display()))
                .sh("echo ran");
            match (run.code(), run.text().as_str()) {
                (0, "ran\n") => made += 1,
                (125, "") if run.stderr.contains("real") => refused += 1,
                _ => panic!("{mode:?} {run:?}"),
            }
        }
        assert!(made >= ENOUGH && refused >= ENOUGH, "{made} won, {refused} lost: {mode:?}");
        assert_eq!(precious.state(), before, "{mode:?}");
        let reached = (0..100_000).any(|n| {
            // Fails while neither is there.
            let _ = fs::create_dir(work.join(format!("real/naive-{n}")));
            precious.0.join(format!("naive-{n}")).exists()
        });
        assert!(reached, "tripwire: a tool that follows links gets there: {mode:?}");
        drop(race);
    }
}
