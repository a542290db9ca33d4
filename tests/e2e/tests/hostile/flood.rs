//! Floods: what many refusals cost, and that none is lost from the count.

use std::{fs, time::Duration};

use stockade_testkit::{Arena, Finished, Mode, Outer, Running};

const POLICY: &str = "
version: 1
network:
  endpoints:
    site: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]}
";

/// Resident memory of the supervisor, in KiB.
fn memory(run: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Refusals that the log accounts for: lines, those they stand for, and those that the kernel or the queue counted.
fn accounted(run: &Finished, reasons: &[&str]) -> u64 {
    let all = reasons.iter().flat_map(|r| run.events.with(r));
    all.map(|e| e.0["count"].as_u64().unwrap_or(1)).sum()
}

/// NET-26: tens of thousands of refused connections while an allowed one is wanted.
#[test]
fn a_flood_of_refused_connections_disturbs_nobody() {
    const MANY: u64 = 30_000;
    Outer::run(|_| {
        let arena = Arena::new(POLICY, "up.test");
        for mode in Mode::available() {
            let stockade = arena.stockade(*mode).timeout(Duration::from_secs(60));
            let probe = stockade.put_probe();
            let get = "proxy:GET http://up.test/ HTTP/1.1\\r\\nHost: up.test\\r\\nConnection: close\\r\\n\\r\\n";
            let flood = format!("flood:{MANY}:198.51.100.1:22");
            let script = format!(
                "echo ready; read x; {0} '{flood}' & for i in 1 2 3 4 5; do {0} '{get}'; sleep 0.1; done; wait; echo flooded; read x",
                probe.display()
            );
            let mut run = stockade.spawn(&["sh", "-c", &script]);
            run.wait_for("ready");
            let before = memory(&run);
            run.write(b"\n");
            run.wait_for("flooded");
            let after = memory(&run);
            run.write(b"\n");
            let done = run.finish();
            assert_eq!(done.outcome(&flood).what, format!("ok {MANY} refused"), "{mode:?}");
            let served: Vec<_> =
                done.text().lines().filter(|l| l.contains("HTTP/1.1 200")).map(str::to_owned).collect();
            assert_eq!(served.len(), 5, "{mode:?} {done:?}");
            for line in served {
                let millis: u64 = line.rsplit_once('(').unwrap().1.trim_end_matches(" ms)").parse().unwrap();
                assert!(millis < 1000 + 250, "the probe waits 200 ms for more: {mode:?} {line}");
            }
            assert!(after < before + 16 * 1024, "{mode:?}: {before} KiB, then {after} KiB");
            let lines = done.events.with("bypass").len();
            assert!((1..2000).contains(&lines), "{mode:?}: {lines} lines");
            assert!(done.events.with("bypass").iter().any(|e| e.0["count"].as_u64() > Some(1)), "folded: {mode:?}");
        }
    });
}

/// DOS-12: denied requests are answered as fast as ever while the log cannot keep up, and every one is accounted for.
#[test]
fn every_denied_request_of_a_flood_is_accounted_for() {
    const MANY: u64 = 4000;
    Outer::run(|_| {
        let arena = Arena::new(POLICY, "up.test");
        let denied = format!(
            "denied:{MANY}:GET http://evil.test/ HTTP/1.1\\r\\nHost: evil.test\\r\\nConnection: close\\r\\n\\r\\n"
        );
        arena.run(&[&denied], |mode, run| {
            let outcome = run.outcome(&denied);
            assert_eq!(outcome.what, format!("ok {MANY} refused"), "{mode:?}");
            assert_eq!(accounted(run, &["no_policy", "audit_lost"]), MANY, "{mode:?}");
            assert!(run.events.with("no_policy").len() < MANY as usize, "folded: {mode:?}");
            assert!(run.stderr.contains(&format!("{MANY} connections blocked")), "{mode:?} {}", run.stderr);
        });
    });
}
