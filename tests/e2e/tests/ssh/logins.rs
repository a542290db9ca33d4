use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Output, Stdio},
};

use stockade_testkit::{Mode, Stockade};

use crate::world::{Keys, World, err, fed, good};

/// Tries to come in with another key.
fn try_key(world: &World, identity: &str, options: &[&str]) -> Output {
    let mut command = world.client("ssh");
    let identity = world.keys().path(identity);
    // The first value of an option counts: ours comes before the world's.
    let mut fresh = Command::new("timeout");
    fresh.args(["60", "ssh", "-o", &format!("IdentityFile={}", identity.display())]).args(options);
    fresh.args(command.get_args().skip(2)).args(["sandbox@127.0.0.1", "echo came in"]);
    command = fresh;
    fed(command, b"")
}

#[track_caller]
fn assert_refused(tried: &Output) {
    assert!(!tried.status.success() && tried.stdout.is_empty(), "{tried:?}");
    assert!(err(tried).contains("Permission denied (publickey)"), "{tried:?}");
}

#[test]
fn a_listed_key_comes_in_and_no_other() {
    for mode in Mode::available() {
        let world = World::new(*mode);
        world.keys().make("other");
        assert_refused(&world.only("other", "echo came in"));
        world.run.wait_for_event("ssh_auth");
        assert_eq!(good(&world.ssh(&[], "echo came in")), "came in\n", "the positive control");
        // Nobody comes in without a key, or with a password.
        for method in ["none", "password", "keyboard-interactive", "hostbased", "gssapi-with-mic"] {
            let preferred = format!("PreferredAuthentications={method}");
            let tried = world.ssh(&["-o", &preferred, "-o", "PubkeyAuthentication=no"], "echo came in");
            assert!(!tried.status.success() && tried.stdout.is_empty(), "{method}: {tried:?}");
        }
        let events = world.end().events;
        let refused = events.with("ssh_auth");
        assert_eq!(refused.len(), 6, "{events:?}");
        assert!(refused[0].text("/status_detail").unwrap().contains("keys refused: SHA256:"), "{events:?}");
    }
}

#[test]
fn lines_say_what_a_key_may_do() {
    let keys = Keys::new();
    for name in ["forced", "restricted", "elsewhere", "expired"] {
        keys.make(name);
    }
    let lines = format!(
        "{}command=\"echo forced; echo $SSH_ORIGINAL_COMMAND\" {}restrict {}from=\"192.0.2.0/24\" {}expiry-time=\"20200101\" {}",
        keys.public("id"),
        keys.public("forced"),
        keys.public("restricted"),
        keys.public("elsewhere"),
        keys.public("expired"),
    );
    let world = World::with(Mode::available()[0], keys, &lines, |s| s);
    assert_eq!(good(&try_key(&world, "forced", &[])), "forced\necho came in\n");
    assert_eq!(good(&try_key(&world, "restricted", &[])), "came in\n");
    let terminal = try_key(&world, "restricted", &["-tt"]);
    assert!(err(&terminal).contains("PTY allocation request failed"), "{terminal:?}");
    for name in ["elsewhere", "expired"] {
        // The world's own key comes after it; without it nothing is left.
        let tried = try_key(&world, name, &["-o", "IdentitiesOnly=yes", "-o", "PreferredAuthentications=publickey"]);
        assert!(tried.status.success(), "the listed key that follows comes in: {tried:?}");
    }
    world.end();
}

#[test]
fn certificates_of_a_listed_authority_come_in() {
    for mode in Mode::available() {
        let keys = Keys::new();
        let lines = {
            keys.make("ca");
            keys.make("another-ca");
            format!("cert-authority {}", keys.public("ca"))
        };
        let world = World::with(*mode, keys, &lines, |s| s);
        let sign = |ca: &str, more: &[&str]| {
            let keys = world.keys();
            let mut sign = Command::new("ssh-keygen");
            sign.args(["-q", "-s"]).arg(keys.path(ca)).args(["-I", "ann"]).args(more);
            assert!(sign.arg(keys.path("id").with_extension("pub")).status().unwrap().success());
        };
        for (ca, options, comes_in) in [
            ("ca", &["-n", "sandbox", "-V", "-1m:+1h"][..], true),
            ("ca", &["-n", "x,sandbox"], true),
            ("another-ca", &["-n", "sandbox"], false),
            ("ca", &["-n", "root"], false),
            ("ca", &["-n", "sandbox", "-V", "-2h:-1h"], false),
            ("ca", &["-n", "sandbox", "-V", "+1h:+2h"], false),
            ("ca", &["-n", "sandbox", "-h"], false),
            ("ca", &["-n", "sandbox", "-O", "source-address=192.0.2.0/24"], false),
            ("ca", &["-n", "sandbox", "-O", "critical:unknown@example.com=1"], false),
            ("ca", &[], false),
        ] {
            sign(ca, options);
            let tried = world.ssh(&[], "echo came in");
            assert_eq!(tried.status.success(), comes_in, "{ca} {options:?}: {tried:?}");
        }
        sign("ca", &["-n", "sandbox", "-O", "force-command=echo forced"]);
        assert_eq!(good(&world.ssh(&[], "echo came in")), "forced\n");
        sign("ca", &["-n", "sandbox", "-O", "no-pty"]);
        assert!(err(&world.ssh(&["-tt"], "true")).contains("PTY allocation request failed"));
        world.end().events.some("ssh_auth");
    }
}

/// Replaces the file of keys as editors and configuration tools do.
fn replace(world: &World, text: &str) {
    let fresh = world.keys().write("authorized_keys.new", text, 0o644);
    fs::rename(fresh, world.keys().path("authorized_keys")).unwrap();
}

#[test]
fn the_file_of_keys_is_followed() {
    for mode in Mode::available() {
        let keys = Keys::new();
        for name in ["other", "ca"] {
            keys.make(name);
        }
        let (one, other) = (keys.public("id"), keys.public("other"));
        let authority = format!("cert-authority {}", keys.public("ca"));
        let world = World::with(*mode, keys, &one, |s| s);
        assert_eq!(good(&world.only("id", "echo came in")), "came in\n", "the positive control");
        assert_refused(&world.only("other", "echo came in"));
        // Added.
        replace(&world, &(one.clone() + &other));
        assert_eq!(good(&world.only("other", "echo came in")), "came in\n");
        // Somebody is at work while the key is taken back.
        let mut open = world.client("ssh");
        open.args(["sandbox@127.0.0.1", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut open = open.spawn().unwrap();
        let (mut typed, mut shown) = (open.stdin.take().unwrap(), BufReader::new(open.stdout.take().unwrap()));
        let mut echo = |text: &str| {
            let mut line = String::new();
            writeln!(typed, "{text}").unwrap();
            shown.read_line(&mut line).unwrap();
            assert_eq!(line.trim_end(), text);
        };
        echo("before");
        replace(&world, &other);
        assert_refused(&world.only("id", "echo came in"));
        assert_eq!(good(&world.only("other", "echo came in")), "came in\n");
        echo("after");
        drop(typed);
        assert!(open.wait().unwrap().success());
        // Broken: not even whom it still names.
        replace(&world, &format!("{other}ssh-ed25519 AAAA\n"));
        assert_refused(&world.only("other", "echo came in"));
        assert_refused(&world.only("other", "echo came in"));
        let told = world.run.wait_to_be_told("Nobody comes in by this file");
        assert!(told.contains("authorized_keys: line 2: not a key"), "{told}");
        // Mended.
        replace(&world, &other);
        assert_eq!(good(&world.only("other", "echo came in")), "came in\n");
        // Written in place, as `echo >>` does; an authority is followed as keys are.
        world.keys().write("authorized_keys", &authority, 0o644);
        assert_refused(&world.only("other", "echo came in"));
        let mut sign = Command::new("ssh-keygen");
        sign.args(["-q", "-s"]).arg(world.keys().path("ca")).args(["-I", "ann", "-n", "sandbox"]);
        assert!(sign.arg(world.keys().path("other").with_extension("pub")).status().unwrap().success());
        assert_eq!(good(&world.only("other", "echo came in")), "came in\n");
        replace(&world, &one);
        assert_refused(&world.only("other", "echo came in"));
        let events = world.end().events;
        let said: Vec<_> = events.with("ssh_keys").iter().map(|e| e.text("/message").unwrap().to_owned()).collect();
        let want = ["lines: 2", "lines: 1", "until it is mended", "lines: 1", "lines: 1", "lines: 1"];
        assert!(said.len() == want.len() && said.iter().zip(want).all(|(s, w)| s.contains(w)), "{said:#?}");
    }
}

#[test]
fn a_server_that_cannot_be_right_does_not_start() {
    let mode = Mode::available()[0];
    let keys = Keys::new();
    let good_keys = keys.write("good", &keys.public("id"), 0o644);
    let good_keys = good_keys.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let at = |name: &str, text: &str, mode_bits: u32| {
        let path = keys.write(name, text, mode_bits);
        keys.give(&path, mode);
        path.to_str().unwrap().to_owned()
    };
    let (bad, open, empty) =
        (at("bad", "ssh-ed25519 AAAA\n", 0o644), at("open", &keys.public("id"), 0o666), at("empty", "# x\n", 0o644));
    let private = at("hostkey", &std::fs::read_to_string(keys.path("id")).unwrap(), 0o644);
    let short = at("short", "secret\n", 0o600);
    let nothing = at("nothing", "\n", 0o600);
    for (args, told) in [
        (&["--ssh", "127.0.0.1:0"][..], "--ssh-authorized-keys"),
        (&["--ssh", "22", "--ssh-authorized-keys", good_keys], "such as 127.0.0.1:2222"),
        (&["--ssh-authorized-keys", good_keys], "--ssh"),
        (&["--ssh", "127.0.0.1:0", "--ssh-authorized-keys", "/no/such"], "No such file"),
        (&["--ssh", "127.0.0.1:0", "--ssh-authorized-keys", &bad], "line 1: not a key"),
        (&["--ssh", "127.0.0.1:0", "--ssh-authorized-keys", &open], "chmod go-w"),
        (&["--ssh", "127.0.0.1:0", "--ssh-authorized-keys", &empty], "no usable key"),
        (&["--ssh", "127.0.0.1:0", "--ssh-authorized-keys", good_keys, "--ssh-host-key", &private], "chmod 600"),
        (&["--ssh", "127.0.0.1:0", "--ssh-token-secret", &short], "at least 32 are needed"),
        (&["--ssh", "127.0.0.1:0", "--ssh-token-secret", &nothing], "the secret is empty"),
        (&["--ssh", &taken, "--ssh-authorized-keys", good_keys], "another program listens there"),
    ] {
        let run = args.iter().fold(Stockade::new(mode), |s, arg| s.arg(arg)).run(&["/bin/echo", "it ran"]);
        run.assert_code(125);
        assert!(run.stderr.contains(told) && run.stdout.is_empty(), "{args:?}\n{run:?}");
    }
}

#[test]
fn the_server_s_key_is_pinned() {
    let keys = Keys::new();
    let host = keys.make("host");
    let mode = Mode::available()[0];
    keys.give(&host, mode);
    let line = keys.public("id");
    let world = World::with(mode, keys, &line, |s| s.arg("--ssh-host-key").arg(&host));
    let print = |key: &str| {
        let config = Command::new(stockade_testkit::runner::program(false))
            .args(["ssh-config", &format!("127.0.0.1:{}", world.port), "--name", "box"])
            .arg("--host-key")
            .arg(world.keys().path(key).with_extension("pub"))
            .arg("--identity")
            .arg(world.keys().path("id"))
            .output()
            .unwrap();
        world.keys().write("config", &good(&config), 0o600)
    };
    let reach = |config: &std::path::Path| {
        let mut command = Command::new("timeout");
        command.args(["60", "ssh", "-o", "BatchMode=yes", "-F"]).arg(config).args(["box", "echo came in"]);
        fed(command, b"")
    };
    assert_eq!(good(&reach(&print("host"))), "came in\n");
    // Another key than the one that was pinned: somebody is in between.
    world.keys().make("swapped");
    let swapped = reach(&print("swapped"));
    assert!(!swapped.status.success() && swapped.stdout.is_empty(), "{swapped:?}");
    assert!(err(&swapped).contains("verification failed"), "{swapped:?}");
    world.end();
}
