//! A command that attacks its surroundings (PROC, ENV, FS, POL), root and rootless. Each script also does something that
//! must work, so that a sandbox in which nothing works cannot pass.
#![forbid(unsafe_code)]

use std::{fs, os::unix::fs::PermissionsExt};

use stockade_testkit::{Finished, Mode, Stockade, in_every_mode};

/// The lines that a script printed as `key value`.
fn said(run: &Finished, key: &str) -> String {
    let line = run.text().lines().find_map(|l| Some(l.strip_prefix(key)?.strip_prefix(' ')?.to_owned()));
    assert!(line.is_some(), "nothing said of {key}: {run:?}");
    line.unwrap_or_default()
}

#[test]
fn nothing_of_init_launcher_or_supervisor_can_be_read() {
    let script = r#"
        for p in 1 2; do
          for f in environ mem maps auxv syscall stack; do
            [ "$(head -c 1 /proc/$p/$f 2>/dev/null | wc -c)" = 0 ] || echo "read /proc/$p/$f"
          done
          for l in root cwd exe; do ls -d /proc/$p/$l/ >/dev/null 2>&1 && echo "followed /proc/$p/$l"; done
          ls /proc/$p/fd /proc/$p/map_files /proc/$p/task/$p/fd 2>/dev/null | grep -q . && echo "listed fds of $p"
        done
        echo "pids $(ls /proc | grep -c '^[0-9]*$')"
        echo "control $(head -c 1 /proc/self/environ | wc -c)"
    "#;
    in_every_mode(
        |s| s,
        script,
        |mode, run| {
            assert_eq!(said(run, "control").as_str(), "1", "{mode:?} {run:?}");
            assert!(!run.text().contains("read /proc") && !run.text().contains("followed"), "{mode:?} {run:?}");
            assert!(!run.text().contains("listed fds"), "{mode:?} {run:?}");
            let pids: u32 = said(run, "pids").parse().unwrap();
            assert!(pids < 10, "init, launcher, the shell and its children: {mode:?} {run:?}");
        },
    );
}

#[test]
fn signals_reach_nothing_that_matters() {
    let script = "kill -KILL 1; kill -STOP 1; kill -TERM 1; kill -KILL 2; kill -KILL -1; sleep 0.1; \
                  sleep 60 & kill -KILL $!; wait $!; echo child $?; \
                  wget -qO- http://evil.test/ 2>/dev/null; echo alive yes; exit 3";
    in_every_mode(
        |s| s,
        script,
        |mode, run| {
            assert_eq!((said(run, "alive").as_str(), run.code()), ("yes", 3), "{mode:?} {run:?}");
            assert_eq!(said(run, "child").as_str(), "137", "control: its own it can signal {mode:?} {run:?}");
            assert!(run.events.one("no_policy").host() == Some("evil.test"), "the door answers still {mode:?} {run:?}");
        },
    );
}

#[test]
fn the_command_holds_nothing() {
    let script = r#"
        for k in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Uid; do
          echo "$k $(awk -v k="$k:" '$1 == k {print $2}' /proc/self/status)"
        done
        echo "core $(ulimit -Hc)"
        echo "fds $(ls /proc/self/fd | tr '\n' ' ')"
    "#;
    in_every_mode(
        |s| s,
        script,
        |mode, run| {
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(said(run, set).as_str(), "0000000000000000", "{mode:?}");
            }
            assert_eq!(
                (said(run, "NoNewPrivs").as_str(), said(run, "Seccomp").as_str(), said(run, "core").as_str()),
                ("1", "2", "0"),
                "{mode:?}"
            );
            assert_ne!(said(run, "Uid").as_str(), "0", "{mode:?}");
            // 3 is the directory that `ls` reads.
            assert_eq!(said(run, "fds").trim(), "0 1 2 3", "{mode:?}");
        },
    );
    let bare = Stockade::new(Mode::Rootless).unwrapped().sh(script);
    assert_eq!(said(&bare, "NoNewPrivs").as_str(), "0", "tripwire: without Stockade {bare:?}");
    assert_ne!(said(&bare, "CapBnd").as_str(), "0000000000000000", "tripwire: {bare:?}");
}

#[test]
fn rights_of_root_are_not_to_be_had() {
    let script = r#"
        try() { name=$1; shift; "$@" >/dev/null 2>&1 && echo "did $name"; }
        try userns unshare -U true; try netns unshare -n true; try mountns unshare -m true
        try mount mount -t tmpfs none /tmp; try umount umount /proc; try mknod mknod /tmp/null c 1 3
        try chroot chroot / true; try hostname hostname evil; try route ip route add default dev lo
        try nft nft flush ruleset; try iptables iptables -F
        try core sh -c 'echo x > /proc/sys/kernel/core_pattern'; try sysrq sh -c 'echo b > /proc/sysrq-trigger'
        try oom sh -c 'echo -500 > /proc/self/oom_score_adj'; try kcore head -c 1 /proc/kcore
        try suid sh -c 'cp /bin/true t && chmod u+s t && false'
        try control true
    "#;
    in_every_mode(
        |s| s,
        script,
        |mode, run| {
            let text = run.text();
            let did: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("did ")).collect();
            assert_eq!(did, ["control"], "{mode:?} {run:?}");
        },
    );
    // Only what an ordinary user can do anyway is tried without Stockade: nobody wants the rest to work.
    let bare = Stockade::new(Mode::Rootless)
        .unwrapped()
        .sh("unshare -U true && echo did userns; unshare -Urn true && echo did netns");
    let allowed = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    assert!(allowed.trim() == "0" || bare.text() == "did userns\ndid netns\n", "tripwire: {bare:?}");
}

#[test]
fn the_supervisor_runs_nothing_from_the_workspace() {
    let names =
        ["ip", "nft", "iptables", "iptables-restore", "nsenter", "mount", "getent", "newuidmap", "dmesg", "true"];
    for mode in Mode::available() {
        let run = Stockade::new(*mode);
        let (work, path) = (run.work(), format!("{}:/usr/bin:/bin", run.work().display()));
        for name in names {
            fs::write(work.join(name), "#!/bin/sh\necho ran >> \"$(dirname \"$0\")/canary\"\n").unwrap();
            fs::set_permissions(work.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let run = run.env("PATH", path).env("LD_PRELOAD", work.join("no.so"));
        let done = run.sh("cat canary 2>/dev/null | wc -l; PATH=$PWD:$PATH ip; cat canary | wc -l");
        let text = done.text();
        let counts: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(counts, ["0", "1"], "only the command's own call runs it: {mode:?} {done:?}");
    }
}

#[test]
fn the_environment_weakens_nothing() {
    let weak = |s: Stockade| {
        s.env("STOCKADE_POLICY", "/nonexistent")
            .env("STOCKADE_ISOLATION", "none")
            .env("STOCKADE_REQUIRE", "")
            .env("HTTP_PROXY", "http://192.0.2.1:1")
            .env("AWS_SECRET_ACCESS_KEY", "canary-of-the-caller")
    };
    let script = "echo proxy $http_proxy $HTTP_PROXY; env | grep -c canary; id -u >/dev/null && echo works yes";
    in_every_mode(weak, script, |mode, run| {
        assert_eq!(said(run, "proxy").as_str(), "http://127.0.0.1:3128 http://127.0.0.1:3128", "{mode:?}");
        assert!(run.text().lines().any(|l| l == "0"), "the caller's secrets stay outside: {mode:?} {run:?}");
        assert_eq!(said(run, "works").as_str(), "yes", "{mode:?}");
    });
    let bare = weak(Stockade::new(Mode::Rootless).unwrapped()).sh(script);
    assert!(said(&bare, "proxy").contains("192.0.2.1") && bare.text().contains("\n1\n"), "tripwire: {bare:?}");
}

#[test]
fn a_policy_that_says_nothing_allows_nothing() {
    let ask = "curl -s -o /dev/null -w 'status %{http_code}\\n' http://any.test/; echo works yes";
    for build in [
        (|s: Stockade| s) as fn(Stockade) -> Stockade,
        |s| s.policy("version: 1\n"),
        |s| s.policy("version: 1\nnetwork:\n  endpoints: {}\n"),
    ] {
        in_every_mode(build, ask, |mode, run| {
            assert_eq!((said(run, "status").as_str(), said(run, "works").as_str()), ("403", "yes"), "{mode:?} {run:?}");
            assert_eq!(run.events.one("no_policy").host(), Some("any.test"), "{mode:?}");
        });
    }
    in_every_mode(
        |s| s.arg("--allow").arg("any.test:80"),
        ask,
        |mode, run| assert_eq!(said(run, "status").as_str(), "502", "tripwire: allowed, and nowhere {mode:?} {run:?}"),
    );
}

#[test]
fn steering_files_in_the_workspace_cannot_be_changed() {
    let attack = "for f in policy.yaml; do echo x >> $f; rm -f $f; mv $f other; ln -sf /etc/passwd $f; cp /dev/null $f; done 2>/dev/null; \
                  touch mine && echo works yes";
    for mode in Mode::available() {
        let run = Stockade::new(*mode);
        let policy = run.work().join("policy.yaml");
        fs::write(&policy, "version: 1\n").unwrap();
        let done = run.arg("--policy").arg(&policy).sh(attack);
        assert_eq!(said(&done, "works").as_str(), "yes", "{mode:?} {done:?}");
        assert_eq!(fs::read_to_string(&policy).unwrap(), "version: 1\n", "{mode:?}");
    }
    let bare = Stockade::new(Mode::Rootless).unwrapped();
    let policy = bare.work().join("policy.yaml");
    fs::write(&policy, "version: 1\n").unwrap();
    let done = bare.sh(attack);
    assert_ne!(fs::read_to_string(&policy).unwrap_or_default(), "version: 1\n", "tripwire: {done:?}");
}

#[test]
fn every_refusal_is_counted_once() {
    let script = "for i in $(seq 40); do curl -s -o /dev/null http://h$((i % 4)).test/; done; echo works yes";
    in_every_mode(
        |s| s,
        script,
        |mode, run| {
            assert_eq!(said(run, "works").as_str(), "yes");
            assert_eq!(run.events.refusals(), 40, "{mode:?} {run:?}");
        },
    );
}

#[test]
fn a_broken_update_changes_nothing_and_a_good_one_takes_effect_by_itself() {
    let allowing =
        |host: &str| format!("version: 1\nnetwork:\n  endpoints:\n    e: {{hosts: [{host}], ports: [80]}}\n");
    for mode in Mode::available() {
        let run = Stockade::new(*mode).policy(&allowing("first.test"));
        let path = run.policy_path();
        let ask = "while read host; do curl -s -o /dev/null -w \"$host %{http_code}\\n\" http://$host/; done";
        let mut run = run.spawn(&["sh", "-c", ask]);
        // Allowed and not resolvable is 502; not allowed is 403.
        run.write(b"first.test\n");
        run.wait_for("first.test 502");
        fs::write(&path, "version: 1\nnetwrk: {}\n").unwrap();
        run.wait_for_event("policy_rejected");
        run.write(b"second.test\n");
        run.wait_for("second.test 403");
        fs::write(&path, allowing("third.test")).unwrap();
        let began = std::time::Instant::now();
        while run.events().iter().filter(|e| e.class() == 5019).count() < 3 {
            assert!(began.elapsed().as_secs() < 10, "{mode:?} {:?}", run.events());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        run.write(b"third.test\n");
        run.wait_for("third.test 502");
        assert_eq!(run.finish().code(), 0, "{mode:?}");
    }
}
