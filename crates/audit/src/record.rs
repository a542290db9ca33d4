//! An event with its place: when, in which order, in which sandbox.

use std::{fmt, sync::Arc, time::Duration};

use stockade_types::{Escaped, SandboxId};

use crate::{event::Event, message, ocsf};

/// An event as sinks get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// 1 for the first record of this run. A file numbers its lines itself, because it may hold several runs.
    pub sequence: u64,
    /// Milliseconds since the epoch, taken when the event was emitted.
    pub time_ms: u64,
    /// The sandbox.
    pub sandbox: Arc<SandboxId>,
    /// What happened.
    pub event: Event,
}

impl Record {
    /// One OCSF object in JSON, without line feed, all ASCII, not part of a hash chain.
    #[must_use]
    pub fn to_ocsf(&self) -> String {
        let mut out = Vec::with_capacity(768);
        ocsf::write(self, self.sequence, None, &mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    /// The event in one sentence. Holds text from inside the sandbox: show it through [`Escaped`] only.
    #[must_use]
    pub fn message(&self) -> String {
        message::of(&self.event)
    }

    /// OCSF `severity_id`: 1 informational to 5 critical.
    #[must_use]
    pub fn severity(&self) -> u8 {
        ocsf::severity(&self.event)
    }
}

/// The human line: time, severity, sentence. No control character passes.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        human(f, self.time_ms, self.severity(), &self.message())
    }
}

/// Writes one JSON object with the same, for those who read stderr with a program.
///
/// # Errors
/// What the writer says.
pub fn json_line(f: &mut impl fmt::Write, time_ms: u64, level: &str, message: &str) -> fmt::Result {
    let text = |s: &str| serde_json::to_string(s).map_err(|_| fmt::Error);
    write!(f, r#"{{"time":"{}","level":{},"message":{}}}"#, Timestamp(time_ms), text(level)?, text(message)?)
}

/// The word for an OCSF `severity_id` in [`json_line`].
#[must_use]
pub fn level(severity: u8) -> &'static str {
    match severity {
        0 | 1 => "info",
        2 => "low",
        3 => "warning",
        4 => "high",
        _ => "critical",
    }
}

/// Writes the human line, for records and for lines read back.
pub(crate) fn human(f: &mut impl fmt::Write, time_ms: u64, severity: u8, message: &str) -> fmt::Result {
    write!(f, "{} {} {}", Timestamp(time_ms), severity_name(severity), Escaped(message))
}

fn severity_name(id: u8) -> &'static str {
    match id {
        1 => "info ",
        2 => "low  ",
        3 => "WARN ",
        4 => "HIGH ",
        5 => "CRIT ",
        _ => "?    ",
    }
}

/// Milliseconds since the epoch, shown as `2026-11-22T06:37:47.123Z`.
#[derive(Debug, Clone, Copy)]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_day = Duration::from_millis(self.0 % 86_400_000);
        let (year, month, day) = civil(self.0 / 86_400_000);
        let s = of_day.as_secs();
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)?;
        write!(f, ".{:03}Z", of_day.subsec_millis())
    }
}

/// Days since the epoch to year, month, day (Howard Hinnant's algorithm, for days after the epoch).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (ms, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_329_467_123, "2026-11-22T06:37:47.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp(ms).to_string(), want);
        }
    }
}
