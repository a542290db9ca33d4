//! Why a run failed, each with the exit code that says so.

use std::io;

use stockade_confine::{message::SpawnError, sandbox::StartError};
use stockade_types::{Layer, Reason};

use crate::{
    advice::Facts, identity::IdentityError, stdio::StdioError, steering::SteeringError, trust::TrustError,
    workspace::WorkspaceError,
};

/// Why the command did not run, or not to its own end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy was refused.
    #[error("the policy is not valid\n{0}")]
    Policy(#[from] stockade_policy::Rejected),
    /// A file that steers the sandbox cannot be used.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// An option's value was refused.
    #[error("{0}")]
    Option(String),
    /// No workspace.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// No user.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A standard descriptor was refused.
    #[error(transparent)]
    Stdio(#[from] StdioError),
    /// A limit that is named cannot be enforced.
    #[error("{0}\nnothing was run")]
    Limits(String),
    /// The sandbox does not stand. Nothing was run.
    #[error("the sandbox cannot be built: {0}\nnothing was run{1}")]
    Start(StartError, String),
    /// Executables that the policy names cannot be relied upon.
    #[error("{0}")]
    Caller(String),
    /// The door could not be opened.
    #[error("the proxy cannot be started: {0}")]
    Door(String),
    /// The limit of processes leaves no room for what serves the sandbox.
    #[error(
        "the proxy's threads cannot be started: {0}\nnothing was run; raise the limit on processes and threads (`ulimit -u`, --pids-limit of a container)"
    )]
    Threads(io::Error),
    /// Nobody could ask how it is.
    #[error("{0}\nnothing was run")]
    Listen(#[from] stockade_telemetry::BindError),
    /// TLS cannot be spoken.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The supervisor could not give up its own privileges.
    #[error("the supervisor cannot reduce itself: {0}")]
    Own(String),
    /// The audit log cannot be used.
    #[error("{0}")]
    Audit(String),
    /// The command was not started.
    #[error("{1}")]
    Spawn(SpawnError, String),
    /// A hidden path lay bare, and the policy requires that none does.
    #[error("the command was ended: {0} (`require` names `hidden`)")]
    Bare(String),
    /// Init ended while the command ran.
    #[error("the sandbox ended unexpectedly, and the command with it")]
    Lost,
    /// A step outside the sandbox failed.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<StartError> for Error {
    fn from(e: StartError) -> Self {
        Self::Start(e, String::new())
    }
}

impl Error {
    pub(crate) fn io(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { step, source }
    }

    /// Adds the way out, as the surroundings suggest it.
    pub(crate) fn advised(self, facts: &Facts) -> Self {
        match self {
            Self::Start(e, _) => {
                let failed = match &e {
                    StartError::Namespaces(_) => Some(Layer::Namespaces),
                    StartError::Layer(failure) => Some(failure.layer),
                    StartError::Io { .. } | StartError::Lost => None,
                };
                Self::Start(e, facts.advice(failed))
            }
            other => other,
        }
    }

    /// The stable code in the audit log, where the failure has one.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Policy(_) | Self::Steering(_) => Some(Reason::PolicyRejected),
            Self::Limits(_) | Self::Bare(_) => Some(Reason::LayerUnavailable),
            Self::Start(StartError::Layer(failure), _) | Self::Spawn(SpawnError::Unmet(failure), _) => {
                Some(failure.reason())
            }
            _ => None,
        }
    }

    /// 127 not found, 126 cannot be executed, 125 for everything that is not the command's own doing.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Spawn(e, _) if e.is_absent() => 127,
            Self::Spawn(SpawnError::Exec { .. }, _) => 126,
            _ => 125,
        }
    }
}
