//! What was blocked, and what failed, for the summary at exit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stockade_types::Reason;

use super::Sink;
use crate::{
    event::{Action, Event, Network},
    record::Record,
};

/// Destinations told apart; refusals of further ones are only counted.
const MAX_ROWS: usize = 256;
/// Requests, and suggestions, of one destination that are told apart.
const MAX_TEXTS: usize = 8;
/// Characters of a request's path.
const MAX_PATH: usize = 100;

/// Counts refusals by destination and reason. Clones share the counts: one goes to the writer as a sink, another
/// stays with whoever reads it, also while the sandbox runs.
#[derive(Debug, Clone, Default)]
pub struct Summary(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    rows: HashMap<Key, Row>,
    blocked: Total,
    let_through: Total,
    failed: Total,
}

impl Counts {
    fn total(&mut self, outcome: Outcome) -> &mut Total {
        match outcome {
            Outcome::Blocked => &mut self.blocked,
            Outcome::LetThrough => &mut self.let_through,
            Outcome::Failed => &mut self.failed,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    host: String,
    port: Option<u16>,
    reason: Option<Reason>,
    outcome: Outcome,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Refused.
    Blocked,
    /// Let through by `mode: audit` or `learn`.
    LetThrough,
    /// Permitted, and it failed.
    Failed,
}

#[derive(Debug)]
struct Row {
    count: u64,
    /// Order of first appearance, so that equal counts keep a stable order.
    nth: usize,
    endpoint: bool,
    detail: Option<String>,
    requests: Few,
    suggestions: Few,
}

/// The first few different texts of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Few {
    /// In order of appearance.
    pub texts: Vec<String>,
    /// Whether there were others.
    pub more: bool,
}

impl Few {
    fn add(&mut self, text: &str) {
        if self.texts.iter().any(|t| t == text) {
            return;
        }
        match self.texts.len() < MAX_TEXTS {
            true => self.texts.push(text.to_owned()),
            false => self.more = true,
        }
    }
}

/// One row of the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Host or address as the command named it. From inside the sandbox: show through
    /// [`Escaped`](stockade_types::Escaped) only.
    pub host: String,
    /// Port, where there was one.
    pub port: Option<u16>,
    /// Why.
    pub reason: Option<Reason>,
    /// How often.
    pub count: u64,
    /// Whether the policy has an endpoint for the destination.
    pub endpoint: bool,
    /// The first one's sentence. It may quote text from inside the sandbox.
    pub detail: Option<String>,
    /// `GET /path`, where requests of a permitted connection were blocked. From inside the sandbox too.
    pub requests: Few,
    /// The policy lines that would allow it.
    pub suggestions: Few,
}

/// How many actions of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Connections and DNS questions.
    pub connections: u64,
    /// Requests within permitted connections.
    pub requests: u64,
}

impl Summary {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was blocked, let through all the same, or failed; most frequent first.
    #[must_use]
    pub fn rows(&self, outcome: Outcome) -> Vec<Blocked> {
        let counts = self.lock();
        let mut rows: Vec<_> = counts.rows.iter().filter(|(key, _)| key.outcome == outcome).collect();
        rows.sort_by_key(|(_, row)| (std::cmp::Reverse(row.count), row.nth));
        let of = |(key, row): (&Key, &Row)| Blocked {
            host: key.host.clone(),
            port: key.port,
            reason: key.reason,
            count: row.count,
            endpoint: row.endpoint,
            detail: row.detail.clone(),
            requests: row.requests.clone(),
            suggestions: row.suggestions.clone(),
        };
        rows.into_iter().map(of).collect()
    }

    /// How many in all, those without a row too.
    #[must_use]
    pub fn total(&self, outcome: Outcome) -> Total {
        *self.lock().total(outcome)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Summary {
    fn name(&self) -> String {
        "the summary".into()
    }

    fn record(&mut self, record: &Record) {
        let Some(n) = record.event.connection() else { return };
        let outcome = match n.action {
            Action::Denied => Outcome::Blocked,
            Action::Allowed if n.audited => Outcome::LetThrough,
            // What somebody outside wanted of a published port is not the command's.
            Action::Failed if n.door != "publish" => Outcome::Failed,
            Action::Failed | Action::Allowed | Action::Closed => return,
        };
        self.lock().add(n, outcome, request(&record.event).as_deref());
    }
}

/// The request that an event is about, where the connection that it came on was permitted.
fn request(event: &Event) -> Option<String> {
    let Event::Http(http) = event else { return None };
    if http.network.endpoint.is_none() || http.path.is_empty() {
        return None;
    }
    let cut = match http.path.char_indices().nth(MAX_PATH) {
        Some((at, _)) => format!("{}…", http.path.get(..at).unwrap_or_default()),
        None => http.path.clone(),
    };
    Some(format!("{} {cut}", http.method))
}

impl Counts {
    fn add(&mut self, n: &Network, outcome: Outcome, request: Option<&str>) {
        let count = n.suppressed.saturating_add(1);
        let total = self.total(outcome);
        let kind = if request.is_some() { &mut total.requests } else { &mut total.connections };
        *kind = kind.saturating_add(count);
        let host = n.host.clone().or_else(|| n.addr.map(|a| a.to_string())).unwrap_or_else(|| "?".into());
        let key = Key { host, port: n.port, reason: n.reason, outcome };
        let nth = self.rows.len();
        if nth >= MAX_ROWS && !self.rows.contains_key(&key) {
            return;
        }
        let blank = || Row {
            count: 0,
            nth,
            endpoint: n.endpoint.is_some(),
            detail: n.detail.clone(),
            requests: Few::default(),
            suggestions: Few::default(),
        };
        let row = self.rows.entry(key).or_insert_with(blank);
        row.count = row.count.saturating_add(count);
        if let Some(request) = request {
            row.requests.add(request);
        }
        if let Some(suggestion) = &n.suggestion {
            row.suggestions.add(suggestion);
        }
    }
}

#[cfg(test)]
mod tests;
