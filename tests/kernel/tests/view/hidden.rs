//! What is hidden or protected below a granted path, and everything that was ever tried against a mask.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use stockade_confine::view::{Access, BuiltView, Protected};
use stockade_types::Enforcement;

use crate::lab::{Mode, as_command, assert_pinned, both, grant, one, read, steering, write};

#[test]
fn hidden_files_and_directories_cannot_be_seen_or_changed() {
    both(|lab| {
        let mut plan = lab.plan();
        let (env, hooks, open) =
            (lab.put(".env", "SECRET"), lab.put(".git/hooks/pre-commit", "#!"), lab.put("open", "x"));
        plan.hidden = vec![env.clone(), lab.work().join(".git/hooks")];
        lab.sandbox(&plan, |view| {
            assert_eq!((view.mounts(), view.hidden()), (&Enforcement::Enforced, &Enforcement::Enforced));
            as_command(|| {
                assert_eq!(fs::read_to_string(&open).unwrap(), "x");
                assert_eq!(read(&env), Err(Errno::ACCESS));
                assert_eq!(fs::metadata(&env).unwrap().len(), 0);
                assert!(matches!(write(&env), Err(Errno::ROFS | Errno::ACCESS)));
                assert_eq!(read(&hooks), Err(Errno::NOENT));
                assert_eq!(write(&hooks), Err(Errno::ROFS));
                for path in [env.as_path(), hooks.parent().unwrap()] {
                    let chmod = rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o777)).unwrap_err();
                    assert!(matches!(chmod, Errno::ROFS | Errno::PERM), "{chmod}");
                }
                assert_eq!(write(lab.work().join(".git/config")), Ok(()), "beside it all is as granted");
            });
        });
        assert_eq!(fs::read_to_string(&env).unwrap(), "SECRET");
    });
}

#[test]
fn nothing_above_a_hidden_path_can_be_renamed_or_removed() {
    both(|lab| {
        let mut plan = lab.plan();
        let hooks = lab.put("a/b/.git/hooks/x", "#!").parent().unwrap().to_owned();
        lab.put("a/free/x", "");
        plan.hidden = vec![hooks.clone()];
        lab.sandbox(&plan, |_| {
            as_command(|| {
                let away = lab.work().join("away");
                fs::create_dir(&away).unwrap();
                for above in hooks.ancestors().take_while(|a| *a != lab.work()) {
                    assert_pinned(above, &away);
                    let exchanged = renameat_with(CWD, above, CWD, &away, RenameFlags::EXCHANGE).unwrap_err();
                    assert!(matches!(exchanged, Errno::BUSY | Errno::INVAL | Errno::XDEV), "{above:?}: {exchanged}");
                    let removed = fs::remove_dir(above).unwrap_err().raw_os_error();
                    assert!(matches!(removed, Some(libc::EBUSY | libc::ENOTEMPTY | libc::EROFS)), "{above:?}");
                }
                fs::rename(lab.work().join("a/free"), lab.work().join("a/freed"))
                    .expect("the control: beside it works");
                assert_eq!(write(hooks.join("x")), Err(Errno::ROFS));
            });
        });
        // The tripwire: without the mask the same trick works.
        plan.hidden.clear();
        lab.sandbox(&plan, |_| {
            as_command(|| {
                let git = hooks.parent().unwrap();
                fs::rename(git, lab.work().join("old")).unwrap();
                fs::create_dir_all(&hooks).unwrap();
                assert_eq!(write(hooks.join("x")), Ok(()));
            });
        });
    });
}

#[test]
fn a_link_does_not_uncover_what_it_leads_to() {
    both(|lab| {
        let mut plan = lab.plan();
        let real = lab.put("config/dev.env", "SECRET");
        symlink("config/dev.env", lab.work().join(".env")).unwrap();
        plan.hidden = vec![lab.work().join(".env")];
        lab.sandbox(&plan, |_| {
            as_command(|| {
                assert_eq!(read(&real), Err(Errno::ACCESS));
                assert_eq!(read(lab.work().join(".env")), Err(Errno::ACCESS));
                assert_pinned(&real, &lab.work());
            });
        });
    });
}

#[test]
fn hidden_wins_over_a_grant_of_the_same_or_a_deeper_path() {
    both(|lab| {
        let mut plan = lab.plan();
        let deep = lab.put("secret/deep/x", "SECRET");
        plan.grants.push(grant(deep.parent().unwrap(), Access::ReadOnly));
        plan.hidden = vec![lab.work().join("secret")];
        lab.sandbox(&plan, |_| as_command(|| assert_eq!(read(&deep), Err(Errno::NOENT))));
        plan.hidden.clear();
        lab.sandbox(&plan, |_| as_command(|| assert_eq!(read(&deep), Ok(()), "the control")));
    });
}

#[test]
fn covers_inside_covers_and_nested_grants_all_hold() {
    both(|lab| {
        let mut plan = lab.plan();
        let (key, settings) = (lab.put("a/b/c/key", "SECRET"), lab.put("a/b/settings.json", "{}"));
        lab.put("a/b/out/x", "");
        plan.grants.push(grant(lab.work().join("a/b/out"), Access::ReadWrite));
        plan.grants.push(grant(lab.work().join("a/b/c"), Access::ReadOnly));
        plan.hidden = vec![key.clone()];
        plan.protected = vec![Protected { path: settings.clone(), steers: false }];
        lab.sandbox(&plan, |mut view| {
            assert_eq!(view.mounts(), &Enforcement::Enforced);
            as_command(|| {
                assert_eq!(read(&key), Err(Errno::ACCESS));
                assert_eq!((read(&settings), write(&settings)), (Ok(()), Err(Errno::ROFS)));
                assert_eq!(write(lab.work().join("a/b/c/new")), Err(Errno::ROFS));
                assert_eq!(write(lab.work().join("a/b/out/new")), Ok(()));
                for dir in ["a", "a/b", "a/b/c"] {
                    assert_pinned(&lab.work().join(dir), &lab.work());
                }
            });
            assert_eq!(view.check_masks(), Vec::<String>::new(), "nothing happened");
        });
    });
}

#[test]
fn paths_that_do_not_exist_yet_are_not_promised_and_reported_when_made() {
    both(|lab| {
        let mut plan = lab.plan();
        lab.put(".git/HEAD", "");
        plan.hidden = [".envrc", ".git/hooks", ".vscode/tasks.json"].map(|p| lab.work().join(p)).into();
        plan.protected = vec![Protected { path: lab.work().join(".mcp.json"), steers: false }];
        lab.sandbox(&plan, |view| {
            assert_eq!(view.notes().iter().filter(|n| n.contains("not promised")).count(), 4, "{:?}", view.notes());
            assert!(view.created().is_empty());
            as_command(|| {
                write(lab.work().join(".envrc")).unwrap();
                fs::create_dir(lab.work().join(".git/hooks")).unwrap();
                symlink("/dev/null", lab.work().join(".mcp.json")).unwrap();
            });
            let mut created = view.created();
            created.sort();
            assert_eq!(created, [".envrc", ".git/hooks", ".mcp.json"].map(|p| lab.work().join(p)));
        });
    });
}

/// Waits until the masks say that something happened.
fn woken(view: &BuiltView) -> bool {
    let masks = view.masks().expect("there is something to watch");
    let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
    poll(&mut [PollFd::new(masks, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

#[test]
fn a_save_from_outside_detaches_a_mask_and_it_is_put_back() {
    both(|lab| {
        let mut plan = lab.plan();
        let env = lab.put(".env", "old");
        plan.hidden = vec![env.clone()];
        let (host, inside) = UnixStream::pair().unwrap();
        let running = lab.start(&plan, |mut view| {
            assert_eq!(view.check_masks(), Vec::<String>::new());
            lab.say(&inside);
            assert!(woken(&view), "an atomic save is noticed");
            lab.hear(&inside);
            as_command(|| assert_eq!(read(&env), Ok(()), "the tripwire: bare until it is put back"));
            let events = view.check_masks();
            assert!(events.len() == 1 && events[0].contains("covered again"), "{events:?}");
            as_command(|| assert_eq!(read(&env), Err(Errno::ACCESS)));
            assert_eq!(view.check_masks(), Vec::<String>::new(), "once");
            // Removed, then made again.
            lab.say(&inside);
            lab.hear(&inside);
            assert!(woken(&view));
            let events = view.check_masks();
            assert!(events.len() == 1 && events[0].contains("removed"), "{events:?}");
            lab.say(&inside);
            lab.hear(&inside);
            assert!(woken(&view));
            assert!(view.check_masks()[0].contains("covered again"));
            as_command(|| assert_eq!(read(&env), Err(Errno::ACCESS)));
        });
        lab.hear(&host);
        lab.put(".env.tmp", "new");
        fs::rename(lab.work().join(".env.tmp"), &env).unwrap();
        lab.say(&host);
        lab.hear(&host);
        fs::remove_file(&env).unwrap();
        lab.say(&host);
        lab.hear(&host);
        lab.put(".env", "again");
        lab.say(&host);
        running.join();
    });
}

#[test]
fn a_detached_mask_is_noticed_at_once() {
    both(|lab| {
        let mut plan = lab.plan();
        let env = lab.put(".env", "old");
        plan.hidden = vec![env.clone()];
        let (host, inside) = UnixStream::pair().unwrap();
        let rounds = 8;
        let running = lab.start(&plan, |mut view| {
            let mut best = Duration::MAX;
            for _ in 0..rounds {
                view.check_masks();
                let before = Instant::now();
                lab.say(&inside);
                assert!(woken(&view));
                best = best.min(before.elapsed());
                lab.hear(&inside);
                view.check_masks();
                as_command(|| assert_eq!(read(&env), Err(Errno::ACCESS)));
            }
            // Without word from the kernel it would be looked at after a second.
            assert!(best < Duration::from_millis(500), "{best:?}");
        });
        for _ in 0..rounds {
            lab.hear(&host);
            lab.put(".env.tmp", "new");
            fs::rename(lab.work().join(".env.tmp"), &env).unwrap();
            lab.say(&host);
        }
        running.join();
    });
}

#[test]
fn a_directory_that_the_host_replaces_is_pinned_and_masked_again() {
    both(|lab| {
        let mut plan = lab.plan();
        let hook = lab.put(".git/hooks/x", "old");
        plan.hidden = vec![lab.work().join(".git/hooks")];
        plan.protected = vec![Protected { path: lab.put(".git/config", "[core]"), steers: false }];
        let (host, inside) = UnixStream::pair().unwrap();
        let running = lab.start(&plan, |mut view| {
            lab.say(&inside);
            lab.hear(&inside);
            assert!(woken(&view), "a rename by the host is noticed though no mount was detached");
            let events = view.check_masks();
            assert_eq!(events.len(), 3, "{events:?}");
            as_command(|| {
                assert_eq!(read(&hook), Err(Errno::NOENT));
                assert_eq!(write(lab.work().join(".git/config")), Err(Errno::ROFS));
                assert_pinned(&lab.work().join(".git"), &lab.work());
                let old = lab.work().join("old/hooks/x");
                assert_eq!(read(&old), Err(Errno::NOENT), "the old one stays masked where it went");
            });
            assert_eq!(view.check_masks(), Vec::<String>::new());
        });
        lab.hear(&host);
        fs::rename(lab.work().join(".git"), lab.work().join("old")).unwrap();
        lab.put(".git/hooks/x", "new");
        lab.put(".git/config", "[core]");
        lab.say(&host);
        running.join();
    });
}

#[test]
fn a_link_in_place_of_a_masked_file_is_reported_as_lost() {
    both(|lab| {
        let mut plan = lab.plan();
        let env = lab.put(".env", "old");
        plan.hidden = vec![env.clone()];
        let (host, inside) = UnixStream::pair().unwrap();
        let running = lab.start(&plan, |mut view| {
            lab.say(&inside);
            lab.hear(&inside);
            assert!(woken(&view));
            let events = view.check_masks();
            assert!(events.len() == 1 && events[0].contains("cannot be covered"), "{events:?}");
        });
        lab.hear(&host);
        fs::remove_file(&env).unwrap();
        symlink("elsewhere", &env).unwrap();
        lab.say(&host);
        running.join();
    });
}

#[test]
fn a_read_only_grant_in_a_writable_one_survives_the_hosts_save() {
    both(|lab| {
        let mut plan = lab.plan();
        let policy = lab.put("policy.yaml", "version: 1");
        plan.protected = vec![steering(&policy)];
        let (host, inside) = UnixStream::pair().unwrap();
        let running = lab.start(&plan, |mut view| {
            lab.say(&inside);
            lab.hear(&inside);
            assert_eq!(view.check_masks().len(), 1);
            as_command(|| {
                assert_eq!(fs::read_to_string(&policy).unwrap(), "version: 2");
                assert_eq!(write(&policy), Err(Errno::ROFS));
            });
        });
        lab.hear(&host);
        lab.put("policy.tmp", "version: 2");
        fs::rename(lab.work().join("policy.tmp"), &policy).unwrap();
        lab.say(&host);
        running.join();
    });
}

#[test]
fn what_cannot_be_hidden_is_said() {
    one(Mode::Root, |lab| {
        let mut plan = lab.plan();
        plan.hidden = vec!["/proc/cpuinfo".into()];
        lab.sandbox(&plan, |view| assert!(matches!(view.hidden(), Enforcement::Partial(_)), "{:?}", view.hidden()));
        plan.hidden = vec![Path::new("relative").into()];
        lab.refused(&plan, |e| assert!(e.to_string().contains("must be absolute"), "{e}"));
    });
}
