//! Microseconds per request by number of rules, uncached and cached, and for the protocols.
//!
//! `cargo run --release -p stockade-policy --example request`
#![forbid(unsafe_code)]

use std::{fmt::Write, hint::black_box, time::Instant};

use stockade_l7::Operation;
use stockade_policy::{
    Door, Intent, Permit, Policy, Posture, Rejected, Request, RequestVerdict, Snapshot, Source, Verdict,
};
use stockade_types::{Authority, Generation};

/// Rounds, and requests timed together: few, so that the fastest lot is one that nothing interrupted.
const ROUNDS: usize = 7;
const LOT: usize = 50;
const ASKED: usize = 800;

/// Rules of one endpoint: nine of ten allow below a place of their own, one of ten denies.
fn policy(rules: usize, protocol: &str, rule: impl Fn(usize) -> String) -> Result<Policy, Rejected> {
    let mut text = String::from("version: 1\nnetwork:\n  endpoints:\n    api:\n      hosts: [api.example.org]\n");
    let _ = writeln!(text, "      protocol: {protocol}\n      allow:");
    let list = |denied: bool| {
        let some = (0..rules.max(1)).filter(move |i| (i % 10 == 9) == denied);
        some.map(|i| format!("        - {{{}}}\n", rule(i))).collect::<String>()
    };
    let _ = writeln!(text, "{}      deny:\n{}", list(false), list(true));
    Policy::parse(&[Source::new("bench", text)])
}

fn compiled(policy: &Policy) -> Result<(Snapshot, Option<Permit>), Rejected> {
    let snapshot = Snapshot::compile(policy, &[], Generation::FIRST, Posture::Enforce)?;
    let asked = Authority::parse("api.example.org:443", None).ok();
    let permit = asked.and_then(|a| match snapshot.authorize(&Intent::new(Door::Connect, a.host, a.port)) {
        Verdict::Allow(permit) => Some(permit),
        Verdict::Deny(_) => None,
    });
    Ok((snapshot, permit))
}

fn request(method: &str, path: String, operations: Vec<Operation>) -> Request {
    let headers = vec![("accept".to_owned(), "application/json".to_owned())];
    Request { method: method.to_owned(), path, query: Vec::new(), headers, operations }
}

/// Microseconds per request, uncached and cached, and how many of them were allowed.
fn measure(policy: &Policy, asked: &[Request]) -> Result<(f64, f64, usize), Rejected> {
    let (mut uncached, mut cached, mut allowed) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        let (snapshot, permit) = compiled(policy)?;
        let Some(permit) = permit else { continue };
        let ask = |r: &Request| matches!(black_box(snapshot.authorize_request(&permit, r)), RequestVerdict::Allow(_));
        let (first, rest) = asked.split_at(1);
        // The first verdict makes the machine; it is not what is measured here.
        allowed = first.iter().filter(|r| ask(r)).count();
        for lot in rest.chunks(LOT) {
            let begun = Instant::now();
            allowed += lot.iter().filter(|r| ask(r)).count();
            uncached = uncached.min(begun.elapsed().as_secs_f64() * 1e6 / lot.len() as f64);
            let begun = Instant::now();
            lot.iter().for_each(|r| {
                black_box(ask(r));
            });
            cached = cached.min(begun.elapsed().as_secs_f64() * 1e6 / lot.len() as f64);
        }
    }
    Ok((uncached, cached, allowed))
}

fn main() -> Result<(), Rejected> {
    println!("| rules | asked | allowed | uncached us | cached us |");
    println!("|---|---|---|---|---|");
    let row = |rules: usize, what: &str, policy: &Policy, asked: &[Request]| -> Result<(), Rejected> {
        let (uncached, cached, allowed) = measure(policy, asked)?;
        println!("| {rules} | {what} | {allowed} of {} | {uncached:.2} | {cached:.2} |", asked.len());
        Ok(())
    };
    for rules in [0, 1, 10, 50, 1_000, 10_000] {
        let place = |i: usize| match rules {
            0 => "methods: ['*']".to_owned(),
            _ => format!("methods: [GET, HEAD], paths: ['/repos/org{i}/*', '/repos/org{i}/*/issues/**']"),
        };
        let policy = policy(rules, "http", place)?;
        let to = |method: &'static str, at: &dyn Fn(usize) -> usize, tail: &'static str| -> Vec<Request> {
            (0..ASKED).map(|i| request(method, format!("/repos/org{}/r{i}{tail}", at(i)), Vec::new())).collect()
        };
        let own = |i: usize| if rules == 0 { 0 } else { (i % rules.max(1)) / 10 * 10 };
        row(rules, "allowed", &policy, &to("GET", &own, "/issues/7"))?;
        row(rules, "no rule", &policy, &to("GET", &|_| 99_999, ""))?;
        row(rules, "another method", &policy, &to("POST", &own, ""))?;
        if rules >= 10 {
            row(rules, "denied", &policy, &to("GET", &|i| i % (rules / 10) * 10 + 9, ""))?;
        }
    }
    let policy_of_calls = policy(50, "grpc", |i| format!("services: [acme.v{i}.*], methods: [Get*, List*]"))?;
    let call = |i: usize| Operation::Grpc { service: "acme.v10.Users".to_owned(), method: format!("Get{i}") };
    let calls: Vec<Request> =
        (0..ASKED).map(|i| request("POST", "/acme.v10.Users/Get".to_owned(), vec![call(i)])).collect();
    row(50, "gRPC call", &policy_of_calls, &calls)?;
    let batch: Vec<Request> =
        (0..ASKED).map(|i| request("POST", "/".to_owned(), (0..10).map(|n| call(i * 10 + n)).collect())).collect();
    row(50, "10 gRPC calls", &policy_of_calls, &batch)
}
