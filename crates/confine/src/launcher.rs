//! The launcher: one single-threaded process that holds the Landlock domain and makes every command and session.
//!
//! All of them are clones of it, so all share one domain and may signal each other; sibling domains could not. They
//! are made with `CLONE_PARENT`, so init is their parent and reaps them.
//!
//! Rootless it has the commands' user and domain, so they can end it: whoever can make processes of a domain is in it,
//! and a domain cannot be entered from outside, so no second process could hold it out of their reach. Init then makes
//! another ([`crate::init`]), whose domain is a sibling: programs from before and sessions from then on cannot signal
//! each other, which costs the command alone. Init is in no domain and signals both.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    sched::CloneFlags,
    sys::stat::{Mode, umask},
    unistd::{Pid, chdir, setpgid, setsid},
};
use stockade_sys::{
    channel::Channel,
    process::{self, Change, Child},
};
use stockade_types::{Enforcement, Layer, LayerStatus};

use crate::{
    landlock,
    message::{Failure, Launch, Launched, Progress, SpawnError, recv, send},
    plan::Plan,
    privileges,
    seccomp::Filter,
};

/// What a starting child needs, made once before the first of them.
pub(crate) struct Seal<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) filter: &'a Filter,
}

/// Serves launch requests until the channel closes; the exit code of the launcher process.
pub(crate) fn serve(seal: &Seal<'_>, domain: &landlock::Plan, channel: &Channel) -> u8 {
    let entered = enter(domain).and_then(|enforcement| Ok((enforcement, report_connects(seal.plan)?)));
    let (ready, listener) = match entered {
        Ok((enforcement, listener)) => (Launched::Ready(LayerStatus { layer: Layer::Landlock, enforcement }), listener),
        Err(failure) => (Launched::Failed(failure), None),
    };
    let fds: Vec<_> = listener.iter().map(AsFd::as_fd).collect();
    if send(channel, &ready, &fds).is_err() || matches!(ready, Launched::Failed(_)) {
        return 1;
    }
    // Nothing inside may hold it: it lets calls of others go on.
    drop(listener);
    loop {
        match recv::<Launch>(channel) {
            Ok(Some((launch, fds))) => {
                let answer = match launch_one(seal, &launch, fds) {
                    Ok(child) => Launched::Child(child.pid),
                    Err(e) => Launched::NoChild(e.to_string()),
                };
                if send(channel, &answer, &[]).is_err() {
                    return 1;
                }
            }
            Ok(None) => return 0,
            Err(_) => return 1,
        }
    }
}

/// What every program inherits.
fn enter(domain: &landlock::Plan) -> Result<Enforcement, Failure> {
    let failed = |e| Failure::of(Layer::Landlock, e);
    landlock::prepare(domain).map_err(failed)?.restrict().map_err(failed)
}

/// Here and not in each child, so that there is one listener for all of them.
fn report_connects(plan: &Plan) -> Result<Option<OwnedFd>, Failure> {
    if !plan.report_connects {
        return Ok(None);
    }
    let fail = |e: io::Error| {
        Failure::of(
            Layer::Identity,
            format!("report connects: {e}; an outer sandbox with a listener of its own refuses it"),
        )
    };
    stockade_sys::notify::report_connects().map(Some).map_err(fail)
}

fn launch_one(seal: &Seal<'_>, launch: &Launch, fds: Vec<OwnedFd>) -> io::Result<Child> {
    let Ok([stdin, stdout, stderr, progress]) = <[OwnedFd; 4]>::try_from(fds) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let progress = Channel::from(progress);
    let stdio = [stdin, stdout, stderr];
    process::fork(CloneFlags::empty(), true, || {
        let led = if launch.terminal {
            lead(seal, launch, &stdio, &progress)
        } else {
            setsid().map_err(|e| step("setsid", e)).and_then(|_| become_program(seal, launch, &stdio, &progress))
        };
        match led {
            Ok(code) => code,
            Err(e) => {
                // Init learns of a lost child by its exit if even this cannot be said.
                let _ = send(&progress, &Progress::Failed(e), &[]);
                crate::EXIT_OURS
            }
        }
    })
}

/// Leads a new session whose terminal is the first terminal among `stdio`, with the program as its foreground group.
/// The program must not lead: the group of a session leader whose parent is outside counts as orphaned, and Ctrl-Z
/// would do nothing.
fn lead(seal: &Seal<'_>, launch: &Launch, stdio: &[OwnedFd; 3], progress: &Channel) -> Result<u8, SpawnError> {
    setsid().map_err(|e| step("setsid", e))?;
    let terminal = stdio.iter().find(|fd| rustix::termios::isatty(fd)).ok_or_else(|| step("terminal", "none given"))?;
    rustix::process::ioctl_tiocsctty(terminal).map_err(|e| step("set the controlling terminal", e))?;
    let child = process::fork(CloneFlags::empty(), false, || {
        let run = || {
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(|e| step("setpgid", e))?;
            foreground(terminal, rustix::process::getpid())?;
            become_program(seal, launch, stdio, progress)
        };
        match run() {
            Ok(code) => code,
            Err(e) => {
                let _ = send(progress, &Progress::Failed(e), &[]);
                crate::EXIT_OURS
            }
        }
    })
    .map_err(|e| step("fork", e))?;
    // The leader is part of the sandbox too: it keeps no more rights than the program it leads.
    seal_self(seal)?;
    watch(child.pid, progress)
}

fn foreground(terminal: &OwnedFd, group: rustix::process::Pid) -> Result<(), SpawnError> {
    // A background group that sets the foreground group gets SIGTTOU unless it blocks it.
    let mut block = nix::sys::signal::SigSet::empty();
    block.add(nix::sys::signal::Signal::SIGTTOU);
    block.thread_block().map_err(|e| step("block SIGTTOU", e))?;
    rustix::termios::tcsetpgrp(terminal, group).map_err(|e| step("tcsetpgrp", e))
}

/// Follows the program's stops and its end, and tells init.
fn watch(pid: i32, progress: &Channel) -> Result<u8, SpawnError> {
    loop {
        let said = match process::wait(pid) {
            Ok(Change::Stopped(signal)) => Progress::Stopped(signal),
            Ok(Change::Ended(status)) => Progress::Ended(status.into()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(step("wait for the program", e)),
        };
        send(progress, &said, &[]).map_err(|e| step("report", e))?;
        if matches!(said, Progress::Ended(_)) {
            return Ok(0);
        }
    }
}

/// Seals this process, reports, waits for the word to go on, and becomes the program.
fn become_program(
    seal: &Seal<'_>,
    launch: &Launch,
    stdio: &[OwnedFd; 3],
    progress: &Channel,
) -> Result<u8, SpawnError> {
    for (target, fd) in (0..).zip(stdio) {
        process::install_stdio(fd, target).map_err(|e| step("install stdio", e))?;
    }
    process::cloexec_from(3).map_err(|e| step("close_range", e))?;
    process::reset_signals();
    umask(Mode::from_bits_truncate(0o022));
    let layers = seal_self(seal)?;
    // After the change of user: a directory that only the supervisor could enter must not be the way in.
    let cwd = Path::new(OsStr::from_bytes(&launch.spawn.cwd));
    chdir(cwd).map_err(|e| step(&format!("enter the working directory {}", cwd.display()), e))?;
    if let Some(unmet) = seal.plan.unmet(&layers) {
        return Err(SpawnError::Unmet(unmet));
    }
    send(progress, &Progress::Sealed(nix::unistd::getpid().as_raw(), layers), &[]).map_err(|e| step("report", e))?;
    match progress.recv() {
        Ok(Some(_)) => Err(execute(launch)),
        Ok(None) => Err(step("start", "the supervisor is gone")),
        Err(e) => Err(step("start", e)),
    }
}

/// Takes everything away from the calling process that the plan takes away, and reports what holds.
fn seal_self(seal: &Seal<'_>) -> Result<Vec<LayerStatus>, SpawnError> {
    seal.plan.rlimits.apply().map_err(|e| step("set resource limits", e))?;
    let user = privileges::become_user(&seal.plan.identity).map_err(|e| step("change user", e))?;
    let dropped = privileges::drop_all().map_err(|e| step("drop privileges", e))?;
    let filter = seal.filter.apply().map_err(|e| step("install the system call filter", e))?;
    let privileges = match (user, dropped) {
        (Enforcement::Enforced, other) | (other, Enforcement::Enforced) => other,
        (Enforcement::Absent(a), b) | (b, Enforcement::Absent(a)) => Enforcement::Absent(format!("{a}; {b}")),
        (Enforcement::Partial(a), Enforcement::Partial(b)) => Enforcement::Partial(format!("{a}; {b}")),
    };
    Ok(vec![
        LayerStatus { layer: Layer::Privileges, enforcement: privileges },
        LayerStatus { layer: Layer::Seccomp, enforcement: filter },
    ])
}

/// Tries every candidate that `execvp` would, and keeps the most telling error: a file that exists but may not be
/// executed beats one that does not exist.
fn execute(launch: &Launch) -> SpawnError {
    let text = |b: &[u8]| CString::new(b).unwrap_or_default();
    let argv: Vec<CString> = launch.spawn.argv.iter().map(|a| text(a)).collect();
    let env: Vec<CString> = launch.spawn.env.iter().map(|e| text(e)).collect();
    let program = launch.spawn.argv.first().map(Vec::as_slice).unwrap_or_default();
    let mut worst = libc_errno::ENOENT;
    for candidate in candidates(program, &launch.spawn.env) {
        let path = text(&candidate);
        let errno = process::exec(&path, &argv, &env).raw_os_error().unwrap_or_default();
        match errno {
            libc_errno::ENOEXEC => {
                // A script without `#!`: POSIX wants the shell to run it.
                let mut shell = vec![text(b"/bin/sh"), path];
                shell.extend(argv.iter().skip(1).cloned());
                worst = process::exec(&text(b"/bin/sh"), &shell, &env).raw_os_error().unwrap_or_default();
                break;
            }
            libc_errno::ENOENT | libc_errno::ENOTDIR => {}
            libc_errno::EACCES => worst = errno,
            other => {
                worst = other;
                break;
            }
        }
    }
    SpawnError::Exec { what: String::from_utf8_lossy(program).into_owned(), errno: worst }
}

fn candidates(program: &[u8], env: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') || program.is_empty() {
        return vec![program.to_vec()];
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(b"/usr/local/bin:/usr/bin:/bin");
    path.split(|&b| b == b':')
        .map(|dir| if dir.is_empty() { program.to_vec() } else { [dir, b"/", program].concat() })
        .collect()
}

fn step(what: &str, e: impl std::fmt::Display) -> SpawnError {
    SpawnError::Step { step: what.to_owned(), detail: e.to_string() }
}

/// The errno values that decide between candidates, as `i32`.
mod libc_errno {
    use nix::errno::Errno;
    pub(super) const ENOENT: i32 = Errno::ENOENT as i32;
    pub(super) const ENOTDIR: i32 = Errno::ENOTDIR as i32;
    pub(super) const EACCES: i32 = Errno::EACCES as i32;
    pub(super) const ENOEXEC: i32 = Errno::ENOEXEC as i32;
}

/// The descriptors of a launch in the order the launcher expects them.
pub(crate) fn descriptors<'a>(stdio: &'a [OwnedFd; 3], progress: &'a Channel) -> [BorrowedFd<'a>; 4] {
    [stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd(), progress.as_fd()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_search_is_execvp_s() {
        let env = vec![b"PATH=/a::/b".to_vec()];
        assert_eq!(candidates(b"x", &env), [b"/a/x".to_vec(), b"x".to_vec(), b"/b/x".to_vec()]);
        assert_eq!(candidates(b"./x", &env), [b"./x".to_vec()]);
        assert_eq!(candidates(b"x", &[]).len(), 3);
    }
}
