//! Each cell: a container with these options either has every wall, or refuses with the options that are missing.

use crate::{
    engine,
    engine::{Engine, FILTER, OPEN, said},
    users::{Remapped, Rootless},
};

/// What every command in a whole sandbox sees, whatever is around it.
const INSIDE: &str = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; id -u; \
    echo seen $(ls /proc | grep -c '^[0-9]'); touch made && echo written; cat /etc/shadow /host/etc/shadow 2>/dev/null; \
    curl -sS -m 5 http://192.0.2.1/; curl -sS -m 5 --noproxy '*' http://192.0.2.1:81/";

/// What is expected.
enum Want {
    /// Nine layers and the command as this uid.
    Whole(u32),
    /// The same, and this is said loudly.
    Loud(u32, &'static str),
    /// Exit code 125; each of these is said, and none of those.
    Refused(&'static [&'static str], &'static [&'static str]),
}

fn check(engine: &Engine, name: &str, options: &[&str], want: &Want) {
    let image = engine.machine_image();
    let words = ["stockade", "supervise", "--log-level", "debug", "--", "/bin/sh", "-c", INSIDE];
    let out = engine.run(options, &image, &words);
    let text = said(&out);
    let whole = |uid: u32| {
        let layers =
            text.lines().filter(|l| l.starts_with("stockade: ") && l.trim_end().ends_with(": enforced")).count();
        assert_eq!(layers, 9, "{name}: layers\n{text}");
        for line in
            ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "written"]
        {
            assert!(text.contains(line), "{name}: {line}\n{text}");
        }
        assert!(text.lines().any(|l| l == uid.to_string()), "{name}: uid {uid}\n{text}");
        assert!(processes_seen(&text) <= 8, "{name}: processes of others\n{text}");
        assert!(
            !["root:*", "root:$", "root:!"].iter().any(|hash| text.contains(hash)),
            "{name}: no password file\n{text}"
        );
        assert!(
            text.contains("denied by stockade") && text.contains("goes around the proxy"),
            "{name}: the door\n{text}"
        );
    };
    match want {
        Want::Whole(uid) => whole(*uid),
        Want::Loud(uid, what) => {
            whole(*uid);
            assert!(text.contains(what), "{name}: {what}\n{text}");
        }
        Want::Refused(all, none) => {
            assert_eq!(out.status.code(), Some(125), "{name}\n{text}");
            assert!(!text.contains("CapEff"), "{name}: nothing was run\n{text}");
            all.iter().for_each(|what| assert!(text.contains(what), "{name}: {what}\n{text}"));
            none.iter().for_each(|what| assert!(!text.contains(what), "{name}: {what} is not missing\n{text}"));
        }
    }
}

fn processes_seen(text: &str) -> u32 {
    let number = text.lines().find_map(|line| line.strip_prefix("seen ")?.trim().parse().ok());
    number.unwrap_or_else(|| panic!("the processes were not counted\n{text}"))
}

/// The tripwire of every cell: the same commands in the same container, and no Stockade around them.
#[test]
fn without_it_none_of_the_walls_is_there() {
    let docker = engine!(Engine::docker());
    let options = [&OPEN[..], &["--pid", "host", "--network", "none", "-v", "/:/host:ro"]].concat();
    let text = said(&docker.run(&options, &docker.machine_image(), &["/bin/sh", "-c", INSIDE]));
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "denied by stockade", "goes around the proxy"] {
        assert!(!text.contains(line), "{line}\n{text}");
    }
    assert!(
        text.contains("root:*") || text.contains("root:$") || text.contains("root:!"),
        "the host's accounts\n{text}"
    );
    assert!(processes_seen(&text) > 20, "the host's processes\n{text}");
}

const SECCOMP: &str = "--security-opt seccomp=";
const PATHS: &str = "--security-opt systempaths=unconfined";

#[test]
fn docker_with_what_is_missing_named() {
    let docker = engine!(Engine::docker());
    let refused: [(&str, &[&str], Want); 7] = [
        ("default", &[], Want::Refused(&[SECCOMP, PATHS], &["--user", "--cap-add"])),
        ("default, user", &["--user", "1000:1000"], Want::Refused(&[SECCOMP, PATHS], &["--user", "--cap-add"])),
        ("filter", &OPEN[..2], Want::Refused(&[PATHS], &[SECCOMP, "--user", "--cap-add"])),
        ("paths", &OPEN[2..], Want::Refused(&[SECCOMP], &[PATHS, "--user", "--cap-add"])),
        (
            "SYS_ADMIN alone",
            &["--cap-add", "SYS_ADMIN"],
            Want::Refused(&["--cap-add NET_ADMIN", "pivot_root"], &[PATHS]),
        ),
        (
            "SYS_ADMIN, NET_ADMIN",
            &["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"],
            Want::Refused(&[SECCOMP, "pivot_root"], &[PATHS, "--cap-add", "--user"]),
        ),
        (
            "root without capabilities",
            &["--security-opt", FILTER, "--security-opt", "systempaths=unconfined", "--cap-drop", "ALL"],
            Want::Refused(&["--user UID:GID", "CAP_SETUID"], &[]),
        ),
    ];
    refused.iter().for_each(|(name, options, want)| check(&docker, name, options, want));
}

#[test]
fn docker_with_two_options_has_every_wall() {
    let docker = engine!(Engine::docker());
    let more: [(&str, &[&str], Want); 12] = [
        ("root", &[], Want::Whole(1000)),
        ("user", &["--user", "1000:1000"], Want::Whole(1000)),
        (
            "user, nothing else",
            &["--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
            Want::Whole(1000),
        ),
        ("no-new-privileges", &["--security-opt", "no-new-privileges"], Want::Whole(1000)),
        ("seccomp=unconfined", &["--security-opt", "seccomp=unconfined"], Want::Whole(1000)),
        ("read-only root", &["--read-only", "--tmpfs", "/work:uid=1000,gid=1000"], Want::Whole(1000)),
        ("limits of the engine", &["--memory", "256m", "--pids-limit", "100"], Want::Whole(1000)),
        ("no network", &["--network", "none"], Want::Whole(1000)),
        ("--network host", &["--network", "host"], Want::Loud(1000, "shares the host's network")),
        ("--pid host", &["--pid", "host"], Want::Loud(1000, "shares the host's processes")),
        (
            "engine's socket",
            &["-v", "/var/run/docker.sock:/var/run/docker.sock"],
            Want::Loud(1000, "docker.sock is mounted"),
        ),
        ("host's root", &["-v", "/:/host"], Want::Loud(1000, "whole file system is mounted")),
    ];
    for (name, options, want) in &more {
        check(&docker, name, &[&OPEN[..], options].concat(), want);
    }
}

/// With these two capabilities no user namespace is made, and where cgroups are read-only nothing bounds processes.
#[test]
fn docker_with_capabilities_has_all_but_limits() {
    let docker = engine!(Engine::docker());
    let options = ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", FILTER];
    let out = docker.run(
        &options,
        &docker.machine_image(),
        &["stockade", "supervise", "--log-level", "debug", "--", "/bin/sh", "-c", INSIDE],
    );
    let text = said(&out);
    let layers = text.lines().filter(|l| l.starts_with("stockade: ") && l.trim_end().ends_with(": enforced")).count();
    assert!(layers >= 8 && text.contains("written"), "{text}");
    assert!(layers == 9 || text.contains("limits: absent (pids"), "{text}");
    // A limit that somebody names is enforced or nothing runs.
    let named =
        docker.run(&options, &docker.machine_image(), &["stockade", "supervise", "--pids", "9", "--", "/bin/true"]);
    assert_eq!(named.status.code(), Some(if layers == 9 { 0 } else { 125 }), "{}", said(&named));
}

/// Memory and CPU need a cgroup that can be written; processes do not.
#[test]
fn limits_hold_or_are_refused_by_name() {
    let docker = engine!(Engine::docker());
    let image = docker.machine_image();
    let many = "i=0; while [ $i -lt 60 ]; do sleep 3 & i=$((i+1)); done; echo all of them";
    let out = docker.run(&OPEN, &image, &["stockade", "supervise", "--pids", "20", "--", "/bin/sh", "-c", many]);
    assert!(!said(&out).contains("all of them") && said(&out).contains("fork"), "{}", said(&out));
    let free = docker.run(&OPEN, &image, &["stockade", "supervise", "--pids", "200", "--", "/bin/sh", "-c", many]);
    assert!(said(&free).contains("all of them"), "the control: {}", said(&free));
    let words =
        ["stockade", "supervise", "--memory", "64MiB", "--", "/bin/sh", "-c", "head -c 200M /dev/zero | tail | wc -c"];
    let refused = docker.run(&OPEN, &image, &words);
    assert_eq!(refused.status.code(), Some(125), "{}", said(&refused));
    assert!(said(&refused).contains("the limit of memory cannot be enforced"), "{}", said(&refused));
    let delegated = [&OPEN[..], &["-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]].concat();
    let held =
        docker.run(&delegated, &image, &["stockade", "supervise", "--memory", "64MiB", "--", "/bin/sh", "-c", EAT]);
    assert!(!said(&held).contains("eaten"), "{}", said(&held));
    let free =
        docker.run(&delegated, &image, &["stockade", "supervise", "--memory", "1GiB", "--", "/bin/sh", "-c", EAT]);
    assert!(said(&free).contains("eaten"), "the control: {}", said(&free));
}

/// A shell that holds 200 MB.
const EAT: &str = "x=0123456789abcdef; i=0; while [ $i -lt 23 ]; do x=$x$x; i=$((i+1)); done; echo eaten ${#x}";

/// Both options, the way Podman writes them.
const UNMASKED: [&str; 6] = ["--network", "none", "--security-opt", FILTER, "--security-opt", "unmask=ALL"];

fn podman_cells(podman: &Engine) {
    check(podman, "default", &["--network", "none"], &Want::Refused(&[SECCOMP, PATHS], &["--user", "--cap-add"]));
    check(podman, "root", &UNMASKED, &Want::Whole(1000));
    check(podman, "user", &[&UNMASKED[..], &["--user", "1000:1000"]].concat(), &Want::Whole(1000));
}

#[test]
fn podman_with_two_options_has_every_wall() {
    podman_cells(&engine!(Engine::podman()));
}

/// An ordinary user's containers: their root is nobody on the machine.
#[test]
fn podman_rootless_with_two_options_has_every_wall() {
    let own = engine!(Rootless::new());
    podman_cells(&own.engine);
    check(&own.engine, "keep-id", &[&UNMASKED[..], &["--userns", "keep-id"]].concat(), &Want::Whole(1000));
}

/// A Docker engine whose containers have a user namespace: root there has capabilities that the machine does not heed.
#[test]
fn docker_with_remapped_users_has_every_wall() {
    let remapped = engine!(Remapped::new());
    let options = [&OPEN[..], &["--network", "none"]].concat();
    check(
        &remapped.engine,
        "default",
        &["--network", "none"],
        &Want::Refused(&[SECCOMP, PATHS], &["--user", "--cap-add"]),
    );
    check(&remapped.engine, "root", &options, &Want::Whole(1000));
    check(&remapped.engine, "user", &[&options[..], &["--user", "1000:1000"]].concat(), &Want::Whole(1000));
    let admin = [&options[..], &["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"]].concat();
    check(&remapped.engine, "capabilities", &admin, &Want::Whole(1000));
}
