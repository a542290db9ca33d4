//! Folding of equal refusals: the first few of a second are written, the rest are counted in one closing event.
//! Each record stands for `1 + suppressed` events, so nothing goes uncounted.

use std::{collections::HashMap, time::Duration};

use stockade_types::Reason;

use crate::event::{Action, Class, Event, Network};

/// Equal refusals written in full per window.
pub const BURST: u32 = 10;
/// Length of a window.
pub const WINDOW: Duration = Duration::from_secs(1);
/// Kinds of refusal told apart. A command that invents host names fills the table; further ones share a row per
/// reason and door.
const MAX_KEYS: usize = 1024;

/// What makes refusals equal. A row without destination holds those that found the table full.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    class: Class,
    reason: Option<Reason>,
    door: &'static str,
    destination: Option<(String, Option<u16>)>,
}

#[derive(Debug)]
struct Row {
    since: Duration,
    written: u32,
    /// Events held back in this window: the latest, and how many it stands for besides itself.
    held: Option<(Box<Stamped>, u64)>,
}

/// An event and when it was emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamped {
    pub(crate) time_ms: u64,
    pub(crate) event: Event,
}

/// The windows that are open.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    rows: HashMap<Key, Row>,
}

impl Fold {
    /// Takes an event at a monotonic time; pushes what is to be written.
    pub(crate) fn take(&mut self, now: Duration, stamped: Stamped, out: &mut Vec<Stamped>) {
        let Some(mut key) = key(&stamped.event) else {
            out.push(stamped);
            return;
        };
        if self.rows.len() >= MAX_KEYS && !self.rows.contains_key(&key) {
            key.destination = None;
        }
        let row = self.rows.entry(key).or_insert(Row { since: now, written: 0, held: None });
        if now.saturating_sub(row.since) >= WINDOW {
            out.extend(row.held.take().map(closing));
            *row = Row { since: now, written: 0, held: None };
        }
        if row.written < BURST {
            row.written += 1;
            out.push(stamped);
            return;
        }
        let own = stamped.event.connection().map_or(0, |n| n.suppressed);
        let besides = row.held.take().map_or(own, |(_, n)| n.saturating_add(1).saturating_add(own));
        row.held = Some((Box::new(stamped), besides));
    }

    /// Closes the windows that are over (or all of them) and forgets quiet rows.
    pub(crate) fn tick(&mut self, now: Duration, all: bool, out: &mut Vec<Stamped>) {
        let from = out.len();
        self.rows.retain(|_, row| {
            let over = all || now.saturating_sub(row.since) >= WINDOW;
            if over {
                out.extend(row.held.take().map(closing));
            }
            !over
        });
        if let Some(closed) = out.get_mut(from..) {
            closed.sort_by_key(|s| s.time_ms);
        }
    }

    /// Whether a window is open, so that a tick is due some time.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

fn closing((mut stamped, besides): (Box<Stamped>, u64)) -> Stamped {
    if let Some(network) = stamped.event.connection_mut() {
        network.suppressed = besides;
    }
    *stamped
}

/// Refusals and failures are folded; what was let through is always written.
fn key(event: &Event) -> Option<Key> {
    let n = event.connection().filter(|n| matches!(n.action, Action::Denied | Action::Failed))?;
    let host = n.host.clone().or_else(|| n.addr.map(|a| a.to_string())).unwrap_or_default();
    Some(Key { class: event.class(), reason: n.reason, door: n.door, destination: Some((host, n.port)) })
}

impl Event {
    /// The connection facts, where there are some.
    #[must_use]
    pub fn connection(&self) -> Option<&Network> {
        match self {
            Self::Network(n) => Some(n),
            Self::Http(h) => Some(&h.network),
            Self::Ssh(_)
            | Self::Process(_)
            | Self::Config(_)
            | Self::Lifecycle(_)
            | Self::Finding(_)
            | Self::Log(_) => None,
        }
    }

    fn connection_mut(&mut self) -> Option<&mut Network> {
        match self {
            Self::Network(n) => Some(n),
            Self::Http(h) => Some(&mut h.network),
            Self::Ssh(_)
            | Self::Process(_)
            | Self::Config(_)
            | Self::Lifecycle(_)
            | Self::Finding(_)
            | Self::Log(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
