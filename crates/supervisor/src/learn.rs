//! `stockade learn`: what the command reached, as the least policy that allows it.

use std::{
    ffi::OsString,
    fs::File,
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, openat, renameat, statat, unlinkat},
    io::Errno,
};

use stockade_audit::{Action, Event, Network, directory};
use stockade_policy::{Learned, Policy, Seen, WEB_PORTS, Written};
use stockade_types::{Host, Port, Reason};

use crate::error::Error;

/// Everything seen so far; filled on the audit's thread, read at the end.
#[derive(Debug, Clone)]
pub(crate) struct Recording(Arc<Mutex<Learned>>);

impl Recording {
    /// Nothing seen yet, with this policy in force.
    pub(crate) fn new(policy: &Policy) -> Self {
        Self(Arc::new(Mutex::new(Learned::with(policy))))
    }

    /// Takes in one event.
    pub(crate) fn observe(&self, event: &Event) {
        let (network, seen) = match event {
            // While learning, what is neither TLS nor HTTP is let through on other ports than the web's only.
            Event::Network(n) if n.port.is_some_and(|p| WEB_PORTS.contains(&p)) => (n, Seen::Tls),
            Event::Network(n) => (n, Seen::Opaque),
            Event::Http(h) => (&h.network, Seen::Http),
            _ => return,
        };
        if network.reason == Some(Reason::ClientRejectedCert) {
            self.at(network, |learned, host, port| learned.see_pinned(host, port));
        } else if matches!(network.action, Action::Denied | Action::Failed) && network.door != "publish" {
            self.refused(network);
        }
        // What a safety rule refused, or what never worked, is no evidence of a need; a question to DNS alone is none.
        if matches!(network.action, Action::Allowed | Action::Closed) && network.door != "dns" {
            let request = match event {
                Event::Http(h) => Some((h.method.as_str(), h.path.as_str())),
                _ => None,
            };
            self.at(network, |learned, host, port| {
                learned.observe(host, port, seen);
                if let Some(endpoint) = &network.endpoint {
                    learned.see_endpoint(host, port, endpoint, network.audited);
                }
                if let Some((method, path)) = request {
                    learned.see_request(host, port, method, path);
                }
            });
        }
    }

    fn at(&self, network: &Network, note: impl FnOnce(&mut Learned, &Host, Port)) {
        let host = network.host.as_deref().and_then(|h| Host::parse(h).ok());
        let (Some(host), Some(port)) = (host, network.port.and_then(Port::new)) else { return };
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), &host, port);
    }

    fn refused(&self, network: &Network) {
        let named = network.host.clone().or_else(|| network.addr.map(|addr| addr.to_string()));
        // The port of a question to DNS is not that of what was asked for.
        let port = network.port.filter(|_| network.door != "dns").map(|port| format!(":{port}"));
        let place = format!("{}{}", named.unwrap_or_default(), port.unwrap_or_default());
        let detail = network.detail.as_deref().unwrap_or_default();
        let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        learned.see_refused(place, network.reason, detail, network.suppressed.saturating_add(1));
    }

    /// Writes the policy, replacing the file in one step.
    pub(crate) fn write(&self, output: &Output) -> Result<Written, Error> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner).written();
        output.replace(written.text.as_bytes())?;
        Ok(written)
    }
}

/// Where the policy goes. The directory is opened before the command runs, which could otherwise lead the path
/// elsewhere meanwhile.
#[derive(Debug)]
pub(crate) struct Output {
    dir: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Output {
    /// Opens the directory, and makes a file in it: what was learned in a long run must have a place.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let wrong =
            |why: &dyn std::fmt::Display| Error::Option(format!("-o {}: {why}; nothing was run", path.display()));
        let name = path.file_name().ok_or_else(|| wrong(&"no file name"))?;
        let dir = directory::parent(path).map_err(|e| wrong(&e))?;
        let output = Self { dir, name: name.to_owned(), path: path.to_owned() };
        output.try_out().map_err(|e| wrong(&format_args!("no file can be written there: {e}")))?;
        Ok(output)
    }

    fn try_out(&self) -> Result<(), Errno> {
        let there = statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
            return Err(Errno::ISDIR);
        }
        let (_, temporary) = self.temporary()?;
        unlinkat(&self.dir, &temporary, AtFlags::empty())
    }

    fn temporary(&self) -> Result<(File, String), Errno> {
        let temporary = format!(".stockade-learn-{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, &temporary, flags, Mode::from_raw_mode(0o644))?;
        Ok((File::from(file), temporary))
    }

    fn replace(&self, bytes: &[u8]) -> Result<(), Error> {
        let wrong = |e: &dyn std::fmt::Display| {
            Error::Option(format!("-o {}: the learned policy cannot be written: {e}", self.path.display()))
        };
        let (mut file, temporary) = self.temporary().map_err(|e| wrong(&e))?;
        if let Err(e) = file.write_all(bytes) {
            // Nothing half-written stays; why it failed is what matters.
            let _ = unlinkat(&self.dir, &temporary, AtFlags::empty());
            return Err(wrong(&e));
        }
        // What was learned stays where it is when it cannot have its name.
        let kept = self.path.with_file_name(&temporary);
        renameat(&self.dir, &temporary, &self.dir, &self.name)
            .map_err(|e| wrong(&format_args!("{e}; it is in {}", kept.display())))
    }
}
