//! Human lines.

use std::io::Write;

use stockade_types::Escaped;

use super::{Sink, SinkError};
use crate::record::{Record, json_line, level};

/// Longest text kept for one batch; a batch is at most a queue of short lines.
const BUFFER: usize = 64 * 1024;

/// Writes `time severity sentence` lines to a terminal or pipe, from a severity up.
pub struct LineSink<W> {
    to: W,
    least: u8,
    json: bool,
    buffer: String,
    lost: u64,
    held: u64,
    poured: u64,
    failed: Option<std::io::Error>,
}

impl<W: Write + Send> LineSink<W> {
    /// Writes records of OCSF severity `least` (1 informational to 5 critical) and above.
    pub fn new(to: W, least: u8) -> Self {
        Self { to, least, json: false, buffer: String::new(), lost: 0, held: 0, poured: 0, failed: None }
    }

    /// The same as JSON objects.
    #[must_use]
    pub fn json(self, json: bool) -> Self {
        Self { json, ..self }
    }

    fn pour(&mut self) {
        match self.to.write_all(self.buffer.as_bytes()).and_then(|()| self.to.flush()) {
            Ok(()) => self.poured += self.held,
            Err(error) => {
                self.lost += self.held;
                self.failed = Some(error);
            }
        }
        self.buffer.clear();
        self.held = 0;
    }
}

impl<W: Write + Send> Sink for LineSink<W> {
    fn name(&self) -> String {
        "the human-readable log".into()
    }

    fn record(&mut self, record: &Record) {
        use std::fmt::Write;
        if record.severity() < self.least {
            return;
        }
        // Writing to a String cannot fail.
        let _ = if self.json {
            let message = Escaped(&record.message()).to_string();
            json_line(&mut self.buffer, record.time_ms, level(record.severity()), &message)
                .and_then(|()| self.buffer.write_char('\n'))
        } else {
            writeln!(self.buffer, "{record}")
        };
        self.held += 1;
        if self.buffer.len() >= BUFFER {
            self.pour();
        }
    }

    fn commit(&mut self) -> Result<u64, SinkError> {
        if self.held > 0 {
            self.pour();
        }
        let (lost, poured) = (std::mem::take(&mut self.lost), std::mem::take(&mut self.poured));
        self.failed.take().map_or(Ok(poured), |source| Err(SinkError { name: self.name(), lost, source }))
    }
}
