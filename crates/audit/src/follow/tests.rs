use std::{fs, io::Write};

use super::*;

fn lines(follow: &mut Follow) -> (Vec<String>, Polled) {
    let mut out = Vec::new();
    let polled = follow.poll(|line| out.push(String::from_utf8(line.to_vec()).unwrap())).unwrap();
    (out, polled)
}

fn append(path: &Path, text: &str) {
    fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn whole_lines_only_and_across_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let log = at("log");
    append(&log, "1\n2\n3\n4");
    let mut follow = Follow::open(&log, From::Last(2)).unwrap();
    assert_eq!(lines(&mut follow), (vec!["2".into(), "3".into()], Polled::Idle));
    append(&log, "4\n");
    assert_eq!(lines(&mut follow).0, ["44"]);
    // Two rotations between polls.
    append(&log, "5\n");
    fs::rename(&log, at("log.1")).unwrap();
    append(&log, "6\n");
    fs::rename(at("log.1"), at("log.2")).unwrap();
    fs::rename(&log, at("log.1")).unwrap();
    append(&log, "7\n");
    assert_eq!(lines(&mut follow), (vec!["5".into(), "6".into(), "7".into()], Polled::Idle));
    assert_eq!(lines(&mut follow), (vec![], Polled::Idle));
    let mut all = Follow::open(&log, From::Beginning).unwrap();
    assert_eq!(lines(&mut all).0, ["1", "2", "3", "44", "5", "6", "7"]);
}

#[test]
fn a_file_rotated_away_unread_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    append(&log, "1\n");
    let mut follow = Follow::open(&log, From::Beginning).unwrap();
    lines(&mut follow);
    // The inode must not be given to the new file.
    let _held = File::open(&log).unwrap();
    fs::remove_file(&log).unwrap();
    append(&log, "9\n");
    assert_eq!(lines(&mut follow), (vec!["9".into()], Polled::Gap));
}

#[test]
fn the_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    append(&log, "1\n2\n3\n");
    for (n, want) in [(0, &[][..]), (1, &["3"]), (3, &["1", "2", "3"]), (9, &["1", "2", "3"])] {
        assert_eq!(lines(&mut Follow::open(&log, From::Last(n)).unwrap()).0, want, "{n}");
    }
    assert!(Follow::open(&dir.path().join("absent"), From::Last(1)).is_err());
}
