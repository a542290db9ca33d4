use std::sync::Arc;

use stockade_types::{Generation, SandboxId};

use super::*;
use crate::event::Event;

fn record(host: &str, action: Action, suppressed: u64) -> Record {
    let event = Event::Network(Network {
        reason: Some(Reason::NoPolicy),
        host: Some(host.into()),
        port: Some(443),
        suggestion: Some("--allow evil.test".into()),
        suppressed,
        audited: action == Action::Allowed,
        ..Network::new(action, "connect", Generation(1))
    });
    Record { sequence: 1, time_ms: 0, sandbox: Arc::new(SandboxId::from_random([0; 8])), event }
}

#[test]
fn counts_and_shows() {
    let mut summary = Summary::new();
    assert_eq!(summary.to_string(), "");
    summary.record(&record("other.test", Action::Denied, 0));
    summary.record(&record("evil.test", Action::Denied, 10));
    summary.record(&record("evil.test", Action::Denied, 0));
    summary.record(&record("far.test", Action::Failed, 0));
    summary.record(&record("maybe.test", Action::Allowed, 0));
    summary.record(&record("done.test", Action::Closed, 0));
    assert_eq!(
        summary.to_string(),
        "blocked 12 × evil.test:443 (no_policy) - to allow: --allow evil.test\n\
         blocked 1 × other.test:443 (no_policy) - to allow: --allow evil.test\n\
         would have blocked 1 × maybe.test:443 (no_policy) - to allow: --allow evil.test\n\
         failed 1 × far.test:443 (no_policy) - to allow: --allow evil.test\n"
    );
    assert_eq!(summary.blocked_in_all(), 13);
    assert_eq!(summary.blocked().first().map(|b| (b.host.as_str(), b.count)), Some(("evil.test", 12)));
}

#[test]
fn hostile_names_are_escaped_and_the_table_is_bounded() {
    let mut summary = Summary::new();
    summary.record(&record("a\n\x1b[2Jblocked 0", Action::Denied, 5));
    for n in 0..100_000 {
        summary.record(&record(&format!("x{n}.test"), Action::Denied, 0));
    }
    let text = summary.to_string();
    assert!(text.starts_with("blocked 6 × a\\u{a}\\u{1b}[2Jblocked 0:443"), "{text}");
    assert_eq!(text.lines().count(), SHOWN + 1);
    assert_eq!(text.lines().last().unwrap(), format!("and {} × other destinations", 100_000 - (SHOWN - 1)));
    assert_eq!(summary.blocked_in_all(), 100_006);
    assert_eq!(summary.lock().rows.len(), MAX_ROWS);
}
