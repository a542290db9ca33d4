//! Who is at the other end of a connection: which process opened it, and what that runs.
//!
//! The answer comes from the report of `connect` itself ([`claims`]), found by the inode of the client's socket. It
//! costs the same however many processes and files there are. Before each request the process must still run the same
//! executable and hold the socket; a [`survey`] of all descriptors then looks for other holders. What cannot be found
//! out is an error, and errors deny.

mod ancestors;
mod claims;
mod client;
mod pins;
mod process;
mod script;
mod survey;

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use stockade_policy::{Ancestor, Caller, Callers, Snapshot};
use stockade_sys::socket::{Diag, Owner, Transport};
use stockade_types::{Generation, Reason};
use tokio::net::TcpStream;

pub use self::client::Client;
pub use self::pins::{PinError, Pins};
use self::{
    ancestors::{Above, Ancestors},
    claims::{Claim, Claimed, Claims},
    pins::Pin,
    process::{FileState, Process},
    survey::{Holder, Surveyor, Watch},
};

/// Between two looks at an open connection.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The first look, soon after a connection is permitted.
const FIRST_LOOK: Duration = Duration::from_millis(30);
/// Pins of past policies that connections may still ask for.
const MAX_GENERATIONS: usize = 4;

/// Why it is not known who asks, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Nobody could be found.
    #[error("it cannot be known which program opened this connection: {0}")]
    Unresolved(&'static str),
    /// Several executables have it.
    #[error("programs of several executables hold this connection")]
    Ambiguous,
    /// It is not what it was.
    #[error("the program that opened this connection has ended or runs another executable now")]
    Changed,
}

impl IdentityError {
    /// The stable code.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Unresolved(_) => Reason::IdentityUnresolved,
            Self::Ambiguous => Reason::IdentityAmbiguous,
            Self::Changed => Reason::IdentityChanged,
        }
    }
}

/// What the supervisor got from the sandbox to find callers with.
#[derive(Debug)]
pub struct Sources {
    /// `sock_diag` of the sandbox's network namespace.
    pub diag: OwnedFd,
    /// Where connects are reported.
    pub connects: OwnedFd,
    /// The root of the sandbox's view.
    pub root: OwnedFd,
    /// The sandbox's init, in the supervisor's pid namespace.
    pub init: u32,
}

/// Finds callers.
#[derive(Debug)]
pub struct Peers {
    claims: Arc<Claims>,
    diag: Mutex<Diag>,
    root: OwnedFd,
    ancestors: Ancestors,
    surveyor: Arc<Surveyor>,
    pins: Mutex<VecDeque<(Generation, Arc<Pins>)>>,
}

/// What was found out about the client of a connection. Held as long as the connection.
#[derive(Debug)]
pub struct Evidence {
    process: Arc<Process>,
    inode: u32,
    fd: i32,
    exe: FileState,
    path: String,
    /// In the sandbox's pid namespace, for events.
    inside: u32,
    uid: u32,
    /// `None` where the chain does not reach a program that the supervisor started.
    above: Option<Vec<Above>>,
    script: Option<String>,
    connected: Instant,
    watch: Watch,
}

impl Evidence {
    /// The process, in the supervisor's pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// What it runs: its path inside.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Peers {
    /// Starts listening to connects.
    ///
    /// # Errors
    /// When a source is of no use or the thread cannot be made.
    pub fn start(sources: Sources) -> io::Result<Arc<Self>> {
        let Sources { diag, connects, root, init } = sources;
        let claims = Arc::new(Claims::default());
        claims.listen(connects)?;
        Ok(Arc::new(Self {
            claims,
            diag: Mutex::new(diag.into()),
            surveyor: Arc::new(Surveyor::new(root.as_fd())?),
            root,
            ancestors: Ancestors::new(init),
            pins: Mutex::default(),
        }))
    }

    /// Listens to the programs of another launcher too.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn listen(&self, connects: OwnedFd) -> io::Result<()> {
        self.claims.listen(connects)
    }

    /// A program was started with this pid inside: chains of ancestors end at it.
    pub fn started(&self, pid: u32) {
        self.ancestors.started(pid);
    }

    /// The program that was started with this pid inside ended.
    pub fn ended(&self, pid: u32) {
        self.ancestors.ended(pid);
    }

    /// Finds and pins what a policy names; before the policy comes into force. Returns what the operator should know.
    ///
    /// # Errors
    /// [`PinError`]: the policy must not come into force.
    pub fn pin(&self, snapshot: &Snapshot) -> Result<Vec<String>, PinError> {
        let pins = Arc::new(Pins::resolve(&self.root, snapshot.binaries())?);
        let notices = pins.notices().to_vec();
        let mut all = lock(&self.pins);
        // A policy that was compiled and not taken gives its number to the next.
        all.retain(|(generation, _)| *generation != snapshot.generation());
        all.push_front((snapshot.generation(), pins));
        all.truncate(MAX_GENERATIONS);
        Ok(notices)
    }

    /// Who opened an accepted connection.
    fn find(&self, stream: &TcpStream) -> Result<Evidence, IdentityError> {
        let ended = |_| IdentityError::Unresolved("it ended at once");
        let (client, server) = (stream.peer_addr().map_err(ended)?, stream.local_addr().map_err(ended)?);
        let owner = lock(&self.diag).owner(Transport::Tcp, client, server);
        let Owner { inode, uid, .. } = match owner {
            Ok(Some(owner)) if owner.inode != 0 && owner.connected => owner,
            Ok(_) => return Err(IdentityError::Unresolved("nobody holds its socket")),
            Err(_) => return Err(IdentityError::Unresolved("the kernel does not show its socket")),
        };
        // Still open on this side, so no other socket can have got its addresses and be connected: a request left behind
        // in a connection that was reset is not the next one's.
        stream.peer_addr().map_err(ended)?;
        let Claim { process, fd, exe, at } = match self.claims.take(inode) {
            Claimed::One(claim) => claim,
            Claimed::Nobody => return Err(IdentityError::Unresolved("it was not opened by a connect that was seen")),
            Claimed::Several => return Err(IdentityError::Ambiguous),
        };
        let (path, inside) = (process.path_of(&exe), process.inside().unwrap_or_default());
        let script = script::of(process.pid, &path);
        let above = self.ancestors.of(&process);
        let watch = self.surveyor.watch(inode);
        let evidence = Evidence { process, inode, fd, exe, path, inside, uid, above, script, connected: at, watch };
        unchanged(&evidence)?;
        Ok(evidence)
    }

    /// What events say of a caller.
    fn process(&self, evidence: &Evidence) -> stockade_audit::Process {
        let newest = lock(&self.pins).front().map(|(_, pins)| Arc::clone(pins));
        let hash = newest.and_then(|pins| pins.named(&evidence.exe).next().map(|pin| pins::hex(&pin.sha256)));
        stockade_audit::Process {
            sha256: hash,
            script: evidence.script.clone(),
            ancestors: evidence.above.iter().flatten().map(|above| above.path.clone()).collect(),
            ..stockade_audit::Process::new(evidence.inside, evidence.path.clone(), evidence.uid)
        }
    }

    /// The caller in the words of one policy.
    fn caller(&self, evidence: &Evidence, generation: Generation) -> Caller {
        let pins = lock(&self.pins).iter().find(|(g, _)| *g == generation).map(|(_, p)| Arc::clone(p));
        let named = |exe: &FileState| -> Vec<Pin> { pins.iter().flat_map(|p| p.named(exe)).cloned().collect() };
        let matched = named(&evidence.exe);
        let ancestor = |above: &Above| {
            let (exe, matched) = words(named(&above.exe), &above.path);
            Ancestor { exe, matched }
        };
        Caller {
            sha256: matched.first().map(|pin| pin.sha256),
            ancestors: evidence.above.as_ref().map(|above| above.iter().map(ancestor).collect()),
            script: evidence.script.clone(),
            exe: matched.first().map_or_else(|| evidence.path.clone(), |pin| pin.path.clone()),
            matched: words(matched, "").1,
        }
    }

    /// The files that an endpoint lets hold its connections, as pinned for one policy.
    fn allowed(&self, snapshot: &Snapshot, callers: &Callers) -> Vec<FileState> {
        let pins = lock(&self.pins).iter().find(|(g, _)| *g == snapshot.generation()).map(|(_, p)| Arc::clone(p));
        let ids = (0..).zip(snapshot.binaries()).filter(|(_, binary)| callers.binaries.contains(binary));
        let ids: Vec<u32> = ids.map(|(id, _)| id).collect();
        pins.map_or_else(Vec::new, |pins| pins.files(&ids))
    }

    /// Whether the connection is still its opener's, and of no program that `allowed` leaves out: a helper that the
    /// opener starts inherits it.
    async fn recheck(&self, evidence: &Evidence, allowed: &[FileState]) -> Result<(), IdentityError> {
        unchanged(evidence)?;
        let holders = match self.surveyor.holders(&evidence.watch, evidence.connected).await {
            Ok(None) => return Ok(()),
            Ok(Some(holders)) => holders,
            Err(_) => return Err(IdentityError::Unresolved("the programs inside have too many files open to look at")),
        };
        let opener = Holder::Runs(evidence.exe);
        let may = |holder: &Holder| match holder {
            Holder::Runs(exe) => *exe == evidence.exe || allowed.contains(exe),
            Holder::Hidden => false,
        };
        match (holders.contains(&opener), holders.iter().all(may)) {
            (true, true) => unchanged(evidence),
            (_, false) => Err(IdentityError::Ambiguous),
            (false, true) => Err(IdentityError::Unresolved("its opener does not hold its socket")),
        }
    }

    async fn lost(&self, evidence: &Evidence, allowed: &[FileState]) -> IdentityError {
        tokio::time::sleep(FIRST_LOOK).await;
        loop {
            if let Err(error) = self.recheck(evidence, allowed).await {
                return error;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

fn words(named: Vec<Pin>, path: &str) -> (String, Vec<u32>) {
    let exe = named.first().map_or_else(|| path.to_owned(), |pin| pin.path.clone());
    let mut ids: Vec<u32> = named.into_iter().map(|pin| pin.id).collect();
    ids.sort_unstable();
    ids.dedup();
    (exe, ids)
}

/// The part that costs the same always: the opener lives, runs what it ran and holds the socket.
fn unchanged(evidence: &Evidence) -> Result<(), IdentityError> {
    let Evidence { process, inode, fd, exe, .. } = evidence;
    if !process.exe().is_ok_and(|now| now == *exe) || !process.alive() {
        return Err(IdentityError::Changed);
    }
    if !process.has(*fd, *inode) && !process.holds(*inode) {
        return Err(IdentityError::Unresolved("the program that opened it does not hold it any more"));
    }
    // After the last look, so that all of them were at this process.
    if process.alive() { Ok(()) } else { Err(IdentityError::Changed) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No value behind these locks is ever half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
