//! What goes into the audit log.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use stockade_audit::{Action, Audit, Event, Ssh};
use stockade_types::Reason;

use crate::access::Login;

/// Refusals written in full per second; the rest are counted into the next one.
const REFUSALS_PER_SECOND: u32 = 20;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a unix socket: user and process as the kernel names them.
    Unix { uid: u32, pid: i32 },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid, pid } => write!(f, "unix uid {uid} pid {pid}"),
        }
    }
}

/// Writes events of the server.
pub(crate) struct Recorder {
    audit: Audit,
    refusals: Mutex<Rate>,
}

#[derive(Debug)]
struct Rate {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl Recorder {
    pub(crate) fn new(audit: Audit) -> Self {
        Self { audit, refusals: Mutex::new(Rate { since: Instant::now(), written: 0, left_out: 0 }) }
    }

    pub(crate) fn login(&self, peer: Peer, login: &Login) {
        self.emit(Ssh { key: Some(login.by.clone()), ..of(Action::Allowed, "login", peer, &login.user) });
    }

    pub(crate) fn closed(&self, peer: Peer, login: &Login, why: &str) {
        let detail = Some(why.to_owned());
        self.emit(Ssh { key: Some(login.by.clone()), detail, ..of(Action::Closed, "login", peer, &login.user) });
    }

    pub(crate) fn forwarded(&self, peer: Peer, user: &str, to: SocketAddr) {
        self.emit(Ssh { target: Some((to.ip().to_string(), to.port())), ..of(Action::Allowed, "forward", peer, user) });
    }

    pub(crate) fn session(&self, peer: Peer, user: &str, what: &str) {
        self.emit(Ssh { detail: Some(what.to_owned()), ..of(Action::Allowed, "session", peer, user) });
    }

    /// `what` is one of the words of [`Ssh::what`].
    pub(crate) fn refused(&self, what: &'static str, peer: Peer, user: &str, reason: Reason, detail: String) {
        let Some(left_out) = self.rate() else { return };
        let detail = if left_out == 0 { detail } else { format!("{detail}; and {left_out} more refusals before") };
        self.emit(Ssh { reason: Some(reason), detail: Some(detail), ..of(Action::Denied, what, peer, user) });
    }

    /// Permitted, but it came to nothing.
    pub(crate) fn failed(&self, what: &'static str, peer: Peer, user: &str, reason: Reason, detail: String) {
        self.emit(Ssh { reason: Some(reason), detail: Some(detail), ..of(Action::Failed, what, peer, user) });
    }

    /// How many were left out before this one, if it may be written.
    fn rate(&self) -> Option<u64> {
        let mut rate = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if rate.since.elapsed() >= Duration::from_secs(1) {
            (rate.since, rate.written) = (Instant::now(), 0);
        }
        if rate.written >= REFUSALS_PER_SECOND {
            rate.left_out += 1;
            return None;
        }
        rate.written += 1;
        Some(std::mem::take(&mut rate.left_out))
    }

    fn emit(&self, event: Ssh) {
        self.audit.emit(Event::Ssh(event));
    }
}

fn of(action: Action, what: &'static str, peer: Peer, user: &str) -> Ssh {
    Ssh {
        action,
        reason: None,
        what,
        peer: peer.to_string(),
        user: user.to_owned(),
        key: None,
        target: None,
        detail: None,
    }
}
