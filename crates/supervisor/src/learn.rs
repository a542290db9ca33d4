//! `stockade learn`: what the command reached, as the least policy that allows it.

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use stockade_audit::{Action, Event, Network};
use stockade_policy::Learned;

use crate::error::Error;

/// Everything seen so far; filled on the audit's thread, read at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording(Arc<Mutex<Learned>>);

impl Recording {
    /// Takes in one event.
    pub(crate) fn observe(&self, event: &Event) {
        let network = match event {
            Event::Network(n) => n,
            Event::Http(h) => &h.network,
            _ => return,
        };
        // What a safety rule refused, or what never worked, is no evidence of a need.
        if matches!(network.action, Action::Allowed | Action::Closed) {
            self.add(network);
        }
    }

    fn add(&self, network: &Network) {
        let (Some(host), Some(port)) = (&network.host, network.port) else { return };
        let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        learned.observe_text(host, port);
    }

    /// Writes the policy, replacing the file in one step.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).to_yaml();
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or_else(|| Error::Option(format!("{} names no file", path.display())))?;
        let temporary = dir.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(Error::io("write the policy"))?;
        file.write_all(text.as_bytes()).map_err(Error::io("write the policy"))?;
        fs::rename(&temporary, path).map_err(Error::io("write the policy"))
    }
}
