//! `stockade learn`: what the command reached, as the least policy that allows it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use stockade_audit::{Action, Event, Network, directory};
use stockade_policy::{Learned, Seen, WEB_PORTS};
use stockade_types::{Host, Port, Reason};

use crate::error::Error;

/// Everything seen so far; filled on the audit's thread, read at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording(Arc<Mutex<Learned>>);

impl Recording {
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
        }
        // What a safety rule refused, or what never worked, is no evidence of a need; a question to DNS alone is none.
        if matches!(network.action, Action::Allowed | Action::Closed) && network.door != "dns" {
            let request = match event {
                Event::Http(h) => Some((h.method.as_str(), h.path.as_str())),
                _ => None,
            };
            self.at(network, |learned, host, port| {
                learned.observe(host, port, seen);
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

    /// Writes the policy, replacing the file in one step.
    pub(crate) fn write(&self, output: &Output) -> Result<(), Error> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).to_yaml();
        output.replace(text.as_bytes()).map_err(Error::io("write the learned policy"))
    }
}

/// Where the policy goes. The directory is opened before the command runs, which could otherwise lead the path
/// elsewhere meanwhile.
#[derive(Debug)]
pub(crate) struct Output {
    dir: OwnedFd,
    name: OsString,
}

impl Output {
    /// Opens the directory.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().ok_or_else(|| Error::Option(format!("-o {}: no file name", path.display())))?;
        let dir = directory::parent(path).map_err(|e| Error::Option(format!("-o {}: {e}", path.display())))?;
        Ok(Self { dir, name: name.to_owned() })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!(".stockade-learn-{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.dir, &temporary, flags, Mode::from_raw_mode(0o644))?);
        let written = file
            .write_all(bytes)
            .and_then(|()| renameat(&self.dir, &temporary, &self.dir, &self.name).map_err(io::Error::from));
        if written.is_err() {
            // Nothing half-written stays; why it failed is what matters.
            let _ = unlinkat(&self.dir, &temporary, AtFlags::empty());
        }
        written
    }
}
