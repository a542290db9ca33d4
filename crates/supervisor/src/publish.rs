//! `publish`: whoever connects outside is connected to a server inside, dialled from the sandbox's own network.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stockade_audit::{Action, Audit, Event, Finding, Network};
use stockade_confine::plan::Plan;
use stockade_egress::InForce;
use stockade_policy::publish::{MAX_PUBLISHED, Publish, clash};
use stockade_types::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{error::Error, inside::Inside};

/// Connections at once, over all published ports.
const CONNECTIONS: usize = 512;
/// No byte in either direction.
const IDLE: Duration = Duration::from_secs(3600);
/// Between two looks at the clock of a connection.
const LOOK: Duration = Duration::from_secs(30);
/// Bytes held for one direction.
const CHUNK: usize = 16 * 1024;
/// How long connections may go on when everything inside has ended: what was sent last may still leave.
const DRAIN: Duration = Duration::from_secs(1);
/// Rest before accepting again when the machine has no descriptor or memory left.
const RECOVERY: Duration = Duration::from_millis(100);

/// Listeners outside, not yet served.
#[derive(Debug, Default)]
pub(crate) struct Published(Vec<(std::net::TcpListener, Publish)>);

/// Published ports that are served.
#[derive(Debug)]
pub(crate) struct Serving {
    task: JoinHandle<()>,
    closing: watch::Sender<bool>,
}

/// What connections share.
struct Shared {
    inside: Inside,
    audit: Audit,
    policy: watch::Receiver<Arc<InForce>>,
}

impl Published {
    /// Opens the listeners. The caller has one thread still.
    ///
    /// # Errors
    /// When there are too many, two want one address, an address cannot be had, or a port inside is the door's.
    pub(crate) fn open(wanted: &[Publish], plan: &Plan) -> Result<Self, Error> {
        let refuse = |why: String| Err(Error::Option(format!("{why}\nnothing was run")));
        if wanted.len() > MAX_PUBLISHED {
            return refuse(format!("publish: more than {MAX_PUBLISHED} ports"));
        }
        if let Some(twice) = clash(wanted) {
            return refuse(format!("publish: {} is published twice", twice.listen));
        }
        if let Some(own) = wanted.iter().find(|p| plan.door_ports().contains(&p.port.get())) {
            return refuse(format!("publish {own}: port {} inside is Stockade's own", own.port.get()));
        }
        let mut all = Vec::new();
        for publish in wanted {
            match std::net::TcpListener::bind(publish.listen) {
                Ok(listener) => all.push((listener, *publish)),
                Err(e) => {
                    return refuse(format!(
                        "publish: cannot listen on {}: {e}; choose another address or end what listens there",
                        publish.listen
                    ));
                }
            }
        }
        Ok(Self(all))
    }

    /// Ports that are never dialled from inside.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(|(_, p)| p.listen.port())
    }

    /// Serves from now on.
    pub(crate) fn serve(
        self,
        runtime: &Runtime,
        inside: Inside,
        audit: Audit,
        policy: watch::Receiver<Arc<InForce>>,
    ) -> Option<Serving> {
        if self.0.is_empty() {
            return None;
        }
        let shared = Arc::new(Shared { inside, audit, policy });
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let (closing, closed) = watch::channel(false);
        let task = runtime.spawn(async move {
            let mut listening = JoinSet::new();
            for (listener, publish) in self.0 {
                let front = Front { publish, shared: Arc::clone(&shared), room: Arc::clone(&room) };
                listening.spawn(front.serve(listener, closed.clone()));
            }
            while listening.join_next().await.is_some() {}
        });
        Some(Serving { task, closing })
    }
}

impl Serving {
    /// Takes nothing new and lets what is open end, within a bound. Everything inside has ended.
    pub(crate) async fn close(self) {
        self.closing.send_replace(true);
        // It panics only with a bug, which must not take the exit code with it.
        let _ = self.task.await;
    }
}

/// One published port.
struct Front {
    publish: Publish,
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
}

impl Front {
    /// Serves until `closed`; its connections have recorded their end when this returns.
    async fn serve(self, listener: std::net::TcpListener, mut closed: watch::Receiver<bool>) {
        let made = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let listener = match made {
            Ok(listener) => listener,
            Err(e) => {
                let detail = format!("publish {}: it cannot be served: {e}", self.publish);
                let finding = Finding { reason: Reason::LayerUnavailable, severity: 4, detail, count: 1 };
                return self.shared.audit.emit(Event::Finding(finding));
            }
        };
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closed.wait_for(|closed| *closed) => break,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, from)) => self.take(stream, from, &mut connections),
                Err(_) => tokio::time::sleep(RECOVERY).await,
            }
        }
        drop(listener);
        let rest = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, rest).await;
        connections.shutdown().await;
    }

    fn take(&self, stream: TcpStream, from: SocketAddr, connections: &mut JoinSet<()>) {
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(place) => {
                connections.spawn(connect(stream, from, self.publish, Arc::clone(&self.shared), place));
            }
            Err(_) => {
                let full = "too many connections to published ports at once";
                self.shared.refused(self.publish, from, (Action::Denied, Reason::Limit), full);
            }
        }
    }
}

async fn connect(
    outer: TcpStream,
    from: SocketAddr,
    publish: Publish,
    shared: Arc<Shared>,
    place: OwnedSemaphorePermit,
) {
    let inner = match shared.dial(publish).await {
        Ok(inner) => inner,
        Err(e) => {
            shared.refused(publish, from, (Action::Failed, Reason::UpstreamConnect), &format!("inside: {e}"));
            // Dropped with bytes unread it is reset, which is what a port without a server says.
            return;
        }
    };
    if outer.set_nodelay(true).and_then(|()| inner.set_nodelay(true)).is_err() {
        return;
    }
    let open = Open::new(&shared, publish, from);
    let ((outer_in, outer_out), (inner_in, inner_out)) = (outer.into_split(), inner.into_split());
    let both = async {
        // Who breaks off ends both.
        let _ = tokio::try_join!(
            pump(outer_in, inner_out, &open, &open.inward),
            pump(inner_in, outer_out, &open, &open.outward)
        );
    };
    tokio::select! {
        () = both => {}
        () = open.idle() => {}
    }
    drop(open);
    drop(place);
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, open: &Open, count: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..n).filter(|b| !b.is_empty()) else { return to.shutdown().await };
        to.write_all(bytes).await?;
        count.fetch_add(n as u64, Ordering::Relaxed);
        open.touch();
    }
}

impl Shared {
    /// Servers listen on either loopback address, or on all.
    async fn dial(&self, publish: Publish) -> io::Result<TcpStream> {
        let port = publish.port.get();
        match self.inside.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
            Ok(stream) => Ok(stream),
            Err(first) => self.inside.connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await.map_err(|_| first),
        }
    }

    fn event(&self, publish: Publish, from: SocketAddr, action: Action) -> Network {
        Network {
            addr: Some(Ipv4Addr::LOCALHOST.into()),
            port: Some(publish.port.get()),
            rule: Some(format!("publish {publish}")),
            detail: Some(format!("from {from}")),
            ..Network::new(action, "publish", self.policy.borrow().generation())
        }
    }

    fn refused(&self, publish: Publish, from: SocketAddr, (action, reason): (Action, Reason), why: &str) {
        let event = self.event(publish, from, action);
        let detail = Some(format!("from {from}: {why}"));
        self.audit.emit(Event::Network(Network { reason: Some(reason), detail, ..event }));
    }
}

/// An open connection: says so when made, and how much went through when dropped, however it ends.
struct Open {
    audit: Audit,
    closed: Network,
    begun: Instant,
    /// Milliseconds after `begun` at which the last byte went through.
    last: AtomicU64,
    inward: AtomicU64,
    outward: AtomicU64,
}

impl Open {
    fn new(shared: &Shared, publish: Publish, from: SocketAddr) -> Self {
        shared.audit.emit(Event::Network(shared.event(publish, from, Action::Allowed)));
        Self {
            audit: shared.audit.clone(),
            closed: shared.event(publish, from, Action::Closed),
            begun: Instant::now(),
            last: AtomicU64::new(0),
            inward: AtomicU64::new(0),
            outward: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn touch(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    async fn idle(&self) {
        while Duration::from_millis(self.now().saturating_sub(self.last.load(Ordering::Relaxed))) < IDLE {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut closed = self.closed.clone();
        closed.bytes_out = self.outward.load(Ordering::Relaxed);
        closed.bytes_in = self.inward.load(Ordering::Relaxed);
        closed.duration_ms = Some(self.now());
        self.audit.emit(Event::Network(closed));
    }
}
