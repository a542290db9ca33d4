//! The fence: what leaves a process goes to the sandbox's own loopback, to the door, or is refused and logged.
//!
//! It tracks no connections. Every address is local and answers go to loopback (see [`crate::netns`]), so stateless
//! rules suffice; a connection table would be a bound that the command could fill, in memory no limit counts.

mod expression;
mod iptables;
mod nftables;
mod rules;

use std::{collections::BTreeSet, fmt};

use stockade_sys::netlink;
use stockade_types::Enforcement;

/// Most transparent ports: all elements must fit one netlink message.
pub const MAX_PORTS: usize = 2048;

/// What the fence lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// TCP ports that belong to the door on every address but loopback.
    pub transparent_ports: BTreeSet<u16>,
    /// Port of the transparent listeners, one per family.
    pub private_port: u16,
    /// NFLOG group of refused packets.
    pub group: u16,
}

/// How transparent connections reach the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `tproxy` hands them to one listener per family on the private port.
    Tproxy,
    /// Without `tproxy`: a listener per transparent port and family, so the command cannot serve these ports itself.
    Listeners,
}

/// What programs the fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// nf_tables, by system calls alone.
    #[default]
    Nftables,
    /// nf_tables; where the kernel lacks it, ip_tables by the host's `iptables-restore`. Never where that program
    /// comes out of a container's image.
    NftablesElseIptables,
    /// ip_tables, even where nf_tables is there.
    Iptables,
}

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The kernel lacks something the fence is made of.
    #[error("fence: {what} is not available: {hint}")]
    Unavailable {
        /// What is missing.
        what: String,
        /// The way out.
        hint: &'static str,
    },
    /// The specification contradicts itself.
    #[error("fence: {0}")]
    Spec(String),
    /// The kernel refused.
    #[error("fence: {0}")]
    Netlink(#[from] netlink::Error),
    /// It was installed, but what the kernel has is something else.
    #[error("fence: not as it was installed: {0}")]
    Drift(#[from] Drift),
}

/// How the fence differs from what was installed.
#[derive(Debug, thiserror::Error)]
pub enum Drift {
    /// It is gone.
    #[error("table `stockade` does not exist")]
    Gone,
    /// Something that is not of the fence.
    #[error("{0} is not of the fence")]
    Foreign(String),
    /// Something differs or is missing.
    #[error("{0} is missing or altered")]
    Altered(String),
    /// The set of transparent ports differs.
    #[error("transparent ports are {found:?}")]
    Ports {
        /// What the kernel has.
        found: BTreeSet<u16>,
    },
    /// It could not be read.
    #[error("{0}")]
    Unreadable(#[from] netlink::Error),
}

/// What the fence has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets refused, logged or not.
    pub refused: u64,
}

/// An installed fence. The rules live as long as the network namespace; dropping this only forgets them.
#[derive(Debug)]
pub struct Fence {
    spec: Spec,
    mode: Mode,
    kernel: Kernel,
}

#[derive(Debug)]
enum Kernel {
    Nftables(nftables::Table),
    Iptables(iptables::Tables),
}

/// Installs the fence by nf_tables in the calling thread's network namespace in one transaction, reads it back and
/// compares.
///
/// # Errors
/// Nothing is left installed unless the error is [`FenceError::Drift`].
pub fn install(spec: &Spec) -> Result<Fence, FenceError> {
    install_with(spec, Backend::Nftables)
}

/// Installs the fence by a back end of choice. iptables is run before the mount view exists, and writes one address
/// family after the other.
///
/// # Errors
/// As [`install`]; with iptables the first family may be left installed.
pub fn install_with(spec: &Spec, backend: Backend) -> Result<Fence, FenceError> {
    spec.check()?;
    let (mode, kernel) = match backend {
        Backend::Nftables => with_nftables(spec)?,
        Backend::Iptables => with_iptables(spec)?,
        Backend::NftablesElseIptables => match with_nftables(spec) {
            Err(FenceError::Unavailable { what, .. }) if what == nftables::NF_TABLES => with_iptables(spec)?,
            other => other?,
        },
    };
    let mut fence = Fence { spec: spec.clone(), mode, kernel };
    fence.verify()?;
    Ok(fence)
}

fn with_nftables(spec: &Spec) -> Result<(Mode, Kernel), FenceError> {
    let mut table = nftables::Table::open()?;
    let mode = match table.install(spec, Mode::Tproxy) {
        Ok(()) => Mode::Tproxy,
        Err(FenceError::Unavailable { what, .. }) if what == nftables::TPROXY => {
            table.install(spec, Mode::Listeners)?;
            Mode::Listeners
        }
        Err(e) => return Err(e),
    };
    Ok((mode, Kernel::Nftables(table)))
}

fn with_iptables(spec: &Spec) -> Result<(Mode, Kernel), FenceError> {
    let v6 = crate::netns::has_ipv6();
    // Its tools do not say what the kernel lacks; if it was not TPROXY, the second attempt fails as well.
    let (mode, tables) = match iptables::Tables::install(spec, Mode::Tproxy, v6) {
        Ok(tables) => (Mode::Tproxy, tables),
        Err(FenceError::Unavailable { .. }) => (Mode::Listeners, iptables::Tables::install(spec, Mode::Listeners, v6)?),
        Err(e) => return Err(e),
    };
    Ok((mode, Kernel::Iptables(tables)))
}

impl Spec {
    fn check(&self) -> Result<(), FenceError> {
        if self.private_port == 0 || self.group == 0 {
            return Err(FenceError::Spec("private port and log group must not be 0".to_owned()));
        }
        check_ports(&self.transparent_ports, self.private_port)
    }
}

fn check_ports(ports: &BTreeSet<u16>, private: u16) -> Result<(), FenceError> {
    if ports.contains(&private) || ports.contains(&0) {
        return Err(FenceError::Spec(format!("ports 0 and {private} (Stockade's own) cannot be transparent")));
    }
    if ports.len() > MAX_PORTS {
        let n = ports.len();
        return Err(FenceError::Spec(format!("{n} transparent ports; at most {MAX_PORTS}: name fewer in the policy")));
    }
    Ok(())
}

impl Fence {
    /// How transparent connections reach the door.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Ports that need a `stockade_sys::socket::transparent_listener` on the wildcard address of each family.
    #[must_use]
    pub fn listener_ports(&self) -> Vec<u16> {
        match self.mode {
            Mode::Tproxy => vec![self.spec.private_port],
            Mode::Listeners => self.spec.transparent_ports.iter().copied().collect(),
        }
    }

    /// What was installed, with the ports now in force.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// How far the layer is enforced, as verified by [`install`].
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        match self.mode {
            Mode::Tproxy => Enforcement::Enforced,
            Mode::Listeners => Enforcement::Partial(
                "this kernel has no TPROXY: the command cannot serve transparent ports itself".to_owned(),
            ),
        }
    }

    /// Reads tables, chains, rules and ports back and compares them exactly.
    ///
    /// # Errors
    /// The first difference.
    pub fn verify(&mut self) -> Result<(), Drift> {
        match &mut self.kernel {
            Kernel::Nftables(table) => table.verify(&self.spec, self.mode),
            Kernel::Iptables(tables) => tables.verify(),
        }
    }

    /// Replaces the set of transparent ports in one transaction; no rule is touched and no connection cut.
    ///
    /// # Errors
    /// The old set stays in force; so it does always with iptables, which cannot be run once the view exists.
    pub fn set_ports(&mut self, ports: &BTreeSet<u16>) -> Result<(), FenceError> {
        check_ports(ports, self.spec.private_port)?;
        match &mut self.kernel {
            Kernel::Nftables(table) => table.set_ports(&self.spec.transparent_ports, ports)?,
            Kernel::Iptables(_) if *ports == self.spec.transparent_ports => {}
            Kernel::Iptables(_) => {
                let what = "changing transparent ports with iptables".to_owned();
                return Err(FenceError::Unavailable { what, hint: "start the command anew, or load nf_tables" });
            }
        }
        self.spec.transparent_ports.clone_from(ports);
        Ok(())
    }

    /// What the fence has counted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn counters(&mut self) -> Result<Counters, FenceError> {
        let refused = match &mut self.kernel {
            Kernel::Nftables(table) => table.refused()?,
            Kernel::Iptables(tables) => tables.refused(&self.spec, self.mode)?,
        };
        Ok(Counters { refused })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tproxy => "tproxy",
            Self::Listeners => "listeners",
        })
    }
}

#[cfg(test)]
mod tests;
