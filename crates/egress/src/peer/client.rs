//! One accepted connection's client: found when it is accepted, then kept as long as the connection.

use std::{sync::Arc, time::Instant};

use stockade_policy::{Caller, Callers, Intent, Snapshot};
use tokio::net::TcpStream;

use super::{Evidence, IdentityError, Peers};

/// The client. Cheap to clone; all clones are the same client.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// Tells the connections of one run apart.
    number: u64,
    accepted: Instant,
}

#[derive(Debug)]
struct Inner {
    /// `None` where nobody asks.
    peers: Option<Arc<Peers>>,
    found: Result<Evidence, IdentityError>,
}

impl Client {
    /// The client of a connection that was just accepted. Without `peers` nothing is looked up.
    #[must_use]
    pub fn of(stream: &TcpStream, peers: Option<&Arc<Peers>>) -> Self {
        let unasked = IdentityError::Unresolved("the policy named no programs when it was opened: connect again");
        let found = peers.map_or(Err(unasked), |peers| peers.find(stream));
        let inner = Arc::new(Inner { peers: peers.cloned(), found });
        Self { inner, number: 0, accepted: Instant::now() }
    }

    /// The same with a number.
    #[must_use]
    pub(crate) fn numbered(self, number: u64) -> Self {
        Self { number, ..self }
    }

    /// The connection's number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// When the connection was accepted.
    pub(crate) fn accepted(&self) -> Instant {
        self.accepted
    }

    /// What was found out about it.
    ///
    /// # Errors
    /// Why it is not known who it is.
    pub fn evidence(&self) -> Result<&Evidence, IdentityError> {
        self.find().map(|(_, evidence)| evidence)
    }

    fn find(&self) -> Result<(&Peers, &Evidence), IdentityError> {
        match (&self.inner.peers, &self.inner.found) {
            (Some(peers), Ok(evidence)) => Ok((peers, evidence)),
            (_, Err(error)) => Err(*error),
            (None, Ok(_)) => Err(IdentityError::Unresolved("nobody looked")),
        }
    }

    /// What events say of it.
    pub(crate) fn process(&self) -> Option<stockade_audit::Process> {
        let (peers, evidence) = self.find().ok()?;
        Some(peers.process(evidence))
    }

    /// The intent with its asker in the words of `snapshot`: nobody where the policy names no programs, or nobody
    /// could be found.
    pub(crate) fn asking(&self, intent: &Intent, snapshot: &Snapshot) -> Intent {
        Intent { caller: self.caller(snapshot).map(Arc::new), ..intent.clone() }
    }

    fn caller(&self, snapshot: &Snapshot) -> Option<Caller> {
        if snapshot.binaries().is_empty() {
            return None;
        }
        let (peers, evidence) = self.find().ok()?;
        Some(peers.caller(evidence, snapshot.generation()))
    }

    /// Whether the connection is still its opener's, and of no program that the endpoint does not name: before each
    /// request.
    ///
    /// # Errors
    /// What is not so any more.
    pub async fn recheck(&self, named: Option<(&Snapshot, &Callers)>) -> Result<(), IdentityError> {
        let (peers, evidence) = self.find()?;
        let allowed = named.map_or_else(Vec::new, |(snapshot, callers)| peers.allowed(snapshot, callers));
        peers.recheck(evidence, &allowed).await
    }

    /// Waits until [`recheck`](Self::recheck) fails, looking again from time to time: for connections without
    /// requests.
    pub(crate) async fn lost(&self, snapshot: &Snapshot, callers: &Callers) -> IdentityError {
        match self.find() {
            Ok((peers, evidence)) => peers.lost(evidence, &peers.allowed(snapshot, callers)).await,
            Err(error) => error,
        }
    }
}
