//! The layers of the wall and how far each is enforced.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One layer of the wall, as `process.require` and every status report name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// User (rootless), pid, ipc, uts and cgroup namespaces.
    Namespaces,
    /// Network namespace with `lo` only.
    Netns,
    /// Netfilter fence inside it.
    Fence,
    /// Mount view: what is not granted is absent.
    Mounts,
    /// `filesystem.hidden`: masked paths with pinned ancestors.
    Hidden,
    /// Landlock domain.
    Landlock,
    /// System call filter.
    Seccomp,
    /// no_new_privs, empty capability sets, groups.
    Privileges,
    /// Memory, CPU and process limits.
    Limits,
    /// Executable identity of the owner of a connection.
    Identity,
}

impl Layer {
    /// Every layer, in the order it is set up.
    pub const ALL: [Self; 10] = [
        Self::Namespaces,
        Self::Netns,
        Self::Fence,
        Self::Mounts,
        Self::Hidden,
        Self::Landlock,
        Self::Seccomp,
        Self::Privileges,
        Self::Limits,
        Self::Identity,
    ];

    /// The name used in policies, logs and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Netns => "netns",
            Self::Fence => "fence",
            Self::Mounts => "mounts",
            Self::Hidden => "hidden",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Privileges => "privileges",
            Self::Limits => "limits",
            Self::Identity => "identity",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layer {
    type Err = UnknownLayer;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|l| l.name() == s).ok_or_else(|| UnknownLayer(s.to_owned()))
    }
}

/// A layer name that does not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown layer `{0}`; there are {names}", names = names())]
pub struct UnknownLayer(pub String);

fn names() -> String {
    Layer::ALL.map(Layer::name).join(", ")
}

/// How far a layer is enforced. Never assumed: each module reads back what it set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// Everything the layer promises holds.
    Enforced,
    /// Some of it holds; the text says what is missing.
    Partial(String),
    /// None of it holds; the text says why and, where there is one, the way out.
    Absent(String),
}

impl Enforcement {
    /// Whether everything the layer promises holds.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Enforced)
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforced => f.write_str("enforced"),
            Self::Partial(why) => write!(f, "partial ({why})"),
            Self::Absent(why) => write!(f, "absent ({why})"),
        }
    }
}

/// A layer with its state, as reported at start, in `doctor` and in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// Which layer.
    pub layer: Layer,
    /// How far it is enforced.
    pub enforcement: Enforcement,
}
