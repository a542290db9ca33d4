//! Programs that run inside besides the command, and connections to servers there. Both are made by init: a session
//! takes the command's own way to its start, and a socket belongs to the sandbox's network.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use stockade_audit::{Audit, Event as AuditEvent, ProcessActivity};
use stockade_confine::message::{ConnectId, Order, Outcome, Report, SessionId, Spawn, SpawnError, send};
use stockade_egress::InForce;
use stockade_sys::channel::Channel;
use stockade_types::LayerStatus;
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::{mpsc as events, oneshot, watch},
    time::timeout,
};

use crate::{callers::Callers, running::COMMAND};

/// Sessions at once.
const MAX_SESSIONS: usize = 1024;
/// Connections that init was asked for and has not begun.
const MAX_CONNECTS: usize = 1024;
/// How long a connection to the sandbox's loopback may take.
const DIAL: Duration = Duration::from_secs(10);
/// Between the hang-up of a session that nobody wants any more and KILL.
const GRACE: Duration = Duration::from_secs(5);
/// Arguments of a session kept for the log.
const MAX_ARGV: usize = 64;

/// What a session does.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// It is sealed and about to run.
    Started {
        /// The master end of its terminal, when it has one.
        terminal: Option<OwnedFd>,
    },
    /// It never ran; may follow `Started`.
    NotStarted(SpawnError),
    /// It ended.
    Ended(Outcome),
}

/// The inside of one sandbox. Clones are the same.
#[derive(Clone)]
pub(crate) struct Inside(Arc<Shared>);

struct Shared {
    orders: mpsc::Sender<(Order, Vec<OwnedFd>)>,
    open: Mutex<Open>,
    runtime: Handle,
    surroundings: Surroundings,
    audit: Audit,
    callers: Callers,
}

/// What every program inside finds when it starts.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Variables of the command that are not placeholders.
    pub(crate) environment: Vec<Vec<u8>>,
    /// Placeholders come from the policy in force.
    pub(crate) policy: watch::Receiver<Arc<InForce>>,
    /// Directory it starts in.
    pub(crate) cwd: PathBuf,
    /// Who it runs as.
    pub(crate) uid: u32,
    /// Ports of its loopback that Stockade itself serves.
    pub(crate) door_ports: [u16; 3],
}

/// What waits for an answer of init.
#[derive(Debug, Default)]
struct Open {
    next: u32,
    sessions: BTreeMap<SessionId, Held>,
    connects: BTreeMap<ConnectId, oneshot::Sender<io::Result<OwnedFd>>>,
    /// Init is gone.
    closed: bool,
}

#[derive(Debug)]
struct Held {
    events: events::UnboundedSender<SessionEvent>,
    argv: Vec<String>,
    pid: Option<u32>,
    /// Nobody wants it any more.
    dropped: bool,
}

/// One program inside. Dropped before its end, it is hung up, and killed a while later.
pub(crate) struct Session {
    id: SessionId,
    inside: Inside,
}

/// What a session does, in order; the end of the stream without an end means that the sandbox is gone.
pub(crate) type SessionEvents = events::UnboundedReceiver<SessionEvent>;

impl Surroundings {
    /// The environment, sorted, with the placeholders of the policy's credentials: over everything else, because no
    /// program inside must have what they stand for.
    pub(crate) fn environment(&self) -> Vec<Vec<u8>> {
        let mut all = self.environment.clone();
        let credentials = self.policy.borrow().credentials.clone();
        for (name, placeholder) in credentials.iter().flat_map(|c| c.environment()) {
            let begin = format!("{name}=").into_bytes();
            all.retain(|variable| !variable.starts_with(&begin));
            all.push([&begin, placeholder.as_bytes()].concat());
        }
        all.sort();
        all
    }
}

impl Inside {
    /// Orders go out over `channel` on a thread of their own, so that nobody here waits for init.
    pub(crate) fn start(
        channel: &Channel,
        runtime: Handle,
        surroundings: Surroundings,
        audit: Audit,
        callers: Callers,
    ) -> io::Result<Self> {
        let channel = Channel::from(channel.as_fd().try_clone_to_owned()?);
        let (orders, queue) = mpsc::channel::<(Order, Vec<OwnedFd>)>();
        thread::Builder::new().name("init-orders".to_owned()).stack_size(256 * 1024).spawn(move || {
            for (order, fds) in queue {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                // Init is gone; who listens to its reports says so.
                if send(&channel, &order, &fds).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self(Arc::new(Shared { orders, open: Mutex::default(), runtime, surroundings, audit, callers })))
    }

    /// What a session should find, if it is to be like the command.
    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.0.surroundings
    }

    /// Starts a program the way the command was started. `fds` are what [`Stdio::Given`] stands for, in order.
    ///
    /// [`Stdio::Given`]: stockade_confine::message::Stdio::Given
    ///
    /// # Errors
    /// When there are too many, or the sandbox is gone. Why a program does not start is an event of the session.
    pub(crate) fn spawn(&self, spawn: Spawn, fds: Vec<OwnedFd>) -> io::Result<(Session, SessionEvents)> {
        let (sender, events) = events::unbounded_channel();
        let id = {
            let mut open = self.open()?;
            if open.sessions.len() >= MAX_SESSIONS {
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many sessions in this sandbox"));
            }
            let argv = spawn.argv.iter().take(MAX_ARGV).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
            let id = open.fresh();
            open.sessions.insert(id, Held { events: sender, argv, pid: None, dropped: false });
            id
        };
        let session = Session { id, inside: self.clone() };
        self.order(Order::Spawn(id, spawn), fds)?;
        Ok((session, events))
    }

    /// Connects to a server of the sandbox, from its own network.
    ///
    /// # Errors
    /// What init or the kernel says: nobody listens, not an address of the loopback, a port of the door; or the time
    /// was up.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let (id, answer) = {
            let (sender, answer) = oneshot::channel();
            let mut open = self.open()?;
            open.connects.retain(|_, waiting| !waiting.is_closed());
            if open.connects.len() >= MAX_CONNECTS {
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections at once"));
            }
            let id = open.fresh();
            open.connects.insert(id, sender);
            (id, answer)
        };
        self.order(Order::Connect(id, to), Vec::new())?;
        let dial = async {
            let socket = answer.await.map_err(|_| gone())??;
            let stream = TcpStream::from_std(std::net::TcpStream::from(socket))?;
            stream.writable().await?;
            stream.take_error()?.map_or(Ok(stream), Err)
        };
        timeout(DIAL, dial).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Takes what concerns sessions and connections out of init's reports; everything else is the command's.
    pub(crate) fn heard(&self, report: Report, fds: Vec<OwnedFd>) -> Option<(Report, Vec<OwnedFd>)> {
        match report {
            Report::Spawned(id, pid, layers) if id != COMMAND => self.started(id, pid, &layers, fds),
            Report::NotSpawned(id, e) if id != COMMAND => self.over(id, SessionEvent::NotStarted(e)),
            Report::Ended(id, outcome) if id != COMMAND => self.over(id, SessionEvent::Ended(outcome)),
            // A session is continued by who stopped it.
            Report::Stopped(id, _) if id != COMMAND => {}
            Report::Connecting(id, answer) => {
                if let Some(waiting) = self.lock().connects.remove(&id) {
                    let socket = fds.into_iter().next().ok_or_else(gone);
                    // Who asked does not wait any more.
                    let _ = waiting.send(answer.map_err(io::Error::other).and(socket));
                }
            }
            other => return Some((other, fds)),
        }
        None
    }

    /// Init is gone: every session learns it, and there will be no other.
    pub(crate) fn close(&self) {
        let mut open = self.lock();
        open.closed = true;
        open.sessions.clear();
        open.connects.clear();
    }

    fn started(&self, id: SessionId, pid: i32, layers: &[LayerStatus], fds: Vec<OwnedFd>) {
        tracing::debug!(id, pid, ?layers, "a session starts");
        self.0.callers.started(pid);
        let mut open = self.lock();
        let Some(held) = open.sessions.get_mut(&id) else { return };
        let number = u32::try_from(pid).unwrap_or_default();
        held.pid = Some(number);
        self.record(true, number, std::mem::take(&mut held.argv), None);
        if held.dropped {
            // Its hang-up came before there was anybody to hang up on.
            let _ = self.order(Order::Signal(id, Signal::SIGKILL as i32), Vec::new());
        }
        // Nobody listens when the session was dropped; its end is on its way.
        let _ = held.events.send(SessionEvent::Started { terminal: fds.into_iter().next() });
    }

    fn over(&self, id: SessionId, event: SessionEvent) {
        let Some(held) = self.lock().sessions.remove(&id) else { return };
        if let Some(pid) = held.pid {
            self.0.callers.ended(pid);
            let exit = match &event {
                SessionEvent::Ended(outcome) => outcome.code(),
                _ => 126,
            };
            self.record(false, pid, Vec::new(), Some(exit));
        }
        let _ = held.events.send(event);
    }

    fn record(&self, launched: bool, pid: u32, argv: Vec<String>, exit: Option<i32>) {
        let uid = self.0.surroundings.uid;
        self.0.audit.emit(AuditEvent::Process(ProcessActivity { launched, pid, argv, uid, exit }));
    }

    fn open(&self) -> io::Result<MutexGuard<'_, Open>> {
        let open = self.lock();
        if open.closed { Err(gone()) } else { Ok(open) }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order, fds: Vec<OwnedFd>) -> io::Result<()> {
        self.0.orders.send((order, fds)).map_err(|_| gone())
    }
}

impl Open {
    /// A number that stands for nothing yet; never the command's.
    fn fresh(&mut self) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1);
            let id = self.next;
            if id != COMMAND && !self.sessions.contains_key(&id) && !self.connects.contains_key(&id) {
                return id;
            }
        }
    }
}

impl Session {
    /// Signals its process group; one that ended is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        self.inside.signal(self.id, signal);
    }
}

impl Inside {
    fn signal(&self, id: SessionId, signal: Signal) {
        if self.lock().sessions.contains_key(&id) {
            // Fails when init is gone, and everything inside with it.
            let _ = self.order(Order::Signal(id, signal as i32), Vec::new());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (id, inside) = (self.id, self.inside.clone());
        match inside.lock().sessions.get_mut(&id) {
            Some(held) => held.dropped = true,
            None => return,
        }
        inside.signal(id, Signal::SIGHUP);
        // A stopped program acts on it only once it runs again.
        inside.signal(id, Signal::SIGCONT);
        let runtime = inside.0.runtime.clone();
        runtime.spawn(async move {
            tokio::time::sleep(GRACE).await;
            inside.signal(id, Signal::SIGKILL);
        });
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the sandbox is gone")
}
