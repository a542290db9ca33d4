//! The system call filter: rows of `policies/seccomp/*.toml`, compiled into one BPF program per architecture.
//!
//! Calls without a row are allowed; numbers that no table knows (gaps, and all above the newest known call) answer
//! `ENOSYS`, so that a new kernel brings nothing in. A foreign architecture is killed, x32 refused.

mod assemble;
mod rules;
pub mod table;

use std::io;

use rustix::thread::{SecureComputingMode, secure_computing_mode};
use seccompiler::{BpfProgram, apply_filter};
use stockade_types::Enforcement;

pub use self::rules::{Action, Condition, Relaxation, Row, Test, relaxations, rows, supervisor_rows};

/// An architecture that filters exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// The architecture this program runs on.
    ///
    /// # Errors
    /// [`SeccompError::Architecture`] on any other than those two.
    pub fn native() -> Result<Self, SeccompError> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => Err(SeccompError::Architecture(other)),
        }
    }
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// No rows for this machine.
    #[error("no system call filter for {0}: x86_64 and aarch64 have one")]
    Architecture(&'static str),
    /// A file of rows does not parse.
    #[error("policies/seccomp/{file}: {detail}")]
    Parse {
        /// The file.
        file: &'static str,
        /// What is wrong, with the position.
        detail: String,
    },
    /// A row is wrong.
    #[error("policies/seccomp/{file}: row for `{call}`: {detail}")]
    Row {
        /// The file.
        file: &'static str,
        /// The first call of the row.
        call: String,
        /// What is wrong.
        detail: String,
    },
    /// A relaxation that no row knows.
    #[error("unknown relaxation `{name}`; known: {known}")]
    Relaxation {
        /// As given.
        name: String,
        /// All that exist.
        known: String,
    },
    /// The kernel refused the filter.
    #[error("seccomp: {0}; an outer sandbox or container profile may refuse it: allow the seccomp and prctl calls")]
    Apply(#[from] seccompiler::Error),
    /// The kernel took the filter and shows none.
    #[error("the filter was installed, but the kernel reports mode {0:?}")]
    NotInForce(io::Result<SecureComputingMode>),
}

/// A compiled filter. Made once before anything is forked; entered by every child by itself.
#[derive(Debug, Clone)]
pub struct Filter {
    program: BpfProgram,
    relaxed: Vec<Relaxation>,
}

impl Filter {
    /// Compiles the command's filter without the rows that the named relaxations lift.
    ///
    /// # Errors
    /// [`SeccompError`], naming the row or the relaxation.
    pub fn compile(arch: Arch, relax: &[&str]) -> Result<Self, SeccompError> {
        let rows = rows()?;
        let known = relaxations(&rows);
        let mut relaxed = Vec::new();
        for name in relax {
            let found = known.iter().find(|r| r.name == *name).ok_or_else(|| SeccompError::Relaxation {
                name: (*name).to_owned(),
                known: known.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", "),
            })?;
            if !relaxed.contains(found) {
                relaxed.push(found.clone());
            }
        }
        let kept = rows.iter().filter(|r| r.relax.as_ref().is_none_or(|n| !relax.contains(&n.as_str())));
        Ok(Self { program: assemble::program(arch, kept)?, relaxed })
    }

    /// Compiles the filter that the supervisor itself enters once its sandbox stands.
    ///
    /// # Errors
    /// [`SeccompError`], naming the row.
    pub fn compile_supervisor(arch: Arch) -> Result<Self, SeccompError> {
        Ok(Self { program: assemble::program(arch, supervisor_rows()?.iter())?, relaxed: Vec::new() })
    }

    /// Compiles rows given as text, in the form of `policies/seccomp/*.toml`: for filters of the caller's own, such as
    /// an outer sandbox in a test.
    ///
    /// # Errors
    /// [`SeccompError`], naming the row.
    pub fn from_rows(arch: Arch, text: &str) -> Result<Self, SeccompError> {
        let rows = rules::parse("(given)", text)?;
        Ok(Self { program: assemble::program(arch, rows.iter())?, relaxed: Vec::new() })
    }

    /// What was relaxed, for every place that shows the layer's state.
    #[must_use]
    pub fn relaxed(&self) -> &[Relaxation] {
        &self.relaxed
    }

    /// Whether a lifted row is one that executable identity rests on: rules that name binaries are then an error.
    #[must_use]
    pub fn identity_is_evidence(&self) -> bool {
        !self.relaxed.iter().any(|r| r.identity)
    }

    /// Instructions of the program.
    #[must_use]
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Whether the program is empty; it never is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }

    /// Enters the filter, for good: this thread and everything it starts. Sets `no_new_privs`. The last step before
    /// `execve`. Relaxations were asked for by name and do not make the layer partial: they are shown beside it.
    ///
    /// # Errors
    /// [`SeccompError::Apply`] or [`SeccompError::NotInForce`].
    pub fn apply(&self) -> Result<Enforcement, SeccompError> {
        apply_filter(&self.program)?;
        match secure_computing_mode() {
            Ok(SecureComputingMode::Filter) => Ok(Enforcement::Enforced),
            other => Err(SeccompError::NotInForce(other.map_err(Into::into))),
        }
    }
}

#[cfg(test)]
mod tests;
