//! Records for code in this process: `learn`, tests.

use super::Sink;
use crate::record::Record;

/// Gives each record to a closure, on the writer's thread.
pub struct Tap<F>(F);

impl<F: FnMut(&Record) + Send> Tap<F> {
    /// Calls `f` for each record.
    pub fn new(f: F) -> Self {
        Self(f)
    }
}

impl<F: FnMut(&Record) + Send> Sink for Tap<F> {
    fn name(&self) -> String {
        "a listener".into()
    }

    fn record(&mut self, record: &Record) {
        (self.0)(record);
    }
}
