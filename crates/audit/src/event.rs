//! Typed events. Built from verdicts, never inline where decisions are made.

mod bound;
mod ssh;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use stockade_types::{Generation, LayerStatus, Reason};

pub use self::ssh::Ssh;

/// What was done with an activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let through.
    Allowed,
    /// Refused by policy or by a safety rule.
    Denied,
    /// Permitted, but it failed.
    Failed,
    /// Ended; byte counts are final.
    Closed,
}

/// A process inside the sandbox, as far as it could be known. Evidence only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Process id inside the sandbox.
    pub pid: u32,
    /// Path of the executable as seen inside.
    pub exe: String,
    /// User id.
    pub uid: u32,
    /// SHA-256 of the executable, hexadecimal, where it was computed.
    pub sha256: Option<String>,
    /// The script that an interpreter says it runs.
    pub script: Option<String>,
    /// Executables of the processes above it, the parent first.
    pub ancestors: Vec<String>,
}

impl Process {
    /// A process of which no more is known.
    #[must_use]
    pub fn new(pid: u32, exe: String, uid: u32) -> Self {
        Self { pid, exe, uid, sha256: None, script: None, ancestors: Vec::new() }
    }
}

/// One event. The variants are the OCSF classes in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// OCSF 4001: a connection, a DNS question, or traffic the fence refused.
    Network(Network),
    /// OCSF 4002: one HTTP request judged.
    Http(Http),
    /// OCSF 4007: a login over SSH, and what was asked for after it.
    Ssh(Ssh),
    /// OCSF 1007: a process was launched or ended.
    Process(ProcessActivity),
    /// OCSF 5019: policy loaded, reloaded, refused.
    Config(Config),
    /// OCSF 6002: the sandbox started, is ready, stopped, failed.
    Lifecycle(Lifecycle),
    /// OCSF 2004: something a person should look at.
    Finding(Finding),
    /// OCSF 1008: a file of the log begins. Written by the file sink itself.
    Log(Segment),
}

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident = $uid:literal, $name:literal;)*) => {
        /// The OCSF class of an event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Class { $($(#[$doc])* $variant,)* }

        impl Class {
            /// Every class, for tests and docs.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// OCSF `class_uid`. Its thousands are the `category_uid`.
            #[must_use]
            pub fn uid(self) -> u32 {
                match self { $(Self::$variant => $uid,)* }
            }

            /// OCSF `class_name`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl Event {
            /// The OCSF class.
            #[must_use]
            pub fn class(&self) -> Class {
                match self { $(Self::$variant(_) => Class::$variant,)* }
            }
        }
    };
}

classes! {
    /// A connection, a DNS question, or traffic the fence refused.
    Network = 4001, "Network Activity";
    /// One HTTP request.
    Http = 4002, "HTTP Activity";
    /// A login over SSH, and what was asked for after it.
    Ssh = 4007, "SSH Activity";
    /// A process was launched or ended.
    Process = 1007, "Process Activity";
    /// A policy was loaded, reloaded or refused.
    Config = 5019, "Device Config State Change";
    /// The sandbox started, is ready, stopped, failed.
    Lifecycle = 6002, "Application Lifecycle";
    /// Something a person should look at.
    Finding = 2004, "Detection Finding";
    /// A file of the log begins.
    Log = 1008, "Event Log Activity";
}

/// OCSF 4001.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What was done.
    pub action: Action,
    /// Why, for everything but plain success.
    pub reason: Option<Reason>,
    /// `connect`, `forward`, `transparent`, `dns`, `fence`, or `publish` for what comes in.
    pub door: &'static str,
    /// IP protocol number: 6 TCP, 17 UDP, 1 ICMP...
    pub protocol: u8,
    /// Destination name or literal as the command gave it.
    pub host: Option<String>,
    /// Destination address dialled or refused.
    pub addr: Option<IpAddr>,
    /// Destination port.
    pub port: Option<u16>,
    /// Endpoint of the policy that matched.
    pub endpoint: Option<String>,
    /// Rule that decided.
    pub rule: Option<String>,
    /// Generation of the policy that decided.
    pub generation: Generation,
    /// One sentence.
    pub detail: Option<String>,
    /// Smallest policy line that would allow it.
    pub suggestion: Option<String>,
    /// Who, where known.
    pub process: Option<Process>,
    /// Equal events that were folded into this one.
    pub suppressed: u64,
    /// Bytes from the command to upstream (for `Closed`).
    pub bytes_out: u64,
    /// Bytes from upstream to the command (for `Closed`).
    pub bytes_in: u64,
    /// Whether it was let through only because of `mode: audit` or `learn`.
    pub audited: bool,
    /// Tells the connections of one run apart; 0 where there is none.
    pub connection: u64,
    /// Milliseconds since the connection was accepted; for a request, since its head was read.
    pub duration_ms: Option<u64>,
}

impl Network {
    /// TCP, and nothing else known yet.
    #[must_use]
    pub fn new(action: Action, door: &'static str, generation: Generation) -> Self {
        Self {
            action,
            reason: None,
            door,
            protocol: 6,
            host: None,
            addr: None,
            port: None,
            endpoint: None,
            rule: None,
            generation,
            detail: None,
            suggestion: None,
            process: None,
            suppressed: 0,
            bytes_out: 0,
            bytes_in: 0,
            audited: false,
            connection: 0,
            duration_ms: None,
        }
    }
}

/// OCSF 4002.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The connection facts, as in [`Network`].
    pub network: Network,
    /// Request method as sent.
    pub method: String,
    /// Request path without query (queries carry secrets).
    pub path: String,
    /// Response status given to the command.
    pub status: u16,
}

/// OCSF 1007.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessActivity {
    /// `true` at launch, `false` at exit.
    pub launched: bool,
    /// Pid inside the sandbox.
    pub pid: u32,
    /// Program and arguments, bounded.
    pub argv: Vec<String>,
    /// User id of the process.
    pub uid: u32,
    /// Exit code as the shell would show it (128+n for signals).
    pub exit: Option<i32>,
}

/// OCSF 5019.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether the change took effect.
    pub accepted: bool,
    /// Reason of a refusal or remark.
    pub reason: Option<Reason>,
    /// Generation now in force.
    pub generation: Generation,
    /// Where it came from: file names, `built-in`, `--allow`.
    pub source: String,
    /// SHA-256 of the policy text, hexadecimal.
    pub digest: String,
    /// One sentence.
    pub detail: String,
}

/// OCSF 6002.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// `start`, `ready`, `stop`, `fail`.
    pub phase: &'static str,
    /// Reason of a failure.
    pub reason: Option<Reason>,
    /// Layers and their state.
    pub layers: Vec<LayerStatus>,
    /// One sentence.
    pub detail: String,
}

/// OCSF 2004.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub reason: Reason,
    /// 1 informational to 5 critical (OCSF severity_id).
    pub severity: u8,
    /// One sentence.
    pub detail: String,
    /// How many, where it counts something.
    pub count: u64,
}

/// Why a file of the log begins, or goes on, where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentKind {
    /// The first line of a chain.
    Genesis,
    /// The file before this one was full.
    Rotated,
    /// Another run goes on in a file that ends well.
    Restarted,
    /// Another run goes on behind a line that was cut off.
    Repaired,
}

/// The bytes of a line that was cut off by a crash, so that `verify` knows them from an edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torn {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, hexadecimal.
    pub sha256: String,
}

/// OCSF 1008.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Why.
    pub kind: SegmentKind,
    /// For [`SegmentKind::Repaired`]: what stands before this line.
    pub torn: Option<Torn>,
}
