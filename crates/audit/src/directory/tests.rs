use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::*;

/// Whether a file that is made in that directory is at `place`.
fn leads_to(path: &Path, place: &Path) -> bool {
    let dir = parent(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let mut file = fs::File::from(openat(&dir, "probe", flags, Mode::RUSR | Mode::WUSR).unwrap());
    file.write_all(b"x").unwrap();
    let there = fs::remove_file(place.join("probe")).is_ok();
    assert!(there || !place.join("probe").exists());
    there
}

#[test]
fn plain_paths_lead_where_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    assert!(leads_to(&at("a/b/file"), &at("a/b")));
    assert!(leads_to(&at("a/b/../file"), &at("a")));
    assert!(leads_to(&at("./a/./b/file"), &at("a/b")));
    assert!(leads_to(Path::new("file"), &std::env::current_dir().unwrap()));
    assert!(matches!(parent(&at("no/such/file")), Err(DirectoryError::Io(e)) if e.kind() == io::ErrorKind::NotFound));
    fs::write(at("plain"), "").unwrap();
    assert!(matches!(parent(&at("plain/file")), Err(DirectoryError::Io(_))));
}

#[test]
fn links_are_followed_only_where_root_alone_could_put_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["real", "open"] {
        fs::create_dir(at(name)).unwrap();
    }
    for (target, link) in [(at("real"), "link"), ("real".into(), "relative"), ("../real".into(), "open/up")] {
        symlink(target, at(link)).unwrap();
    }
    symlink("loop", at("loop")).unwrap();
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o1777)).unwrap();
    let refused = |path: &str| match parent(&at(path)) {
        Err(DirectoryError::Link { link, .. }) => link,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(refused("open/up/file"), Path::new("up"), "everybody may write beside it");
    assert_eq!(refused("loop/file"), Path::new("loop"));
    if !rustix::process::geteuid().is_root() {
        assert_eq!(refused("link/file"), Path::new("link"), "the command may be the same user");
        println!("SKIP directory::links_are_followed_only_where_root_alone_could_put_them: the rest needs root");
        return;
    }
    assert!(leads_to(&at("link/file"), &at("real")) && leads_to(&at("relative/file"), &at("real")));
    std::os::unix::fs::lchown(at("link"), Some(1000), None).unwrap();
    assert_eq!(refused("link/file"), Path::new("link"), "somebody else's");
    std::os::unix::fs::chown(dir.path(), Some(1000), None).unwrap();
    assert_eq!(refused("relative/file"), Path::new("relative"), "in somebody else's directory");
    assert!(leads_to(&at("real/file"), &at("real")), "control");
}
