use std::{fs, os::unix::fs::PermissionsExt};

use stockade_types::Reason;

use super::*;
use crate::event::Finding;

fn sandbox() -> SandboxId {
    SandboxId::from_random([1; 8])
}

fn record(n: u64) -> Record {
    let finding = Finding { reason: Reason::OuterWeak, severity: 2, detail: format!("number {n}"), count: 1 };
    Record { sequence: n, time_ms: n, sandbox: Arc::new(sandbox()), event: Event::Finding(finding) }
}

fn write(sink: &mut FileSink, range: std::ops::Range<u64>) {
    for n in range {
        sink.record(&record(n));
    }
    sink.commit().unwrap();
}

fn links(path: &Path) -> Vec<chain::Link> {
    fs::read(path)
        .unwrap()
        .split_inclusive(|&b| b == b'\n')
        .filter_map(|line| chain::open(line.strip_suffix(b"\n").unwrap()).ok())
        .collect()
}

fn assert_chained(links: &[chain::Link]) {
    for pair in links.windows(2) {
        let [a, b] = pair else { panic!() };
        assert_eq!((&a.hash, a.sequence + 1), (&b.prev, b.sequence));
    }
}

fn kinds(links: &[chain::Link]) -> Vec<SegmentKind> {
    links.iter().filter_map(|l| l.segment.as_ref().map(|s| s.kind)).collect()
}

#[test]
fn a_restart_goes_on_with_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    for run in 0..3 {
        let mut sink = FileSink::open(&path, &sandbox(), Rotation::default()).unwrap();
        write(&mut sink, 0..5);
        assert_eq!(sink.head().get().sequence, (run + 1) * 6);
    }
    let links = links(&path);
    assert_eq!(links.len(), 18);
    assert_eq!((links[0].sequence, links[0].prev.as_str()), (1, ""));
    assert_chained(&links);
    assert_eq!(kinds(&links), [SegmentKind::Genesis, SegmentKind::Restarted, SegmentKind::Restarted]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn rotation_keeps_the_chain_and_the_number_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let mut sink = FileSink::open(&path, &sandbox(), Rotation { bytes: 4096, keep: 3 }).unwrap();
    for n in 0..200 {
        write(&mut sink, n..n + 1);
    }
    drop(sink);
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3"]);
    let all: Vec<_> = ["audit.log.3", "audit.log.2", "audit.log.1", "audit.log"]
        .iter()
        .flat_map(|name| links(&dir.path().join(name)))
        .collect();
    assert_chained(&all);
    assert_eq!(kinds(&all), [SegmentKind::Rotated; 4]);
    for name in &names {
        assert!(fs::metadata(dir.path().join(name)).unwrap().len() < 6000);
    }
}

#[test]
fn a_crash_between_the_renames_of_a_rotation_is_finished_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let mut sink = FileSink::open(&path, &sandbox(), Rotation { bytes: 2048, keep: 2 }).unwrap();
    write(&mut sink, 0..10);
    drop(sink);
    fs::rename(&path, dir.path().join("audit.log.next")).unwrap();
    let before = links(&dir.path().join("audit.log.next"));
    let sink = FileSink::open(&path, &sandbox(), Rotation::default()).unwrap();
    assert_eq!(sink.head().get().sequence, before.last().unwrap().sequence + 1);
    assert!(!dir.path().join("audit.log.next").exists());
}

#[test]
fn a_torn_last_line_is_repaired_and_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    write(&mut FileSink::open(&path, &sandbox(), Rotation::default()).unwrap(), 0..5);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 40]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    write(&mut FileSink::open(&path, &sandbox(), Rotation::default()).unwrap(), 5..6);
    let links = links(&path);
    assert_chained(&links);
    assert_eq!(kinds(&links), [SegmentKind::Genesis, SegmentKind::Repaired]);
    let torn = links[5].segment.clone().unwrap().torn.unwrap();
    let text = fs::read(&path).unwrap();
    let line = text.split(|&b| b == b'\n').nth(5).unwrap();
    assert_eq!(torn, Torn { bytes: line.len() as u64, sha256: chain::sha256(&[line]) });
}

#[test]
fn a_changed_or_foreign_end_stops_the_start_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    write(&mut FileSink::open(&path, &sandbox(), Rotation::default()).unwrap(), 0..5);
    let edited = fs::read_to_string(&path).unwrap().replace("number 4", "number 5");
    for text in [edited.as_str(), "export PATH=/usr/bin\n", "no line feed", "\n", "{}\n"] {
        fs::write(&path, text).unwrap();
        let refused = FileSink::open(&path, &sandbox(), Rotation::default()).err().unwrap();
        assert!(matches!(refused, FileError::BadTail { .. }), "{text:.20}: {refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn what_others_could_have_put_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let open = |path: &Path| FileSink::open(path, &sandbox(), Rotation::default()).err().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::create_dir(at("dir")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::write(at("open"), "").unwrap();
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o620)).unwrap();
    fs::write(at("linked"), "").unwrap();
    fs::hard_link(at("linked"), at("second")).unwrap();
    assert!(matches!(open(&at("link")), FileError::Symlink(_)));
    assert!(matches!(open(&at("dangling")), FileError::Symlink(_)));
    assert!(!at("nowhere").exists());
    for name in ["pipe", "dir", "socket"] {
        assert!(matches!(open(&at(name)), FileError::NotRegular(_)), "{name}");
    }
    assert!(matches!(open(Path::new("/dev/null")), FileError::NotRegular(_)));
    assert!(matches!(open(&at("open")), FileError::Mode { mode: 0o620, .. }));
    assert!(matches!(open(&at("second")), FileError::HardLink(_)));
    assert!(matches!(open(&at("no/such/dir")), FileError::Directory { .. }));
    assert!(matches!(open(Path::new("/")), FileError::NoName(_)));
    let _held = FileSink::open(&at("good"), &sandbox(), Rotation::default()).unwrap();
    assert!(matches!(open(&at("good")), FileError::Busy(_)));
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP sink::file::a_file_of_another_user_is_refused: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    fs::write(&path, "").unwrap();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    let refused = FileSink::open(&path, &sandbox(), Rotation::default()).err().unwrap();
    assert!(matches!(refused, FileError::Owner { owner: 65534, us: 0, .. }));
}

#[test]
fn a_descriptor_may_be_given_instead_of_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let open = || fs::OpenOptions::new().create(true).read(true).append(true).open(&path).unwrap();
    drop(open());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for _ in 0..2 {
        write(&mut FileSink::from_file(open(), &sandbox()).unwrap(), 0..3);
    }
    let links = links(&path);
    assert_eq!(links.len(), 8);
    assert_chained(&links);
    let (reader, _writer) = std::io::pipe().unwrap();
    let refused = FileSink::from_file(File::from(OwnedFd::from(reader)), &sandbox()).err().unwrap();
    assert!(matches!(refused, FileError::NotRegular(_)));
}
