//! Where records go.

mod file;
mod line;
mod summary;
mod tap;

use std::io;

pub use file::{FileError, FileSink, Head, HeadHandle, Rotation};
pub use line::LineSink;
pub use summary::{Blocked, Few, Outcome, Summary, Total};
pub use tap::Tap;

use crate::record::Record;

/// Takes records on the writer's thread. A slow sink costs events, never enforcement.
pub trait Sink: Send {
    /// What reports call it: `audit log /var/log/audit.log`.
    fn name(&self) -> String;

    /// Takes one record; may keep it until [`Self::commit`].
    fn record(&mut self, record: &Record);

    /// Ends a batch: everything taken is to be written. Says how many records were.
    ///
    /// # Errors
    /// When records since the last commit were lost. The sink stays usable and may work again.
    fn commit(&mut self) -> Result<u64, SinkError> {
        Ok(0)
    }
}

/// A sink that could not write.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot be written: {source}")]
pub struct SinkError {
    /// Which sink.
    pub name: String,
    /// Records lost in this batch.
    pub lost: u64,
    /// Why.
    #[source]
    pub source: io::Error,
}
