//! Every bound of the door, with its default. `docs/limits.md` says what happens at each.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use stockade_audit::Audit;
use stockade_tls::{Connector, Interceptor};
use tokio::sync::watch;

use crate::{door::Door, in_force::InForce, peer::Peers, resolver::Resolve};

/// The door's settings. [`Config::default`] is what runs unless a person says otherwise.
#[derive(Debug, Clone)]
pub struct Config {
    /// Connections served at once, over all front doors; the next one is closed at once.
    pub connections: usize,
    /// Request heads.
    pub head: HeadLimits,
    /// Connecting to an upstream.
    pub dial: DialLimits,
    /// Open connections.
    pub timers: Timers,
    /// The name server inside the sandbox.
    pub dns: DnsLimits,
    /// Ports on this machine's own addresses that belong to the supervisor (health, metrics, SSH). Never dialled.
    pub own_ports: BTreeSet<u16>,
}

/// Bounds of a request head and of chunked framing.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of request line and fields together.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
    /// Time from the first byte of a head, or from accepting the connection, to its end.
    pub time: Duration,
}

/// Bounds of resolving and dialling.
#[derive(Debug, Clone, Copy)]
pub struct DialLimits {
    /// One lookup, all retries included.
    pub resolve: Duration,
    /// Reaching any of the addresses.
    pub connect: Duration,
    /// Head start of one address over the next (RFC 8305, section 5).
    pub stagger: Duration,
    /// Addresses considered.
    pub addresses: usize,
}

/// Bounds of time on connections that are open.
#[derive(Debug, Clone, Copy)]
pub struct Timers {
    /// A kept-alive connection without a request.
    pub keep_alive: Duration,
    /// First bytes of a tunnel, from the first one to a complete ClientHello.
    pub opening: Duration,
    /// One TLS handshake, on either side.
    pub handshake: Duration,
    /// How long a refused transparent connection is listened to, to answer in its own protocol.
    pub refusal: Duration,
    /// No byte in either direction.
    pub idle: Duration,
    /// The same, once one direction has ended.
    pub half_closed: Duration,
    /// Any connection, busy or not.
    pub lifetime: Duration,
    /// From the end of a request head to the head of its response.
    pub response: Duration,
    /// What is open when the door closes may go on for this long.
    pub drain: Duration,
}

/// Bounds of the name server.
#[derive(Debug, Clone, Copy)]
pub struct DnsLimits {
    /// Names matched by wildcards that may hold an address at once. They are never given back.
    pub wildcard_names: u32,
    /// Names written out in a policy, over all its reloads.
    pub literal_names: u32,
    /// Seconds for which answers may be cached inside.
    pub ttl: u32,
    /// DNS over TCP connections at once.
    pub tcp_connections: usize,
    /// One DNS over TCP connection without a query.
    pub tcp_idle: Duration,
    /// Unknown or new wildcard names per minute before a `dns_volume` finding.
    pub alarm_per_minute: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: 16_384,
            head: HeadLimits { bytes: 32 * 1024, fields: 128, time: Duration::from_secs(10) },
            dial: DialLimits {
                resolve: Duration::from_secs(8),
                connect: Duration::from_secs(10),
                stagger: Duration::from_millis(250),
                addresses: 16,
            },
            timers: Timers {
                keep_alive: Duration::from_secs(60),
                opening: Duration::from_secs(10),
                handshake: Duration::from_secs(10),
                refusal: Duration::from_millis(250),
                idle: Duration::from_secs(3600),
                half_closed: Duration::from_secs(300),
                lifetime: Duration::from_secs(24 * 3600),
                response: Duration::from_secs(600),
                drain: Duration::from_secs(1),
            },
            dns: DnsLimits {
                wildcard_names: 16_384,
                literal_names: 114_000,
                ttl: 60,
                tcp_connections: 64,
                tcp_idle: Duration::from_secs(10),
                alarm_per_minute: 1_000,
            },
            own_ports: BTreeSet::new(),
        }
    }
}

/// What the door needs from the rest of the supervisor.
pub struct Deps {
    /// The policy in force; every decision borrows one snapshot.
    pub policy: watch::Receiver<Arc<InForce>>,
    /// Where events go.
    pub audit: Audit,
    /// Finds who opened a connection; `None` where the sandbox does not report it.
    pub peers: Option<Arc<Peers>>,
    /// Names to addresses, outside the sandbox.
    pub resolver: Arc<dyn Resolve>,
    /// TLS towards the command and towards origins.
    pub tls: Tls,
}

/// TLS of both sides.
#[derive(Debug)]
pub struct Tls {
    /// Certificates that the command is shown.
    pub interceptor: Interceptor,
    /// How origins are verified.
    pub connector: Connector,
}

impl Config {
    /// Puts the door together. Nothing is opened yet.
    #[must_use]
    pub fn build(self, deps: Deps) -> Door {
        Door::new(self, deps)
    }
}
