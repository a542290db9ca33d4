//! PROC and DOS: the command's surroundings, and what it can use up.

use std::{fs, net::TcpListener, process::Command, time::Duration};

use nix::sys::signal::Signal;
use stockade_testkit::{Arena, Mode, Outer, Stockade, in_every_mode, skip};

/// PROC-05: whoever is about to become part of the sandbox shows nothing meanwhile. Rootless the command may end the
/// launcher, and init makes another one: that is such a window.
#[test]
fn what_joins_the_sandbox_cannot_be_caught_on_its_way() {
    let script = r#"
        $| = 1; my $until = time + 3; my (%seen, $tried);
        my $child = fork // die; if (!$child) { $0 = "mine"; sleep 30; exit }
        sub touch { my $p = shift; my @got;
            for my $f (qw(mem environ maps auxv stack syscall)) { open(my $h, '<', "/proc/$p/$f") or next; push @got, $f if sysread $h, my $x, 1 }
            push @got, 'memwrite' if open(my $w, '+<', "/proc/$p/mem");
            push @got, 'exewrite' if open(my $e, '+<', "/proc/$p/exe");
            my $d; push @got, 'fds' if opendir($d, "/proc/$p/fd") && grep { /\d/ } readdir $d;
            for my $l (qw(root cwd exe)) { push @got, $l if readlink "/proc/$p/$l" }
            return @got }
        print "control ", join(',', touch($child)), "\n";
        while (time < $until) {
            for my $p (map { /(\d+)/ } glob '/proc/[0-9]*') {
                next if $p == $$ || $p == $child || $p == 1 && $seen{1};
                next unless open(my $c, '<', "/proc/$p/comm"); my $comm = <$c>; next unless $comm =~ /stockade/;
                $seen{$p}++; $tried++;
                my @got = touch($p); print "got $p @got\n" if @got;
                kill 'KILL', $p if $p != 1 }
        }
        kill 'KILL', $child;
        print "seen ", scalar(keys %seen), "\n", "tried $tried\n""#;
    for mode in Mode::available() {
        let run = Stockade::new(*mode).run(&["perl", "-e", script]);
        let text = run.text();
        let control = text.lines().find(|l| l.starts_with("control ")).unwrap_or_default();
        for word in ["environ", "maps", "fds", "exe"] {
            assert!(control.contains(word), "tripwire: a process of its own can be looked at: {mode:?} {run:?}");
        }
        assert!(!text.contains("\ngot "), "{mode:?} {run:?}");
        let number = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u32>().ok()).unwrap();
        // Init and launcher. Rootless the launcher falls to the first try, and another is made for the next session only.
        let tries = if *mode == Mode::Root { 6 } else { 2 };
        assert!(number("tried") >= tries && number("seen") >= 2, "{mode:?} {run:?}");
    }
}

/// PROC-07: the way up ends at the view's root.
#[test]
fn the_way_up_ends_inside() {
    let script = r#"
        echo control > own && cat own
        for p in .. /proc/self/cwd/.. /proc/self/root"$PWD"/.. /proc/thread-self/cwd/.. "$PWD/../../../../../..$PWD/.."; do
            cat "$p/conf/canary" 2>/dev/null
        done
        cd ../../../../../../.. && cat ".$OLDPWD/../conf/canary" 2>/dev/null
        perl -e 'opendir(my $d, "."); mkdir "/tmp/x"; chroot("/tmp/x") and print "chroot\n"; chdir $d; chdir ".." for 1..64;
            chroot(".") and print "chroot\n"; open(my $f, "<", $ARGV[0]) and print <$f>' "$OLDPWD/../conf/canary"
        echo end"#;
    let place = |s: Stockade| {
        fs::write(s.policy_path().with_file_name("canary"), "CANARY\n").unwrap();
        s
    };
    in_every_mode(place, script, |mode, run| {
        assert_eq!(run.text(), "control\nend\n", "{mode:?} {run:?}");
    });
    let bare = place(Stockade::new(Mode::Rootless).unwrapped()).sh(script);
    assert!(bare.text().matches("CANARY").count() >= 5, "tripwire: outside each way leads there: {bare:?}");
}

/// PROC-17: memory and queues with names are the sandbox's own.
#[test]
fn named_memory_of_others_is_not_there() {
    let mq_open = if cfg!(target_arch = "x86_64") { 240 } else { 180 };
    let name = format!("stockade-{}", std::process::id());
    // O_CREAT | O_RDWR is 66; IPC_CREAT | 0666 is 950.
    let make = format!(
        "open(my $f, '>', '/dev/shm/{name}') or die; chmod 0666, '/dev/shm/{name}';
        my $m = shmget(0x51c4ade, 4096, 950); defined $m or die; shmwrite($m, 'CANARY', 0, 6);
        my $n = '{name}'; my $q = syscall({mq_open}, $n, 66, 0666, 0); $q >= 0 or print qq(no queues\\n);
        print qq(made $m\\n); $| = 1; <STDIN>; shmctl($m, 0, 0); unlink '/dev/shm/{name}';"
    );
    let look = format!(
        "print qq(shm\\n) if -e '/dev/shm/{name}'; my $m = shmget(0x51c4ade, 0, 0); my $b = '';
        print qq(sysv\\n) if defined $m and shmread($m, $b, 0, 6) and $b eq 'CANARY';
        my $n = '{name}'; print qq(mq\\n) if syscall({mq_open}, $n, 2, 0, 0) >= 0;
        my $own = shmget(0, 4096, 950); print qq(control\\n) if defined $own and open(my $f, '>', '/dev/shm/own');"
    );
    let mut owner = Command::new("perl");
    owner.args(["-e", &make]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut owner = owner.spawn().unwrap();
    let mut said = String::new();
    let mut out = std::io::BufReader::new(owner.stdout.take().unwrap());
    while !said.contains("made") {
        if std::io::BufRead::read_line(&mut out, &mut said).unwrap() == 0 {
            owner.wait().unwrap();
            skip!("named memory cannot be made here: {said}");
        }
    }
    let queues = !said.contains("no queues");
    for mode in Mode::available() {
        let run = Stockade::new(*mode).run(&["perl", "-e", &look]);
        assert_eq!(run.text(), "control\n", "{mode:?} {run:?}");
    }
    let bare = Stockade::new(Mode::Rootless).unwrapped().run(&["perl", "-e", &look]).text();
    drop(owner.stdin.take());
    owner.wait().unwrap();
    fs::remove_file("/dev/shm/own").ok();
    for (word, there) in [("shm", true), ("sysv", true), ("mq", queues)] {
        // A queue of another user may be out of reach for a reason of its own: its mode meets the umask.
        assert!(!there || word == "mq" || bare.contains(word), "tripwire: {word} {bare}");
    }
}

/// DOS-09: a parent that ignores the end of its children passes that on; statuses are not lost.
#[test]
fn a_parent_that_ignores_its_children_changes_nothing() {
    let parent = ["perl", "-e", "$SIG{CHLD} = 'IGNORE'; $SIG{HUP} = 'IGNORE'; exec @ARGV or die"];
    for mode in Mode::available() {
        for (script, code) in [("(exit 3) & wait $!; [ $? = 3 ] && exit 7", 7), ("kill -TERM $$", 143), ("exit 0", 0)] {
            let run = Stockade::new(*mode).under(&parent).sh(script);
            assert_eq!(run.code(), code, "{mode:?} {script} {run:?}");
            let stopped =
                run.events.iter().filter(|e| e.text("/message").is_some_and(|m| m.starts_with("sandbox stop"))).count();
            assert_eq!(stopped, 1, "{mode:?} {script} {run:?}");
        }
    }
    // Tripwire: where nobody sets it right again, a shell under such a parent does lose the status.
    let lost = Command::new("perl")
        .args([
            "-e",
            "$SIG{CHLD} = 'IGNORE'; my $p = fork; exit 7 unless $p; print waitpid($p, 0) == $p ? 'kept' : 'lost'",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&lost.stdout), "lost");
}

/// DOS-13: ports are the sandbox's own; whoever takes all of them takes them from nobody else.
#[test]
fn a_command_that_takes_every_port_takes_only_its_own() {
    Outer::run(|_| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40063").unwrap();
        let policy = "version: 1\nnetwork:\n  endpoints:\n    site: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]}\n";
        let arena = Arena::new(policy, "up.test");
        let free = || TcpListener::bind("0.0.0.0:0").is_ok();
        for mode in Mode::available() {
            let stockade = arena.stockade(*mode).timeout(Duration::from_secs(60));
            let probe = stockade.put_probe();
            let script =
                format!("{0} ports:4000 sleep:1500 & until [ -e done ]; do sleep 0.1; done; wait", probe.display());
            let work = stockade.work();
            let run = stockade.spawn(&["sh", "-c", &script]);
            run.wait_for("ports:4000 -> ok");
            assert!(free(), "the machine has ports: {mode:?}");
            // Another sandbox is served meanwhile.
            let other = arena.stockade(*mode).sh("curl -sS --max-time 5 http://up.test/");
            assert_eq!(other.text(), "hello from upstream\n", "{mode:?} {other:?}");
            fs::write(work.join("done"), "").unwrap();
            let done = run.finish();
            let taken: u32 = done.outcome("ports:4000").what.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(taken > 500, "control: it took many: {mode:?} {done:?}");
        }
        let bare = Stockade::new(Mode::Rootless).unwrapped();
        let probe = bare.put_probe();
        let bare = bare.spawn(&[probe.to_str().unwrap(), "ports:4000", "sleep:1000"]);
        bare.wait_for("ports:4000 -> ok");
        assert!(!free(), "tripwire: without a network of its own it takes them all");
        drop(bare);
    });
}

/// PROC-08: children that are stopped, continued and killed faster than init can look do not end it.
#[test]
fn init_outlives_children_that_stop_and_die() {
    let script = r#"
        for my $worker (1..3) { next if fork; srand $worker;
            for (1..500) {
                pipe(my $r, my $w); my $parent = fork // die;
                if (!$parent) { my $orphan = fork // exit; if (!$orphan) { sleep 60; exit } syswrite $w, pack 'L', $orphan; exit }
                waitpid $parent, 0; close $w; sysread $r, my $orphan, 4; $orphan = unpack 'L', $orphan;
                for (1..4) { kill 'STOP', $orphan; 1 for 1..rand 800; kill 'CONT', $orphan }
                1 for 1..rand 2500; kill 'KILL', $orphan }
            exit }
        my $ended = 0; $ended++ while wait > 0; print "ended $ended\n"; exit 7"#;
    for mode in Mode::available() {
        let run = Stockade::new(*mode).timeout(Duration::from_secs(90)).run(&["perl", "-e", script]);
        run.assert_code(7);
        assert_eq!(run.text(), "ended 3\n", "{mode:?} {run:?}");
    }
}

/// DOS-09: on a terminal the command does not lead its session. It leaves its group with a child in it, or stops the
/// leader; it ends all the same.
#[test]
fn a_command_on_a_terminal_cannot_outlive_its_end() {
    let deaf = "$| = 1; $SIG{HUP} = 'IGNORE'; $SIG{TERM} = sub { print qq(first\\n) };";
    let moved = format!(
        "{deaf} my $other = fork // die; if (!$other) {{ setpgrp 0, 0; sleep 1 while 1 }}
        select undef, undef, undef, 0.01 until getpgrp($other) == $other;
        my $stays = fork // die; if (!$stays) {{ sleep 1 while 1 }}
        setpgrp 0, $other; die if getpgrp != $other; print qq(away\\n); sleep 1 while 1"
    );
    let stopped = format!("{deaf} kill 'STOP', getppid; print qq(away\\n); sleep 1 while 1");
    for mode in Mode::available() {
        for script in [&moved, &stopped] {
            let run = Stockade::new(*mode).arg("-t").spawn(&["perl", "-e", script]);
            run.wait_for("away");
            run.signal(Signal::SIGTERM);
            run.wait_for("first");
            run.signal(Signal::SIGTERM);
            run.finish().assert_code(137);
            let limited =
                ["-t", "--timeout", "1s", "--grace", "100ms"].iter().fold(Stockade::new(*mode), Stockade::arg);
            limited.run(&["perl", "-e", script]).assert_code(124);
        }
        // The leader goes on with the program, so that a program that heeds TERM ends by it.
        let run = Stockade::new(*mode).arg("-t").spawn(&["sh", "-c", "kill -STOP $PPID; echo away; exec sleep 60"]);
        run.wait_for("away");
        run.signal(Signal::SIGTERM);
        run.finish().assert_code(143);
    }
}

/// A real-time signal is an end like another.
#[test]
fn real_time_signals_are_ends() {
    for mode in Mode::available() {
        for options in [&[][..], &["-t"]] {
            let run = options.iter().fold(Stockade::new(*mode), Stockade::arg).run(&["bash", "-c", "kill -34 $$"]);
            run.assert_code(162);
        }
    }
}

/// DOS-09: a job that no shell could continue is not stopped with its command, which stops itself again and again.
#[test]
fn a_command_that_always_stops_does_not_stop_the_clock() {
    if !std::path::Path::new("/usr/bin/python3").exists() {
        skip!("python3 is not installed");
    }
    let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let script = r"$SIG{TERM} = 'IGNORE'; my $me = $$; my $other = fork // die;
        if (!$other) { setpgrp 0, 0; while (1) { kill 'STOP', $me; 1 for 1..2000; kill 'CONT', $me; 1 for 1..2000 } }
        sleep 1 while 1";
    for mode in Mode::available() {
        let run = Stockade::new(*mode).under(&["/usr/bin/python3", "-c", terminal]);
        let run = ["--timeout", "1s", "--grace", "100ms"].iter().fold(run, Stockade::arg);
        run.run(&["perl", "-e", script]).assert_code(124);
    }
}
