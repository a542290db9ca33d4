//! What counting costs: nanoseconds for an event, on the audit's thread.
#![forbid(unsafe_code)]

use std::{sync::Arc, time::Instant};

use stockade_audit::{Action, Event, Http, Network, Record, Sink};
use stockade_telemetry::{Health, Metrics};
use stockade_types::{Generation, SandboxId};

const EVENTS: u32 = 1_000_000;

fn main() {
    let mut metrics = Metrics::new(Health::default(), Box::new(Vec::new));
    let network =
        Network { host: Some("a.test".into()), ..Network::new(Action::Allowed, "connect", Generation::FIRST) };
    let event = Event::Http(Http { network, method: "GET".into(), path: "/".into(), status: 200 });
    let record = Record { sequence: 1, time_ms: 1, sandbox: Arc::new(SandboxId::from_random([1; 8])), event };
    let began = Instant::now();
    (0..EVENTS).for_each(|_| metrics.record(&record));
    let each = began.elapsed() / EVENTS;
    let began = Instant::now();
    let text = metrics.text().unwrap_or_default();
    println!("{each:?} an event (two counters), {:?} to write {} bytes", began.elapsed(), text.len());
}
