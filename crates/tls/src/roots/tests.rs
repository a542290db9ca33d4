use super::*;
use crate::testing::Side;

#[test]
fn bundles_add_up_without_doubles() {
    let (one, two) = (Side::new(), Side::new());
    let both = format!("# a comment\n{}\n{}", one.roots.pem(), two.roots.pem());
    let roots =
        Roots::none().with_pem(one.roots.pem().as_bytes()).unwrap().with_named("both", both.as_bytes()).unwrap();
    assert_eq!(roots.certificates().len(), 2);
    assert_eq!(roots.store().len(), 3, "the verifier does not mind");
    assert_eq!(roots.pem(), format!("{}{}", one.roots.pem(), two.roots.pem()));
    let want = Source { from: "both".into(), taken: 1, left_out: 0 };
    assert_eq!(roots.sources()[1], want);
}

#[test]
fn what_the_operator_names_must_be_good() {
    let side = Side::new();
    let good = side.roots.pem();
    let lines: Vec<_> = good.lines().collect();
    let cut = [&lines[..1], &lines[lines.len() / 2..]].concat().join("\n");
    let text = |bytes: &[u8]| Roots::none().with_named("f.pem", bytes).unwrap_err().to_string();
    assert!(text(format!("{good}{cut}\n").as_bytes()).starts_with("f.pem: certificate 2 is malformed"));
    assert!(text(b"").starts_with("f.pem: no certificate in it"));
    assert!(text(b"\xff\x00junk").starts_with("f.pem: no certificate in it"));
    assert!(text(&vec![b'a'; 5 << 20]).starts_with("f.pem: more than"));
    assert!(text(good.repeat(MAX_CERTIFICATES + 1).as_bytes()).starts_with("f.pem: more than"));
    let missing = Roots::none().with_file(Path::new("/nonexistent/x.pem")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/x.pem: cannot be read"), "{missing}");
    assert!(Roots::none().with_file(Path::new("/")).is_err());
    assert!(Roots::none().with_file(Path::new("/dev/zero")).unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn the_first_bundle_that_holds_one_is_taken_and_its_bad_blocks_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let side = Side::new();
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let paths = [
        folder.path().join("absent"),
        file("empty", "nothing"),
        file("good", &format!("{bad}{}", side.roots.pem())),
        file("later", Side::new().roots.pem()),
    ];
    let roots = Roots::first_of(paths.iter().map(PathBuf::as_path)).unwrap();
    let from = paths[2].display().to_string();
    assert_eq!(roots.sources(), [Source { from, taken: 1, left_out: 1 }]);
    assert_eq!(roots.pem(), side.roots.pem());
    assert!(matches!(Roots::first_of(paths[..2].iter().map(PathBuf::as_path)), Err(RootsError::NoBundle)));
    assert!(matches!(Roots::first_of(std::iter::once(folder.path())), Err(RootsError::Read { .. })));
}
