use std::{thread, time::Duration};

use stockade_testkit::Mode;

use crate::world::{World, err, fed, good, out};

#[test]
fn commands_end_as_they_end() {
    for mode in Mode::available() {
        let world = World::new(*mode);
        assert_eq!(world.ssh(&[], "exit 7").status.code(), Some(7));
        let both = world.ssh(&[], "echo out; echo err >&2");
        assert_eq!((good(&both).as_str(), err(&both).as_str()), ("out\n", "err\n"));
        // OpenSSH's client shows 255 for a program that was ended by a signal.
        assert_eq!(world.ssh(&[], "kill -KILL $$").status.code(), Some(255));
        assert_eq!(world.ssh(&[], "/no/such/program").status.code(), Some(127));
        let shell = world.fed(&["-T"], "", b"echo from a shell\nexit 3\n");
        assert_eq!((out(&shell).as_str(), shell.status.code()), ("from a shell\n", Some(3)));
        let pwd = good(&world.ssh(&[], "pwd"));
        assert_eq!(pwd.trim(), world.work.to_str().unwrap(), "it begins where the command works");
        world.end();
    }
}

#[test]
fn bytes_are_carried_as_they_are_in_both_directions() {
    let world = World::new(Mode::available()[0]);
    let bytes: Vec<u8> = (0..8_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    // `cat` ends when its input does: the end of the client's input arrives while output still comes.
    let echoed = world.fed(&[], "cat", &bytes);
    assert!(echoed.status.success() && echoed.stdout == bytes, "{} bytes came back", echoed.stdout.len());
    // A program that does not read does not hold up its own output.
    let deaf = world.fed(&[], "sleep 1; echo done", &bytes);
    assert_eq!(good(&deaf), "done\n");
    world.end();
}

#[test]
fn a_command_is_one_argument_of_the_shell_byte_for_byte() {
    let world = World::new(Mode::available()[0]);
    for (sent, printed) in [
        ("printf '%s|' \"a b\" 'c\"d' --", "a b|c\"d|--|"),
        ("printf '%s'\\\n 'two\nlines'", "two\nlines"),
        ("printf '%s' '$HOME;`id`$(id)'", "$HOME;`id`$(id)"),
        ("printf '%s ' \\-n -- --help", "-n -- --help "),
    ] {
        assert_eq!(good(&world.ssh(&[], sent)), printed);
    }
    let mut command = world.client("ssh");
    command.arg("sandbox@127.0.0.1");
    use std::os::unix::ffi::OsStrExt;
    command.arg(std::ffi::OsStr::from_bytes(b"printf '%s' '\xff\xfe'"));
    assert_eq!(fed(command, b"").stdout, b"\xff\xfe");
    // Just below what Linux takes as one argument, and above it.
    let padded = |bytes: usize| format!("echo ok #{}", "x".repeat(bytes - "echo ok #".len()));
    assert_eq!(good(&world.ssh(&[], &padded(100_000))), "ok\n");
    let long = world.run_long(&padded(128 * 1024));
    assert!(!long.status.success() && out(&long).is_empty(), "{long:?}");
    assert_eq!(good(&world.ssh(&[], "echo still here")), "still here\n");
    world.end().events.some("ssh_request");
}

impl World {
    /// A command that is longer than this machine's own programs take: written by a client of another kind.
    fn run_long(&self, command: &str) -> std::process::Output {
        // `-s` asks for a subsystem of this name: the same length of text, and not an argument of the server's shell.
        let half = command.len() / 2;
        let (first, second) = command.split_at(half);
        let mut ssh = self.client("ssh");
        ssh.arg("sandbox@127.0.0.1").arg(first).arg(second);
        fed(ssh, b"")
    }
}

#[test]
fn a_terminal_has_size_type_and_modes_and_is_the_sandbox_s() {
    for mode in Mode::available() {
        let world = World::new(*mode);
        let mut command = world.client("ssh");
        command.args(["-tt", "sandbox@127.0.0.1", "tty; stty size; echo $TERM; test -t 2 && echo all"]);
        command.env("TERM", "vt100");
        let seen = good(&fed(command, b"")).replace('\r', "");
        let lines: Vec<&str> = seen.lines().collect();
        assert!(lines[0].starts_with("/dev/pts/"), "{seen}");
        assert_eq!(lines[1..], ["0 0", "vt100", "all"]);
        // What is typed is echoed by the terminal's line discipline, and Ctrl-C is a signal.
        let typed = world.fed(&["-tt"], "trap 'echo interrupted; exit 9' INT; echo ready; read x", b"x\n");
        assert!(out(&typed).contains("ready"), "{typed:?}");
        world.end();
    }
}

#[test]
fn ctrl_c_reaches_the_program_and_resizing_its_terminal() {
    let world = World::new(Mode::available()[0]);
    // `script` gives the client a terminal of its own to resize.
    let inner = format!(
        "{} -tt sandbox@127.0.0.1 'trap \"stty size; echo resized\" WINCH; trap \"echo interrupted; exit 9\" INT; \
         echo ready; while :; do sleep 0.1; done'",
        std::iter::once("ssh".to_owned()).chain(world.options()).collect::<Vec<_>>().join(" ")
    );
    let mut command = std::process::Command::new("python3");
    command.args(["-c", PLAYER, &inner]);
    let played = fed(command, b"");
    let seen = good(&played).replace('\r', "");
    assert!(seen.contains("33 77\nresized") && seen.contains("interrupted"), "{seen}");
    world.end();
}

/// A person at a terminal: waits for a word, resizes, waits, presses Ctrl-C.
const PLAYER: &str = r#"
import fcntl, os, pty, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp("/bin/sh", ["/bin/sh", "-c", "exec " + sys.argv[1]])
seen = b""
def until(word):
    global seen
    while word not in seen:
        seen += os.read(fd, 4096)
until(b"ready")
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
until(b"resized")
os.write(fd, b"\x03")
try:
    until(b"interrupted")
    while True:
        more = os.read(fd, 4096)
        if not more: break
        seen += more
except OSError:
    pass
os.waitpid(pid, 0)
sys.stdout.buffer.write(seen)
"#;

#[test]
fn a_client_sets_how_to_write_and_nothing_else() {
    let world = World::new(Mode::available()[0]);
    let send = ["LANG", "LC_CTYPE", "LD_PRELOAD", "HTTP_PROXY", "PATH", "BASH_ENV", "LC_x=y"];
    let set: Vec<String> = send.iter().map(|name| format!("SetEnv={name}=from-client")).collect();
    for one in &set {
        let seen = good(&world.ssh(&["-o", one], "env"));
        let name = one.trim_start_matches("SetEnv=").split('=').next().unwrap();
        let wanted = matches!(name, "LANG" | "LC_CTYPE");
        assert_eq!(seen.contains(&format!("{name}=from-client")), wanted, "{one}\n{seen}");
        assert!(seen.contains("HTTP_PROXY=http://127.0.0.1:3128"), "{seen}");
    }
    world.end().events.some("ssh_request");
}

#[test]
fn whoever_goes_away_hangs_up() {
    for mode in Mode::available() {
        let world = World::new(*mode);
        let marked = |left: &str| good(&world.ssh(&[], &format!("pgrep -f {left} | wc -l")));
        for (options, name) in [(&["-T"][..], "86401"), (&["-tt"], "86402")] {
            let mut command = world.client("ssh");
            command.args(options).args(["sandbox@127.0.0.1", &format!("echo on; sleep {name}; true")]);
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut said = [0; 2];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
            // The positive control; the pattern is written so that it does not find the one who searches.
            let pattern = format!("'slee[p] {name}'");
            assert_ne!(marked(&pattern).trim(), "0", "it runs");
            // `timeout` passes it on.
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
                nix::sys::signal::Signal::SIGTERM,
            )
            .unwrap();
            child.wait().unwrap();
            let gone = (0..100).any(|_| {
                thread::sleep(Duration::from_millis(100));
                marked(&pattern).trim() == "0"
            });
            assert!(gone, "{options:?} {mode:?}: its program went on");
        }
        world.end();
    }
}

#[test]
fn a_session_may_signal_the_command() {
    for mode in Mode::available() {
        let world = World::new(*mode);
        // The command is a shell with a `cat`; one Landlock domain holds all.
        // The sandbox ends with it, and the session maybe before it can say how it ended.
        world.ssh(&[], "pkill -x cat");
        world.run.finish().assert_code(143);
    }
}
