//! The command's fds 0-2. No terminal of the host enters the sandbox: a terminal becomes one of the sandbox's own, or
//! a pipe that is pumped; pipes and regular files are handed through as they are.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write},
    os::fd::{BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
};

use rustix::fs::{FileType, OFlags};
use stockade_audit::{
    clock::{Clock, SystemClock},
    record::json_line,
};
use stockade_confine::message::Stdio;

use crate::terminal;

/// How Stockade's own lines on stderr are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object each: `time`, `level`, `message`.
    Json,
}

/// The process has one stderr, and so one way of writing on it.
static JSON: AtomicBool = AtomicBool::new(false);

/// Chooses the format, before anything is said.
pub fn log_format(format: LogFormat) {
    JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Prints a line on stderr. `eprintln!` would panic where nobody reads any more, and end the command with it.
pub fn say(line: impl std::fmt::Display) {
    speak("notice", &line);
}

/// The same for what failed.
pub fn say_failure(line: impl std::fmt::Display) {
    speak("error", &line);
}

fn speak(level: &str, line: &dyn std::fmt::Display) {
    let mut text = String::new();
    // Writing to a String cannot fail, and of stderr there is nobody to tell.
    let _ = if JSON.load(Ordering::Relaxed) {
        let line = line.to_string();
        let line = line.strip_prefix("stockade: ").unwrap_or(&line).trim_end_matches('\r');
        json_line(&mut text, SystemClock::default().wall_ms(), level, line)
    } else {
        write!(text, "{line}")
    };
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Bytes moved at once by a pump.
const CHUNK: usize = 64 * 1024;
const NAMES: [&str; 3] = ["stdin", "stdout", "stderr"];

/// Why a standard descriptor was refused.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// Something that would give more than bytes: a directory, an O_PATH descriptor, a device.
    #[error("{fd} is {what}, which would reach past the sandbox's walls; redirect it to a file, a pipe or /dev/null")]
    Refused {
        /// `stdin`, `stdout` or `stderr`.
        fd: &'static str,
        /// What it is.
        what: &'static str,
    },
    /// A system call failed.
    #[error("{fd}: {source}")]
    Io {
        /// `stdin`, `stdout` or `stderr`.
        fd: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Whether the command gets a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TerminalChoice {
    /// When both stdin and stdout are terminals.
    #[default]
    Auto,
    /// Always (`-t`).
    Always,
    /// Never.
    Never,
}

/// What each of fds 0-2 is for the command.
#[derive(Debug)]
pub(crate) struct Layout {
    /// For the spawn order.
    pub(crate) kinds: [Stdio; 3],
    /// Descriptors to send with the order, one per [`Stdio::Given`].
    pub(crate) given: Vec<OwnedFd>,
    /// Pumps that must end before the supervisor does: the command's output.
    pub(crate) outputs: Vec<JoinHandle<()>>,
}

/// What a descriptor of the supervisor is.
enum Kind {
    Terminal,
    Bytes,
    Pumped,
}

fn classify(fd: BorrowedFd<'_>, name: &'static str) -> Result<Kind, StdioError> {
    let io = |e: rustix::io::Errno| StdioError::Io { fd: name, source: e.into() };
    let refused = |what| Err(StdioError::Refused { fd: name, what });
    if rustix::fs::fcntl_getfl(fd).map_err(io)?.contains(OFlags::PATH) {
        return refused("a path handle (O_PATH)");
    }
    let stat = rustix::fs::fstat(fd).map_err(io)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice if rustix::termios::isatty(fd) => Ok(Kind::Terminal),
        FileType::CharacterDevice if is_null(&stat) => Ok(Kind::Bytes),
        FileType::CharacterDevice | FileType::BlockDevice => refused("a device"),
        FileType::Directory => refused("a directory"),
        FileType::RegularFile | FileType::Fifo => Ok(Kind::Bytes),
        // A connected socket carries more than bytes: descriptors, addresses, options.
        FileType::Socket => Ok(Kind::Pumped),
        FileType::Symlink | FileType::Unknown => refused("neither file, pipe nor terminal"),
    }
}

/// /dev/null, /dev/zero and their like (major 1).
fn is_null(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::major(stat.st_rdev) == 1 && matches!(rustix::fs::minor(stat.st_rdev), 3 | 5 | 7 | 8 | 9)
}

/// Whether the command gets a terminal of its own, given the supervisor's fds.
#[must_use]
pub(crate) fn wants_terminal(choice: TerminalChoice) -> bool {
    match choice {
        TerminalChoice::Always => true,
        TerminalChoice::Never => false,
        TerminalChoice::Auto => {
            rustix::termios::isatty(rustix::stdio::stdin()) && rustix::termios::isatty(rustix::stdio::stdout())
        }
    }
}

/// Decides what the command's fds 0-2 are and starts the pumps for those that cannot be handed through.
///
/// # Errors
/// [`StdioError`].
pub(crate) fn layout(terminal: bool) -> Result<Layout, StdioError> {
    let ours = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let mut layout = Layout { kinds: [Stdio::Given; 3], given: Vec::new(), outputs: Vec::new() };
    for (i, fd) in ours.into_iter().enumerate() {
        let io = |source: io::Error| StdioError::Io { fd: NAMES[i], source };
        match classify(fd, NAMES[i])? {
            Kind::Terminal if terminal => layout.kinds[i] = Stdio::Terminal,
            Kind::Bytes => layout.given.push(fd.try_clone_to_owned().map_err(io)?),
            Kind::Terminal | Kind::Pumped => {
                let (read, write) =
                    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| io(e.into()))?;
                let outer = File::from(fd.try_clone_to_owned().map_err(io)?);
                if i == 0 {
                    layout.given.push(read);
                    pump_stdin(outer, File::from(write)).map_err(io)?;
                } else {
                    layout.given.push(write);
                    layout.outputs.push(pump(NAMES[i], File::from(read), outer).map_err(io)?);
                }
            }
        }
    }
    if terminal && !layout.kinds.contains(&Stdio::Terminal) {
        // `-t` without a terminal outside: the command's output still goes through one.
        layout.kinds = [layout.kinds[0], Stdio::Terminal, Stdio::Terminal];
        layout.given.truncate(1);
    }
    Ok(layout)
}

fn pump_stdin(from: File, to: File) -> io::Result<()> {
    if rustix::termios::isatty(&from) {
        return terminal::pump_keys("stdin", from, to, |_| {});
    }
    pump("stdin", from, to).map(drop)
}

/// Copies until end of file or an error on either side; both ends are closed after it.
///
/// # Errors
/// When no thread can be made.
pub(crate) fn pump(name: &str, mut from: File, mut to: File) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("pump-{name}")).stack_size(256 * 1024).spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match from.read(&mut buffer) {
                // EIO is how a terminal says that its other end is closed.
                Ok(0) => return,
                Ok(n) if to.write_all(buffer.get(..n).unwrap_or_default()).is_err() => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })
}
