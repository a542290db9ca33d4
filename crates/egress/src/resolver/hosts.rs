//! `/etc/hosts`, read once.

use std::{collections::HashMap, net::IpAddr};

use stockade_types::HostName;

/// Names that the host's file gives addresses.
#[derive(Debug, Default)]
pub(super) struct Table(HashMap<HostName, Vec<IpAddr>>);

impl Table {
    /// Lines that are not `ADDRESS NAME...` are skipped, as every other reader of the file does; so are names
    /// of one label, which no request can carry.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut table: HashMap<HostName, Vec<IpAddr>> = HashMap::new();
        for line in String::from_utf8_lossy(bytes).lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(addr) = words.next().and_then(|w| w.parse().ok()) else { continue };
            for name in words.filter_map(|w| HostName::parse(w).ok()) {
                table.entry(name).or_default().push(addr);
            }
        }
        Self(table)
    }

    pub(super) fn get(&self, name: &HostName) -> Option<&[IpAddr]> {
        self.0.get(name).map(Vec::as_slice)
    }
}
