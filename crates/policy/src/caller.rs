//! Who asks: executables as a policy names them, and as evidence about a connection.

use std::{path::PathBuf, sync::Arc};

pub(crate) mod claim;

pub use claim::Claim;

/// An executable that an endpoint names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binary {
    /// Absolute path inside the sandbox, as written.
    pub path: PathBuf,
    /// What the file must hash to, where the policy pins it.
    pub sha256: Option<[u8; 32]>,
}

/// Who may use an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Callers {
    /// One of these must be what the process runs. Never empty.
    pub binaries: Vec<Binary>,
    /// Whether every ancestor, up to the command, must run one of them too.
    pub ancestors: bool,
    /// Where not empty: an interpreter must have been started with one of these scripts.
    pub scripts: Vec<PathBuf>,
}

/// What is known about the process at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// What it runs: the path inside the sandbox, for Rego and events. Never what decides; `matched` is.
    pub exe: String,
    /// Hash of the executable, where it was computed.
    pub sha256: Option<[u8; 32]>,
    /// Which of [`crate::Snapshot::binaries`] the executable is, by index, in ascending order.
    pub matched: Vec<u32>,
    /// Its parent, the parent's parent, and so on up to the command; `None` where the chain is not known whole.
    pub ancestors: Option<Vec<Ancestor>>,
    /// The script that an interpreter was started with.
    pub script: Option<String>,
}

/// One process above a caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ancestor {
    /// What it runs, as [`Caller::exe`].
    pub exe: String,
    /// As [`Caller::matched`].
    pub matched: Vec<u32>,
}

/// Every executable that a policy names, once: callers are described by their place in this table.
#[derive(Debug, Default)]
pub(crate) struct Binaries(Vec<Binary>);

impl Binaries {
    pub(crate) fn new<'c>(callers: impl Iterator<Item = &'c Arc<Callers>>) -> Self {
        let mut all: Vec<Binary> = callers.flat_map(|c| c.binaries.iter().cloned()).collect();
        all.sort();
        all.dedup();
        Self(all)
    }

    pub(crate) fn all(&self) -> &[Binary] {
        &self.0
    }

    /// The ids of what an endpoint names.
    pub(crate) fn ids(&self, callers: &Callers) -> Vec<u32> {
        let place = |b: &Binary| self.0.binary_search(b).ok().and_then(|at| u32::try_from(at).ok());
        callers.binaries.iter().filter_map(place).collect()
    }
}

#[cfg(test)]
mod tests;
