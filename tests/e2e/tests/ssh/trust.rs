//! PROC-20: what shares a sandbox is one trust domain. Sessions may do to each other what they like; none of it reaches
//! the supervisor.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use stockade_testkit::{Mode, Stockade};

use crate::world::{Keys, World, good};

/// Tries everything on every process that it sees, and on the supervisor's number, which it is told. `reached PID WHAT`
/// for a process of the sandbox, `wall PID WHAT` for one of Stockade's.
const ATTACK: &str = r#"
    $| = 1; my ($supervisor, $port, $ptrace, $pidfd, $getfd) = @ARGV;
    my @mine = ($$, getppid);
    sub attack { my $p = shift; my @got;
        for my $f (qw(environ mem maps auxv syscall stack)) {
            open(my $h, '<', "/proc/$p/$f") or next; push @got, $f if sysread $h, my $x, 1 }
        push @got, 'memwrite' if open(my $w, '+<', "/proc/$p/mem");
        push @got, 'cwd' if readlink "/proc/$p/cwd";
        opendir(my $d, "/proc/$p/fd") and push @got, 'fds';
        push @got, 'ptrace' if syscall($ptrace, 16, $p + 0, 0, 0) == 0;
        my $fd = syscall($pidfd, $p + 0, 0);
        push @got, 'getfd' if $fd >= 0 && syscall($getfd, $fd, 0, 0) >= 0;
        return @got }
    my $canary = 0;
    for my $p (map { /(\d+)/ } glob '/proc/[0-9]*') {
        next if grep { $_ == $p } @mine;
        open(my $c, '<', "/proc/$p/comm") or next; chomp(my $comm = <$c> // '');
        my $who = $p == 1 || $comm =~ /stockade/ ? 'wall' : 'reached';
        print "$who $p $_\n" for attack($p);
        if (open(my $e, '<', "/proc/$p/environ")) { local $/; $canary = 1 if (<$e> // '') =~ /CANARY-OF-THE-SUPERVISOR/ }
        kill 'STOP', $p if $who eq 'wall';
    }
    print "canary\n" if $canary;
    print "there\n" if -e "/proc/$supervisor/comm";
    print "signalled\n" if kill 0, $supervisor;
    kill 'CONT', $_ for map { /(\d+)/ } glob '/proc/[0-9]*';
    use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0);
    print "dialled\n" if connect($s, sockaddr_in($port, inet_aton('127.0.0.1')));
    print "done\n""#;

/// A session that does what it is told, line by line.
struct Session {
    client: Child,
    typed: ChildStdin,
    shown: BufReader<ChildStdout>,
    /// Its number inside.
    pid: u32,
}

impl Session {
    fn open(world: &World) -> Self {
        let mut client = world.client("ssh");
        client.args(["sandbox@127.0.0.1", "echo $$; exec /bin/sh"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = client.spawn().unwrap();
        let (typed, shown) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
        let mut session = Self { client, typed, shown, pid: 0 };
        session.pid = session.line().trim().parse().unwrap();
        session
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.shown.read_line(&mut line).unwrap();
        line
    }

    /// Everything that it says until `done`.
    fn told(&mut self, script: &str) -> Vec<String> {
        writeln!(self.typed, "{script}").unwrap();
        let mut said = Vec::new();
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "it ended: {said:?}");
            match line.trim_end() {
                "done" => return said,
                line => said.push(line.to_owned()),
            }
        }
    }
}

#[test]
fn sessions_that_attack_each_other_do_not_reach_the_supervisor() {
    let ptrace = if cfg!(target_arch = "x86_64") { 101 } else { 117 };
    let (pidfd, getfd) = (434, 438);
    for mode in Mode::available() {
        let keys = Keys::new();
        let line = keys.public("id");
        let world = World::with(*mode, keys, &line, |s| s.env("STOCKADE_CANARY", "CANARY-OF-THE-SUPERVISOR"));
        let supervisor = world.run.pid();
        let (mut one, mut other) = (Session::open(&world), Session::open(&world));
        let attack = format!("perl -e '{}' {supervisor} {} {ptrace} {pidfd} {getfd}", quoted(ATTACK), world.port);
        for (attacker, victim) in [(&mut one, other.pid), (&mut other, 0)] {
            let said = attacker.told(&attack);
            let of = |word: &str| said.iter().filter(|l| l.starts_with(word)).collect::<Vec<_>>();
            assert!(of("wall").is_empty(), "{mode:?} {said:#?}");
            for word in ["canary", "there", "signalled", "dialled"] {
                assert!(of(word).is_empty(), "{mode:?} {said:#?}");
            }
            // The control: what the attack does, it does to others of the sandbox.
            let environ = format!("reached {victim} environ");
            assert!(victim == 0 || said.contains(&environ), "one trust domain: {mode:?} {said:#?}");
            assert!(!said.iter().any(|l| l.ends_with("ptrace") || l.ends_with("getfd")), "{mode:?} {said:#?}");
        }
        let killed = one.told(&format!("kill -KILL {} && echo killed; echo done", other.pid));
        assert_eq!(killed, ["killed"], "one trust domain: {mode:?}");
        // OpenSSH's client shows 255 for a program that was ended by a signal.
        assert_eq!(other.client.wait().unwrap().code(), Some(255), "{mode:?}");
        // Nobody outside was reached: others come in, and the door answers.
        assert_eq!(good(&world.ssh(&[], "echo came in")), "came in\n");
        let door = good(&world.ssh(&[], "curl -s -o answer -w '%{http_code}' http://evil.test/; true"));
        assert_eq!(door, "403", "{mode:?}");
        // The last thing that a session can do is to end everything inside. The supervisor says how it ended.
        writeln!(one.typed, "kill -KILL -1").unwrap();
        one.client.wait().unwrap();
        let finished = world.run.finish();
        assert_eq!(finished.code(), 137, "{mode:?} {finished:?}");
        finished.events.one("no_policy");
        let stops = |m: &str| m.starts_with("sandbox stop");
        let stopped = finished.events.iter().filter(|e| e.text("/message").is_some_and(stops)).count();
        assert_eq!(stopped, 1, "{mode:?} {:?}", finished.events);
    }
    tripwire();
}

/// Outside, the supervisor is a process like any other: it is the sandbox that keeps it away.
fn tripwire() {
    let world = World::new(Mode::Rootless);
    let look = format!("cat /proc/{0}/comm; kill -0 {0} && echo signalled", world.run.pid());
    let bare = Stockade::new(Mode::Rootless).unwrapped().sh(&look);
    assert!(bare.text().contains("stockade") && bare.text().contains("signalled"), "{bare:?}");
    world.end();
}

/// Between the quotes of a shell.
fn quoted(script: &str) -> String {
    script.replace('\'', "'\\''").replace('\n', " ")
}
