//! The way from a session to init, which is the command's own.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
    pin::Pin,
};

use nix::{errno::Errno, sys::signal::Signal};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use stockade_confine::message::{Outcome, Size, Spawn, SpawnError, Stdio};
use stockade_ssh::{Ended, Happened, Program, Running, Spawner};
use tokio::{
    net::TcpStream,
    sync::mpsc::{self, UnboundedReceiver},
};

use crate::inside::{Inside, Session, SessionEvent};

/// Starts sessions of one sandbox.
pub(super) struct Sessions {
    inside: Inside,
    /// The root of the view.
    root: Option<OwnedFd>,
    /// This program, as it is bound into the view.
    program: PathBuf,
}

impl Sessions {
    pub(super) fn new(inside: Inside, root: Option<OwnedFd>, program: PathBuf) -> Self {
        Self { inside, root, program }
    }

    /// Whether the view has this program.
    fn has(&self, path: &str) -> bool {
        // Where it is not known, the kernel will say so at the start.
        let Some(root) = &self.root else { return true };
        openat2(
            root,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
        .is_ok()
    }
}

impl Spawner for Sessions {
    fn spawn(
        &self,
        program: Program,
        stdio: Vec<OwnedFd>,
    ) -> io::Result<(Box<dyn Running>, UnboundedReceiver<Happened>)> {
        let surroundings = self.inside.surroundings();
        let mut env = surroundings.environment();
        for variable in program.env {
            let name = variable.split_inclusive(|b| *b == b'=').next().unwrap_or_default();
            env.retain(|v| !v.starts_with(name));
            env.push(variable);
        }
        let size = program.terminal.map_or(Size { rows: 0, cols: 0 }, |s| Size { rows: s.rows, cols: s.cols });
        let kind = if program.terminal.is_some() { Stdio::Terminal } else { Stdio::Given };
        let spawn = Spawn {
            argv: program.argv,
            env,
            cwd: surroundings.cwd.as_os_str().as_bytes().to_vec(),
            stdio: [kind; 3],
            size,
        };
        let (session, mut heard) = self.inside.spawn(spawn, stdio)?;
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(event) = heard.recv().await {
                // Whoever asked may be gone; the program is then hung up by the drop of its `Started`.
                let _ = sender.send(translate(event));
            }
        });
        Ok((Box::new(Started(session)), events))
    }

    fn connect(&self, to: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> {
        let inside = self.inside.clone();
        Box::pin(async move { inside.connect(to).await })
    }

    fn is_ours(&self, to: SocketAddr) -> bool {
        self.inside.surroundings().door_ports.contains(&to.port())
    }

    fn shell(&self) -> Result<Vec<u8>, String> {
        if !self.has("/bin/sh") {
            return Err("this sandbox has no /bin/sh".to_owned());
        }
        Ok(if self.has("/bin/bash") { b"/bin/bash".to_vec() } else { b"/bin/sh".to_vec() })
    }

    fn sftp(&self) -> Vec<Vec<u8>> {
        vec![self.program.as_os_str().as_bytes().to_vec(), b"sftp-server".to_vec()]
    }
}

/// A session's program; its drop hangs it up.
struct Started(Session);

impl Running for Started {
    fn signal(&self, signal: i32) {
        // The server sends no others than those it knows by name.
        if let Ok(signal) = Signal::try_from(signal) {
            self.0.signal(signal);
        }
    }
}

fn translate(event: SessionEvent) -> Happened {
    match event {
        SessionEvent::Started { terminal } => Happened::Started { terminal },
        SessionEvent::Ended(Outcome::Exited(code)) => Happened::Ended(Ended::Exited(code)),
        SessionEvent::Ended(Outcome::Signaled(signal)) => Happened::Ended(Ended::Signaled(signal)),
        SessionEvent::NotStarted(e) => {
            let code = match &e {
                SpawnError::Exec { errno, .. } if *errno == Errno::ENOENT as i32 => 127,
                _ => 126,
            };
            Happened::NotStarted(code, e.to_string())
        }
    }
}
