//! Where a permitted connection may really go: resolved once, every address judged, the judged address dialled.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use stockade_policy::Permit;
use stockade_types::{AddressClass, Cidr, Host, HostName, Port, Reason};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    config::{Config, DialLimits},
    resolver::{Resolve, ResolveError},
};

mod dial;

/// Ports of etcd, the Kubernetes API server and the kubelet: never on a private address, whatever a policy lists.
const CONTROL_PLANE: [u16; 4] = [2379, 2380, 6443, 10_250];

/// Names of metadata services. Their addresses are refused too; the names, so that no resolver learns of the try.
const METADATA_NAMES: [&str; 3] = ["metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"];

/// Why a permitted destination is not dialled, or was not reached.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DestinationError {
    /// A safety rule that no policy lifts, or that this endpoint does not lift.
    #[error("{}", .0.text())]
    Blocked(Block, Option<IpAddr>),
    /// No addresses.
    #[error("cannot resolve the host: {0}")]
    Resolve(#[from] ResolveError),
    /// No connection in time.
    #[error("the host did not answer within the connect timeout")]
    ConnectTimeout,
    /// Every address refused.
    #[error("cannot connect to the host: {0}")]
    Connect(String),
}

/// The safety rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Block {
    /// A private address that the endpoint's `private_addresses` does not hold.
    Internal,
    /// A control-plane port on a private address.
    ControlPlane,
    /// The supervisor itself.
    Own,
    /// Loopback, unspecified, link-local, multicast, reserved, or IPv4 hidden in IPv6.
    Always,
    /// A metadata service.
    Metadata,
}

impl Block {
    /// The stable code.
    #[must_use]
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Internal => Reason::SsrfInternal,
            Self::ControlPlane => Reason::ControlPlanePort,
            Self::Own => Reason::SsrfSelf,
            Self::Always => Reason::SsrfAlwaysBlocked,
            Self::Metadata => Reason::SsrfMetadata,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Internal => "the host is at a private address that the endpoint's private_addresses does not list",
            Self::ControlPlane => "the port belongs to a cluster control plane and the address is private",
            Self::Own => "the destination is the supervisor itself",
            Self::Always => "the host is at a loopback, link-local or reserved address, which no policy can allow",
            Self::Metadata => "the host is a cloud metadata service, which no policy can allow",
        }
    }
}

/// Addresses that passed every check, in the order to try them. Only [`resolve`] makes one.
#[derive(Debug, Clone)]
pub(crate) struct Destination(Vec<SocketAddr>);

/// Judges a host before anything else does: what no policy can allow is refused as that, and not with advice on how
/// to allow it.
///
/// # Errors
/// For literals and names that are never dialled.
pub(crate) fn precheck(host: &Host) -> Result<(), DestinationError> {
    match host {
        Host::Addr(addr) => match AddressClass::of(*addr) {
            AddressClass::Global | AddressClass::Private => Ok(()),
            class => Err(never(class, *addr)),
        },
        Host::Name(name) => match reserved(name) {
            Some(block) => Err(DestinationError::Blocked(block, None)),
            None => Ok(()),
        },
    }
}

fn never(class: AddressClass, addr: IpAddr) -> DestinationError {
    let block = if class == AddressClass::Metadata { Block::Metadata } else { Block::Always };
    DestinationError::Blocked(block, Some(addr))
}

/// Names that stand for this machine (RFC 6761) or for a metadata service.
fn reserved(name: &HostName) -> Option<Block> {
    if METADATA_NAMES.contains(&name.as_str()) {
        return Some(Block::Metadata);
    }
    let last = name.labels().next_back();
    (last == Some("localhost") || name.as_str() == "localhost.localdomain").then_some(Block::Always)
}

/// Resolves the permitted host once and keeps the addresses that may be dialled.
///
/// # Errors
/// When there are no addresses, or none that may be dialled.
pub(crate) async fn resolve(
    permit: &Permit,
    resolver: &dyn Resolve,
    config: &Config,
) -> Result<Destination, DestinationError> {
    precheck(permit.host())?;
    let addrs = match permit.host() {
        Host::Addr(addr) => vec![*addr],
        Host::Name(name) => match timeout(config.dial.resolve, resolver.resolve(name)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(ResolveError::Timeout.into()),
        },
    };
    vet(&addrs, permit.port(), &permit.terms().private_addresses, config)
}

fn vet(addrs: &[IpAddr], port: Port, private: &[Cidr], config: &Config) -> Result<Destination, DestinationError> {
    let mut good: Vec<SocketAddr> = Vec::new();
    let mut worst: Option<(Block, IpAddr)> = None;
    for addr in addrs.iter().take(config.dial.addresses) {
        match judge(*addr, port, private, config) {
            Ok(addr) if good.iter().any(|g| g.ip() == addr) => {}
            Ok(addr) => good.push(SocketAddr::new(addr, port.get())),
            Err(block) if worst.is_none_or(|(w, _)| w < block) => worst = Some((block, *addr)),
            Err(_) => {}
        }
    }
    match (good.is_empty(), worst) {
        (false, _) => Ok(Destination(dial::interleave(good))),
        (true, Some((block, addr))) => Err(DestinationError::Blocked(block, Some(addr))),
        (true, None) => Err(ResolveError::NoAddress.into()),
    }
}

/// Whether an address that was dialled under an earlier permit could still be dialled under this one.
pub(crate) fn may_stay(addr: IpAddr, permit: &Permit, config: &Config) -> bool {
    judge(addr, permit.port(), &permit.terms().private_addresses, config).is_ok()
}

/// One address: its canonical form, or the rule against it.
fn judge(addr: IpAddr, port: Port, private: &[Cidr], config: &Config) -> Result<IpAddr, Block> {
    // IPv4-mapped IPv6 is IPv4 from here on; every other embedding is refused by its class.
    let addr = addr.to_canonical();
    match AddressClass::of(addr) {
        AddressClass::Global => {}
        AddressClass::Private if CONTROL_PLANE.contains(&port.get()) => return Err(Block::ControlPlane),
        AddressClass::Private if private.iter().any(|c| c.contains(addr)) => {}
        AddressClass::Private => return Err(Block::Internal),
        AddressClass::Metadata => return Err(Block::Metadata),
        AddressClass::Loopback | AddressClass::Unusable => return Err(Block::Always),
    }
    if config.own_ports.contains(&port.get()) && is_this_machine(addr) {
        return Err(Block::Own);
    }
    Ok(addr)
}

/// Whether an address is this machine's: only such an address can be bound.
fn is_this_machine(addr: IpAddr) -> bool {
    UdpSocket::bind((addr, 0)).is_ok()
}

impl Destination {
    /// Connects to the first address that answers (RFC 8305). The name is not looked up again.
    ///
    /// # Errors
    /// When none answers in time.
    pub(crate) async fn dial(&self, limits: &DialLimits) -> Result<TcpStream, DestinationError> {
        let stream = match timeout(limits.connect, dial::race(&self.0, limits.stagger)).await {
            Err(_) => return Err(DestinationError::ConnectTimeout),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::TimedOut => return Err(DestinationError::ConnectTimeout),
            Ok(Err(e)) => return Err(DestinationError::Connect(describe(&e))),
            Ok(Ok(stream)) => stream,
        };
        let broken = |e: std::io::Error| DestinationError::Connect(describe(&e));
        let (local, peer) = (stream.local_addr().map_err(broken)?, stream.peer_addr().map_err(broken)?);
        if local == peer {
            // TCP simultaneous open: a port of this machine that nobody listens on connected to itself.
            return Err(DestinationError::Blocked(Block::Own, Some(peer.ip())));
        }
        stream.set_nodelay(true).map_err(broken)?;
        Ok(stream)
    }
}

/// What the kernel said, without addresses.
fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "host unreachable".into(),
        std::io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests;
