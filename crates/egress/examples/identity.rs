//! What it costs to know who opened a connection, and how that grows with processes and files.
//!
//! ```text
//! unshare --user --map-current-user --pid --fork --mount-proc --kill-child target/release/examples/identity
//! ```
//!
//! A client four processes deep connects; beside it sit N processes with M files each. Columns: a connect with and
//! without its report, finding the opener (with executable, ancestors and descriptor), looking at it again before a
//! request, and one survey of all descriptors.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a tool that measures; there is nobody to report to")]

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};
use stockade_egress::peer::{Client, Peers, Sources};
use stockade_sys::{channel::Channel, notify, socket};

const CONNECTIONS: usize = 300;
const DEPTH: usize = 4;
const GROWTH: [(usize, usize); 6] = [(0, 0), (10, 20), (100, 100), (1_000, 20), (1_000, 100), (10_000, 10)];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("client") => client(arguments[2].parse().unwrap(), arguments[3].parse().unwrap()),
        _ => bench(),
    }
}

/// Goes down `depth` processes, then connects once for each message, reported from the second half of them on.
fn client(depth: usize, door: SocketAddr) {
    if depth > 1 {
        let mut next = Command::new(std::env::current_exe().unwrap());
        next.args(["client", &(depth - 1).to_string(), &door.to_string()]).status().unwrap();
        return;
    }
    let channel = Channel::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    measure_connects(door, &channel);
    rustix::thread::set_no_new_privs(true).unwrap();
    let listener = notify::report_connects().unwrap();
    channel.send(b"", &[listener.as_fd()]).unwrap();
    drop(listener);
    measure_connects(door, &channel);
}

fn measure_connects(door: SocketAddr, channel: &Channel) {
    while channel.recv().unwrap().is_some_and(|m| m.bytes == b"go") {
        let began = Instant::now();
        let stream = TcpStream::connect(door).unwrap();
        channel.send(&u32::try_from(began.elapsed().as_nanos()).unwrap().to_ne_bytes(), &[]).unwrap();
        channel.recv().unwrap().unwrap();
        drop(stream);
    }
}

struct Row {
    plain: Vec<f64>,
    reported: Vec<f64>,
    who: Vec<f64>,
    again: Vec<f64>,
    survey: Vec<f64>,
}

fn bench() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("median (95 %) in microseconds; {CONNECTIONS} connections each");
    println!(
        "{:>9} {:>6} | {:>15} {:>15} {:>15} {:>15} {:>10}",
        "processes", "files", "connect", "reported", "who", "again", "survey"
    );
    for (processes, files) in GROWTH {
        let crowd = crowd(processes, files);
        let mut row = runtime.block_on(measure());
        drop(crowd);
        let mut cell = |v: &mut Vec<f64>| {
            v.sort_by(f64::total_cmp);
            let at = |q: f64| v.get(((v.len() as f64) * q) as usize).copied().unwrap_or(f64::NAN);
            format!("{:.1} ({:.1})", at(0.5), at(0.95))
        };
        let [plain, reported, who, again] =
            [&mut row.plain, &mut row.reported, &mut row.who, &mut row.again].map(&mut cell);
        row.survey.sort_by(f64::total_cmp);
        let survey = row.survey.get(row.survey.len() / 2).copied().unwrap_or(f64::NAN);
        println!("{processes:>9} {files:>6} | {plain:>15} {reported:>15} {who:>15} {again:>15} {survey:>10.0}");
        std::io::stdout().flush().unwrap();
    }
}

/// Processes that sleep with open files; ended by drop.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|c| drop(c.kill()));
        self.0.iter_mut().for_each(|c| drop(c.wait()));
    }
}

fn crowd(processes: usize, files: usize) -> Crowd {
    // Without close-on-exec, so that every child has them.
    let open = || rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
    let _inherited: Vec<OwnedFd> = (0..files.saturating_sub(3)).map(|_| open()).collect();
    let sleeper = || Command::new("/bin/sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    Crowd((0..processes).map(|_| sleeper()).collect())
}

async fn measure() -> Row {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = door.local_addr().unwrap();
    door.set_nonblocking(true).unwrap();
    let door = tokio::net::TcpListener::from_std(door).unwrap();
    let (channel, theirs) = Channel::pair().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["client", &DEPTH.to_string(), &target.to_string()])
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    let took = |m: Option<stockade_sys::channel::Message>| {
        f64::from(u32::from_ne_bytes(m.unwrap().bytes.try_into().unwrap())) / 1e3
    };
    let mut row = Row { plain: vec![], reported: vec![], who: vec![], again: vec![], survey: vec![] };
    for _ in 0..CONNECTIONS {
        channel.send(b"go", &[]).unwrap();
        let _accepted = door.accept().await.unwrap();
        row.plain.push(took(channel.recv().unwrap()));
        channel.send(b"done", &[]).unwrap();
    }
    channel.send(b"next", &[]).unwrap();
    let connects = channel.recv().unwrap().unwrap().fds.remove(0);
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let init = std::os::unix::process::parent_id();
    let peers = Peers::start(Sources { diag: socket::open_diag().unwrap(), connects, root, init }).unwrap();
    peers.started(std::process::id());
    for n in 0..CONNECTIONS {
        channel.send(b"go", &[]).unwrap();
        let (accepted, _) = door.accept().await.unwrap();
        row.reported.push(took(channel.recv().unwrap()));
        one(&accepted, &peers, &mut row, n % 100 == 99).await;
        channel.send(b"done", &[]).unwrap();
    }
    channel.send(b"next", &[]).unwrap();
    child.wait().unwrap();
    row
}

async fn one(accepted: &tokio::net::TcpStream, peers: &Arc<Peers>, row: &mut Row, survey: bool) {
    let micros = |began: Instant| began.elapsed().as_secs_f64() * 1e6;
    let began = Instant::now();
    let client = Client::of(accepted, Some(peers));
    client.evidence().unwrap();
    row.who.push(micros(began));
    let began = Instant::now();
    client.recheck(None).await.unwrap();
    row.again.push(micros(began));
    if survey {
        // By now the connect no longer speaks for itself.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let began = Instant::now();
        client.recheck(None).await.unwrap();
        row.survey.push(micros(began));
    }
}
