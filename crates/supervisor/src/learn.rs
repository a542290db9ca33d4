//! `stockade learn`: what the command reached, as the least policy that allows it.

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use stockade_audit::{Action, Event, Network};
use stockade_policy::{Learned, Seen, WEB_PORTS};
use stockade_types::{Host, Port};

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
        // What a safety rule refused, or what never worked, is no evidence of a need; a question to DNS alone is none.
        if matches!(network.action, Action::Allowed | Action::Closed) && network.door != "dns" {
            self.add(network, seen);
        }
    }

    fn add(&self, network: &Network, seen: Seen) {
        let host = network.host.as_deref().and_then(|h| Host::parse(h).ok());
        let (Some(host), Some(port)) = (host, network.port.and_then(Port::new)) else { return };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).observe(&host, port, seen);
    }

    /// Writes the policy, replacing the file in one step.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).to_yaml();
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or_else(|| Error::Option(format!("{} names no file", path.display())))?;
        let temporary = dir.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(Error::io("write the policy"))?;
        file.write_all(text.as_bytes()).map_err(Error::io("write the policy"))?;
        fs::rename(&temporary, path).map_err(Error::io("write the policy"))
    }
}
