//! Readiness that is real.

use std::{fs, process::Command};

use nix::sys::signal::Signal;
use stockade_testkit::{Mode, Outer, Stockade, runner::program, skip, upstream::Tcp};

use super::*;

fn shown(mode: Mode) -> Stockade {
    Stockade::new(mode).policy(POLICY).arg("--health").arg(SHOWN)
}

fn asked(address: &str) -> (i32, String) {
    let done = Command::new(program(false)).args(["health", address]).output().unwrap();
    (done.status.code().unwrap_or(-1), String::from_utf8_lossy(&done.stdout).into_owned())
}

#[test]
fn it_is_ready_while_the_command_runs_and_not_once_it_was_asked_to_end() {
    Outer::run(|_| {
        for mode in Mode::available() {
            assert_eq!(asked(SHOWN).0, 1, "nobody answers");
            let script = "trap 'sleep 2; exit 7' TERM; echo up; while :; do sleep 0.1; done";
            let run = shown(*mode).spawn(&["sh", "-c", script]);
            run.wait_for("up");
            wait_until("/readyz", SOON, ready);
            let (code, said) = asked(SHOWN);
            assert!(code == 0 && said.contains(r#"{"check":"fence","ok":true}"#), "{mode:?} {code} {said}");
            run.signal(Signal::SIGTERM);
            wait_until("/readyz", SOON, only("sandbox"));
            assert_eq!(get(SHOWN, "/livez").unwrap().0, 200, "alive until its end");
            let (code, said) = asked(SHOWN);
            assert!(code == 1 && said.contains("asked to"), "{code} {said}");
            run.finish().assert_code(7);
            assert!(get(SHOWN, "/livez").is_err(), "nothing listens any more");
        }
    });
}

/// NET-08: what belongs to the supervisor is not reached from inside, though the policy allows its address and port.
#[test]
fn nobody_inside_reaches_the_pages() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        let control = Tcp::echo("192.0.2.10:8085");
        for mode in Mode::available() {
            let script = "for p in 8085 8086; do
                curl -sS -p --max-time 5 -d hello http://192.0.2.10:$p/livez -o /dev/null -w '%{http_connect} ' || true
                curl -sS -p --max-time 5 -d hello http://raw.test:$p/livez -o /dev/null -w '%{http_connect} ' || true
                curl -sS --noproxy '*' --max-time 5 http://192.0.2.10:$p/livez && echo reached
                curl -sS --noproxy '*' --max-time 5 http://127.0.0.1:$p/livez && echo reached
            done; true";
            let run = shown(*mode).sh(script);
            assert_eq!(
                run.text().split_whitespace().collect::<Vec<_>>(),
                ["200", "200", "403", "403"],
                "{mode:?} {run:?}"
            );
            assert_eq!(run.events.with("ssrf_self").len(), 3, "{mode:?} by number, by name and directly {run:?}");
        }
        assert!(control.counters.arrivals() >= 2, "control: the neighbour's port is reached");
        let run = shown(Mode::available()[0]).spawn(&["sh", "-c", "echo up; read x; exit 0"]);
        run.wait_for("up");
        let bare = Stockade::new(Mode::Rootless).unwrapped().sh("curl -sS http://192.0.2.10:8086/livez");
        assert!(bare.text().contains("live"), "tripwire: it is reached without Stockade {bare:?}");
        run.finish().assert_code(0);
    });
}

/// What changes the fence from outside is a reason not to be ready, until it is undone.
#[test]
fn a_fence_that_drifts_is_seen_and_so_is_its_repair() {
    if !nix::unistd::Uid::effective().is_root() || Command::new("nft").arg("--version").output().is_err() {
        skip!("root and nft are needed to sabotage a fence");
    }
    Outer::run_within(Duration::from_secs(150), |_| {
        let run = shown(Mode::Root).timeout(Duration::from_secs(140)).spawn(&["sh", "-c", "echo up; read x"]);
        run.wait_for("up");
        wait_until("/readyz", SOON, ready);
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.pid())).unwrap_or_default();
        let init = children.split_whitespace().next().expect("init is the supervisor's child").to_owned();
        let nft = |args: &[&str]| {
            let done = Command::new("nsenter").args(["-t", &init, "-n", "nft"]).args(args).output().unwrap();
            assert!(done.status.success(), "{done:?}");
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        nft(&["add", "table", "inet", "intruder"]);
        let rules = nft(&["-a", "list", "table", "inet", "stockade"]);
        let chain = rules.lines().find_map(|l| l.trim().strip_prefix("chain ")).unwrap().split(' ').next().unwrap();
        nft(&["insert", "rule", "inet", "stockade", chain, "counter"]);
        let body = wait_until("/readyz", Duration::from_secs(60), only("fence"));
        assert!(body.contains("not as it was installed"), "{body}");
        let rules = nft(&["-a", "list", "chain", "inet", "stockade", chain]);
        let ours = rules.lines().find(|l| l.trim().starts_with("counter packets")).expect("the rule that was put in");
        let handle = ours.rsplit(' ').next().unwrap();
        nft(&["delete", "rule", "inet", "stockade", chain, "handle", handle]);
        nft(&["delete", "table", "inet", "intruder"]);
        wait_until("/readyz", Duration::from_secs(60), ready);
        let done = run.finish();
        assert!(!done.events.with("fence_drift").is_empty(), "{done:?}");
    });
}

#[test]
fn a_log_that_cannot_be_written_is_seen_and_so_is_room_for_it() {
    Outer::run_within(Duration::from_secs(90), |world| {
        let (_site, _dns) = super::world();
        let mode = *Mode::available().first().unwrap();
        let small = world.dir().join("small");
        fs::create_dir(&small).unwrap();
        small_disk(&small);
        let (log, filler) = (small.join("audit.jsonl"), small.join("filler"));
        // More lines than fit into what the log's last page has left.
        let script = "echo up; read x; for n in 1 2 3 4 5 6 7 8; do curl -sS http://no$n.test/; done; read x";
        let stockade = shown(mode).audit_log(&log).timeout(Duration::from_secs(80));
        let mut run = stockade.spawn(&["sh", "-c", script]);
        run.wait_for("up");
        wait_until("/readyz", SOON, ready);
        // Until the disk says no.
        let _ = fs::write(&filler, vec![0; 4 << 20]);
        run.write(b"\n");
        let body = wait_until("/readyz", SOON, only("audit"));
        assert!(body.contains("cannot be written"), "{body}");
        fs::remove_file(&filler).unwrap();
        wait_until("/readyz", Duration::from_secs(40), ready);
        run.finish().assert_code(1);
    });
}

fn small_disk(at: &std::path::Path) {
    let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=777", "tmpfs"]).arg(at).status();
    assert!(done.is_ok_and(|s| s.success()), "a small disk");
}

#[test]
fn descriptors_that_run_out_are_seen_before_they_have() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        let _held = Tcp::sink("192.0.2.10:9000");
        let mode = *Mode::available().first().unwrap();
        let script = "echo up; read many
            for n in $(seq $many); do exec {fd}<>/dev/tcp/127.0.0.1/3128 || break
              printf 'CONNECT raw.test:9000 HTTP/1.1\\r\\nHost: raw.test:9000\\r\\n\\r\\n' >&$fd; done
            echo open; read x; exit 0";
        let mut run = shown(mode).under(&["prlimit", "--nofile=48:48"]).spawn(&["bash", "-c", script]);
        run.wait_for("up");
        wait_until("/readyz", SOON, ready);
        let used = fs::read_dir(format!("/proc/{}/fd", run.pid())).unwrap().count();
        // Each takes two; what is left is for who asks.
        run.write(format!("{}\n", (46 - used) / 2).as_bytes());
        run.wait_for("open");
        let body = wait_until("/readyz", SOON, only("descriptors"));
        assert!(body.contains("of 48 descriptors are in use"), "{body}");
        run.write(b"\n");
        run.finish().assert_code(0);
    });
}

#[test]
fn an_address_that_cannot_be_had_is_named_and_nothing_runs() {
    Outer::run(|_| {
        let _taken = std::net::TcpListener::bind(SHOWN).unwrap();
        for (option, value, said) in [
            ("--health", SHOWN, "cannot listen on 192.0.2.10:8086 for --health"),
            ("--metrics", "203.0.113.1:1", ""),
            ("--health", "nonsense", "expected a port, or ADDRESS:PORT"),
            ("--health", "0", "port 0"),
        ] {
            let mode = *Mode::available().first().unwrap();
            let run = Stockade::new(mode).arg(option).arg(value).sh("echo ran");
            if said.is_empty() {
                run.assert_code(0);
                continue;
            }
            run.assert_code(125);
            assert!(run.stderr.contains(said) && run.text().is_empty(), "{run:?}");
        }
    });
}

/// One variable says it to the entrypoint and to the engine's check. Others of the image's are not heeded.
#[test]
fn an_entrypoint_takes_its_address_from_the_environment() {
    Outer::run(|outer| {
        let collector = Tcp::sink("192.0.2.10:4318");
        for mode in Mode::available() {
            let stockade = Stockade::new(*mode).subcommand("supervise").policy(POLICY);
            let stockade =
                stockade.env("STOCKADE_HEALTH", SHOWN).env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://192.0.2.10:4318");
            let mut run = stockade.spawn(&["sh", "-c", "echo up; curl -s http://no.test/; read x; exit 0"]);
            run.wait_for("up");
            wait_until("/readyz", SOON, ready);
            let check = Command::new(program(false)).arg("health").env("STOCKADE_HEALTH", SHOWN).output().unwrap();
            assert!(check.status.success(), "{mode:?} {check:?}");
            run.write(b"\n");
            let run = run.finish().expect_code(0);
            assert!(run.stderr.contains("the OTEL_ variables are not heeded"), "{mode:?} {run:?}");
            run.events.one("no_policy");
            let refused = Stockade::new(*mode).subcommand("supervise").env("STOCKADE_PUBLISH", "9002").sh("echo ran");
            assert!(refused.code() == 125 && refused.text().is_empty(), "{mode:?} {refused:?}");
        }
        collector.counters.assert_untouched();
        outer.hosts(&[("192.0.2.10".parse().unwrap(), "collector")]);
        let asked = Stockade::new(Mode::available()[0]).subcommand("supervise").policy(POLICY).arg("--traces");
        asked.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318").sh("curl -s http://no.test/").assert_code(0);
        assert!(collector.counters.arrivals() > 0, "control: the command line is heeded");
    });
}
