use std::{fs, thread, time::Duration};

use stockade_testkit::Mode;

use crate::world::{World, fed, good};

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

#[test]
fn a_hundred_sessions_at_once() {
    let world = World::new(Mode::available()[0]);
    let clients: Vec<_> = (0..100)
        .map(|n| {
            // Half of them with a terminal.
            let mut one = world.client("ssh");
            one.args([if n % 2 == 0 { "-T" } else { "-tt" }, "sandbox@127.0.0.1", &format!("sleep 1; echo {n}")]);
            // A crowd that arrives in one instant is turned away at the door for strangers: it comes within a second.
            thread::sleep(Duration::from_millis(30));
            thread::spawn(move || good(&fed(one, b"")))
        })
        .collect();
    for (n, client) in clients.into_iter().enumerate() {
        assert_eq!(client.join().unwrap().trim(), n.to_string());
    }
    world.end();
}

#[test]
fn a_thousand_sessions_leave_nothing_behind() {
    let world = World::new(Mode::available()[0]);
    let pid = world.run.pid();
    good(&world.ssh(&["-tt"], "true"));
    let control = world.keys().path("control");
    let path = format!("ControlPath={}", control.display());
    let mut client = world.client("ssh");
    let mut master = client.args(["-M", "-N", "-o", &path, "sandbox@127.0.0.1"]).spawn().unwrap();
    while !control.exists() {
        thread::sleep(Duration::from_millis(20));
    }
    // Its policy is watched from a second on.
    thread::sleep(Duration::from_secs(2));
    let before = (descriptors(pid), threads(pid));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let lines: Vec<_> = (0..250)
                .map(|n| {
                    let mut one = world.client("ssh");
                    let kind = if n % 5 == 0 { "-tt" } else { "-T" };
                    one.args([kind, "-o", &path, "-o", "ControlMaster=no", "sandbox@127.0.0.1", "true"]);
                    one
                })
                .collect();
            thread::spawn(move || lines.into_iter().for_each(|one| drop(good(&fed(one, b"")))))
        })
        .collect();
    workers.into_iter().for_each(|w| w.join().unwrap());
    master.kill().unwrap();
    master.wait().unwrap();
    // The connection itself was counted before.
    let settled = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(100));
        descriptors(pid) <= before.0 && threads(pid) <= before.1 + 4
    });
    assert!(settled, "{before:?} became {:?}", (descriptors(pid), threads(pid)));
    let left = good(&world.ssh(
        &[],
        "ls /dev/pts | grep -vc ptmx; ps -e -o comm= | grep -vc -E '^(ps|grep|sh|cat|stockade|bash)$'; true",
    ));
    assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["0", "0"], "{left}");
    world.end();
}
