//! The writer's loop: folds, numbers, hands to the sinks, reports what was lost.

use std::sync::Arc;

use stockade_types::{Reason, SandboxId};

use crate::{
    event::{Event, Finding},
    fold::{Fold, Stamped},
    handle::Shared,
    record::Record,
    sink::{Sink, SinkError},
};

/// State of the thread named `audit`.
pub(crate) struct Loop {
    shared: Arc<Shared>,
    sandbox: Arc<SandboxId>,
    sinks: Vec<Guarded>,
    sequence: u64,
    fold: Fold,
}

/// A sink and whether it fails at present.
struct Guarded {
    sink: Box<dyn Sink>,
    failing: bool,
    /// Since it began to fail.
    lost: u64,
    /// Of these, not in the count of all yet.
    uncounted: u64,
}

impl Guarded {
    fn lack(&mut self, lost: u64) {
        self.lost = self.lost.saturating_add(lost);
        self.uncounted = self.uncounted.saturating_add(lost);
    }
}

impl Loop {
    pub(crate) fn new(shared: Arc<Shared>, sandbox: Arc<SandboxId>, sinks: Vec<Box<dyn Sink>>) -> Self {
        let sinks = sinks.into_iter().map(|sink| Guarded { sink, failing: false, lost: 0, uncounted: 0 }).collect();
        Self { shared, sandbox, sinks, sequence: 0, fold: Fold::default() }
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let mut batch = Vec::new();
        let mut out = Vec::new();
        loop {
            let work = self.shared.next(&mut batch, !self.fold.is_empty());
            let now = self.shared.clock().monotonic();
            for stamped in batch.drain(..) {
                self.fold.take(now, stamped, &mut out);
            }
            self.fold.tick(now, work.flush || work.last, &mut out);
            for stamped in out.drain(..) {
                self.write(stamped);
            }
            self.report_lost();
            self.commit();
            if work.last {
                self.report_missing();
            }
            self.shared.count_lost(self.sinks.iter_mut().map(|s| std::mem::take(&mut s.uncounted)).sum());
            self.shared.set_failing(self.sinks.iter().any(|s| s.failing));
            self.shared.done(&work);
            // Bound what a burst leaves behind.
            batch.shrink_to(256);
            out.shrink_to(256);
            if work.last {
                return;
            }
        }
    }

    fn write(&mut self, stamped: Stamped) {
        let record = self.number(stamped);
        for guarded in &mut self.sinks {
            guarded.sink.record(&record);
        }
    }

    fn number(&mut self, Stamped { time_ms, event }: Stamped) -> Record {
        self.sequence += 1;
        Record { sequence: self.sequence, time_ms, sandbox: Arc::clone(&self.sandbox), event }
    }

    fn report_lost(&mut self) {
        let count = self.shared.take_lost();
        if count > 0 {
            let detail = format!("{count} events were lost because the audit could not keep up");
            self.finding(Finding { reason: Reason::AuditLost, severity: 3, detail, count });
        }
    }

    fn finding(&mut self, finding: Finding) {
        let time_ms = self.shared.clock().wall_ms();
        self.write(Stamped { time_ms, event: Event::Finding(finding) });
    }

    /// Ends a batch. A sink that begins to fail is reported once through the others, and once more, with the number
    /// of records it lacks, when it works again.
    fn commit(&mut self) {
        for at in 0..self.sinks.len() {
            let Some(guarded) = self.sinks.get_mut(at) else { return };
            let finding = match guarded.sink.commit() {
                Err(error) => guarded.failed(&error),
                Ok(0) => None,
                Ok(_) => guarded.recovered(),
            };
            if let Some(finding) = finding {
                self.finding(finding);
                self.commit_quietly();
            }
        }
    }

    /// A sink that fails to the end cannot say later what it lacks: the others say it now.
    fn report_missing(&mut self) {
        let lacks = |s: &Guarded| (s.failing && s.lost > 0).then(|| (s.sink.name(), s.lost));
        let missing: Vec<_> = self.sinks.iter().filter_map(lacks).collect();
        for (name, count) in missing {
            let detail = format!("{name} cannot be written to the end: the last {count} records are missing");
            self.finding(Finding { reason: Reason::LogUnavailable, severity: 4, detail, count });
            self.commit_quietly();
        }
    }

    /// Commits what a report about a sink wrote, without reporting again.
    fn commit_quietly(&mut self) {
        for guarded in &mut self.sinks {
            if let Err(error) = guarded.sink.commit() {
                guarded.lack(error.lost);
                guarded.failing = true;
            }
        }
    }
}

impl Guarded {
    fn failed(&mut self, error: &SinkError) -> Option<Finding> {
        self.lack(error.lost);
        if std::mem::replace(&mut self.failing, true) {
            return None;
        }
        let detail = format!("{error}; enforcement goes on, and the records that are missing are counted");
        Some(Finding { reason: Reason::LogUnavailable, severity: 4, detail, count: 1 })
    }

    fn recovered(&mut self) -> Option<Finding> {
        if !std::mem::take(&mut self.failing) {
            return None;
        }
        let count = std::mem::take(&mut self.lost);
        let detail = format!("{} can be written again; {count} records before this one are missing", self.sink.name());
        Some(Finding { reason: Reason::LogUnavailable, severity: 4, detail, count })
    }
}
