//! A disk that is full, and then is not.

use std::{fs, path::Path, sync::mpsc, time::Duration};

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
};
use stockade_audit::{Action, Audit, Event, FileSink, Record, Rotation, Settings, Tap, verify};
use stockade_testkit::{Feature, child::Child, need};
use stockade_types::Reason;

use crate::samples;

const SOON: Duration = Duration::from_secs(10);

fn unavailable(records: &[Record]) -> Vec<u64> {
    let of = |r: &Record| match &r.event {
        Event::Finding(f) if f.reason == Reason::LogUnavailable => Some(f.count),
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

fn emit(audit: &Audit, host: &str) {
    let mut network = samples::network(Action::Allowed);
    network.host = Some(host.into());
    audit.emit(Event::Network(network));
    assert!(audit.flush(SOON));
}

fn full_then_not(dir: &Path) {
    mount(Some("none"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    let log = dir.join("audit.log");
    let (to, from) = mpsc::channel();
    let tap = Tap::new(move |r: &Record| to.send(r.clone()).unwrap());
    let sink = FileSink::open(&log, &samples::sandbox(), Rotation { bytes: 1 << 20, keep: 2 }).unwrap();
    let head = sink.head();
    let (audit, writer) = Audit::start(Settings::new(samples::sandbox()).sink(sink).sink(tap)).unwrap();
    emit(&audit, "before.test");
    fs::write(dir.join("ballast"), vec![0; 1 << 20]).unwrap_err();
    // What is left of the last page takes some lines.
    for n in 0..40 {
        emit(&audit, &format!("full{n}.test"));
    }
    let during: Vec<_> = from.try_iter().collect();
    assert_eq!(unavailable(&during), [1], "reported once, by the sink that works");
    let kept = verify(&log, None).unwrap();
    assert!(kept.lines < 40, "the disk was full");
    // The events and the report, without those in the file; its first line is the log's own.
    assert_eq!(audit.lost(), 41 + 1 - (kept.lines - 1), "what the file lacks, and nothing of the queue");

    fs::remove_file(dir.join("ballast")).unwrap();
    emit(&audit, "after.test");
    let after: Vec<_> = from.try_iter().collect();
    // All records so far, and the report of the failure, that are not in the file. Its first line is the log's own.
    let given = 41 + 1 + 1;
    assert_eq!(unavailable(&after), [given - 1 - (kept.lines - 1)]);
    assert!(writer.close(SOON));
    let verified = verify(&log, Some(&head.get().hash)).unwrap();
    assert_eq!(verified.lines, kept.lines + 2, "the event after and the finding");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("before.test") && text.contains("after.test") && text.contains("log_unavailable"));
}

#[test]
fn a_full_disk_is_reported_once_counted_and_leaves_a_good_chain() {
    need!(Feature::Root);
    let dir = tempfile::tempdir().unwrap();
    Child::new().namespaces(CloneFlags::CLONE_NEWNS).run(|| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        full_then_not(dir.path());
    });
}
