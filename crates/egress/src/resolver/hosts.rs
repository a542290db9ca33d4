//! `/etc/hosts`, read once.

use std::{collections::HashMap, net::IpAddr};

use stockade_types::{AuthorityError, HostName};

/// Names that the host's file gives addresses.
#[derive(Debug, Default)]
pub(super) struct Table(HashMap<String, Vec<IpAddr>>);

impl Table {
    /// Lines that are not `ADDRESS NAME...` are skipped, as every other reader of the file does; so are names that no
    /// name server could be asked for. Those of one label are the operator's: no request can carry one.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut table: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in String::from_utf8_lossy(bytes).lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(addr) = words.next().and_then(|w| w.parse().ok()) else { continue };
            for name in words.filter(|w| matches!(HostName::parse(w), Ok(_) | Err(AuthorityError::SingleLabel))) {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                table.entry(name).or_default().push(addr);
            }
        }
        Self(table)
    }

    /// By its canonical form.
    pub(super) fn get(&self, name: &str) -> Option<&[IpAddr]> {
        self.0.get(name).map(Vec::as_slice)
    }
}
