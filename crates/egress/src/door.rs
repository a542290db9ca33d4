//! The door as a whole: its listeners, what its connections share, and how many there are.

use std::{
    future::Future,
    io, net,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use stockade_audit::Audit;
use stockade_policy::Door as Front;
use stockade_tls::Minted;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    alarm::Alarm,
    config::{Config, Deps, Tls},
    dns::{self, pool::Pool, volume::Volume},
    http::{self, message::Room, rate::Rates, session, stream::Stream},
    in_force::InForce,
    peer::{Client, Peers},
    record::{self, Facts},
    relay::Pipes,
    rescue::Refusal,
    resolver::Resolve,
    transparent,
    upstream::{Origins, Slot},
};

/// How often connections at rest are looked through.
const SWEEP: Duration = Duration::from_secs(10);

/// Rest before accepting again when the machine has no descriptor or memory for a connection.
const RECOVERY: Duration = Duration::from_millis(20);

/// Descriptors set aside for one connection: its two ends, and a share of pipes, lookups and dials.
const PER_CONNECTION: usize = 3;

/// Sockets made inside the sandbox, served from outside.
#[derive(Debug)]
pub struct Listeners {
    /// The proxy that the environment names.
    pub proxy: net::TcpListener,
    /// Direct connections; the local address of each is where it wanted to go.
    pub transparent: Vec<net::TcpListener>,
    /// The name server.
    pub dns_udp: Vec<net::UdpSocket>,
    /// The name server over TCP.
    pub dns_tcp: Vec<net::TcpListener>,
}

/// Why the door stopped serving. Everything inside is cut off by then.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A descriptor is not a socket that can be served.
    #[error("cannot serve the {what} socket: {source}")]
    Socket {
        /// Which.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A listener failed while serving.
    #[error("the {what} socket failed: {source}")]
    Failed {
        /// Which.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Connections, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Open now.
    pub active: usize,
    /// Accepted so far.
    pub total: u64,
    /// Refusals so far, of connections and of requests.
    pub denied: u64,
    /// Connections that may be open at once.
    pub places: usize,
    /// DNS questions so far.
    pub questions: u64,
    /// Bytes of request bodies and of their answers' so far, where requests are judged.
    pub bodies: (u64, u64),
}

/// Bytes of bodies, in both directions.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    pub(crate) out: AtomicU64,
    pub(crate) back: AtomicU64,
}

/// What connections share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) policy: watch::Receiver<Arc<InForce>>,
    pub(crate) audit: Audit,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) peers: Option<Arc<Peers>>,
    pub(crate) pool: Pool,
    pub(crate) volume: Volume,
    pub(crate) pipes: Pipes,
    pub(crate) tls: Tls,
    pub(crate) origins: Origins,
    pub(crate) rates: Rates,
    pub(crate) room: Room,
    /// Certificates that were refused.
    pub(crate) unminted: Alarm,
    /// Connections that may be open at once.
    places: usize,
    /// The same towards origins, but for those that a tunnel has to itself: one client may use many.
    origin_slots: Arc<Semaphore>,
    active: AtomicUsize,
    /// Nothing is accepted any more.
    closing: watch::Sender<bool>,
    total: AtomicU64,
    denied: AtomicU64,
    pub(crate) questions: AtomicU64,
    pub(crate) bodies: Arc<Bodies>,
}

impl Shared {
    /// The policy in force.
    pub(crate) fn policy(&self) -> Arc<InForce> {
        Arc::clone(&self.policy.borrow())
    }

    /// A place for a connection to an origin. Those that rest make room for one that is needed.
    pub(crate) fn origin_slot(&self) -> Result<Slot, Refusal> {
        let take = || Arc::clone(&self.origin_slots).try_acquire_owned();
        let slot = take().or_else(|_| {
            self.origins.clear();
            take()
        });
        slot.map(Arc::new).map_err(|_| Refusal::Busy)
    }

    pub(crate) fn count_refusal(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }
}

/// The door. Cheap to clone; all clones are the same door.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

impl Door {
    pub(crate) fn new(config: Config, deps: Deps) -> Self {
        let Deps { policy, audit, peers, resolver, tls } = deps;
        let pool = Pool::new(config.dns.literal_names, config.dns.wildcard_names);
        let places = config.connections.min(descriptors() / PER_CONNECTION);
        Self(Arc::new(Shared {
            places,
            origin_slots: Arc::new(Semaphore::new(places)),
            config: Arc::new(config),
            policy,
            audit,
            resolver,
            peers,
            tls,
            pool,
            volume: Volume::default(),
            pipes: Pipes::default(),
            origins: Origins::default(),
            rates: Rates::default(),
            room: Room::default(),
            unminted: Alarm::new(),
            active: AtomicUsize::new(0),
            closing: watch::Sender::new(false),
            total: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            questions: AtomicU64::new(0),
            bodies: Arc::default(),
        }))
    }

    /// How many connections there are and were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            active: self.0.active.load(Ordering::Relaxed),
            total: self.0.total.load(Ordering::Relaxed),
            denied: self.0.denied.load(Ordering::Relaxed),
            places: self.0.places,
            questions: self.0.questions.load(Ordering::Relaxed),
            bodies: (self.0.bodies.out.load(Ordering::Relaxed), self.0.bodies.back.load(Ordering::Relaxed)),
        }
    }

    /// Certificates that the command was shown, in numbers.
    #[must_use]
    pub fn minted(&self) -> Minted {
        self.0.tls.interceptor.minted()
    }

    /// How often a certificate was at hand already.
    #[must_use]
    pub fn certificates_kept(&self) -> u64 {
        self.0.tls.interceptor.kept()
    }

    /// Serves until `shutdown` resolves or a listener fails; either way every connection is closed on return. After
    /// `shutdown` nothing more is accepted, and what is open may come to its end for [`Timers::drain`].
    ///
    /// [`Timers::drain`]: crate::config::Timers::drain
    ///
    /// # Errors
    /// When a socket cannot be served.
    pub async fn serve(&self, listeners: Listeners, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let mut tasks: JoinSet<Result<(), ServeError>> = JoinSet::new();
        self.spawn_all(listeners, &mut tasks)?;
        tokio::select! {
            () = shutdown => {
                self.drain(tasks).await;
                Ok(())
            }
            ended = tasks.join_next() => match ended {
                Some(Ok(result)) => result,
                Some(Err(e)) => Err(ServeError::Failed { what: "listening", source: io::Error::other(e) }),
                None => Ok(()),
            },
        }
    }

    async fn drain(&self, mut tasks: JoinSet<Result<(), ServeError>>) {
        self.0.closing.send_replace(true);
        // A listener that fails now is closed all the same.
        while tasks.join_next().await.is_some() {}
    }

    fn spawn_all(&self, listeners: Listeners, tasks: &mut JoinSet<Result<(), ServeError>>) -> Result<(), ServeError> {
        let shared = &self.0;
        let proxy = tcp("proxy", listeners.proxy)?;
        tasks.spawn(Arc::clone(shared).accept_all(proxy, Front::Forward));
        for listener in listeners.transparent {
            let listener = tcp("transparent", listener)?;
            tasks.spawn(Arc::clone(shared).accept_all(listener, Front::Transparent));
        }
        let origins = Arc::clone(shared);
        tasks.spawn(async move {
            let mut closing = origins.closing.subscribe();
            while tokio::time::timeout(SWEEP, closing.wait_for(|closing| *closing)).await.is_err() {
                origins.origins.sweep();
            }
            Ok(())
        });
        let dns = dns::Server::new(Arc::clone(shared));
        for listener in listeners.dns_tcp {
            let (server, listener) = (Arc::clone(&dns), tcp("DNS over TCP", listener)?);
            tasks.spawn(Arc::clone(shared).until_closing("DNS over TCP", server.tcp(listener)));
        }
        for socket in listeners.dns_udp {
            let (server, socket) = (Arc::clone(&dns), udp(socket)?);
            tasks.spawn(Arc::clone(shared).until_closing("DNS", server.udp(socket)));
        }
        Ok(())
    }
}

fn tcp(what: &'static str, listener: net::TcpListener) -> Result<TcpListener, ServeError> {
    let made = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    made.map_err(|source| ServeError::Socket { what, source })
}

fn udp(socket: net::UdpSocket) -> Result<UdpSocket, ServeError> {
    let made = socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket));
    made.map_err(|source| ServeError::Socket { what: "DNS", source })
}

impl Shared {
    /// Accepts for ever. Its connections end with it.
    async fn accept_all(self: Arc<Self>, listener: TcpListener, front: Front) -> Result<(), ServeError> {
        let what = if front == Front::Transparent { "transparent" } else { "proxy" };
        let mut connections = JoinSet::new();
        let mut closing = self.closing.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener) => accepted,
                _ = closing.wait_for(|closing| *closing) => break,
            };
            let (stream, _) = accepted.map_err(|source| ServeError::Failed { what, source })?;
            while connections.try_join_next().is_some() {}
            let number = self.total.fetch_add(1, Ordering::Relaxed) + 1;
            let Some(place) = Place::take(&self) else {
                self.turn_away(front);
                continue;
            };
            connections.spawn(serve(place, stream, front, number));
        }
        drop(listener);
        let rest = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.config.timers.drain, rest).await;
        // Who is cut off has recorded its end when this returns.
        connections.shutdown().await;
        Ok(())
    }

    /// Serves as long as the door is open.
    async fn until_closing(
        self: Arc<Self>,
        what: &'static str,
        served: impl Future<Output = io::Result<()>>,
    ) -> Result<(), ServeError> {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            ended = served => ended.map_err(|source| ServeError::Failed { what, source }),
            _ = closing.wait_for(|closing| *closing) => Ok(()),
        }
    }

    fn turn_away(&self, front: Front) {
        self.count_refusal();
        let generation = self.policy().generation();
        let facts = Facts { door: front, intent: None, permit: None, client: None, generation };
        self.audit.emit(record::refusal(facts, &Refusal::Busy));
    }
}

/// Descriptors that this process may open now.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)
}

/// One of the places for connections.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        if shared.active.fetch_add(1, Ordering::Relaxed) >= shared.places {
            shared.active.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(place: Place, stream: TcpStream, front: Front, number: u64) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let shared = Arc::clone(&place.0);
    // At once, while the connection is the only one that can have its addresses.
    let named = !shared.policy().binaries().is_empty();
    let client = Client::of(&stream, shared.peers.as_ref().filter(|_| named)).numbered(number);
    match front {
        // Boxed, so that a connection of one kind does not keep the room that the other needs.
        Front::Transparent => Box::pin(transparent::serve(shared, stream, client)).await,
        Front::Connect | Front::Forward => {
            http::serve(shared, Stream::Tcp(stream), &[], session::Front::Proxy(client)).await;
        }
    }
    drop(place);
}

/// Accepts one connection. What concerns only one connection, or passes, is not an error of the listener.
pub(crate) async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, net::SocketAddr)> {
    loop {
        match listener.accept().await {
            Ok(accepted) => return Ok(accepted),
            Err(e) => match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::CONNABORTED | rustix::io::Errno::PROTO | rustix::io::Errno::INTR) => {}
                Some(
                    rustix::io::Errno::MFILE
                    | rustix::io::Errno::NFILE
                    | rustix::io::Errno::NOBUFS
                    | rustix::io::Errno::NOMEM,
                ) => tokio::time::sleep(RECOVERY).await,
                _ => return Err(e),
            },
        }
    }
}
