//! From a plan to a running command, as types: each step consumes the one before and holds what it made.
//!
//! [`Prepared`] → [`Building`](isolate::Building) (init builds, threads start) → [`Isolated`](isolate::Isolated) (the
//! sandbox stands) → [`Serving`](serve::Serving) (the door answers) → the command runs.

mod isolate;
mod launch;
mod serve;

use std::time::Duration;

use stockade_audit::{HeadHandle, Summary};
use stockade_confine::limits::Usage;
use stockade_policy::Written;
use stockade_types::LayerStatus;

pub(crate) use isolate::Prepared;

use crate::{advice::Facts, config::Config, error::Error, reaper, signals};

/// How long the last audit events may take to reach the disk.
const FLUSH: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug)]
pub struct Finished {
    /// The code to exit with.
    pub code: u8,
    /// What was blocked.
    pub summary: Summary,
    /// What the command used.
    pub usage: Usage,
    /// Layers as they were enforced.
    pub layers: Vec<LayerStatus>,
    /// Newest line of the audit log, where there is one.
    pub head: Option<HeadHandle>,
    /// What was learned, by `learn`.
    pub learned: Option<Written>,
    /// Something could not be written in the end: the log lacks its last lines.
    pub log_failing: bool,
}

/// Runs one command in one sandbox. The caller must be single-threaded.
///
/// # Errors
/// [`Error`]; unless it is [`Error::Lost`], nothing was run.
pub fn run(config: &Config) -> Result<Finished, Error> {
    if !signals::can_stop() {
        // The first process of a container has no default action: what comes before there is a command waits for it.
        signals::block().map_err(Error::io("block signals"))?;
    }
    if config.duty.entrypoint {
        reaper::adopt_orphans().map_err(Error::io("adopt orphans"))?;
    }
    // Before this process gives up what it does not need.
    let facts = Facts::look();
    let started = Prepared::new(config)?.build().and_then(|building| building.serve());
    started.map_err(|e| e.advised(&facts))?.launch()
}
