use std::sync::mpsc;

use stockade_types::{Generation, Reason};

use super::*;
use crate::{
    event::{Action, Finding, Network},
    record::Record,
    sink::{Outcome, Summary, Tap},
};

fn sandbox() -> SandboxId {
    SandboxId::from_random([7; 8])
}

fn denied(host: &str) -> Event {
    Event::Network(Network {
        reason: Some(Reason::NoPolicy),
        host: Some(host.into()),
        port: Some(443),
        suggestion: Some("allow it".into()),
        ..Network::new(Action::Denied, "connect", Generation(3))
    })
}

/// Collects records.
fn tapped() -> (Settings, mpsc::Receiver<Record>) {
    let (to, from) = mpsc::channel();
    (Settings::new(sandbox()).sink(Tap::new(move |r: &Record| to.send(r.clone()).unwrap())), from)
}

fn finding_counts(records: &[Record], reason: Reason) -> Vec<u64> {
    let of = |r: &Record| match &r.event {
        Event::Finding(f) if f.reason == reason => Some(f.count),
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

#[test]
fn events_arrive_in_order_and_numbered() {
    let (settings, from) = tapped();
    let (audit, writer) = Audit::start(settings).unwrap();
    for n in 0..100 {
        audit.clone().emit(denied(&format!("h{n}.test")));
    }
    assert!(audit.flush(Duration::from_secs(5)));
    let got: Vec<_> = from.try_iter().collect();
    assert_eq!(got.iter().map(|r| r.sequence).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    assert!(got.iter().enumerate().all(|(n, r)| r.event == denied(&format!("h{n}.test"))));
    assert!(writer.close(Duration::from_secs(5)));
}

#[test]
fn what_comes_while_the_writer_rests_is_written_without_a_push() {
    let (settings, from) = tapped();
    let (audit, writer) = Audit::start(settings).unwrap();
    let next = || from.recv_timeout(Duration::from_secs(30)).map(|r| r.sequence);
    for n in 1..=50 {
        // Each comes after the one before was written: into the rest that follows it.
        audit.emit(denied(&format!("h{n}.test")));
        assert_eq!(next(), Ok(n));
    }
    for n in 0..LOT + 8 {
        audit.emit(denied(&format!("lot{n}.test")));
    }
    for n in 51..=58 + LOT as u64 {
        assert_eq!(next(), Ok(n), "more than end its rest");
    }
    assert_eq!(audit.lost(), 0);
    assert!(writer.close(Duration::from_secs(5)));
}

#[test]
fn n_equal_refusals_are_counted_in_full() {
    let (settings, from) = tapped();
    let summary = Summary::new();
    let (audit, writer) = Audit::start(settings.sink(summary.clone())).unwrap();
    // Below the queue's bound, so that none can be lost however slow the machine is.
    for _ in 0..4000 {
        audit.emit(denied("evil.test"));
    }
    drop(audit);
    assert!(writer.close(Duration::from_secs(10)));
    let got: Vec<_> = from.try_iter().collect();
    let stands_for: u64 = got.iter().filter_map(|r| r.event.connection()).map(|n| n.suppressed + 1).sum();
    assert_eq!(stands_for, 4000);
    assert!(got.len() < 400, "{} lines for one destination", got.len());
    assert_eq!(summary.total(Outcome::Blocked).connections, 4000);
}

#[test]
fn a_stuck_sink_never_stops_emit_and_losses_are_reported() {
    let (release, blocked) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let mut first = true;
    let (to, from) = mpsc::channel();
    let tap = Tap::new(move |r: &Record| {
        if std::mem::take(&mut first) {
            entered.send(()).unwrap();
            blocked.recv().unwrap();
        }
        to.send(r.clone()).unwrap();
    });
    let (audit, writer) = Audit::start(Settings::new(sandbox()).sink(tap)).unwrap();
    audit.emit(denied("first.test"));
    inside.recv().unwrap();
    let begun = Instant::now();
    for n in 0..QUEUE + 1000 {
        audit.emit(denied(&format!("h{n}.test")));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "emit waited");
    assert_eq!(audit.lost(), 1000);
    assert!(!audit.flush(Duration::from_millis(20)), "flush cannot succeed while a sink is stuck");
    release.send(()).unwrap();
    assert!(audit.flush(Duration::from_secs(10)));
    let got: Vec<_> = from.try_iter().collect();
    assert_eq!(finding_counts(&got, Reason::AuditLost), [1000]);
    assert!(writer.close(Duration::from_secs(5)));
}

#[test]
fn dropping_the_last_handle_drains() {
    let (settings, from) = tapped();
    let (audit, writer) = Audit::start(settings).unwrap();
    audit.emit(denied("a.test"));
    drop(audit);
    assert!(writer.close(Duration::from_secs(5)));
    assert_eq!(from.iter().count(), 1);
}

#[test]
fn what_comes_after_close_is_counted_and_not_waited_for() {
    let (settings, from) = tapped();
    let (audit, writer) = Audit::start(settings).unwrap();
    assert!(writer.close(Duration::from_secs(5)));
    audit.emit(denied("late.test"));
    assert_eq!(audit.lost(), 1);
    assert!(audit.flush(Duration::from_secs(5)), "a finished writer has nothing to wait for");
    assert_eq!(from.iter().count(), 0);
}

#[test]
fn a_sink_that_panics_does_not_hang_anyone() {
    let settings = Settings::new(sandbox()).sink(Tap::new(|_: &Record| panic!("sink")));
    let (audit, writer) = Audit::start(settings).unwrap();
    audit.emit(denied("a.test"));
    assert!(audit.flush(Duration::from_secs(5)));
    drop(audit);
    assert!(writer.close(Duration::from_secs(5)));
}

/// Fails while the switch is on.
struct Flaky(Arc<std::sync::atomic::AtomicBool>, u64);

impl Sink for Flaky {
    fn name(&self) -> String {
        "flaky".into()
    }

    fn record(&mut self, _: &Record) {
        self.1 += 1;
    }

    fn commit(&mut self) -> Result<u64, crate::sink::SinkError> {
        let n = std::mem::take(&mut self.1);
        if self.0.load(Ordering::Relaxed) && n > 0 {
            let source = io::Error::from(io::ErrorKind::StorageFull);
            return Err(crate::sink::SinkError { name: self.name(), lost: n, source });
        }
        Ok(n)
    }
}

#[test]
fn a_failing_sink_is_reported_once_and_once_when_it_is_back() {
    let failing = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (settings, from) = tapped();
    let (audit, writer) = Audit::start(settings.sink(Flaky(Arc::clone(&failing), 0))).unwrap();
    for n in 0..5 {
        audit.emit(denied(&format!("h{n}.test")));
        assert!(audit.flush(Duration::from_secs(5)));
    }
    let during: Vec<_> = from.try_iter().collect();
    assert_eq!(finding_counts(&during, Reason::LogUnavailable), [1]);
    failing.store(false, Ordering::Relaxed);
    // A batch without records proves nothing and reports nothing.
    assert!(audit.flush(Duration::from_secs(5)));
    assert_eq!(from.try_iter().count(), 0);
    audit.emit(denied("after.test"));
    assert!(audit.flush(Duration::from_secs(5)));
    let after: Vec<_> = from.try_iter().collect();
    // Five events and the report of the failure itself.
    assert_eq!(finding_counts(&after, Reason::LogUnavailable), [6]);
    assert!(writer.close(Duration::from_secs(5)));
}

#[test]
fn a_sink_that_fails_to_the_end_says_how_much_it_lacks() {
    let failing = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (settings, from) = tapped();
    let (audit, writer) = Audit::start(settings.sink(Flaky(failing, 0))).unwrap();
    for n in 0..3 {
        audit.emit(denied(&format!("h{n}.test")));
        assert!(audit.flush(Duration::from_secs(5)));
    }
    assert!(writer.close(Duration::from_secs(5)));
    let records: Vec<_> = from.try_iter().collect();
    // Three events and the report of the failure; the last report is lost there too.
    assert_eq!(finding_counts(&records, Reason::LogUnavailable), [1, 4]);
    assert_eq!((audit.lost(), audit.failing()), (5, true));
}

#[test]
fn texts_are_bounded_before_they_are_queued() {
    let (settings, from) = tapped();
    let (audit, writer) = Audit::start(settings).unwrap();
    let detail = "x".repeat(1 << 20);
    audit.emit(Event::Finding(Finding { reason: Reason::OuterWeak, severity: 2, detail, count: 1 }));
    assert!(writer.close(Duration::from_secs(5)));
    let record = from.recv().unwrap();
    assert!(record.to_ocsf().len() < 5000);
}
