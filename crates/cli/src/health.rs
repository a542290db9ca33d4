//! `health`: how a running sandbox is, for whoever restarts or watches it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use stockade_supervisor::{Ask, ask};

use crate::{Failure, args::HealthArgs};

/// Ends with 0 when the sandbox is ready, else with 1 and what keeps it from that.
pub(crate) fn run(args: &HealthArgs) -> Result<u8, Failure> {
    let asked = if args.live { Ask::Live } else { Ask::Ready };
    // An engine restarts what is not healthy: whoever cannot be asked is not.
    let (yes, text) =
        ask(reachable(args.address), asked, args.timeout).unwrap_or_else(|e| (false, format!("stockade: {e}")));
    println!("{}", stockade_types::EscapedLines(&text));
    Ok(u8::from(!yes))
}

/// Where to dial what listens everywhere.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
