//! Running a closure in a child process: single-threaded, in other namespaces, as another user.

use std::{
    fs::File,
    io::{Read, Write},
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// How a child is to differ from the test that makes it.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    uid: Option<u32>,
    namespaces: CloneFlags,
    timeout: Duration,
}

impl Default for Child {
    fn default() -> Self {
        Self { uid: None, namespaces: CloneFlags::empty(), timeout: Duration::from_secs(100) }
    }
}

impl Child {
    /// Same user, same namespaces.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Namespaces to unshare, as the user that the test runs as (before [`Self::uid`] takes effect).
    #[must_use]
    pub fn namespaces(mut self, flags: CloneFlags) -> Self {
        self.namespaces = flags;
        self
    }

    /// Become `uid` (and the group of the same number, no others), with no capability, still dumpable so that a
    /// user namespace can be made. Nothing changes where the test is not root: it is rootless already.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Kill the child and fail after this long. The default stays below the test runner's own limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs `body` there. The child is single-threaded at first, whatever the test runner is, and ends with the
    /// test runner.
    ///
    /// # Panics
    /// With the child's message, when `body` panics, is killed or does not end in time.
    #[track_caller]
    pub fn run(self, body: impl FnOnce()) {
        let (mut reader, writer) = pipe();
        let parent = Pid::this();
        let pid = stockade_sys::testing::fork_threaded(|| {
            report_panics_to(writer);
            let done = panic::catch_unwind(AssertUnwindSafe(|| {
                self.become_other(parent);
                body();
            }));
            std::io::stdout().flush().ok();
            u8::from(done.is_err())
        })
        .expect("fork");
        let status = self.wait(pid);
        let mut message = vec![0; 16 * 1024];
        let read = reader.read(&mut message).unwrap_or(0);
        let message = String::from_utf8_lossy(&message[..read]);
        match status {
            Some(WaitStatus::Exited(_, 0)) => {}
            Some(status) => panic!("in the child ({status:?}): {message}"),
            None => panic!("the child did not end within {:?} and was killed; {message}", self.timeout),
        }
    }

    fn wait(self, pid: i32) -> Option<WaitStatus> {
        let raw = rustix::process::Pid::from_raw(pid).expect("a pid is positive");
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).expect("pidfd_open");
        let timeout = rustix::event::Timespec {
            tv_sec: self.timeout.as_secs().try_into().unwrap(),
            tv_nsec: self.timeout.subsec_nanos().into(),
        };
        let ended = loop {
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.expect("poll") == 1,
            }
        };
        if !ended {
            pidfd_send_signal(&pidfd, Signal::KILL).ok();
        }
        let status = waitpid(Pid::from_raw(pid), None).expect("waitpid");
        ended.then_some(status)
    }

    fn become_other(self, parent: Pid) {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).expect("PR_SET_PDEATHSIG");
        assert_eq!(nix::unistd::getppid(), parent, "the test ended first");
        if !self.namespaces.is_empty() {
            unshare(self.namespaces).unwrap_or_else(|e| panic!("unshare({:?}): {e}", self.namespaces));
        }
        if let Some(uid) = self.uid
            && Uid::effective().is_root()
        {
            become_user(uid);
            // Changing ids cleared these two.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).expect("PR_SET_PDEATHSIG");
            nix::sys::prctl::set_dumpable(true).expect("PR_SET_DUMPABLE");
        }
    }
}

/// Turns this process into user `uid`, for good.
///
/// # Panics
/// When the process is not root.
pub fn become_user(uid: u32) {
    let (u, g) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setgroups(&[]).expect("setgroups: root is needed to become another user");
    setresgid(g, g, g).expect("setresgid");
    setresuid(u, u, u).expect("setresuid");
}

fn pipe() -> (File, File) {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK).expect("pipe");
    (reader.into(), writer.into())
}

fn report_panics_to(mut writer: File) {
    let writer = std::sync::Mutex::new(move |text: String| writer.write_all(text.as_bytes()));
    panic::set_hook(Box::new(move |info| {
        if let Ok(mut write) = writer.lock() {
            write(format!("{info}\n")).ok();
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_the_child_fails_the_test_with_its_message() {
        let caught = panic::catch_unwind(|| Child::new().run(|| panic!("wall is {}", "down"))).unwrap_err();
        let message = caught.downcast_ref::<String>().unwrap();
        assert!(message.contains("wall is down"), "{message}");
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let hang = Child::new().timeout(Duration::from_millis(50));
        let caught = panic::catch_unwind(|| hang.run(|| std::thread::sleep(Duration::from_secs(100)))).unwrap_err();
        assert!(caught.downcast_ref::<String>().unwrap().contains("was killed"));
    }

    #[test]
    fn the_child_has_one_thread_and_may_make_a_user_namespace_as_somebody_else() {
        Child::new().uid(65_534).run(|| {
            assert_eq!(std::fs::read_dir("/proc/self/task").unwrap().count(), 1);
            assert!(!Uid::effective().is_root(), "dropped");
            unshare(CloneFlags::CLONE_NEWUSER).expect("a rootless process may make a user namespace");
            std::fs::write("/proc/self/uid_map", format!("0 {} 1", 65_534)).expect("dumpable: the map is its own");
        });
    }
}
