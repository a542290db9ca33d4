//! A policy as typed values: what every other crate reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU64,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

use serde::Serialize;
use stockade_types::{Cidr, Host, HostName, Layer, Port};

pub use crate::{
    caller::{Ancestor, Binary, Caller, Callers},
    credential::{Credential, Inject, Part, Sigv4, Store},
    rule::{Key, RequestLimits, Rule, Rules, Upstream},
};
use crate::{
    decision::{Mode, Protocol, TlsMode},
    diagnostic::Position,
    publish::Publish,
};

/// The version this crate reads.
pub const VERSION: i64 = 1;

/// Layers that must be enforced unless the policy says otherwise.
///
/// Privileges are not among them: what can be less than full there is the caller's supplementary groups, which no
/// rootless sandbox can drop, and a user in the groups `audio` or `docker` would be refused. Capabilities,
/// `no_new_privs` and the change of user are an error of their own where they fail.
pub const DEFAULT_REQUIRE: [Layer; 6] =
    [Layer::Namespaces, Layer::Netns, Layer::Fence, Layer::Mounts, Layer::Landlock, Layer::Seccomp];

/// A validated policy. Made by [`Policy::parse`] and [`Policy::builtin`] only, so one that exists is consistent.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) filesystem: Filesystem,
    pub(crate) process: Process,
    pub(crate) network: Network,
    pub(crate) credentials: BTreeMap<String, Credential>,
    pub(crate) rego: Vec<RegoFile>,
    pub(crate) publish: Vec<Publish>,
    pub(crate) digest: String,
}

impl Policy {
    /// What the command sees of the file system. Fixed when the sandbox starts.
    #[must_use]
    pub fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }
    /// Who the command is and what it may use. Fixed when the sandbox starts.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
    /// Where the command may connect. May change while it runs.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }
    /// Credentials by name. Endpoints refer to them.
    #[must_use]
    pub fn credentials(&self) -> &BTreeMap<String, Credential> {
        &self.credentials
    }
    /// Rego modules that the policy names; their text is passed to [`crate::Snapshot::compile`].
    #[must_use]
    pub fn rego(&self) -> &[RegoFile] {
        &self.rego
    }
    /// Ports outside that lead to servers inside. Fixed when the sandbox starts.
    #[must_use]
    pub fn publish(&self) -> &[Publish] {
        &self.publish
    }
    /// SHA-256 of the sources, hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
    /// Endpoints whose would-be denials are let through (`mode: audit`).
    #[must_use]
    pub fn audited(&self) -> Vec<&str> {
        let audited = self.network.endpoints.iter().filter(|e| e.mode == Mode::Audit);
        audited.map(|e| e.name.as_str()).collect()
    }

    /// Whether filesystem, process and publish are the same: the parts that a reload cannot change.
    #[must_use]
    pub fn same_static(&self, other: &Self) -> bool {
        self.filesystem == other.filesystem && self.process == other.process && self.publish == other.publish
    }
}

/// `filesystem`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// Whether system directories, the minimal `/dev` and the CA bundle are there.
    pub baseline: bool,
    /// Granted for reading.
    pub read_only: Vec<PathGrant>,
    /// Granted for reading and writing.
    pub read_write: Vec<PathGrant>,
    /// Absent or masked, even below a granted path.
    pub hidden: Vec<PathBuf>,
    /// Paths that are read-only even below a writable one; those of the built-in policy where none are named. Absent
    /// ones are reported, not refused.
    pub protected: Vec<PathBuf>,
}

/// A granted path, absolute or relative to the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathGrant {
    /// The path; never with `..`.
    pub path: PathBuf,
    /// Whether a missing directory is made.
    pub create: bool,
}

/// `process`.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Who the command runs as.
    pub user: User,
    /// Named relaxations, each reported.
    pub relax: BTreeSet<Relaxation>,
    /// Bounds on resources.
    pub limits: Limits,
    /// Layers that must be fully enforced, or the command does not start.
    pub require: BTreeSet<Layer>,
}

impl Process {
    /// Layers that are required by default and that this policy leaves out: a weakening, to be shown wherever status
    /// is shown, and refused where the policy does not come from the operator.
    #[must_use]
    pub fn require_weakened(&self) -> Vec<Layer> {
        DEFAULT_REQUIRE.into_iter().filter(|l| !self.require.contains(l)).collect()
    }
}

/// Who the command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// Not said: rootless the caller, as root the owner of the workspace.
    Default,
    /// The caller.
    Caller,
    /// A name of the machine's user database.
    Named(String),
    /// Numbers, neither of them 0.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl FromStr for User {
    type Err = String;

    /// `name`, `UID:GID` or `caller`; never root.
    fn from_str(text: &str) -> Result<Self, String> {
        const ROOT: &str = "the command never runs as root";
        if text == "caller" {
            return Ok(Self::Caller);
        }
        if let Some((uid, gid)) = text.split_once(':') {
            let id = |t: &str| match t.parse::<u32>() {
                Ok(0) => Err(ROOT.to_owned()),
                Ok(u32::MAX) | Err(_) => Err("write UID:GID in numbers, such as 1000:1000".to_owned()),
                Ok(id) => Ok(id),
            };
            return Ok(Self::Ids { uid: id(uid)?, gid: id(gid)? });
        }
        let head = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        match text {
            "root" => Err(ROOT.to_owned()),
            _ if head && rest && text.len() <= 32 => Ok(Self::Named(text.to_owned())),
            _ => Err("not a user name; write a name, UID:GID or `caller`".to_owned()),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Caller => f.write_str("caller"),
            Self::Named(name) => f.write_str(name),
            Self::Ids { uid, gid } => write!(f, "{uid}:{gid}"),
        }
    }
}

/// `process.limits`: what is named must be enforced.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<NonZeroU64>,
    /// Processors, above 0.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<NonZeroU64>,
    /// Open files per process.
    pub open_files: Option<NonZeroU64>,
    /// Whether a limit that cannot be enforced is only reported.
    pub best_effort: bool,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every word.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word as policies write it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words! {
    /// A named relaxation of the system call filter: the rows it drops are in `policies/seccomp`.
    Relaxation {
        /// Debuggers and tracers.
        Ptrace = "ptrace",
        /// User namespaces of the command's own.
        Userns = "userns",
        /// io_uring.
        IoUring = "io_uring",
        /// Kernel keyrings.
        Keyring = "keyring",
        /// perf events.
        Perf = "perf",
        /// BPF programs.
        Bpf = "bpf",
        /// Page faults handled by the program itself.
        Userfaultfd = "userfaultfd",
        /// Address randomisation off, and other execution domains.
        Personality = "personality",
        /// Executable memory files asked for by name.
        MemfdExec = "memfd_exec",
        /// System call notification listeners.
        SeccompNotify = "seccomp_notify",
    }
}

impl Serialize for Relaxation {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// `network`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// What happens to what no endpoint matches.
    pub unmatched: Unmatched,
    /// The endpoints, in the order they were written.
    pub endpoints: Vec<Endpoint>,
}

/// What happens to what no endpoint matches. A second word, `ask`, is not available yet and refused by the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmatched {
    /// Denied.
    #[default]
    Deny,
}

/// One endpoint: hosts and ports that may be reached, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// What it matches.
    pub hosts: Vec<HostPattern>,
    /// On which ports.
    pub ports: BTreeSet<Port>,
    /// What flows.
    pub protocol: Protocol,
    /// What happens to TLS.
    pub tls: TlsMode,
    /// Whether denials are enforced.
    pub mode: Mode,
    /// Private blocks that its names may resolve to.
    pub private_addresses: Vec<Cidr>,
    /// Which requests are allowed and denied.
    pub rules: Rules,
    /// Rate and size of requests.
    pub limits: RequestLimits,
    /// Credentials put into requests, by name.
    pub credentials: Vec<String>,
    /// Who may use it; `None`: everybody.
    pub callers: Option<Arc<Callers>>,
    /// Whether `%2F` and `%5C` in a path are let through.
    pub encoded_slash: bool,
    /// Own roots and client certificate.
    pub upstream: Upstream,
    /// Where it is written; absent for `--allow`.
    pub origin: Option<Origin>,
}

impl Endpoint {
    /// An endpoint that says nothing but where, on which ports, and how.
    #[must_use]
    pub(crate) fn plain(name: String, hosts: Vec<HostPattern>, ports: BTreeSet<Port>, protocol: Protocol) -> Self {
        Self {
            name,
            hosts,
            ports,
            protocol,
            tls: TlsMode::Passthrough,
            mode: Mode::Enforce,
            private_addresses: Vec::new(),
            rules: Rules::default(),
            limits: RequestLimits::default(),
            credentials: Vec::new(),
            callers: None,
            encoded_slash: false,
            upstream: Upstream::default(),
            origin: None,
        }
    }
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The source's name.
    pub file: Arc<str>,
    /// Where in it.
    #[serde(flatten)]
    pub at: Position,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.at.line, self.at.column)
    }
}

/// A module named by `rego:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegoFile {
    /// The path as written, relative to the file that names it.
    pub path: PathBuf,
    /// Who names it.
    pub origin: Origin,
}

/// What a `hosts` entry matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name or address and no other.
    Exact(Host),
    /// `*.parent`: one label before the parent.
    One(HostName),
    /// `**.parent`: one or more labels before the parent.
    Many(HostName),
}

impl HostPattern {
    /// Whether the pattern matches. The Rego base policy decides with the same grammar; this is for messages.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(own), host) => own == host,
            (Self::One(parent), Host::Name(name)) => below(name, parent).is_some_and(|rest| !rest.contains('.')),
            (Self::Many(parent), Host::Name(name)) => below(name, parent).is_some(),
            (Self::One(_) | Self::Many(_), Host::Addr(_)) => false,
        }
    }
}

/// What stands before `.parent` in a name, if it lies below the parent.
fn below<'n>(name: &'n HostName, parent: &HostName) -> Option<&'n str> {
    name.as_str().strip_suffix(parent.as_str())?.strip_suffix('.')
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::One(parent) => write!(f, "*.{parent}"),
            Self::Many(parent) => write!(f, "**.{parent}"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl FromStr for HostPattern {
    type Err = crate::host::PatternError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        crate::host::pattern(s)
    }
}
