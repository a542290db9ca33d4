//! What supervisor, init, launcher and a starting child say to each other. Every message is one packet of a
//! [`Channel`]; descriptors travel beside it, in the order the variant names.

use std::{collections::BTreeSet, io, net::SocketAddr, os::fd::OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use stockade_sys::{channel::Channel, process::Status};
use stockade_types::{Layer, LayerStatus, Reason};

use crate::view::ViewFile;

/// Names one spawned command or session of a sandbox; chosen by the supervisor.
pub type SessionId = u32;

/// Names one [`Order::Connect`] and its answer; chosen by the supervisor.
pub type ConnectId = u32;

/// Supervisor to init.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Maps are written and the cgroup is joined: build the sandbox.
    Go,
    /// Put these into the view. Follows [`Order::Go`] where the plan says so.
    Files(Vec<ViewFile>),
    /// Start a program. Descriptors: the stdio that [`Stdio::Given`] stands for, in order.
    Spawn(SessionId, Spawn),
    /// Send a signal to the session's process group. KILL and CONT reach the leader of its terminal too.
    Signal(SessionId, i32),
    /// Begin to connect to a server of the sandbox. Only its loopback is dialled.
    Connect(ConnectId, SocketAddr),
    /// Replace the set of transparent ports.
    Ports(BTreeSet<u16>),
    /// Read the fence back and compare.
    VerifyFence,
    /// End everything inside.
    Stop,
}

/// Init to supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Report {
    /// The sandbox stands, with remarks for the start report. Descriptors: as [`Sockets`] counts them.
    Ready(Vec<LayerStatus>, Vec<String>, Sockets),
    /// The sandbox could not be built; init ends.
    Failed(Failure),
    /// The program is sealed as the statuses say and about to run. Descriptors: the pty's master end, when there is one.
    Spawned(SessionId, i32, Vec<LayerStatus>),
    /// The program could not be started; may follow [`Report::Spawned`], when `execve` itself failed.
    NotSpawned(SessionId, SpawnError),
    /// It ended.
    Ended(SessionId, Outcome),
    /// On its terminal it was stopped by this signal (job control).
    Stopped(SessionId, i32),
    /// A non-blocking socket whose connection is under way, or why there is none. Descriptors: the socket.
    Connecting(ConnectId, Result<(), String>),
    /// The fence differs from what was installed.
    FenceDrift(String),
    /// The fence is as installed.
    FenceIntact,
    /// The set of transparent ports was replaced, or why not.
    PortsSet(Result<(), String>),
    /// Something happened to a hidden or protected path.
    Masks(Vec<String>),
    /// A new launcher was made: connects of what it starts are reported here. Descriptors: the listener.
    Connects,
    /// Hidden paths that were absent at the start, and so not promised, exist at the end.
    Created(Vec<String>),
}

/// How many descriptors of each kind accompany [`Report::Ready`], in this order.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sockets {
    /// Explicit proxy listeners.
    pub proxy: u8,
    /// Listeners whose local address is the original destination.
    pub transparent: u8,
    /// DNS over UDP.
    pub dns_udp: u8,
    /// DNS over TCP.
    pub dns_tcp: u8,
    /// NFLOG netlink socket.
    pub nflog: u8,
    /// `sock_diag` netlink socket.
    pub diag: u8,
    /// The root of the view, as a path descriptor.
    pub root: u8,
    /// Where connects are reported.
    pub connects: u8,
}

/// Why the sandbox could not be built: which layer, what was tried, what to do.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{layer}: {detail}")]
pub struct Failure {
    /// The layer that failed.
    pub layer: Layer,
    /// What was tried and what the kernel said, with the way out where one is known.
    pub detail: String,
}

impl Failure {
    /// A failure of `layer`, from any error.
    pub fn of(layer: Layer, e: impl std::fmt::Display) -> Self {
        Self { layer, detail: e.to_string() }
    }

    /// The audit reason of this failure.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self.layer {
            Layer::Netns | Layer::Fence => Reason::FenceUnavailable,
            _ => Reason::LayerUnavailable,
        }
    }
}

/// A program to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spawn {
    /// Program and arguments, as bytes. A program without `/` is searched in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// Environment entries `K=V`.
    pub env: Vec<Vec<u8>>,
    /// Working directory inside the view.
    pub cwd: Vec<u8>,
    /// Where fds 0 to 2 come from.
    pub stdio: [Stdio; 3],
    /// Size of the terminal, when any of `stdio` is one.
    pub size: Size,
}

/// Where one of fds 0-2 comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// A descriptor sent with the order.
    Given,
    /// A new terminal of the sandbox, one for all three.
    Terminal,
}

/// Terminal size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// By itself.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
}

impl Outcome {
    /// The code a shell would show: the program's own, or 128 + signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        match status {
            Status::Exited(code) => Self::Exited(code),
            Status::Signaled(signal) => Self::Signaled(signal),
        }
    }
}

/// Why a program was not started.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
pub enum SpawnError {
    /// `execve` refused every candidate; errno of the most telling one.
    #[error("{what}: {}", io::Error::from_raw_os_error(*errno))]
    Exec {
        /// The program as given.
        what: String,
        /// `ENOENT`, `EACCES`, ...
        errno: i32,
    },
    /// A step before `execve` failed.
    #[error("{step}: {detail}")]
    Step {
        /// What was tried.
        step: String,
        /// What the kernel said.
        detail: String,
    },
    /// A required layer is not enforced in the child.
    #[error(transparent)]
    Unmet(Failure),
}

impl SpawnError {
    /// Whether the program was not found.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        const ABSENT: [i32; 2] = [Errno::NOENT.raw_os_error(), Errno::NOTDIR.raw_os_error()];
        matches!(self, Self::Exec { errno, .. } if ABSENT.contains(errno))
    }
}

/// A starting child (or its session leader) to init, on the session's own channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Progress {
    /// Sealed: everything but `execve` is done, in the process with this pid, which is its process group too. Waits for
    /// one packet before it goes on.
    Sealed(i32, Vec<LayerStatus>),
    /// Not started.
    Failed(SpawnError),
    /// Stopped by a signal; sent by a session leader for its child.
    Stopped(i32),
    /// Ended; sent by a session leader for its child.
    Ended(Outcome),
}

/// Init to launcher. Descriptors: stdio (three), then the session's channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) spawn: Spawn,
    pub(crate) terminal: bool,
}

/// Launcher to init.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Launched {
    /// The domain is in place. Descriptors: where connects are reported, if they shall be.
    Ready(LayerStatus),
    /// It is not.
    Failed(Failure),
    /// A child was made; init is its parent.
    Child(i32),
    /// None was made.
    NoChild(String),
}

/// Sends a typed message.
///
/// # Errors
/// What the channel says; a value that cannot be encoded is `InvalidData`.
pub fn send(channel: &Channel, message: &impl Serialize, fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    channel.send(&bytes, fds)
}

/// Receives a typed message; `None` when the other end is gone.
///
/// # Errors
/// What the channel says; a packet that does not decode is `InvalidData`.
pub fn recv<T: DeserializeOwned>(channel: &Channel) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some(message) = channel.recv()? else { return Ok(None) };
    let value = postcard::from_bytes(&message.bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some((value, message.fds)))
}
