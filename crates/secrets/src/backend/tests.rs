//! The conformance suite, run on every row of the registry, and what is particular to one store.

use std::{fs, io::Write, os::unix::ffi::OsStringExt, thread};

use super::*;

/// A place where a test writes what the store should read.
struct Bench {
    directory: tempfile::TempDir,
    store: &'static str,
}

impl Bench {
    fn new(store: &'static str) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), store }
    }

    /// Opens the stores with `name` holding these bytes in the one under test.
    fn with(&self, name: &str, bytes: &[u8]) -> Backends {
        let environment =
            |asked: &str| (self.store == "env" && asked == name).then(|| OsString::from_vec(bytes.into()));
        if self.store == "file" {
            fs::write(self.directory.path().join(name), bytes).unwrap();
        }
        self.open(&environment, &[name])
    }

    fn open(&self, environment: &dyn Fn(&str) -> Option<OsString>, variables: &[&str]) -> Backends {
        Backends::open(&Context { environment, variables, directory: self.directory.path(), recheck: Duration::ZERO })
    }
}

#[test]
fn every_store_keeps_the_contract() {
    for store in STORES {
        let bench = Bench::new(store.name);
        let fetched = |bytes: &[u8]| bench.with("NAME", bytes).fetch(store.name, "NAME");
        for (written, read) in
            [("canary", "canary"), ("canary\n", "canary"), ("canary\r\n", "canary"), ("a\n\n", "a\n"), ("ä b", "ä b")]
        {
            assert_eq!(fetched(written.as_bytes()).unwrap().expose(), read, "{}: {written:?}", store.name);
        }
        assert!(matches!(fetched(b""), Err(FetchError::Empty(_))), "{}", store.name);
        assert!(matches!(fetched(b"\n"), Err(FetchError::Empty(_))), "{}", store.name);
        assert!(matches!(fetched(b"canary-\xff"), Err(FetchError::NotText(_))), "{}", store.name);
        assert_eq!(fetched(&vec![b'a'; MAX_SOURCE]).unwrap().len(), MAX_SOURCE, "{}", store.name);
        assert!(matches!(fetched(&vec![b'a'; MAX_SOURCE + 1]), Err(FetchError::TooLong(_))), "{}", store.name);
        let absent = bench.with("NAME", b"canary-value").fetch(store.name, "OTHER").unwrap_err();
        assert!(matches!(absent, FetchError::NotSet(_) | FetchError::Io { .. }), "{}: {absent}", store.name);
        assert!(absent.to_string().contains("OTHER"), "{}: {absent}", store.name);
    }
}

#[test]
fn no_store_shows_a_value() {
    for store in STORES {
        let bench = Bench::new(store.name);
        let stores = bench.with("NAME", b"canary-7f3a");
        let value = stores.fetch(store.name, "NAME").unwrap();
        assert!(!format!("{stores:?} {value:?} {:?}", stores.0[store.name]).contains("canary"), "{}", store.name);
        for bytes in [&b"canary-7f3a-\xff"[..], &b"canary".repeat(20_000)] {
            let error = bench.with("NAME", bytes).fetch(store.name, "NAME").unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{}: {error}", store.name);
        }
    }
}

#[test]
fn an_unknown_store_is_named() {
    let error = Bench::new("env").with("A", b"value").fetch("vault", "A").unwrap_err();
    assert_eq!(error.to_string(), "there is no secret store `vault`");
}

#[test]
fn only_named_variables_are_asked_for_and_each_once() {
    let asked = std::cell::RefCell::new(Vec::new());
    let environment = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        Some(OsString::from("value-of-it"))
    };
    let stores = Bench::new("env").open(&environment, &["A", "B"]);
    stores.fetch("env", "A").unwrap();
    stores.fetch("env", "A").unwrap();
    assert!(stores.fetch("env", "PATH").is_err());
    assert_eq!(*asked.borrow(), ["A", "B"]);
}

#[test]
fn a_rotated_file_is_read_again_and_a_removed_one_is_no_longer_believed() {
    let bench = Bench::new("file");
    let stores = bench.with("token", b"first-value");
    let path = bench.directory.path().join("token");
    let first = stores.fetch("file", "token").unwrap();
    assert!(Arc::ptr_eq(&first, &stores.fetch("file", "token").unwrap()), "read again although it did not change");
    let new = bench.directory.path().join("new");
    fs::write(&new, "second-value").unwrap();
    fs::rename(&new, &path).unwrap();
    assert_eq!(stores.fetch("file", "token").unwrap().expose(), "second-value");
    thread::sleep(Duration::from_millis(20));
    fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap().write_all(b"third-values").unwrap();
    assert_eq!(stores.fetch("file", "token").unwrap().expose(), "third-values");
    fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        assert!(matches!(stores.fetch("file", "token"), Err(FetchError::Io { .. })));
    }
    fs::write(&path, "fourth-value").unwrap();
    assert_eq!(stores.fetch("file", "token").unwrap().expose(), "fourth-value");
}

#[test]
fn between_two_looks_a_file_is_believed_unchanged() {
    let bench = Bench::new("file");
    fs::write(bench.directory.path().join("token"), "first-value").unwrap();
    let context = Context {
        environment: &|_| None,
        variables: &[],
        directory: bench.directory.path(),
        recheck: Duration::from_secs(3600),
    };
    let stores = Backends::open(&context);
    assert_eq!(stores.fetch("file", "token").unwrap().expose(), "first-value");
    fs::write(bench.directory.path().join("token"), "second-value").unwrap();
    assert_eq!(stores.fetch("file", "token").unwrap().expose(), "first-value");
}

#[test]
fn links_and_special_files_are_refused() {
    let bench = Bench::new("file");
    let stores = bench.with("token", b"value-value");
    let at = |name: &str| bench.directory.path().join(name);
    std::os::unix::fs::symlink(at("token"), at("link")).unwrap();
    assert!(matches!(stores.fetch("file", "link"), Err(FetchError::Io { .. })));
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(matches!(stores.fetch("file", "fifo"), Err(FetchError::NotRegular(_))));
    fs::create_dir(at("folder")).unwrap();
    assert!(matches!(stores.fetch("file", "folder"), Err(FetchError::NotRegular(_))));
    assert!(matches!(stores.fetch("file", "/dev/zero"), Err(FetchError::NotRegular(_))));
}
