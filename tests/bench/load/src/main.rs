//! Load client of `make bench`: HTTPS through a CONNECT proxy, through a transparent door, or directly.
//!
//! `load --name HOST --port N --ca FILE|env [--proxy env|IP:PORT] [--address IP:PORT]`, then one job per line on standard
//! input and one line of JSON per job on standard output:
//!
//! - `new CLIENTS SECONDS PATH`: each request opens TCP, CONNECT and TLS (no resumption), gets one object, closes.
//! - `keep CLIENTS SECONDS PATH`: each client keeps one connection.
//! - `streams CLIENTS SECONDS PATH`: the clients share one HTTP/2 connection.
//! - `hold CLIENTS SECONDS PATH`: each client opens a connection, gets one object and keeps it open that long.
//! - `bulk 1 TIMES PATH`: one object on a connection of its own, in MB/s.
//! - `refused 1 TIMES IP:PORT`: TCP connects that must be refused.
//! - `denied 1 TIMES HOST:PORT`: CONNECTs that the proxy must answer with 403.
//!
//! `{n}` in the path of `keep` is a number of its own for each request. Only whole bodies behind a 200 count.
#![forbid(unsafe_code)]

mod client;

use std::{
    collections::HashMap,
    io::BufRead,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use client::{Error, Target};
use serde_json::{Value, json};

#[derive(Clone)]
struct Job {
    mode: String,
    clients: usize,
    amount: f64,
    object: String,
}

impl Job {
    fn parse(line: &str) -> Result<Self, Error> {
        let [mode, clients, amount, object] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err(format!("a job has four words: {line}").into());
        };
        Ok(Self { mode: mode.into(), clients: clients.parse()?, amount: amount.parse()?, object: object.into() })
    }
}

/// Latencies of what worked, bytes, and the errors.
#[derive(Default)]
struct Tally {
    nanos: Vec<u64>,
    bytes: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    fn add(&mut self, began: Instant, result: Result<u64, Error>) {
        match result {
            Ok(bytes) => {
                self.nanos.push(began.elapsed().as_nanos().try_into().unwrap_or(u64::MAX));
                self.bytes += bytes;
            }
            Err(e) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| e.to_string());
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.nanos.extend(other.nanos);
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn report(mut self, seconds: f64) -> Value {
        self.nanos.sort_unstable();
        let at = |p: f64| {
            let index = (self.nanos.len().saturating_sub(1) as f64 * p).round() as usize;
            self.nanos.get(index).map(|n| *n as f64 / 1e6)
        };
        json!({
            "ok": self.nanos.len(), "errors": self.errors, "first_error": self.first_error, "seconds": seconds,
            "per_second": self.nanos.len() as f64 / seconds, "mb_s": self.bytes as f64 / 1e6 / seconds,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0),
        })
    }
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options: HashMap<_, _> =
        args.as_chunks::<2>().0.iter().map(|p| (p[0].trim_start_matches("--"), p[1].as_str())).collect();
    let target = Arc::new(Target::new(&options)?);
    // One thread: the client shares two cores with the proxy and the upstream, and must not crowd them out.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    println!("{}", json!({ "ready": true }));
    for line in std::io::stdin().lock().lines() {
        let job = Job::parse(&line?)?;
        println!("{}", runtime.block_on(run(&target, job)));
    }
    Ok(())
}

async fn run(target: &Arc<Target>, job: Job) -> Value {
    let total = Arc::new(Mutex::new(Tally::default()));
    let started = Arc::new(tokio::sync::Barrier::new(job.clients + 1));
    let shared = match job.mode.as_str() {
        "streams" => match target.open_http2().await {
            Ok(shared) => Some(shared),
            Err(e) => {
                let mut tally = Tally::default();
                tally.add(Instant::now(), Err(e));
                return tally.report(1.0);
            }
        },
        _ => None,
    };
    let mut clients = Vec::new();
    for _ in 0..job.clients {
        let (target, job, total, started) = (target.clone(), job.clone(), total.clone(), started.clone());
        let shared = shared.clone();
        clients.push(tokio::spawn(async move {
            let tally = match job.mode.as_str() {
                _ if shared.is_some() => streams(shared, &job, &started).await,
                "keep" => keep(&target, &job, &started).await,
                "hold" => hold(&target, &job, &started).await,
                _ => separate(&target, &job, &started).await,
            };
            if let Ok(mut total) = total.lock() {
                total.merge(tally);
            }
        }));
    }
    started.wait().await;
    let began = Instant::now();
    for client in clients {
        client.await.ok();
    }
    let seconds = began.elapsed().as_secs_f64();
    let tally = total.lock().map(|mut t| std::mem::take(&mut *t)).unwrap_or_default();
    tally.report(seconds)
}

async fn keep(target: &Target, job: &Job, started: &tokio::sync::Barrier) -> Tally {
    let mut tally = Tally::default();
    let mut connection = target.open().await;
    if let Ok(open) = &mut connection {
        for _ in 0..5 {
            open.get(&job.object).await.ok();
        }
    }
    started.wait().await;
    let end = Instant::now() + Duration::from_secs_f64(job.amount);
    while Instant::now() < end {
        let began = Instant::now();
        match &mut connection {
            Ok(open) => {
                let result = open.get(&job.object.replace("{n}", &tally.nanos.len().to_string())).await;
                let broken = result.is_err();
                tally.add(began, result);
                if broken {
                    connection = target.open().await;
                }
            }
            Err(e) => {
                tally.add(began, Err(e.to_string().into()));
                tokio::time::sleep(Duration::from_millis(10)).await;
                connection = target.open().await;
            }
        }
    }
    tally
}

async fn streams(shared: Option<client::Http2>, job: &Job, started: &tokio::sync::Barrier) -> Tally {
    let mut tally = Tally::default();
    started.wait().await;
    let end = Instant::now() + Duration::from_secs_f64(job.amount);
    let Some(mut connection) = shared else { return tally };
    while Instant::now() < end && tally.errors == 0 {
        let began = Instant::now();
        tally.add(began, connection.get(&job.object).await);
    }
    tally
}

async fn hold(target: &Target, job: &Job, started: &tokio::sync::Barrier) -> Tally {
    let mut tally = Tally::default();
    let began = Instant::now();
    let mut connection = target.open().await;
    let result = match &mut connection {
        Ok(open) => open.get(&job.object).await,
        Err(e) => Err(e.to_string().into()),
    };
    tally.add(began, result);
    // The pause starts when the last one is open.
    started.wait().await;
    tokio::time::sleep(Duration::from_secs_f64(job.amount)).await;
    tally
}

async fn separate(target: &Target, job: &Job, started: &tokio::sync::Barrier) -> Tally {
    for _ in 0..if job.mode == "bulk" { 0 } else { 2 } {
        once(target, job).await.ok();
    }
    started.wait().await;
    let mut tally = Tally::default();
    let end = Instant::now() + Duration::from_secs_f64(if job.mode == "new" { job.amount } else { 60.0 });
    let mut left = if job.mode == "new" { u64::MAX } else { job.amount as u64 };
    while left > 0 && Instant::now() < end {
        let began = Instant::now();
        tally.add(began, once(target, job).await);
        left -= 1;
    }
    tally
}

async fn once(target: &Target, job: &Job) -> Result<u64, Error> {
    match job.mode.as_str() {
        "new" | "bulk" => target.open().await?.get_and_close(&job.object).await,
        "refused" => client::refused(&job.object).await,
        "denied" => target.denied(&job.object).await,
        other => Err(format!("unknown mode {other}").into()),
    }
}
