//! What `verify` finds, and what it cannot.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use stockade_audit::{
    Class, FileSink, Rotation, Sink, VerifyError, verify,
    verify::{Verifier, files},
};

use crate::samples;

/// Events that a sink takes: a file's own lines among them are left out.
fn taken() -> usize {
    samples::all().iter().filter(|(_, event)| event.class() != Class::Log).count()
}

struct Log {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        Self { _dir: dir, path }
    }

    fn write(&self, rotation: Rotation, times: usize) -> String {
        let mut sink = FileSink::open(&self.path, &samples::sandbox(), rotation).unwrap();
        for n in 0..times {
            for (_, event) in samples::all() {
                sink.record(&samples::record(n as u64, event));
                sink.commit().unwrap();
            }
        }
        sink.head().get().hash
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.path).unwrap().split_inclusive('\n').map(str::to_owned).collect()
    }
}

fn in_memory(bytes: &[u8]) -> Result<u64, VerifyError> {
    let mut verifier = Verifier::new(None);
    verifier.file(Path::new("log"), bytes)?;
    verifier.finish().map(|v| v.lines)
}

fn broken_at(lines: &[String]) -> u64 {
    match in_memory(lines.concat().as_bytes()) {
        Err(VerifyError::Broken { line, .. }) => line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_log_is_good_over_restarts_and_rotations() {
    let log = Log::new();
    log.write(Rotation::default(), 1);
    let head = log.write(Rotation { bytes: 20_000, keep: 9 }, 10);
    let verified = verify(&log.path, Some(&head)).unwrap();
    assert!(files(&log.path).len() > 3);
    assert!(verified.from_genesis);
    assert_eq!((verified.first, verified.last, verified.runs, verified.torn), (1, verified.lines, 2, 0));
    assert_eq!(verified.head, head);
    // The oldest files gone: good, but said so.
    log.write(Rotation { bytes: 20_000, keep: 2 }, 10);
    for n in 3..=9 {
        let _ = fs::remove_file(format!("{}.{n}", log.path.display()));
    }
    let verified = verify(&log.path, None).unwrap();
    assert!(!verified.from_genesis && verified.first > 1);
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let log = Log::new();
    log.write(Rotation::default(), 1);
    let good = fs::read(&log.path).unwrap();
    assert_eq!(in_memory(&good).unwrap(), 1 + taken() as u64);
    for at in 0..good.len() {
        // One bit, and the one that changes the case of a letter.
        for flip in [1 << (at % 8), 0x20] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            assert!(in_memory(&bytes).is_err(), "{flip:#x} of byte {at}");
        }
    }
}

#[test]
fn removal_insertion_reorder_and_repetition_are_found() {
    let log = Log::new();
    log.write(Rotation::default(), 1);
    let good = log.lines();
    for at in 0..good.len() - 1 {
        let mut removed = good.clone();
        removed.remove(at);
        assert_eq!(broken_at(&removed), at as u64 + 1);
        let mut doubled = good.clone();
        doubled.insert(at, good[at].clone());
        assert_eq!(broken_at(&doubled), at as u64 + 2);
        let mut swapped = good.clone();
        swapped.swap(at, at + 1);
        assert_eq!(broken_at(&swapped), at as u64 + 1);
        let mut foreign = good.clone();
        foreign.insert(at, "{}\n".into());
        assert_eq!(broken_at(&foreign), at as u64 + 1);
    }
    for end in 1..good.last().unwrap().len() {
        let mut cut = good.clone();
        cut.last_mut().unwrap().truncate(end);
        assert_eq!(broken_at(&cut), good.len() as u64, "cut inside the last line");
    }
}

#[test]
fn an_end_cut_off_is_found_only_with_a_head_kept_elsewhere() {
    let log = Log::new();
    let head = log.write(Rotation::default(), 1);
    let mut lines = log.lines();
    lines.pop();
    fs::write(&log.path, lines.concat()).unwrap();
    assert!(verify(&log.path, None).is_ok(), "documented: a chain cannot show this by itself");
    assert!(matches!(verify(&log.path, Some(&head)), Err(VerifyError::NoHead)));
}

#[test]
fn a_file_missing_in_the_middle_and_a_new_chain_are_found() {
    let log = Log::new();
    log.write(Rotation { bytes: 20_000, keep: 9 }, 10);
    let numbered = |n: u32| PathBuf::from(format!("{}.{n}", log.path.display()));
    fs::rename(numbered(2), numbered(20)).unwrap();
    fs::rename(numbered(3), numbered(2)).unwrap();
    assert!(matches!(verify(&log.path, None), Err(VerifyError::Broken { line: 1, .. })));
    let other = Log::new();
    other.write(Rotation { bytes: 20_000, keep: 9 }, 2);
    fs::remove_file(&other.path).unwrap();
    other.write(Rotation::default(), 1);
    let broken = verify(&other.path, None).unwrap_err().to_string();
    assert!(broken.contains("another chain begins here"), "{broken}");
}

#[test]
fn a_torn_line_is_good_only_with_its_repair_and_unchanged() {
    let log = Log::new();
    log.write(Rotation::default(), 1);
    let whole = fs::read(&log.path).unwrap();
    fs::write(&log.path, &whole[..whole.len() - 100]).unwrap();
    fs::set_permissions(&log.path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(verify(&log.path, None).is_err(), "not before the repair");
    log.write(Rotation::default(), 1);
    let verified = verify(&log.path, None).unwrap();
    assert_eq!((verified.torn, verified.runs), (1, 2));
    let repaired = log.lines();
    let torn = taken();
    for at in 0..repaired[torn].len() {
        let mut lines = repaired.clone();
        let mut bytes = lines[torn].clone().into_bytes();
        bytes[at] ^= 1;
        lines[torn] = String::from_utf8(bytes).unwrap();
        assert!(in_memory(lines.concat().as_bytes()).is_err(), "byte {at} of the torn line");
    }
    let mut without = repaired;
    without.remove(torn);
    assert_eq!(broken_at(&without), torn as u64 + 1);
}

#[test]
fn nothing_and_garbage() {
    assert!(matches!(in_memory(b""), Err(VerifyError::Empty)));
    assert!(in_memory(&[b'x'; 1 << 20]).is_err());
    assert!(in_memory(&[b'\n'; 100]).is_err());
    assert!(matches!(verify(Path::new("/nonexistent/log"), None), Err(VerifyError::Io { .. })));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
        proptest::prop_assert!(in_memory(&bytes).is_err());
    }
}
