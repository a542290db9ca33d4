//! What an audit event costs: `cargo run --release -p stockade-audit --example emit`.
//!
//! Prints the time that `emit` takes on the caller's side (the queue never full), and how many events a second go
//! through the writer into a chained file: distinct ones, and equal refusals that are folded.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use stockade_audit::{Action, Audit, Event, FileSink, Network, Rotation, Settings};
use stockade_types::{Generation, Reason, SandboxId};

const BATCH: u32 = 2000;
const ROUNDS: u32 = 50;
const SOON: Duration = Duration::from_secs(10);

fn event(host: String) -> Event {
    Event::Network(Network {
        reason: Some(Reason::NoPolicy),
        host: Some(host),
        port: Some(443),
        detail: Some("no endpoint of the policy names it".into()),
        suggestion: Some("hosts: [evil.test]".into()),
        ..Network::new(Action::Denied, "connect", Generation::FIRST)
    })
}

fn measure(name: &str, host: impl Fn(u32) -> String) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let sandbox = SandboxId::from_random([0; 8]);
    let sink = FileSink::open(&dir.path().join("audit.log"), &sandbox, Rotation::default())?;
    let (audit, writer) = Audit::start(Settings::new(sandbox).sink(sink))?;
    let mut emitting = Duration::ZERO;
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let events: Vec<_> = (0..BATCH).map(|n| event(host(round * BATCH + n))).collect();
        let start = Instant::now();
        events.into_iter().for_each(|e| audit.emit(e));
        emitting += start.elapsed();
        if !audit.flush(SOON) {
            return Err("the writer did not keep up".into());
        }
    }
    let all = begun.elapsed();
    let events = ROUNDS * BATCH;
    println!(
        "{name}: {} ns per emit, {:.0} events/s to the file, {} lost",
        emitting.as_nanos() / u128::from(events),
        f64::from(events) / all.as_secs_f64(),
        audit.lost()
    );
    if writer.close(SOON) { Ok(()) } else { Err("the writer did not end".into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    measure("distinct", |n| format!("h{n}.test"))?;
    measure("equal", |_| "evil.test".into())
}
