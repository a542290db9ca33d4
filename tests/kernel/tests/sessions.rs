//! More than one program in one sandbox, and a first one that attacks what starts the others.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::unistd::Uid;
use stockade_confine::{
    fence,
    limits::Rlimits,
    message::{ConnectId, Order, Outcome, Report, SessionId, Size, Spawn, Stdio, recv, send},
    plan::{Mode, Plan},
    privileges::Identity,
    sandbox::{Sandbox, Starting},
    seccomp::{Arch, Filter},
    view::ViewPlan,
};
use stockade_testkit::child::Child;

const USER: u32 = 1000;

/// Runs `body` with a sandbox of each kind.
#[track_caller]
fn both(body: impl Fn(Mode, &mut Lab)) {
    for mode in [Mode::Root, Mode::Rootless] {
        if mode == Mode::Root && !Uid::effective().is_root() {
            continue;
        }
        let child = if mode == Mode::Rootless { Child::new().uid(USER) } else { Child::new() };
        child.run(|| body(mode, &mut Lab::start(mode)));
    }
}

struct Lab {
    sandbox: Sandbox,
    /// Reports that nobody asked for yet.
    heard: Vec<Report>,
}

impl Lab {
    fn start(mode: Mode) -> Self {
        let (uid, gid) =
            if mode == Mode::Root { (USER, USER) } else { (Uid::current().as_raw(), nix::unistd::getgid().as_raw()) };
        let view = ViewPlan {
            baseline: true,
            grants: vec![],
            hidden: vec![],
            protected: vec![],
            workspace: None,
            gpu: None,
            uid,
            gid,
            home: "/home/agent".into(),
            scratch_bytes: 16 << 20,
            files: vec![],
        };
        let plan = Plan {
            mode,
            identity: Identity { uid, gid, groups: vec![] },
            hostname: "sandbox".to_owned(),
            view,
            more_files: false,
            report_connects: false,
            fence: fence::Spec { transparent_ports: BTreeSet::new(), private_port: 15_001, group: 1 },
            proxy_port: 3128,
            rlimits: Rlimits::default(),
            host_tools: false,
            memfd_exec: false,
            require: BTreeSet::new(),
        };
        let filter = Filter::compile(Arch::native().unwrap(), &[]).unwrap();
        let starting = Starting::fork(&plan, &filter, None).unwrap();
        starting.go(&plan).unwrap();
        Self { sandbox: starting.ready(&plan).unwrap(), heard: vec![] }
    }

    /// Orders a shell script; what it prints can be read.
    fn order(&self, id: SessionId, script: &str) -> BufReader<File> {
        let (out, writer) = nix::unistd::pipe().unwrap();
        let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
        let spawn = Spawn {
            argv: [&b"/bin/bash"[..], b"-c", script.as_bytes()].map(<[u8]>::to_vec).to_vec(),
            env: vec![b"PATH=/usr/bin:/bin".to_vec()],
            cwd: b"/".to_vec(),
            stdio: [Stdio::Given; 3],
            size: Size { rows: 24, cols: 80 },
        };
        let fds = [null.as_fd(), writer.as_fd(), writer.as_fd()];
        send(&self.sandbox.channel, &Order::Spawn(id, spawn), &fds).unwrap();
        BufReader::new(File::from(out))
    }

    /// Starts a shell script: its pid, and what it prints.
    #[track_caller]
    fn spawn(&mut self, id: SessionId, script: &str) -> (i32, BufReader<File>) {
        let out = self.order(id, script);
        let report = self.hear(|r| matches!(r, Report::Spawned(i, ..) | Report::NotSpawned(i, _) if *i == id));
        let Report::Spawned(_, pid, _) = report else { panic!("session {id}: {report:?}") };
        (pid, out)
    }

    /// The first report that `wanted` wants.
    fn hear(&mut self, wanted: impl Fn(&Report) -> bool) -> Report {
        if let Some(at) = self.heard.iter().position(&wanted) {
            return self.heard.remove(at);
        }
        loop {
            let (report, _) = recv::<Report>(&self.sandbox.channel).unwrap().expect("init lives");
            if wanted(&report) {
                return report;
            }
            self.heard.push(report);
        }
    }

    /// A connection that init makes inside, blocking.
    fn dial(&mut self, id: ConnectId, to: &str) -> Result<TcpStream, String> {
        send(&self.sandbox.channel, &Order::Connect(id, to.parse().unwrap()), &[]).unwrap();
        loop {
            match recv::<Report>(&self.sandbox.channel).unwrap().expect("init lives") {
                (Report::Connecting(i, answer), fds) if i == id => {
                    answer?;
                    let stream = TcpStream::from(fds.into_iter().next().expect("a socket"));
                    stream.set_nonblocking(false).unwrap();
                    return Ok(stream);
                }
                (other, _) => self.heard.push(other),
            }
        }
    }

    fn end(&mut self, id: SessionId) -> Outcome {
        let Report::Ended(_, outcome) = self.hear(|r| matches!(r, Report::Ended(i, _) if *i == id)) else {
            panic!("not an end")
        };
        outcome
    }

    fn kill(&mut self, id: SessionId) {
        send(&self.sandbox.channel, &Order::Signal(id, 9), &[]).unwrap();
        assert_eq!(self.end(id), Outcome::Signaled(9));
    }
}

fn line(out: &mut BufReader<File>) -> String {
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    text.trim().to_owned()
}

/// Sleeps without a child, so that one signal ends all of it.
const STAY: &str = "read -r _ < <(exec sleep 1000)";

#[test]
fn sessions_share_one_domain_and_may_signal_each_other() {
    both(|mode, lab| {
        let (first, _out) = lab.spawn(0, "exec sleep 1000");
        let (_, mut out) = lab.spawn(1, &format!("kill -TERM {first} && echo sent"));
        assert_eq!(line(&mut out), "sent", "{mode:?}");
        assert_eq!(lab.end(0), Outcome::Signaled(15), "{mode:?}");
        assert_eq!(lab.end(1), Outcome::Exited(0), "{mode:?}");
    });
}

/// Says hello to everyone.
const SERVER: &str = r#"exec python3 -uc '
import socket
server = socket.create_server(("127.0.0.1", 8080))
print("up")
while True: server.accept()[0].sendall(b"hello")'"#;

/// A socket that init makes inside reaches a server of the sandbox, and nothing else: not the door, which would take
/// who asks for the command, and no other address.
#[test]
fn a_connection_from_outside_reaches_the_sandbox_s_own_servers_alone() {
    both(|mode, lab| {
        let (_, mut out) = lab.spawn(0, SERVER);
        assert_eq!(line(&mut out), "up", "{mode:?}");
        let mut socket = lab.dial(1, "127.0.0.1:8080").expect("the server's port");
        let mut heard = [0; 5];
        socket.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello", "{mode:?}");
        for (id, door) in (2..).zip(["127.0.0.1:3128", "127.0.0.1:53", "127.0.0.1:15001", "[::1]:3128"]) {
            let refused = lab.dial(id, door).unwrap_err();
            assert!(refused.contains("is the door's"), "{mode:?} {door}: {refused}");
        }
        for (id, elsewhere) in
            (10..).zip(["192.0.2.1:8080", "[::ffff:127.0.0.1]:8080", "0.0.0.0:8080", "[2001:db8::1]:80"])
        {
            let refused = lab.dial(id, elsewhere).unwrap_err();
            assert!(refused.contains("not the sandbox's loopback"), "{mode:?} {elsewhere}: {refused}");
        }
        let error = lab.dial(20, "127.0.0.1:9").expect("a socket").read_exact(&mut heard).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "nobody listens");
        lab.kill(0);
    });
}

/// Rootless the launcher has the command's user and domain. Another is made, as good a victim of the out-of-memory
/// killer and as sealed as the first; its sessions and the programs from before are strangers to each other, and init
/// still signals both.
#[test]
fn a_session_starts_after_the_command_ended_the_launcher() {
    both(|mode, lab| {
        let (first, mut out) =
            lab.spawn(0, &format!("kill -KILL 2; kill -KILL -1; while kill -0 2; do :; done 2>&1; echo done; {STAY}"));
        if mode == Mode::Root {
            // Out of reach: it belongs to root. The loop would not end.
            lab.kill(0);
            return;
        }
        while line(&mut out) != "done" {}
        let script = format!(
            "kill -KILL {first} 2>&1 && echo killed; cat /proc/self/oom_score_adj; ls /proc/self/fd | wc -l; \
             grep -c '^Seccomp:.*2$' /proc/self/status; echo > /proc/self/oom_score_adj; exit 7"
        );
        for id in [1, 2] {
            let (_, mut out) = lab.spawn(id, &script);
            assert!(line(&mut out).contains("not permitted"), "sibling domains");
            assert_eq!(line(&mut out), "500");
            assert_eq!(line(&mut out), "4", "its stdio, and the directory that `ls` reads");
            assert_eq!(line(&mut out), "1");
            assert!(line(&mut out).contains("denied"), "/proc cannot be written");
            assert_eq!(lab.end(id), Outcome::Exited(7));
        }
        // The second launcher is out of the first command's reach.
        let (second, _out) = lab.spawn(3, "exec sleep 1000");
        let (_, mut out) = lab.spawn(4, &format!("kill -KILL {second} && echo killed"));
        assert_eq!(line(&mut out), "killed", "sessions of one launcher");
        assert_eq!(lab.end(3), Outcome::Signaled(9));
        lab.kill(0);
    });
}

/// Init must not wait for it for ever: its other duties are the sandbox's end and the command's signals.
#[test]
fn a_launcher_that_was_stopped_is_replaced() {
    both(|mode, lab| {
        let (_, mut out) = lab.spawn(0, &format!("kill -STOP 2; echo done; {STAY}"));
        while line(&mut out) != "done" {}
        let began = Instant::now();
        let (_, mut out) = lab.spawn(1, "echo here");
        assert_eq!(line(&mut out), "here", "{mode:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{mode:?} {:?}", began.elapsed());
        lab.kill(0);
    });
}

/// A session that is ended before it begins is reported, and the sandbox goes on.
#[test]
fn a_command_that_ends_everything_all_the_time_harms_itself_alone() {
    both(|mode, lab| {
        let (_, mut out) = lab.spawn(0, "echo go; while :; do kill -KILL -1; done 2>/dev/null");
        assert_eq!(line(&mut out), "go");
        let mut started = 0;
        for id in 1..20 {
            let _out = lab.order(id, "exec sleep 1000");
            let report = lab.hear(|r| matches!(r, Report::Spawned(i, ..) | Report::NotSpawned(i, _) if *i == id));
            started += u32::from(matches!(report, Report::Spawned(..)));
        }
        // Reports come, whatever they say; and once the attacker is gone all is well.
        lab.kill(0);
        let (_, mut out) = lab.spawn(100, "echo here");
        assert_eq!(line(&mut out), "here", "{mode:?}, {started} started meanwhile");
    });
}

/// What init reaps by: a stop that was seen could be gone before it is taken, and the child with it.
#[test]
fn stops_are_not_reaped() {
    use stockade_sys::process::{Change, Status, peek, take, wait};
    Child::new().run(|| {
        let script = "kill -STOP $$; kill -STOP $$; sleep 60";
        #[allow(clippy::zombie_processes, reason = "taken below, by what is tested")]
        let child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let signal = |name| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), name).unwrap();
        assert_eq!(wait(pid).unwrap(), Change::Stopped(19), "control: it stops");
        signal(nix::sys::signal::SIGCONT);
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        while !state().contains(") T") {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(peek().unwrap(), None, "a stop and a continuation wait to be seen");
        signal(nix::sys::signal::SIGCONT);
        signal(nix::sys::signal::SIGKILL);
        while peek().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(peek().unwrap(), Some((pid, Status::Signaled(9))));
        take(pid).unwrap();
        assert_eq!(peek().unwrap(), None);
    });
}
