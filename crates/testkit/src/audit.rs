//! Reading the audit log of a run: OCSF JSON lines.

use std::{fmt, fs, path::Path};

use serde_json::Value;

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event(pub Value);

impl Event {
    /// The stable reason code, where the event has one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.text("/unmapped/reason")
    }

    /// `allowed`, `denied`, `failed` or `closed`.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.text("/unmapped/action")
    }

    /// OCSF class: 4001 network, 4002 HTTP, 1007 process, 5019 config, 6002 lifecycle, 2004 finding.
    #[must_use]
    pub fn class(&self) -> u64 {
        self.0["class_uid"].as_u64().unwrap_or_default()
    }

    /// Destination host, as the command named it.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.text("/dst_endpoint/hostname")
    }

    /// Destination port.
    #[must_use]
    pub fn port(&self) -> Option<u64> {
        self.0.pointer("/dst_endpoint/port").and_then(Value::as_u64)
    }

    /// A string anywhere in the event, by JSON pointer.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer).and_then(Value::as_str)
    }
}

/// The events of a run, in order.
#[derive(Clone, Default)]
pub struct Events(Vec<Event>);

impl Events {
    /// Reads a log; none is an empty list.
    ///
    /// # Panics
    /// When a line is not JSON.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        // What is no file may never end.
        let is_file = fs::metadata(path).is_ok_and(|m| m.is_file());
        let text = if is_file { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let parse = |line: &str| {
            Event(serde_json::from_str(line).unwrap_or_else(|e| panic!("audit line is not JSON ({e}): {line}")))
        };
        Self(text.lines().map(parse).collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.0.iter()
    }

    /// Those with this reason.
    #[must_use]
    pub fn with(&self, reason: &str) -> Vec<&Event> {
        self.iter().filter(|e| e.reason() == Some(reason)).collect()
    }

    /// How many actions were denied or failed; equal ones may share an event that counts them.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        let refused = self.iter().filter(|e| matches!(e.action(), Some("denied" | "failed")));
        refused.map(|e| e.0["count"].as_u64().unwrap_or(1)).sum()
    }

    /// Asserts that exactly one event has this reason, and returns it.
    ///
    /// # Panics
    /// When none or several have.
    #[track_caller]
    pub fn one(&self, reason: &str) -> &Event {
        match self.with(reason)[..] {
            [event] => event,
            ref found => panic!("{} events with reason `{reason}`, wanted one:\n{self:?}", found.len()),
        }
    }

    /// Asserts that at least one event has this reason, and returns the first.
    ///
    /// # Panics
    /// When none has.
    #[track_caller]
    pub fn some(&self, reason: &str) -> &Event {
        self.with(reason).first().copied().unwrap_or_else(|| panic!("no event with reason `{reason}`:\n{self:?}"))
    }

    /// Asserts that no event has this reason.
    ///
    /// # Panics
    /// When one has.
    #[track_caller]
    pub fn none(&self, reason: &str) {
        assert!(self.with(reason).is_empty(), "an event with reason `{reason}`:\n{self:?}");
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|event| {
            let message = event.text("/message").unwrap_or_default();
            writeln!(f, "  {} {}: {message}", event.class(), event.reason().unwrap_or("-"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_and_counted() {
        let line = r#"{"class_uid":4001,"dst_endpoint":{"hostname":"a.test","port":443},"unmapped":{"reason":"bypass","action":"denied"}}"#;
        let events = Events::parse(&format!("{line}\n{{\"class_uid\":6002}}\n"));
        let event = events.one("bypass");
        assert_eq!((event.class(), event.host(), event.port()), (4001, Some("a.test"), Some(443)));
        assert_eq!(event.action(), Some("denied"));
        events.none("no_policy");
        assert!(std::panic::catch_unwind(|| events.none("bypass")).is_err());
        let twice = Events::parse(&format!("{line}\n{line}\n"));
        assert!(std::panic::catch_unwind(|| twice.one("bypass").clone()).is_err());
        assert_eq!(twice.some("bypass"), event);
        assert_eq!(twice.refusals(), 2);
    }
}
