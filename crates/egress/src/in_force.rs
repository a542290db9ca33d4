//! What decides and what belongs to it, replaced as a whole: a request meets one generation of all of it.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use stockade_policy::Snapshot;
use stockade_secrets::Credentials;
use stockade_tls::Extra;

/// The policy in force.
#[derive(Debug)]
pub struct InForce {
    /// Decides.
    pub snapshot: Snapshot,
    /// What endpoints want towards their hosts besides what is usual, by the endpoint's name.
    pub extras: HashMap<String, Extra>,
    /// Credentials, where the policy has any.
    pub credentials: Option<Arc<Credentials>>,
}

impl From<Snapshot> for InForce {
    fn from(snapshot: Snapshot) -> Self {
        Self { snapshot, extras: HashMap::new(), credentials: None }
    }
}

impl Deref for InForce {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}
