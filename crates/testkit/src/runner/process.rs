//! A started program: what it said, how it ended, what it logged.

use std::{
    fmt,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::audit::Events;

/// A run that goes on. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Collected,
    err: Collected,
    log: PathBuf,
    began: Instant,
    timeout: Duration,
    dir: Option<TempDir>,
}

impl Running {
    #[track_caller]
    pub(super) fn start(mut line: Command, log: PathBuf, timeout: Duration, dir: TempDir) -> Self {
        let began = Instant::now();
        let mut child = line.process_group(0).spawn().unwrap_or_else(|e| panic!("{line:?}: {e}"));
        let out = Collected::from(child.stdout.take());
        let err = Collected::from(child.stderr.take());
        let stdin = child.stdin.take();
        Self { child, stdin, out, err, log, began, timeout, dir: Some(dir) }
    }

    /// The supervisor's pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// Writes to the command's standard input.
    ///
    /// # Panics
    /// When it is closed.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("standard input was closed").write_all(bytes).expect("writing to the command");
    }

    /// Closes the command's standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to the supervisor.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signalling the supervisor");
    }

    /// Waits until standard output contains `text`.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        if !self.out.wait_for(text, self.left()) {
            panic!("`{text}` was not printed.\nstdout: {}\nstderr: {}", self.out.text(), self.err.text());
        }
    }

    /// Waits until standard error contains `text`, and returns all of it so far.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn wait_to_be_told(&self, text: &str) -> String {
        assert!(self.err.wait_for(text, self.left()), "`{text}` was not said.\nstderr: {}", self.err.text());
        self.err.text()
    }

    /// The events so far.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::read(&self.log)
    }

    /// Waits until an event has `reason`.
    ///
    /// # Panics
    /// When none has in time.
    #[track_caller]
    pub fn wait_for_event(&self, reason: &str) {
        while self.events().with(reason).is_empty() {
            assert!(!self.left().is_zero(), "no event with reason `{reason}`:\n{:?}", self.events());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Closes standard input and waits for the end.
    ///
    /// # Panics
    /// When it does not end in time; it is killed then.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        self.stdin = None;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waiting for the program") {
                break status;
            }
            if self.left().is_zero() {
                let (out, err) = (self.out.text(), self.err.text());
                panic!("not finished within {:?}, killed.\nstdout: {out}\nstderr: {err}", self.timeout);
            }
            thread::sleep(Duration::from_millis(2));
        };
        let took = self.began.elapsed();
        // Nothing may hold the pipes once the supervisor is gone: what does is a process left behind.
        let ends = [&self.out, &self.err].map(|c| c.wait_for_end(Duration::from_secs(5)));
        assert_eq!(ends, [true, true], "the output is still held open by a process left behind");
        Finished {
            status,
            stdout: self.out.bytes(),
            stderr: self.err.text(),
            events: Events::read(&self.log),
            took,
            dir: self.dir.take(),
        }
    }

    fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.began.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            killpg(Pid::from_raw(self.pid()), Signal::SIGKILL).ok();
            self.child.wait().ok();
        }
    }
}

/// One try of the probe program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `ok …`, or the name of the error.
    pub what: String,
    /// How long it took.
    pub millis: u64,
}

impl Outcome {
    /// Whether the network refused at once: no packet, no waiting.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.what.as_str(), "ECONNREFUSED" | "ENETUNREACH" | "EPERM" | "EACCES")
    }
}

/// A run that ended.
pub struct Finished {
    status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, Stockade's own lines included.
    pub stderr: String,
    /// The audit log.
    pub events: Events,
    /// Wall time from start to end.
    pub took: Duration,
    /// The run's directories: looked at by tests until this is dropped.
    pub dir: Option<TempDir>,
}

impl Finished {
    /// The exit code, or 128 and the signal's number.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().or(self.status.signal().map(|s| 128 + s)).unwrap_or(-1)
    }

    /// What the probe program said about one of its tries.
    ///
    /// # Panics
    /// When it said nothing.
    #[must_use]
    #[track_caller]
    pub fn outcome(&self, attempt: &str) -> Outcome {
        let start = format!("{} -> ", attempt.escape_debug());
        let text = self.text();
        let line = text.lines().find_map(|l| l.strip_prefix(&start));
        let line = line.unwrap_or_else(|| panic!("the probe did not try {attempt}\n{self:?}"));
        let (what, took) = line.rsplit_once(" (").expect("a line of the probe ends with its time");
        let millis = took.trim_end_matches(" ms)").parse().expect("milliseconds");
        Outcome { what: what.to_owned(), millis }
    }

    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts the exit code, and returns the run.
    ///
    /// # Panics
    /// When it is another one: shows everything the run left.
    #[track_caller]
    #[must_use = "or use assert_code"]
    pub fn expect_code(self, code: i32) -> Self {
        self.assert_code(code);
        self
    }

    /// Asserts the exit code.
    ///
    /// # Panics
    /// When it is another one: shows everything the run left.
    #[track_caller]
    pub fn assert_code(&self, code: i32) {
        assert_eq!(self.code(), code, "exit code\n{self:?}");
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} after {:?}", self.status, self.took)?;
        writeln!(f, "stdout: {}\nstderr: {}\nevents:\n{:?}", self.text(), self.stderr, self.events)
    }
}

/// A pipe read by a thread.
#[derive(Debug, Clone)]
struct Collected(Arc<(Mutex<Buffer>, Condvar)>);

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    ended: bool,
}

impl Collected {
    fn from(pipe: Option<impl Read + Send + 'static>) -> Self {
        let collected = Self(Arc::default());
        let (mut pipe, shared) = (pipe.expect("a piped stream"), Arc::clone(&collected.0));
        thread::spawn(move || {
            let mut chunk = [0; 64 * 1024];
            loop {
                let n = pipe.read(&mut chunk).unwrap_or(0);
                let mut buffer = shared.0.lock().unwrap();
                buffer.bytes.extend(&chunk[..n]);
                buffer.ended = n == 0;
                shared.1.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        collected
    }

    fn wait_until(&self, timeout: Duration, met: impl Fn(&Buffer) -> bool) -> bool {
        let guard = self.0.0.lock().unwrap();
        let (guard, _) = self.0.1.wait_timeout_while(guard, timeout, |b| !met(b) && !b.ended).unwrap();
        met(&guard)
    }

    fn wait_for(&self, text: &str, timeout: Duration) -> bool {
        self.wait_until(timeout, |b| String::from_utf8_lossy(&b.bytes).contains(text))
    }

    fn wait_for_end(&self, timeout: Duration) -> bool {
        self.wait_until(timeout, |b| b.ended)
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().bytes.clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn start(script: &str, timeout: u64) -> Running {
        let mut line = Command::new("/bin/sh");
        line.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let dir = tempfile::tempdir().unwrap();
        Running::start(line, dir.path().join("log"), Duration::from_millis(timeout), dir)
    }

    #[test]
    fn output_input_and_exit_code_come_through() {
        let mut run = start("read x; echo got $x; echo oops >&2; exit 7", 10_000);
        run.write(b"this\n");
        run.wait_for("got this");
        let done = run.finish();
        done.assert_code(7);
        assert_eq!((done.text().as_str(), done.stderr.as_str()), ("got this\n", "oops\n"));
    }

    #[test]
    fn a_run_that_hangs_fails_and_is_killed() {
        let run = start("echo $$; sleep 100", 300);
        run.wait_for("\n");
        let pid = Pid::from_raw(run.pid());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.finish())).unwrap_err();
        assert!(caught.downcast_ref::<String>().unwrap().contains("not finished"));
        assert!(kill(pid, None).is_err(), "gone");
    }

    #[test]
    fn a_signal_death_reads_as_a_shell_shows_it() {
        start("kill -TERM $$", 10_000).finish().assert_code(143);
    }
}
