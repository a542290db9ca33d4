//! Microseconds per verdict by number of endpoints, uncached and cached, and the time to compile.
//!
//! `cargo run --release -p stockade-policy --example verdict`
#![forbid(unsafe_code)]

use std::{fmt::Write, hint::black_box, time::Instant};

use stockade_policy::{Door, Intent, Policy, Posture, Rejected, Snapshot, Source};
use stockade_types::{Authority, Generation};

/// Rounds, and questions timed together: few, so that the fastest lot is one that nothing interrupted.
const ROUNDS: usize = 7;
const LOT: usize = 50;

fn policy(endpoints: usize) -> Result<Policy, Rejected> {
    let mut text = String::from("version: 1\nnetwork:\n  endpoints:\n");
    for i in 0..endpoints {
        // One in ten is a wildcard. Writing to a String cannot fail.
        let star = if i % 10 == 0 { "*." } else { "" };
        let _ = writeln!(text, "    e{i}: {{hosts: ['{star}h{i}.example.org'], ports: [80, 443], tls: passthrough}}");
    }
    Policy::parse(&[Source::new("bench", text)])
}

fn intents(count: usize, name: impl Fn(usize) -> String) -> Vec<Intent> {
    let one = |i| Authority::parse(&name(i), None).ok();
    (0..count).filter_map(one).map(|Authority { host, port }| Intent::new(Door::Connect, host, port)).collect()
}

/// Microseconds per question, over questions that were not asked before.
fn uncached(policy: &Policy, asked: &[Intent]) -> Result<f64, Rejected> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let snapshot = Snapshot::compile(policy, &[], Generation::FIRST, Posture::Enforce)?;
        // The first verdict makes the machine; it is not what is measured here.
        intents(1, |_| "warm.example.net:1".to_owned()).iter().for_each(|i| drop(black_box(snapshot.authorize(i))));
        for lot in asked.chunks(LOT) {
            let begun = Instant::now();
            lot.iter().for_each(|i| drop(black_box(snapshot.authorize(i))));
            best = best.min(begun.elapsed().as_secs_f64() * 1e6 / lot.len() as f64);
        }
    }
    Ok(best)
}

fn cached(policy: &Policy, asked: &Intent) -> Result<f64, Rejected> {
    const TIMES: u32 = 2_000;
    let snapshot = Snapshot::compile(policy, &[], Generation::FIRST, Posture::Enforce)?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        (0..TIMES).for_each(|_| drop(black_box(snapshot.authorize(asked))));
        best = best.min(begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES));
    }
    Ok(best)
}

fn main() -> Result<(), Rejected> {
    println!(
        "| endpoints | parse ms | compile ms | hit us | wildcard us | wrong port us | miss us | cached hit us | cached miss us |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for n in [1, 10, 100, 1_000, 10_000] {
        let begun = Instant::now();
        let policy = policy(n)?;
        let parse = begun.elapsed().as_secs_f64() * 1e3;
        let mut compile = f64::INFINITY;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            drop(black_box(Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce)?));
            compile = compile.min(begun.elapsed().as_secs_f64() * 1e3);
        }
        // An endpoint is asked for once: with few of them the doors and ports make different questions.
        let hit = intents(900.min(n), |i| {
            format!("h{}.example.org:{}", 1 + i * (n / 900.min(n)), if i % 2 == 0 { 80 } else { 443 })
        });
        let wild = intents(900, |i| format!("x{i}.h0.example.org:443"));
        let port = intents(900, |i| format!("h{}.example.org:{}", 1.min(n - 1), 1_000 + i));
        let miss = intents(900, |i| format!("m{i}.example.net:443"));
        let first = |list: &[Intent]| list.first().map_or(Ok(f64::NAN), |i| cached(&policy, i));
        println!(
            "| {n} | {parse:.2} | {compile:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            uncached(&policy, &hit)?,
            uncached(&policy, &wild)?,
            uncached(&policy, &port)?,
            uncached(&policy, &miss)?,
            first(&hit)?,
            first(&miss)?,
        );
    }
    Ok(())
}
