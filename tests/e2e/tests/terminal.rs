//! The command on a terminal (S2): a real one outside (tmux), one of its own inside, and job control between them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::unistd::Uid;
use stockade_testkit::{
    Mode, Stockade,
    runner::{ORDINARY_UID, program},
    skip,
};
use tempfile::TempDir;

/// A terminal of 80 by 24 with a shell on it, as the user of a mode, in a directory that is a good workspace. `$S` is
/// `stockade run`; the prompt is `O> `.
struct Screen {
    mode: Mode,
    dir: TempDir,
}

impl Screen {
    fn new(mode: Mode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("w")).unwrap();
        if Uid::effective().is_root() {
            chown(dir.path(), Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
            chown(dir.path().join("w"), Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
        }
        let this = Self { mode, dir };
        let run = format!("S={} run", program(mode == Mode::Rootless).display());
        let tmux = ["new-session", "-d", "-x", "80", "-y", "24", "env", "-i", "TERM=screen-256color", "LANG=C.UTF-8"];
        let shell = ["PS1=O> ", "PATH=/usr/bin:/bin", &run, "bash", "--norc", "--noprofile", "-i"];
        this.tmux(&[&tmux[..], &shell].concat());
        this.wait_for("O>");
        this
    }

    /// The workspace. The terminal's own socket lies beside it: inside it would be reported.
    fn work(&self) -> PathBuf {
        self.dir.path().join("w")
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut line = Command::new("tmux");
        if Uid::effective().is_root() && self.mode == Mode::Rootless {
            line.uid(ORDINARY_UID).gid(ORDINARY_UID);
        }
        // Short: the name of a socket has a bound. A server of its own for each screen.
        line.args(["-S"]).arg(self.dir.path().join("s")).args(["-f", "/dev/null"]).args(args);
        line.env("LANG", "C.UTF-8").env("HOME", self.work()).env_remove("TMUX").current_dir(self.work());
        let done = line.stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "tmux {args:?}: {done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Types a line.
    fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.key("Enter");
    }

    /// Presses a key, such as `C-z`.
    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn text(&self) -> String {
        let text = self.tmux(&["capture-pane", "-p"]);
        text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n")
    }

    /// Waits until the screen shows what `met` looks for.
    #[track_caller]
    fn wait(&self, what: &str, met: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let text = self.text();
            if met(&text) {
                return text;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}: {what} is not on the screen:\n{text}", self.mode);
            thread::sleep(Duration::from_millis(30));
        }
    }

    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        self.wait(text, |t| t.contains(text))
    }

    /// Waits for a line that is exactly this: not the echo of what was typed.
    #[track_caller]
    fn wait_for_line(&self, line: &str) -> String {
        self.wait(line, |t| t.lines().any(|l| l == line))
    }

    /// Waits for the outer shell. What is typed before it reads goes to the program that ran until then.
    #[track_caller]
    fn wait_for_prompt(&self) {
        self.wait("a prompt", |t| t.lines().last().is_some_and(|l| l.trim_end() == "O>"));
    }

    /// Empties the screen, from the outer shell.
    fn clear(&self) {
        self.wait_for_prompt();
        self.line("clear; echo emp''ty");
        self.wait("an empty screen", |t| t.lines().any(|l| l == "empty") && !t.contains("emp'"));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Runs the test on a screen in every mode.
fn on_a_terminal(test: impl Fn(&Screen)) {
    if Command::new("tmux").arg("-V").output().is_err() {
        skip!("tmux is not installed");
    }
    for mode in Mode::available() {
        test(&Screen::new(*mode));
    }
}

#[test]
fn a_shell_inside_is_like_one_outside() {
    on_a_terminal(|s| {
        s.line("stty -a > before; $S --env 'PS1=I> ' -- bash --norc --noprofile -i");
        s.wait_for("I>");
        s.line("tty; test -t 0 && test -t 1 && test -t 2 && echo a terminal; echo $TERM; echo via tty > /dev/tty");
        let text = s.wait_for_line("via tty");
        assert!(!text.contains("no job control"), "{text}");
        for line in ["/dev/pts/0", "a terminal", "screen-256color"] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        s.line("stty -a | grep -o ' iutf8'; printf 'gr\\u00fc\\u00df\\033[31m red\\033[0m\\n'");
        s.wait_for_line("grüß red");
        let colours = s.tmux(&["capture-pane", "-p", "-e"]);
        assert!(colours.contains("\u{1b}[31m red"), "{colours:?}");
        let prompt = |t: &str| t.lines().last() == Some("I>");
        s.line("sleep 1000");
        s.wait("sleep", |t| t.ends_with("sleep 1000"));
        s.key("C-c");
        s.wait("a prompt", prompt);
        s.line("echo code $?");
        s.wait_for_line("code 130");
        s.line("sleep 1000");
        s.wait("sleep", |t| t.ends_with("sleep 1000"));
        s.key("C-z");
        s.wait("a prompt", prompt);
        s.wait_for("Stopped");
        s.line("kill -KILL %1; sleep 0.3");
        s.line("");
        s.wait_for("Killed");
        s.line("exit 5");
        s.wait_for_prompt();
        s.line("echo outer $?; stty -a > after; cmp before after && echo same modes");
        s.wait_for_line("outer 5");
        s.wait_for_line("same modes");
    });
}

#[test]
fn the_size_follows() {
    on_a_terminal(|s| {
        s.line("$S -- bash --norc -c 'stty size; trap \"stty size\" WINCH; while :; do read -t 0.1 x && exit; done'");
        s.wait_for_line("24 80");
        s.tmux(&["resize-window", "-x", "101", "-y", "31"]);
        s.wait_for_line("31 101");
        s.key("Enter");
        s.wait_for_prompt();
        s.line("stty size; echo ended");
        s.wait_for_line("ended");
        assert_eq!(s.text().lines().filter(|l| *l == "31 101").count(), 2, "{}", s.text());
    });
}

/// Whether the word stands there twice: as it was typed and as `cat` said it. The terminal shows a `^Z` before the stop
/// or, when it is slow, after it.
fn typed_and_answered(screen: &str, word: &str) -> bool {
    screen.lines().filter(|l| l.trim_start_matches("^Z") == word).count() >= 2
}

#[test]
fn a_command_is_a_job_of_the_outer_shell() {
    on_a_terminal(|s| {
        s.line("stty -a > before; $S -- sh -c 'echo ready; cat; exit 6'");
        s.wait_for_line("ready");
        for round in ["one", "two", "three"] {
            s.line(round);
            s.wait(round, |t| typed_and_answered(t, round));
            s.key("C-z");
            s.wait_for("Stopped");
            s.clear();
            s.line("stty -a > stopped; cmp before stopped && echo restored");
            s.wait_for_line("restored");
            s.line("fg");
            s.wait_for("$S -- sh -c");
        }
        s.line("last");
        s.wait("last", |t| typed_and_answered(t, "last"));
        s.key("C-d");
        s.wait_for_prompt();
        s.line("echo code $?; stty -a > after; cmp before after && echo same modes");
        s.wait_for_line("code 6");
        s.wait_for_line("same modes");
    });
}

#[test]
fn in_the_background_it_runs_on_without_the_keyboard() {
    on_a_terminal(|s| {
        // With a terminal of its own, and with pipes.
        for redirect in ["", "| cat"] {
            s.line(&format!(
                "$S -- sh -c 'sleep 0.5; echo half | tr a-z A-Z; sleep 0.7; echo done | tr a-z A-Z' {redirect} &"
            ));
            s.wait_for("HALF");
            s.line("echo keys are mine");
            s.wait_for_line("keys are mine");
            s.wait_for("DONE");
            s.key("Enter");
            assert!(!s.text().contains("Stopped"), "{}", s.text());
            s.clear();
        }
        s.line("$S -- sh -c 'echo started | tr a-z A-Z; read x; echo read $x' &");
        s.wait_for("STARTED");
        s.line("fg");
        s.wait("the job's name", |t| t.matches("$S -- sh -c").count() == 2);
        s.line("this");
        s.wait_for_line("read this");
        s.wait_for_prompt();
        s.line("stty -a | grep -o ' icanon' ; echo over");
        s.wait_for_line("over");
        assert!(s.text().lines().any(|l| l == " icanon"), "{}", s.text());
    });
}

#[test]
fn full_screen_programs() {
    on_a_terminal(|s| {
        s.line("$S -- top -d 1");
        s.wait_for("PID USER");
        s.key("q");
        s.clear();
        for program in ["python3", "vi"] {
            if !std::path::Path::new("/usr/bin").join(program).exists() {
                skip!("{program} is not installed");
            }
        }
        let curses = "import curses\ndef main(w):\n  curses.start_color()\n  w.addstr(3, 10, 'size %d %d' % w.getmaxyx())\n  \
                      w.refresh()\n  while True:\n    k = w.getch()\n    if k == ord('q'): return\n    \
                      w.addstr(5, 10, 'key %s size %d %d ' % ((curses.keyname(k).decode(),) + w.getmaxyx()))\n    w.refresh()\n\
                      curses.wrapper(main)\n";
        fs::write(s.work().join("c.py"), curses).unwrap();
        s.line("$S -- /usr/bin/python3 c.py");
        s.wait_for("size 24 80");
        s.key("Up");
        s.wait_for("key KEY_UP");
        s.tmux(&["resize-window", "-x", "90", "-y", "30"]);
        s.wait_for("key KEY_RESIZE size 30 90");
        s.key("q");
        s.clear();
        s.line("$S -- vi -u NONE file");
        s.wait_for("~");
        s.tmux(&["send-keys", "-l", "ifirst"]);
        s.wait_for("first");
        s.key("Escape");
        s.key("C-z");
        s.wait_for("Stopped");
        s.wait_for_prompt();
        s.line("fg");
        s.wait("vi again", |t| t.starts_with("first\n~"));
        s.line(":wq");
        s.wait_for_prompt();
        s.line("echo code $?");
        s.wait_for("code 0");
        assert_eq!(fs::read_to_string(s.work().join("file")).unwrap(), "first\n");
    });
}

#[test]
fn only_some_streams_on_the_terminal() {
    on_a_terminal(|s| {
        s.line("$S -- sh -c 'test -t 0 || echo no terminal; read x; echo got $x' | cat");
        s.wait_for_line("no terminal");
        s.line("a line");
        s.wait_for_line("got a line");
        s.wait_for_prompt();
        s.line("$S -- sh -c 'echo started; sleep 1000' | cat");
        s.wait_for_line("started");
        s.key("C-c");
        s.wait_for_prompt();
        s.line("echo codes ${PIPESTATUS[@]}");
        s.wait_for_line("codes 130 130");
        // Keys echo on the terminal, not into the file.
        s.line("$S -t -- sh -c 'test -t 0 && read x; echo to file; echo to screen >&2' > out; cat out | wc -l");
        s.line("typed");
        s.wait_for_line("to screen");
        s.wait_for_line("1");
    });
}

#[test]
fn a_terminal_without_one_outside() {
    for mode in Mode::available() {
        let script = "test -t 1 && tty <&1; stty size <&1; printf 'a\\nb\\n'";
        let run = Stockade::new(*mode).arg("-t").sh(script);
        run.assert_code(0);
        assert_eq!(run.text(), "/dev/pts/0\r\n24 80\r\na\r\nb\r\n", "{mode:?} {run:?}");
        let run = Stockade::new(*mode).sh("test -t 0 || test -t 1 || test -t 2 || echo none; : > /dev/tty");
        assert_eq!(run.text(), "none\n", "{mode:?} {run:?}");
        assert_ne!(run.code(), 0, "there is no controlling terminal: {mode:?} {run:?}");
        let run = Stockade::new(*mode).arg("-t").sh("head -c 2000000 /dev/zero; exit 4");
        run.assert_code(4);
        assert_eq!(run.stdout.len(), 2_000_000, "{mode:?}: the last output is not lost");
    }
}

/// Characters typed for whoever reads the terminal next would be run by the operator's shell.
#[test]
fn nothing_can_be_typed_for_the_operator() {
    on_a_terminal(|s| {
        let script = "import fcntl, os, sys, termios
for name, number, arg in [('sti', 0x5412, b'x'), ('high', 0x100005412 - (1 << 32), b'x'), ('linux', 0x541C, b'\\x03')]:
    for fd in (0, os.open('/dev/tty', os.O_RDWR)):
        try:
            fcntl.ioctl(fd, number, arg); print(name, 'went through')
        except OSError as e:
            print(name, e.errno)
ours = os.stat(0)
for p in os.listdir('/dev/pts'):
    print('pts', p)
print('same' if os.fstat(1).st_rdev == ours.st_rdev and os.ttyname(0) == '/dev/pts/0' else 'other')
print('end')
";
        if !std::path::Path::new("/usr/bin/python3").exists() {
            skip!("python3 is not installed");
        }
        fs::write(s.work().join("t.py"), script).unwrap();
        s.line("tty > outer; clear; $S -- /usr/bin/python3 t.py");
        let text = s.wait_for_line("end");
        assert!(!text.contains("went through"), "{text}");
        for line in ["sti 1", "linux 1", "pts 0", "pts ptmx", "same"] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert_eq!(text.lines().filter(|l| l.starts_with("pts ")).count(), 2, "{text}");
    });
}
#[test]
fn closing_the_terminal_ends_the_command() {
    on_a_terminal(|s| {
        let at = |name: &str| s.work().join(name);
        let script = "trap 'echo hung up > hup; exit' HUP; echo $$ > up; while :; do sleep 0.05; done";
        fs::write(at("script"), script).unwrap();
        s.line("$S -- sh script");
        let until = |name: &str| {
            let began = Instant::now();
            while fs::read_to_string(at(name)).unwrap_or_default().is_empty() {
                assert!(began.elapsed() < Duration::from_secs(10), "{:?}: no file {name}", s.mode);
                thread::sleep(Duration::from_millis(20));
            }
        };
        until("up");
        s.tmux(&["new-window"]);
        s.tmux(&["kill-window", "-t", ":0"]);
        until("hup");
    });
}
