//! What the door costs: a connection through it beside a direct one, one connection and thirty-two at once, bulk, a
//! refusal, and the memory of connections at rest. Client, door and upstream share this process and machine.
//!
//! `cargo run --release -p stockade-egress --example door`
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use stockade_audit::{Audit, Settings};
use stockade_egress::{Config, Deps, Listeners, System, Tls};
use stockade_policy::{Policy, Posture, Snapshot, Source};
use stockade_testkit::outer::Outer;
use stockade_tls::{Ca, Connector, Interceptor, Roots};
use stockade_types::{Generation, SandboxId};

const POLICY: &str = "
version: 1
network:
  endpoints:
    raw:
      hosts: [a.test]
      ports: [9000, 9001, 9002]
      protocol: tcp
      private_addresses: [192.0.2.0/24]
";
const ROUNDS: usize = 2000;
const BULK: usize = 2 << 30;
const AT_REST: usize = 10_000;

fn main() {
    Outer::run_within(Duration::from_secs(300), |outer| {
        outer.hosts(&[("192.0.2.10".parse().unwrap(), "a.test")]);
        use rustix::process::{Resource::Nofile, Rlimit, getrlimit, setrlimit};
        let most = getrlimit(Nofile).maximum;
        setrlimit(Nofile, Rlimit { current: most, maximum: most }).unwrap();
        // Thousands of connections between the same two addresses: without this the search for a free port is measured.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535").unwrap();
        std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1").unwrap();
        upstreams();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let proxy = door(&runtime);
        latency(proxy);
        bulk(proxy);
        // Four descriptors each, all of this process.
        at_rest(proxy, most.map_or(AT_REST, |m| AT_REST.min(m as usize / 5)));
    });
}

fn door(runtime: &tokio::runtime::Runtime) -> SocketAddr {
    let _entered = runtime.enter();
    let policy = Policy::parse(&[Source::new("bench.yaml", POLICY)]).unwrap();
    let snapshot = Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap();
    let (sender, policy) = tokio::sync::watch::channel(Arc::new(snapshot.into()));
    let (audit, writer) = Audit::start(Settings::new(SandboxId::from_random([1; 8]))).unwrap();
    let door = Config::default().build(Deps {
        policy,
        audit,
        peers: None,
        resolver: Arc::new(System::from_host().unwrap()),
        tls: Tls {
            interceptor: Interceptor::new(Ca::new(std::time::SystemTime::now()).unwrap()).unwrap(),
            connector: Connector::new(&Roots::system().unwrap()).unwrap(),
        },
    });
    let proxy = TcpListener::bind("127.0.0.1:3128").unwrap();
    let address = proxy.local_addr().unwrap();
    let dns_udp = vec![UdpSocket::bind("127.0.0.1:53").unwrap()];
    let listeners = Listeners { proxy, transparent: Vec::new(), dns_udp, dns_tcp: Vec::new() };
    runtime.spawn(async move {
        let _held = (sender, writer);
        door.serve(listeners, std::future::pending()).await.unwrap();
    });
    address
}

/// Port 9000 answers each byte, 9001 sends for ever, 9002 holds.
fn upstreams() {
    let serve = |port: u16, handler: fn(TcpStream)| {
        let listener = TcpListener::bind(("192.0.2.10", port)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || handler(stream));
            }
        });
    };
    serve(9000, |mut s| {
        let mut byte = [0];
        s.set_nodelay(true).unwrap();
        while matches!(s.read(&mut byte), Ok(1)) && s.write_all(&byte).is_ok() {}
    });
    serve(9001, |mut s| {
        let block = vec![7; 1 << 20];
        while s.write_all(&block).is_ok() {}
    });
    let holder = TcpListener::bind(("192.0.2.10", 9002)).unwrap();
    std::thread::spawn(move || holder.incoming().flatten().collect::<Vec<_>>());
}

fn direct(port: u16) -> TcpStream {
    TcpStream::connect(("192.0.2.10", port)).unwrap()
}

fn through(proxy: SocketAddr, host: &str, port: u16) -> (TcpStream, u8) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_nodelay(true).unwrap();
    write!(stream, "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").unwrap();
    let mut head = [0; 2048];
    let n = stream.read(&mut head).unwrap();
    assert!(n > 12, "an answer");
    (stream, head[9])
}

fn ping(mut stream: TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// Median and 99th percentile in microseconds.
fn measure(rounds: usize, mut once: impl FnMut()) -> (f64, f64) {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            once();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[rounds / 2], times[rounds * 99 / 100])
}

fn rate(once: impl Fn() + Sync) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| (0..ROUNDS / 8).for_each(|_| once()));
        }
    });
    (ROUNDS / 8 * 32) as f64 / start.elapsed().as_secs_f64()
}

fn latency(proxy: SocketAddr) {
    let by_door = || ping(through(proxy, "a.test", 9000).0);
    for _ in 0..200 {
        by_door();
        ping(direct(9000));
    }
    let (d50, d99) = measure(ROUNDS, || ping(direct(9000)));
    let (t50, t99) = measure(ROUNDS, by_door);
    println!(
        "new connection and one byte there and back: direct {d50:.0} us (p99 {d99:.0}), door {t50:.0} us (p99 {t99:.0}), over direct {:.0} us",
        t50 - d50
    );
    println!("the same by 32 clients: direct {:.0}/s, door {:.0}/s", rate(|| ping(direct(9000))), rate(by_door));
    let (r50, r99) = measure(ROUNDS, || assert_eq!(through(proxy, "evil.test", 443).1, b'4'));
    println!("refused CONNECT: {r50:.0} us (p99 {r99:.0})");
}

fn bulk(proxy: SocketAddr) {
    let pull = |mut stream: TcpStream| {
        let mut block = vec![0; 1 << 20];
        let (start, mut got) = (Instant::now(), 0);
        while got < BULK {
            got += stream.read(&mut block).unwrap();
        }
        got as f64 / start.elapsed().as_secs_f64() / 1e6
    };
    let d = pull(direct(9001));
    let t = pull(through(proxy, "a.test", 9001).0);
    println!("bulk: direct {d:.0} MB/s, door {t:.0} MB/s");
}

fn at_rest(proxy: SocketAddr, count: usize) {
    let before = resident();
    let open: Vec<TcpStream> = (0..count).map(|_| through(proxy, "a.test", 9002).0).collect();
    let after = resident();
    println!(
        "{} connections at rest: {:.1} KB each resident ({:.1} MB in all)",
        open.len(),
        (after - before) as f64 / count as f64,
        after as f64 / 1e3
    );
}

/// Resident memory of this process in KB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
