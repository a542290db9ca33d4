//! What was refused or failed while learning: no evidence of what a policy must allow, and what its reader must know.

use std::{collections::BTreeMap, fmt};

use stockade_types::{Escaped, Reason};

/// Most kinds remembered. The command chooses where it connects; this bounds what that costs.
const MAX_KINDS: usize = 1_000;

/// What was refused or failed, by destination and reason.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals {
    kinds: BTreeMap<(String, Option<Reason>), (u64, String)>,
    dropped: u64,
}

/// One kind of what was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlearned {
    /// How often.
    pub count: u64,
    /// Host, and port where there was one.
    pub place: String,
    /// Why.
    pub reason: Option<Reason>,
    /// The first one's sentence.
    pub detail: String,
}

impl Refusals {
    pub(super) fn add(&mut self, place: String, reason: Option<Reason>, detail: &str, count: u64) {
        let key = (place, reason);
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&key) {
            self.dropped = self.dropped.saturating_add(count);
            return;
        }
        let (seen, _) = self.kinds.entry(key).or_insert_with(|| (0, detail.to_owned()));
        *seen = seen.saturating_add(count);
    }

    /// Each kind, and last how many had no room.
    pub(super) fn all(&self) -> (Vec<Unlearned>, u64) {
        let one = |((place, reason), (count, detail)): (&(String, Option<Reason>), &(u64, String))| Unlearned {
            count: *count,
            place: place.clone(),
            reason: *reason,
            detail: detail.clone(),
        };
        (self.kinds.iter().map(one).collect(), self.dropped)
    }
}

/// On one line, whatever the command had it quote.
impl fmt::Display for Unlearned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.count, Escaped(&self.place))?;
        if let Some(reason) = self.reason {
            write!(f, "  {reason}")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", Escaped(&self.detail))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_and_bounded() {
        let mut refusals = Refusals::default();
        for i in 0..MAX_KINDS + 5 {
            refusals.add(format!("h{i}.test:443"), Some(Reason::SsrfInternal), "first", 1);
        }
        refusals.add("h0.test:443".to_owned(), Some(Reason::SsrfInternal), "second", 2);
        let (all, dropped) = refusals.all();
        assert_eq!((all.len(), dropped), (MAX_KINDS, 5));
        assert_eq!(all[0].to_string(), "3 × h0.test:443  ssrf_internal: first");
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let mut refusals = Refusals::default();
        refusals.add("a\nnetwork: {}".to_owned(), None, "\u{1b}[2J\nversion: 1", 1);
        let text = refusals.all().0[0].to_string();
        assert!(!text.contains(['\n', '\u{1b}']), "{text}");
    }
}
