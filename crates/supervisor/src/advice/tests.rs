use super::*;

/// What Docker's defaults show to an image's ordinary user.
fn docker(root: bool) -> Facts {
    Facts {
        container: true,
        root,
        maps: root,
        withheld: vec!["clone3", "unshare", "open_tree", "mount_setattr"],
        covered: true,
        ..Facts::default()
    }
}

fn begins(facts: &Facts) -> Vec<String> {
    facts.missing(None).iter().map(|line| line.split([':', ' ']).take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn two_options_are_enough_for_docker() {
    for root in [false, true] {
        let both = ["--security-opt seccomp=seccomp.json", "--security-opt systempaths=unconfined"];
        assert_eq!(begins(&docker(root)), both);
        let one = Facts { withheld: vec![], ..docker(root) };
        assert_eq!(begins(&one), [both[1]], "only what is missing");
        let other = Facts { covered: false, ..docker(root) };
        assert_eq!(begins(&other), [both[0]]);
        assert!(begins(&Facts { withheld: vec![], ..other }).is_empty());
    }
}

#[test]
fn root_without_any_right_is_told_to_be_somebody() {
    let bare = Facts { maps: false, withheld: vec![], covered: false, ..docker(true) };
    assert_eq!(begins(&bare), ["--user UID"]);
    let admin = Facts { admin: true, covered: true, ..bare };
    assert_eq!(begins(&admin), ["--cap-add NET_ADMIN"], "with CAP_SYS_ADMIN a covered /proc does not matter");
}

#[test]
fn powerless_user_namespaces_are_told_from_none() {
    let none = Facts { no_namespaces: true, ..Facts::default() };
    let powerless = Facts { powerless: true, ..Facts::default() };
    assert!(none.missing(None)[0].starts_with("there are no user namespaces"), "{none:?}");
    assert!(powerless.missing(None)[0].starts_with("user namespaces are made here, but powerless"), "{powerless:?}");
    assert_eq!(
        Facts { apparmor: Some("stockade".to_owned()), ..powerless.clone() }.missing(None).len(),
        0,
        "it has a profile"
    );
    assert_eq!(Facts { root: true, admin: true, ..powerless }.missing(None).len(), 0, "root needs none");
}

#[test]
fn the_profile_names_this_program() {
    assert!(APPARMOR_PROFILE.contains("userns,") && APPARMOR_PROFILE.contains("bin/stockade flags=(unconfined)"));
}

#[test]
fn a_filter_is_suspected_only_where_namespaces_failed() {
    let podman = Facts { withheld: vec![], filtered: true, ..docker(false) };
    assert_eq!(podman.missing(Some(Layer::Namespaces)).len(), 2);
    assert_eq!(podman.missing(Some(Layer::Mounts)).len(), 1, "the covered /proc is enough to explain that");
}
