//! What a person asked for, before anything was looked at.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use stockade_policy::publish::Publish;
use stockade_types::Layer;

use crate::{
    ssh::Ssh,
    stdio::{LogFormat, TerminalChoice},
};

/// One run of one command.
#[derive(Debug, Clone)]
pub struct Config {
    /// Program and arguments; at least the program.
    pub command: Vec<OsString>,
    /// Policy files, merged; the built-in policy when there are none.
    pub policy: Vec<PathBuf>,
    /// `--allow HOST[:PORT]`.
    pub allow: Vec<String>,
    /// Whether decisions are enforced or learned.
    pub posture: Posture,
    /// The directory the command works in.
    pub workspace: Workspace,
    /// Variables set for the command.
    pub env: Vec<(OsString, OsString)>,
    /// `--user`, over the policy's.
    pub user: Option<String>,
    /// `--memory`, `--cpus`, `--pids`, over the policy's.
    pub limits: Limits,
    /// `--upstream-ca`: authorities that may sign for hosts, besides the machine's.
    pub upstream_ca: Vec<PathBuf>,
    /// Ends the command after this time.
    pub timeout: Option<Duration>,
    /// Between TERM and KILL, instead of the usual time.
    pub grace: Option<Duration>,
    /// Where the audit log is appended.
    pub audit_log: Option<PathBuf>,
    /// Layers required besides the policy's.
    pub require: Vec<Layer>,
    /// Whether the command gets a terminal.
    pub terminal: TerminalChoice,
    /// What Stockade says on stderr.
    pub voice: Voice,
    /// Paths granted read-only besides the policy's: Stockade's own needs, such as the demo's program.
    pub read_only: Vec<PathBuf>,
    /// What an operator sees of it.
    pub operations: Operations,
    /// An SSH server for the sandbox.
    pub ssh: Option<Ssh>,
    /// What is different for the entrypoint of a container.
    pub duty: Duty,
}

/// What `supervise` has besides `run`.
#[derive(Debug, Clone, Default)]
pub struct Duty {
    /// This process is a container's entrypoint: signals are passed on as they come, orphans are adopted.
    pub entrypoint: bool,
    /// Variables of the environment that have set an option.
    pub environment: Vec<String>,
    /// What there is to say about other variables.
    pub notices: Vec<String>,
    /// Limits that the environment lowers: the lower one counts.
    pub ceilings: Limits,
}

/// What an operator sees of a running sandbox, and where.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    /// `--health`: `/livez` and `/readyz`, outside the sandbox.
    pub health: Option<SocketAddr>,
    /// `--metrics`: `/metrics`, outside the sandbox.
    pub metrics: Option<SocketAddr>,
    /// `--publish`: ports outside that lead to servers inside, besides the policy's.
    pub publish: Vec<Publish>,
    /// `--traces`: heed the `OTEL_` variables though this is an entrypoint.
    pub traces: bool,
    /// `--log-format`.
    pub log_format: LogFormat,
}

/// Whether decisions are enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posture {
    /// Denials deny.
    Enforce,
    /// Network denials are recorded and let through.
    Learn {
        /// Where the least policy that allows what was seen goes.
        output: PathBuf,
        /// Whether TLS is decrypted, so that methods and paths are seen.
        inspect: bool,
    },
}

/// The directory the command works in.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// The directory; the current one when absent.
    pub path: Option<PathBuf>,
    /// Access, over the policy's.
    pub access: Option<Access>,
}

/// What the command may do in its workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    ReadWrite,
    /// Read.
    ReadOnly,
    /// It is not there.
    None,
}

/// Limits from the command line, still as text where the policy's grammar applies.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// `4GiB`.
    pub memory: Option<String>,
    /// Cores.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// How much is said on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Voice {
    /// Only failures.
    Errors,
    /// Also notices, and the summary at the end.
    Notices,
    /// Also each denial as it happens.
    Denials,
    /// Also everything else, and the state of each layer.
    Everything,
}
