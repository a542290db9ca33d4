//! Who may use an endpoint, and what keeps a caller from it.

use std::fmt;

use serde::Serialize;

use super::MAX_SHOWN;
use crate::{
    caller::{Binary, Caller, Callers},
    snapshot::Snapshot,
};

/// Who may use an endpoint, and what keeps the caller from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallersExplained {
    /// The executables, with their pins; the first of them where there are many.
    pub binaries: Vec<String>,
    /// How many more there are.
    pub more: usize,
    /// Whether it is known who asks.
    pub known: bool,
    /// The keys that do not fit; none where the caller may use it, or nobody is known.
    pub unfit: Vec<&'static str>,
}

impl Snapshot {
    pub(super) fn callers(&self, callers: &Callers, caller: Option<&Caller>) -> CallersExplained {
        let shown = callers.binaries.len().min(MAX_SHOWN);
        CallersExplained {
            binaries: callers.binaries.iter().take(shown).map(name).collect(),
            more: callers.binaries.len() - shown,
            known: caller.is_some(),
            unfit: caller.map(|caller| unfit(&self.ids(callers), callers, caller)).unwrap_or_default(),
        }
    }
}

fn name(binary: &Binary) -> String {
    let pin = binary.sha256.map(|hash| format!(" (sha256 {})", crate::parse::hex(&hash))).unwrap_or_default();
    format!("{}{pin}", binary.path.display())
}

/// For people to read. What decides is `caller_matches` of the base policy.
fn unfit(ids: &[u32], callers: &Callers, caller: &Caller) -> Vec<&'static str> {
    let is_one = |matched: &[u32]| matched.iter().any(|id| ids.contains(id));
    let above = caller.ancestors.as_ref().is_some_and(|chain| chain.iter().all(|a| is_one(&a.matched)));
    let started = |script: &str| callers.scripts.iter().any(|own| own.to_string_lossy() == script);
    let keys = [
        ("binaries", is_one(&caller.matched)),
        ("ancestors", !callers.ancestors || above),
        ("scripts", callers.scripts.is_empty() || caller.script.as_deref().is_some_and(started)),
    ];
    keys.into_iter().filter(|(_, fits)| !fits).map(|(key, _)| key).collect()
}

impl fmt::Display for CallersExplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {}", self.binaries.join(", "))?;
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        match (self.known, self.unfit.as_slice()) {
            (false, _) => f.write_str(": nobody is known to ask"),
            (true, []) => f.write_str(": the caller fits"),
            (true, unfit) => write!(f, ": the caller does not fit: {}", unfit.join(", ")),
        }
    }
}
