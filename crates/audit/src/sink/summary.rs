//! What was blocked, for the summary at exit.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stockade_types::{Escaped, Reason};

use super::Sink;
use crate::{
    event::{Action, Network},
    record::Record,
};

/// Destinations told apart; refusals of further ones are only counted.
const MAX_ROWS: usize = 256;
/// Rows shown.
const SHOWN: usize = 20;

/// Counts refusals by destination and reason. Clones share the counts: one goes to the writer as a sink, another
/// stays with whoever reads it, also while the sandbox runs.
#[derive(Debug, Clone, Default)]
pub struct Summary(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    rows: HashMap<Key, Row>,
    /// Refusals that found the table full.
    others: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    host: String,
    port: Option<u16>,
    reason: Option<Reason>,
    outcome: Outcome,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Outcome {
    Blocked,
    /// Let through by `mode: audit` or `learn`.
    WouldBlock,
    Failed,
}

#[derive(Debug)]
struct Row {
    count: u64,
    /// Order of first appearance, so that equal counts keep a stable order.
    nth: usize,
    suggestion: Option<String>,
}

/// One row of the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Host or address as the command named it. From inside the sandbox: show through [`Escaped`] only.
    pub host: String,
    /// Port, where there was one.
    pub port: Option<u16>,
    /// Why.
    pub reason: Option<Reason>,
    /// How often.
    pub count: u64,
    /// The policy line that would allow it.
    pub suggestion: Option<String>,
}

impl Summary {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was blocked, most frequent first.
    #[must_use]
    pub fn blocked(&self) -> Vec<Blocked> {
        let of = |(key, row): (&Key, &Row)| Blocked {
            host: key.host.clone(),
            port: key.port,
            reason: key.reason,
            count: row.count,
            suggestion: row.suggestion.clone(),
        };
        let counts = self.lock();
        sorted(&counts.rows).into_iter().filter(|(key, _)| key.outcome == Outcome::Blocked).map(of).collect()
    }

    /// How many actions were blocked in all.
    #[must_use]
    pub fn blocked_in_all(&self) -> u64 {
        let counts = self.lock();
        let rows = counts.rows.iter().filter(|(key, _)| key.outcome == Outcome::Blocked);
        rows.map(|(_, row)| row.count).fold(counts.others, u64::saturating_add)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sorted(rows: &HashMap<Key, Row>) -> Vec<(&Key, &Row)> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|(key, row)| (key.outcome, std::cmp::Reverse(row.count), row.nth));
    rows
}

impl Sink for Summary {
    fn name(&self) -> String {
        "the summary".into()
    }

    fn record(&mut self, record: &Record) {
        let Some(n) = record.event.connection() else { return };
        let outcome = match n.action {
            Action::Denied => Outcome::Blocked,
            Action::Failed => Outcome::Failed,
            Action::Allowed if n.audited => Outcome::WouldBlock,
            Action::Allowed | Action::Closed => return,
        };
        self.lock().add(n, outcome);
    }
}

impl Counts {
    fn add(&mut self, n: &Network, outcome: Outcome) {
        let count = n.suppressed.saturating_add(1);
        let host = n.host.clone().or_else(|| n.addr.map(|a| a.to_string())).unwrap_or_else(|| "?".into());
        let key = Key { host, port: n.port, reason: n.reason, outcome };
        let nth = self.rows.len();
        if nth >= MAX_ROWS && !self.rows.contains_key(&key) {
            if outcome == Outcome::Blocked {
                self.others = self.others.saturating_add(count);
            }
            return;
        }
        let row = self.rows.entry(key).or_insert(Row { count: 0, nth, suggestion: None });
        row.count = row.count.saturating_add(count);
        if n.suggestion.is_some() {
            row.suggestion.clone_from(&n.suggestion);
        }
    }
}

/// One line per row, the empty string when nothing was blocked.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.lock();
        let rows = sorted(&counts.rows);
        for (key, row) in rows.iter().take(SHOWN) {
            let verb = match key.outcome {
                Outcome::Blocked => "blocked",
                Outcome::WouldBlock => "would have blocked",
                Outcome::Failed => "failed",
            };
            write!(f, "{verb} {} × {}", row.count, Escaped(&key.host))?;
            if let Some(port) = key.port {
                write!(f, ":{port}")?;
            }
            if let Some(reason) = key.reason {
                write!(f, " ({reason})")?;
            }
            if let Some(line) = &row.suggestion {
                write!(f, " - to allow: {}", Escaped(line))?;
            }
            writeln!(f)?;
        }
        let hidden = rows.iter().skip(SHOWN).map(|(_, row)| row.count).fold(counts.others, u64::saturating_add);
        if hidden > 0 {
            writeln!(f, "and {hidden} × other destinations")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
