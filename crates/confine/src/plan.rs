//! What a sandbox is to be: everything init needs, decided before it is forked.

use std::collections::BTreeSet;

use stockade_types::{Enforcement, Layer, LayerStatus};

use crate::{fence, limits::Rlimits, message::Failure, privileges::Identity, view::ViewPlan};

/// Who makes the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Root with CAP_SYS_ADMIN: no user namespace, the command runs as another user.
    Root,
    /// Anybody: a user namespace in which the caller's own ids are mapped to themselves. A root without CAP_SYS_ADMIN,
    /// as containers have, maps the command's ids too, which are others.
    Rootless,
}

/// The whole sandbox, inherited by init over fork: nothing of it is encoded or parsed again.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Root or rootless.
    pub mode: Mode,
    /// Who the command is.
    pub identity: Identity,
    /// Host name inside.
    pub hostname: String,
    /// The mount view.
    pub view: ViewPlan,
    /// Whether the supervisor sends further files of the view by `Order::Files`: what it makes only after the fork, so
    /// that init inherits no copy of a key.
    pub more_files: bool,
    /// The fence.
    pub fence: fence::Spec,
    /// Port of the explicit proxy on 127.0.0.1.
    pub proxy_port: u16,
    /// Resource limits of every process inside.
    pub rlimits: Rlimits,
    /// Whether programs of this file system may be trusted to help (`iptables-restore` where nf_tables is absent): never
    /// in a container, whose image chose them.
    pub host_tools: bool,
    /// Whether the policy lets memory files be executed.
    pub memfd_exec: bool,
    /// Whether every connect inside is reported, so that the door knows who opened a connection.
    pub report_connects: bool,
    /// Layers that must be fully enforced.
    pub require: BTreeSet<Layer>,
}

/// Port of the name server inside.
pub(crate) const DNS_PORT: u16 = 53;

impl Plan {
    /// Ports inside that are the door's, whatever the policy says.
    #[must_use]
    pub fn door_ports(&self) -> [u16; 3] {
        [self.proxy_port, DNS_PORT, self.fence.private_port]
    }

    /// The first required layer among `layers` that is not fully enforced.
    #[must_use]
    pub fn unmet(&self, layers: &[LayerStatus]) -> Option<Failure> {
        layers.iter().filter(|s| self.require.contains(&s.layer)).find_map(|s| match &s.enforcement {
            Enforcement::Enforced => None,
            Enforcement::Partial(why) => Some(Failure::of(s.layer, format!("only partly enforced: {why}"))),
            Enforcement::Absent(why) => Some(Failure::of(s.layer, format!("not enforced: {why}"))),
        })
    }
}
