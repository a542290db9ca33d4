//! What decides and what belongs to it, replaced as a whole: a request meets one generation of all of it.

use std::{collections::HashMap, ops::Deref};

use stockade_policy::Snapshot;
use stockade_tls::Extra;

/// The policy in force.
#[derive(Debug)]
pub struct InForce {
    /// Decides.
    pub snapshot: Snapshot,
    /// What endpoints want towards their hosts besides what is usual, by the endpoint's name.
    pub extras: HashMap<String, Extra>,
}

impl From<Snapshot> for InForce {
    fn from(snapshot: Snapshot) -> Self {
        Self { snapshot, extras: HashMap::new() }
    }
}

impl Deref for InForce {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}
