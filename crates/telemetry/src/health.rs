//! Whether the sandbox can do its work, and what keeps it from that.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

/// How long what was looked up is believed: who asks often costs no more.
const FRESH: Duration = Duration::from_secs(1);

macro_rules! checks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One thing that must be well.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Check { $($(#[$doc])* $variant,)* }

        impl Check {
            /// Every check, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

checks! {
    /// The command runs, and nobody asked it to end.
    Sandbox = "sandbox",
    /// The door takes connections.
    Door = "door",
    /// The fence is as it was installed.
    Fence = "fence",
    /// No other layer broke since the start.
    Wall = "wall",
    /// Descriptors are left for connections.
    Descriptors = "descriptors",
    /// The audit log can be written.
    Audit = "audit",
}

/// Where the sandbox is between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Being built; nothing runs.
    Starting,
    /// The command runs.
    Running,
    /// The command was asked to end, or has ended.
    Ending,
}

/// Looks one check up: `None` when it is well, else what is wrong.
pub type Probe = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// The state of all checks. Clones share it: some report, one answers.
#[derive(Clone)]
pub struct Health(Arc<Mutex<State>>);

struct State {
    phase: Phase,
    /// Reported by those who noticed.
    problems: BTreeMap<Check, String>,
    /// Looked up when somebody asks.
    probes: Vec<(Check, Arc<Probe>)>,
    probed: Option<(Instant, BTreeMap<Check, String>)>,
}

/// The answer to `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether every check is well.
    pub ready: bool,
    /// All of them.
    pub checks: Vec<CheckState>,
}

/// One check in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckState {
    /// [`Check::name`].
    pub check: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        let state = State { phase: Phase::Starting, problems: BTreeMap::new(), probes: Vec::new(), probed: None };
        // Ready only once somebody says that the door serves.
        let health = Self(Arc::new(Mutex::new(state)));
        health.ill(Check::Door, "the door does not serve yet");
        health
    }
}

impl Health {
    /// Adds what looks a check up. It must not wait.
    pub fn watch(&self, check: Check, probe: Probe) {
        self.lock().probes.push((check, Arc::new(probe)));
    }

    /// The sandbox goes on to `phase`. There is no way back.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase != Phase::Ending {
            state.phase = phase;
        }
    }

    /// Something is wrong, until [`Self::well`].
    pub fn ill(&self, check: Check, why: impl fmt::Display) {
        self.lock().problems.insert(check, why.to_string());
    }

    /// It is well again.
    pub fn well(&self, check: Check) {
        self.lock().problems.remove(&check);
    }

    /// All checks as they are now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let probed = self.probed();
        let state = self.lock();
        let sandbox = match state.phase {
            Phase::Running => None,
            Phase::Starting => Some("the sandbox is being built"),
            Phase::Ending => Some("the command has ended, or was asked to"),
        };
        let checks: Vec<CheckState> = Check::ALL
            .iter()
            .map(|check| {
                let phase = sandbox.filter(|_| *check == Check::Sandbox).map(str::to_owned);
                let detail = phase.or_else(|| state.problems.get(check).or_else(|| probed.get(check)).cloned());
                CheckState { check: check.name(), ok: detail.is_none(), detail }
            })
            .collect();
        Readiness { ready: checks.iter().all(|c| c.ok), checks }
    }

    fn probed(&self) -> BTreeMap<Check, String> {
        let probes = {
            let state = self.lock();
            if let Some((_, known)) = state.probed.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
                return known.clone();
            }
            state.probes.clone()
        };
        // Not under the lock: who reports must not wait for who asks.
        let found: BTreeMap<Check, String> =
            probes.iter().filter_map(|(check, probe)| Some((*check, probe()?))).collect();
        self.lock().probed = Some((Instant::now(), found.clone()));
        found
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("phase", &self.lock().phase).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    fn failing(health: &Health) -> Vec<&'static str> {
        health.readiness().checks.into_iter().filter(|c| !c.ok).map(|c| c.check).collect()
    }

    #[test]
    fn it_is_ready_when_everything_is_and_not_before() {
        let health = Health::default();
        assert_eq!(failing(&health), ["sandbox", "door"]);
        health.enter(Phase::Running);
        assert_eq!(failing(&health), ["door"]);
        health.well(Check::Door);
        assert!(health.readiness().ready);
        health.ill(Check::Fence, "the table is gone");
        let fence = health.readiness().checks.into_iter().find(|c| c.check == "fence").unwrap();
        assert_eq!(fence.detail.as_deref(), Some("the table is gone"));
        health.well(Check::Fence);
        assert!(health.readiness().ready);
        health.enter(Phase::Ending);
        health.enter(Phase::Running);
        assert_eq!(failing(&health), ["sandbox"], "nobody comes back from the end");
    }

    #[test]
    fn probes_are_asked_once_a_second_at_most() {
        static LOW: AtomicBool = AtomicBool::new(true);
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let health = Health::default();
        health.watch(
            Check::Descriptors,
            Box::new(|| {
                ASKED.fetch_add(1, Ordering::Relaxed);
                LOW.load(Ordering::Relaxed).then(|| "none left".to_owned())
            }),
        );
        for _ in 0..100 {
            assert!(failing(&health).contains(&"descriptors"));
        }
        assert!(ASKED.load(Ordering::Relaxed) < 100, "kept for a while");
        LOW.store(false, Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(20);
        while failing(&health).contains(&"descriptors") && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!failing(&health).contains(&"descriptors"), "and asked again");
    }
}
