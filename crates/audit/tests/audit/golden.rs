//! Each kind of event against a file: a change of the format is a change of a file that a person sees.
//! `STOCKADE_UPDATE_GOLDEN=1` writes them anew.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use stockade_audit::{Class, Entry};

use crate::samples;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/audit")
}

/// The JSON line and, under it, the human line.
fn rendered() -> Vec<(String, String)> {
    let of = |(n, (name, event)): (usize, (&str, _))| {
        let record = samples::record(n as u64 + 1, event);
        let json = record
            .to_ocsf()
            .replace(concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\""), "\"version\":\"VERSION\"");
        (format!("{name}.txt"), format!("{json}\n{record}\n"))
    };
    samples::all().into_iter().enumerate().map(of).collect()
}

#[test]
fn every_event_is_as_its_golden_file_says() {
    let update = env::var_os("STOCKADE_UPDATE_GOLDEN").is_some();
    for (name, text) in rendered() {
        let path = folder().join(&name);
        if update {
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(text, golden, "{name} differs; if that is meant, set STOCKADE_UPDATE_GOLDEN=1 and look at the diff");
    }
}

#[test]
fn every_class_has_a_golden_file_and_every_file_an_event() {
    let classes: BTreeSet<_> = samples::all().iter().map(|(_, event)| event.class()).collect();
    assert_eq!(classes, Class::ALL.iter().copied().collect());
    let names: BTreeSet<_> = rendered().into_iter().map(|(name, _)| name).collect();
    let files = fs::read_dir(folder()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, files);
}

#[test]
fn a_line_read_back_shows_what_the_record_showed() {
    for (n, (name, event)) in samples::all().into_iter().enumerate() {
        let record = samples::record(n as u64, event);
        let entry = Entry::parse(record.to_ocsf().as_bytes()).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(entry.to_string(), record.to_string(), "{name}");
        assert_eq!(entry.class_uid, record.event.class().uid());
        if let Some(connection) = record.event.connection() {
            assert_eq!(entry.reason(), connection.reason.map(stockade_types::Reason::code), "{name}");
            assert!(entry.action().is_some(), "{name}");
        }
    }
}

#[test]
fn ocsf_requires_these_of_every_class() {
    for (name, event) in samples::all() {
        let line: serde_json::Value = serde_json::from_str(&samples::record(1, event).to_ocsf()).unwrap();
        for field in ["time", "class_uid", "category_uid", "type_uid", "activity_id", "severity_id", "status_id"] {
            assert!(line[field].is_u64(), "{name}: {field}");
        }
        assert_eq!(line["category_uid"].as_u64().unwrap(), line["class_uid"].as_u64().unwrap() / 1000, "{name}");
        let type_uid = line["class_uid"].as_u64().unwrap() * 100 + line["activity_id"].as_u64().unwrap();
        assert_eq!(line["type_uid"].as_u64().unwrap(), type_uid, "{name}");
        for pointer in ["/metadata/version", "/metadata/product/vendor_name", "/device/uid", "/message"] {
            assert!(line.pointer(pointer).is_some_and(serde_json::Value::is_string), "{name}: {pointer}");
        }
        assert!(line["metadata"]["sequence"].is_u64(), "{name}");
    }
}
