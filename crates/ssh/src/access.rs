//! Who came in, and what they may do.

use std::net::SocketAddr;

/// What a login may ask for. Everything it starts has the command's rights, whoever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// A terminal.
    pub pty: bool,
    /// Connections to the sandbox's loopback.
    pub forwarding: bool,
    /// Only these: address (none: any) and port (none: any).
    pub permit_open: Option<Vec<PermitOpen>>,
    /// Runs instead of whatever is asked for.
    pub command: Option<String>,
}

/// One `permitopen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitOpen {
    /// `localhost` or a loopback address; none stands for each.
    pub host: Option<String>,
    /// None stands for each.
    pub port: Option<u16>,
}

impl Access {
    /// All that this server has to offer.
    #[must_use]
    pub fn full() -> Self {
        Self { pty: true, forwarding: true, permit_open: None, command: None }
    }

    /// Whether a connection to this loopback address, asked for by this name, is permitted.
    pub(crate) fn may_open(&self, host: &str, to: SocketAddr) -> bool {
        self.forwarding
            && self.permit_open.as_ref().is_none_or(|list| {
                list.iter().any(|p| {
                    let host_fits = p.host.as_deref().is_none_or(|h| h == host || h == to.ip().to_string());
                    host_fits && p.port.is_none_or(|port| port == to.port())
                })
            })
    }

    /// What both allow.
    pub(crate) fn and(self, other: &Self) -> Self {
        Self {
            pty: self.pty && other.pty,
            forwarding: self.forwarding && other.forwarding,
            permit_open: self.permit_open.or_else(|| other.permit_open.clone()),
            command: self.command.or_else(|| other.command.clone()),
        }
    }
}

/// Who came in.
#[derive(Debug, Clone)]
pub struct Login {
    /// The name given; it selects nothing, there is one user inside.
    pub user: String,
    /// Fingerprint of the key, or the certificate's id, serial number and authority.
    pub by: String,
    /// What may be asked for.
    pub access: Access,
}
