//! Bodies that have to be read before they are sent: how long they may be, and what many of them cost (DOS-05).

use std::{fs, time::Duration};

use stockade_testkit::{Mode, Outer, Running};

use crate::{
    LONG,
    world::{CANARY, World, assert_nowhere},
};

/// free.test is read for its rules, other.test for the place of its credential, api.test not at all.
const READ: &str = r#"
version: 1
network:
  endpoints:
    rules: {hosts: [free.test], ports: [8443], private_addresses: [192.0.2.0/24], protocol: jsonrpc, allow: [{methods: [a]}]}
    field: {hosts: [other.test], ports: [8443], private_addresses: [192.0.2.0/24], credentials: [github]}
    streamed: {hosts: [api.test], ports: [8443], private_addresses: [192.0.2.0/24]}
credentials:
  github: {env: GITHUB_TOKEN, source: "file:github", inject: {body: json, field: /token}}
"#;
/// Bodies at once at each endpoint.
const AT_ONCE: usize = 32;
/// What the supervisor may grow by, in KiB: twice the 64 bodies of 1 MiB that it holds at once, as buffers double.
const CEILING: u64 = 128 * 1024;

/// The most memory that the supervisor ever had, in KiB.
fn peak(run: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn bodies_that_are_read_have_a_bound_and_so_have_all_of_them() {
    // Whoever is refused stops reading, and so does the writer of a body of a thousand million bytes.
    let script = format!(
        r#"
        post() {{ curl -s -m 60 -o /dev/null -w "$1 %{{http_code}}\n" -X POST -H 'content-type: application/json' -T - https://$2:8443/; }}
        long() {{ printf '{{"jsonrpc":"2.0","id":1,"method":"a","token":"%s","params":["' "$2"; head -c $1 /dev/zero | tr '\0' a; printf '"]}}'; }}
        long 1000 | post small free.test
        long 1000 $GITHUB_TOKEN | post small other.test
        long 8000000 | post long api.test
        echo ready; read go
        for i in $(seq {AT_ONCE}); do
            long 1000000000 | post refused free.test &
            long 1000000000 $GITHUB_TOKEN | post refused other.test &
        done 2>/dev/null
        wait; long 1000 | post after free.test; echo asked; read go
    "#
    );
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer);
        for mode in Mode::available() {
            let before = world.origin.requests().len();
            let mut run =
                world.stockade(*mode, READ).timeout(Duration::from_secs(150)).spawn(&["/bin/sh", "-c", &script]);
            run.wait_for("ready");
            let at_rest = peak(&run);
            run.write(b"\n");
            run.wait_for("asked");
            let grown = peak(&run) - at_rest;
            run.write(b"\n");
            let run = run.finish();
            assert_nowhere(&run);
            let text = run.text();
            let told = |line: &str| text.lines().filter(|l| *l == line).count();
            assert_eq!(
                (told("small 200"), told("long 200"), told("after 200")),
                (2, 1, 1),
                "control: {mode:?} {run:?}"
            );
            let refused = told("refused 413") + told("refused 503");
            assert_eq!(refused, 2 * AT_ONCE, "{mode:?} {run:?}");
            let events = run.events.with("limit").iter().map(|e| e.0["count"].as_u64().unwrap_or(1)).sum::<u64>();
            assert_eq!(events, 2 * AT_ONCE as u64, "{mode:?} {run:?}");
            assert!(grown < CEILING, "{mode:?}: the supervisor grew by {grown} KiB");
            eprintln!("{mode:?}: {} bodies, {grown} KiB more", 2 * AT_ONCE);
            // The long one that nobody reads is the tripwire: length alone is refused nowhere.
            let arrived = world.origin.requests().split_off(before);
            assert_eq!(arrived.len(), 4, "{mode:?} {run:?}");
            assert!(arrived.iter().any(|r| r.body.len() > 8_000_000), "{mode:?}");
            let held = |r: &&stockade_testkit::upstream::Request| String::from_utf8_lossy(&r.body).contains(CANARY);
            assert_eq!(arrived.iter().filter(held).count(), 1, "at its own endpoint alone: {mode:?}");
        }
    });
}
