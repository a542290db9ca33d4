//! Which paths may be granted, how missing ones are made, and what a hostile earlier run can do about it.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, symlink},
        net::UnixListener,
    },
    path::PathBuf,
    time::Duration,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use stockade_confine::view::{Access, Grant, PathAccess, ViewError};

use crate::lab::{Lab, Mode, USER, as_command, both, grant, one, read, steering, write};

fn create(path: PathBuf) -> Grant {
    Grant { path, access: Access::ReadWrite, create: true }
}

#[test]
fn read_only_is_read_only_even_for_the_owner() {
    both(|lab| {
        let mut plan = lab.plan();
        let file = lab.put("file", "text");
        plan.grants[0].access = Access::ReadOnly;
        lab.sandbox(&plan, |_| {
            as_command(|| {
                assert_eq!(fs::read_to_string(&file).unwrap(), "text");
                assert_eq!(write(&file), Err(Errno::ROFS));
                assert_eq!(write(lab.work().join("new")), Err(Errno::ROFS));
                assert_eq!(fs::remove_file(&file).unwrap_err().raw_os_error(), Some(libc::EROFS));
            });
        });
        plan.grants[0].access = Access::ReadWrite;
        lab.sandbox(&plan, |_| as_command(|| assert_eq!(write(&file), Ok(()))));
    });
}

#[test]
fn a_single_file_can_be_granted() {
    both(|lab| {
        let mut plan = lab.plan();
        let (mine, other) = (lab.put("a/mine", "1"), lab.put("a/other", "2"));
        (plan.grants, plan.workspace) = (vec![grant(&mine, Access::ReadWrite)], None);
        lab.sandbox(&plan, |view| {
            assert!(
                view.landlock_paths().iter().any(|p| p.path == mine && !p.is_dir && p.access == PathAccess::ReadWrite)
            );
            as_command(|| {
                fs::write(&mine, "new").unwrap();
                assert_eq!(read(&other), Err(Errno::NOENT));
            });
        });
        assert_eq!(fs::read_to_string(&mine).unwrap(), "new");
    });
}

#[test]
fn a_missing_path_is_an_error_unless_it_is_to_be_made() {
    both(|lab| {
        let mut plan = lab.plan();
        let missing = lab.work().join("out/deep");
        plan.grants.push(grant(&missing, Access::ReadWrite));
        lab.refused(&plan, |e| assert!(matches!(&e, ViewError::Missing(p) if *p == missing), "{e}"));
        assert!(!missing.exists());
        plan.grants[1].create = true;
        lab.sandbox(&plan, |_| as_command(|| assert_eq!(write(missing.join("x")), Ok(()))));
        let made = fs::metadata(&missing).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (USER, USER, 0o755));
    });
}

#[test]
fn a_made_path_belongs_to_the_user_even_where_only_root_may_make_it() {
    one(Mode::Root, |lab| {
        let mut plan = lab.plan();
        let roots = lab.dir.join("roots");
        fs::create_dir(&roots).unwrap();
        plan.grants.push(create(roots.join("made")));
        lab.sandbox(&plan, |_| as_command(|| assert_eq!(write(roots.join("made/x")), Ok(()))));
        assert_eq!(fs::metadata(roots.join("made")).unwrap().uid(), USER);
        assert_eq!(fs::metadata(&roots).unwrap().uid(), 0, "what was there keeps its owner");
    });
}

#[test]
fn links_that_the_command_could_have_left_are_not_followed() {
    both(|lab| {
        let target = lab.dir.join("precious");
        fs::create_dir(&target).unwrap();
        let mut plan = lab.plan();
        lab.own(&target);
        let link = lab.work().join("out");
        symlink(&target, &link).unwrap();
        for grant in [
            grant(&link, Access::ReadWrite),
            grant(link.join("x"), Access::ReadOnly),
            create(link.clone()),
            create(link.join("x")),
        ] {
            let mut plan = plan.clone();
            plan.grants.push(grant);
            lab.refused(&plan, |e| assert!(matches!(&e, ViewError::Symlink { link: l, .. } if *l == link), "{e}"));
        }
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        plan.grants.push(grant(&target, Access::ReadWrite));
        lab.sandbox(&plan, |_| {
            as_command(|| assert_eq!(write(target.join("x")), Ok(()), "the control: by its own name"))
        });
    });
}

#[test]
fn links_that_only_the_administrator_can_make_are_followed() {
    one(Mode::Root, |lab| {
        let (place, link) = (lab.dir.join("roots/tools-1.2"), lab.dir.join("roots/tools"));
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("tool"), "1.2").unwrap();
        symlink("tools-1.2", &link).unwrap();
        let mut plan = lab.plan();
        plan.grants.push(grant(&link, Access::ReadOnly));
        lab.sandbox(&plan, |_| {
            as_command(|| {
                assert_eq!(fs::read_to_string(link.join("tool")).unwrap(), "1.2");
                assert_eq!(write(link.join("new")), Err(Errno::ROFS));
                assert_eq!(read(&place), Err(Errno::NOENT), "only the name that was granted");
            });
        });
    });
}

/// A loop that exchanges a directory and a link to somebody else's, while paths below are made again and again.
#[test]
fn a_race_of_links_never_reaches_what_is_behind_them() {
    // So often it is won and lost, or it proves nothing.
    const ENOUGH: u32 = 8;
    one(Mode::Root, |lab| {
        let plan = lab.plan();
        let (real, link, precious) = (lab.work().join("real"), lab.work().join("link"), lab.dir.join("precious"));
        fs::create_dir(&precious).unwrap();
        lab.put("real/.keep", "");
        symlink(&precious, &link).unwrap();
        let racer = lab.background(|| {
            // Rests of 0 to 4 ms: without any, a view that looks several times might never find the directory each time.
            for rest in (0..4000).step_by(7).cycle() {
                for _ in 0..211 {
                    renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                }
                std::thread::sleep(Duration::from_micros(rest * 1777 % 4000));
            }
        });
        let (mut made, mut refused) = (0, 0);
        for round in 0..2000 {
            if made >= ENOUGH && refused >= ENOUGH {
                break;
            }
            let mut plan = plan.clone();
            plan.grants.push(create(real.join(format!("made-{round}"))));
            let won = lab.attempt(&plan);
            made += u32::from(won);
            refused += u32::from(!won);
        }
        racer.kill();
        assert!(made >= ENOUGH && refused >= ENOUGH, "{made} made, {refused} refused");
        assert_eq!(fs::read_dir(&precious).unwrap().count(), 0, "nothing was made behind the link");
        assert_eq!(fs::metadata(&precious).unwrap().uid(), 0, "and nothing given away");
    });
}

#[test]
fn a_workspace_must_be_a_granted_directory() {
    both(|lab| {
        let plan = lab.plan();
        let file = lab.put("file", "x");
        symlink(lab.work(), lab.dir.join("link")).unwrap();
        let with = |workspace: PathBuf| stockade_confine::view::ViewPlan { workspace: Some(workspace), ..plan.clone() };
        lab.refused(&with(file), |e| assert!(matches!(e, ViewError::WorkspaceNotDirectory(_)), "{e}"));
        lab.refused(&with(lab.dir.join("link")), |e| assert!(matches!(e, ViewError::WorkspaceNotGranted(_)), "{e}"));
        lab.refused(&with(lab.work().join("absent")), |e| assert!(matches!(e, ViewError::Missing(_)), "{e}"));
        lab.refused(&with("relative".into()), |e| assert!(e.to_string().contains("relative"), "{e}"));
        lab.put("sub/x", "");
        symlink("sub", lab.work().join("to-sub")).unwrap();
        lab.refused(&with(lab.work().join("to-sub")), |e| {
            assert!(matches!(e, ViewError::WorkspaceNotDirectory(_)), "{e}")
        });
        lab.sandbox(&with(lab.work().join("sub")), |_| {
            std::env::set_current_dir(lab.work().join("sub")).unwrap();
        });
    });
}

#[test]
fn sockets_and_odd_paths_are_not_granted() {
    both(|lab| {
        let plan = lab.plan();
        let socket = lab.work().join("socket");
        let _listening = UnixListener::bind(&socket).unwrap();
        for path in [socket, "/usr/../etc".into(), "usr".into(), PathBuf::from("/etc/pass\0wd")] {
            let mut plan = plan.clone();
            plan.grants.push(grant(&path, Access::ReadOnly));
            lab.refused(&plan, |e| {
                assert!(matches!(e, ViewError::NotGrantable { .. } | ViewError::NotCanonical(_)), "{e}");
            });
        }
    });
}

#[test]
fn grants_in_each_other_keep_their_own_rights() {
    both(|lab| {
        let mut plan = lab.plan();
        lab.put("vendor/cache/x", "");
        lab.put("vendor/lib", "");
        let (vendor, cache) = (lab.work().join("vendor"), lab.work().join("vendor/cache"));
        plan.grants.push(grant(&cache, Access::ReadWrite));
        plan.grants.push(grant(&vendor, Access::ReadOnly));
        lab.sandbox(&plan, |_| {
            as_command(|| {
                assert_eq!(write(vendor.join("new")), Err(Errno::ROFS));
                assert_eq!(write(cache.join("new")), Ok(()));
                assert_eq!(write(lab.work().join("new")), Ok(()));
                assert_eq!(fs::rename(&vendor, lab.work().join("v")).unwrap_err().raw_os_error(), Some(libc::EBUSY));
            });
        });
    });
}

#[test]
fn the_home_is_private_unless_granted() {
    both(|lab| {
        let mut plan = lab.plan();
        lab.put("../home/.ssh/id", "key");
        plan.home = lab.dir.join("home");
        lab.sandbox(&plan, |_| {
            as_command(|| {
                assert_eq!(fs::read_dir(lab.dir.join("home")).unwrap().count(), 0);
                fs::write(lab.dir.join("home/.cache"), "x").unwrap();
                let home = fs::metadata(lab.dir.join("home")).unwrap();
                assert_eq!((home.uid(), home.mode() & 0o777), (USER, 0o700));
            });
        });
        assert!(!lab.dir.join("home/.cache").exists(), "nothing of it stays");
        // The workspace may lie in it.
        plan.home.clone_from(&lab.dir);
        lab.sandbox(&plan, |_| as_command(|| assert_eq!(write(lab.work().join("x")), Ok(()))));
        plan.home = lab.work();
        lab.sandbox(&plan, |_| as_command(|| assert_eq!(write(lab.work().join("y")), Ok(()))));
        assert!(lab.work().join("y").exists());
    });
}

#[test]
fn a_steering_file_that_cannot_be_held_stops_the_start() {
    both(|lab: &Lab| {
        let mut plan = lab.plan();
        let outside = lab.dir.join("policy.yaml");
        fs::write(&outside, "version: 1").unwrap();
        symlink(&outside, lab.work().join("linked.yaml")).unwrap();
        for path in [lab.work().join("linked.yaml"), lab.work().join("absent.yaml")] {
            plan.protected = vec![steering(path)];
            lab.refused(&plan, |e| assert!(matches!(e, ViewError::Unprotected { .. }), "{e}"));
        }
        let policy = lab.put("policy.yaml", "version: 1");
        fs::hard_link(&policy, lab.work().join("other-name")).unwrap();
        plan.protected = vec![steering(&policy)];
        lab.refused(&plan, |e| assert!(e.to_string().contains("hard links"), "{e}"));
        fs::remove_file(lab.work().join("other-name")).unwrap();
        plan.protected.push(steering(&outside));
        lab.sandbox(&plan, |_| {
            as_command(|| {
                assert_eq!(fs::read_to_string(&policy).unwrap(), "version: 1");
                assert_eq!(write(&policy), Err(Errno::ROFS));
                assert_eq!(fs::remove_file(&policy).unwrap_err().raw_os_error(), Some(libc::EBUSY));
                assert_eq!(
                    fs::hard_link(&policy, lab.work().join("alias")).unwrap_err().raw_os_error(),
                    Some(libc::EXDEV)
                );
                assert_eq!(write(lab.work().join("else.yaml")), Ok(()), "the control");
            });
        });
    });
}
