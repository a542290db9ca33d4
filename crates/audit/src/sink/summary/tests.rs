use std::sync::Arc;

use stockade_types::{Generation, SandboxId};

use super::*;
use crate::event::Http;

fn network(host: &str, action: Action, suppressed: u64) -> Network {
    Network {
        reason: Some(Reason::NoPolicy),
        host: Some(host.into()),
        port: Some(443),
        suggestion: Some("--allow evil.test".into()),
        suppressed,
        audited: action == Action::Allowed,
        ..Network::new(action, "connect", Generation(1))
    }
}

fn record(host: &str, action: Action, suppressed: u64) -> Record {
    of(Event::Network(network(host, action, suppressed)))
}

fn of(event: Event) -> Record {
    Record { sequence: 1, time_ms: 0, sandbox: Arc::new(SandboxId::from_random([0; 8])), event }
}

fn counts(summary: &Summary, outcome: Outcome) -> Vec<(String, u64)> {
    summary.rows(outcome).into_iter().map(|b| (b.host, b.count)).collect()
}

#[test]
fn counts_by_destination_and_outcome() {
    let mut summary = Summary::new();
    assert_eq!((summary.rows(Outcome::Blocked), summary.total(Outcome::Blocked)), (Vec::new(), Total::default()));
    summary.record(&record("other.test", Action::Denied, 0));
    summary.record(&record("evil.test", Action::Denied, 10));
    summary.record(&record("evil.test", Action::Denied, 0));
    summary.record(&record("far.test", Action::Failed, 0));
    summary.record(&record("maybe.test", Action::Allowed, 0));
    summary.record(&record("done.test", Action::Closed, 0));
    assert_eq!(counts(&summary, Outcome::Blocked), [("evil.test".into(), 12), ("other.test".into(), 1)]);
    assert_eq!(counts(&summary, Outcome::LetThrough), [("maybe.test".into(), 1)]);
    assert_eq!(summary.total(Outcome::Blocked), Total { connections: 13, requests: 0 });
    assert_eq!(summary.total(Outcome::LetThrough), Total { connections: 1, requests: 0 });
    assert_eq!(counts(&summary, Outcome::Failed), [("far.test".into(), 1)]);
    assert_eq!(summary.total(Outcome::Failed), Total { connections: 1, requests: 0 });
}

#[test]
fn a_row_has_the_first_sentence_and_what_comes_in_is_no_failure_of_the_command() {
    let mut summary = Summary::new();
    for (door, detail) in [("connect", "first"), ("connect", "second"), ("publish", "inbound")] {
        let (endpoint, detail) = (Some("api".into()), Some(detail.into()));
        summary.record(&of(Event::Network(Network { door, detail, endpoint, ..network("a.test", Action::Failed, 0) })));
    }
    let rows = summary.rows(Outcome::Failed);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.count, row.detail.as_deref(), row.endpoint), (2, Some("first"), true));
}

#[test]
fn requests_of_one_destination_are_told_apart_up_to_a_bound() {
    let mut summary = Summary::new();
    let request = |path: &str, endpoint: Option<&str>| {
        let suggestion = Some(format!("allow {path}"));
        let network =
            Network { endpoint: endpoint.map(Into::into), suggestion, ..network("a.test", Action::Denied, 0) };
        of(Event::Http(Http { network, method: "GET".into(), path: path.into(), status: 403 }))
    };
    for path in ["/b", "/a", "/b", &format!("/{}", "x".repeat(200))] {
        summary.record(&request(path, Some("api")));
    }
    // The host itself was refused: what was to be asked of it does not matter.
    summary.record(&request("/c", None));
    let rows = summary.rows(Outcome::Blocked);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.requests.texts, ["GET /b", "GET /a", &format!("GET /{}…", "x".repeat(99))]);
    assert_eq!((row.suggestions.texts.len(), row.suggestions.more), (4, false));
    assert_eq!(summary.total(Outcome::Blocked), Total { connections: 1, requests: 4 });
    for n in 0..100 {
        summary.record(&request(&format!("/{n}"), Some("api")));
    }
    let row = &summary.rows(Outcome::Blocked)[0];
    assert_eq!((row.requests.texts.len(), row.requests.more), (MAX_TEXTS, true));
    assert_eq!((row.suggestions.texts.len(), row.suggestions.more), (MAX_TEXTS, true));
    assert_eq!(row.count, 105);
}

#[test]
fn the_table_is_bounded_and_counts_go_on() {
    let mut summary = Summary::new();
    for n in 0..100_000 {
        summary.record(&record(&format!("x{n}.test"), Action::Denied, 0));
    }
    summary.record(&record("x1.test", Action::Denied, 4));
    assert_eq!(summary.total(Outcome::Blocked).connections, 100_005);
    assert_eq!(summary.lock().rows.len(), MAX_ROWS);
    assert_eq!(counts(&summary, Outcome::Blocked)[0], ("x1.test".into(), 6));
}
