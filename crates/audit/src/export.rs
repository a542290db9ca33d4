//! Lines read back: for `audit tail` and `audit export`.
//!
//! What is read may have been written by anyone: each field is bounded and escaped before it is shown.

use std::{
    fmt::{self, Write as _},
    io::{self, BufRead, Read, Write},
    net::IpAddr,
};

use serde::Deserialize;
use stockade_types::Escaped;

use crate::{
    chain::MAX_LINE,
    record::{Timestamp, human},
};

/// A form to export to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The lines as they are.
    Ocsf,
    /// Comma-separated values with a header row.
    Csv,
    /// Human lines.
    Text,
}

/// How many lines were exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Lines written.
    pub lines: u64,
    /// Lines that are no events. They are left out, but for [`Format::Text`], which shows them.
    pub unreadable: u64,
}

/// The fields of a line that people look at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    /// Milliseconds since the epoch.
    pub time: u64,
    /// OCSF `class_uid`.
    pub class_uid: u32,
    class_name: String,
    /// OCSF `severity_id`.
    pub severity_id: u8,
    /// One sentence, raw: show it by [`fmt::Display`] of the entry.
    pub message: String,
    #[serde(default)]
    count: Option<u64>,
    metadata: Numbered,
    #[serde(default)]
    device: Device,
    #[serde(default)]
    dst_endpoint: Endpoint,
    #[serde(default)]
    actor: Actor,
    #[serde(default)]
    firewall_rule: Option<Named>,
    #[serde(default)]
    unmapped: Unmapped,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Numbered {
    sequence: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
struct Device {
    uid: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    hostname: Option<String>,
    ip: Option<IpAddr>,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
struct Actor {
    process: Option<Process>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Process {
    pid: u32,
    #[serde(default)]
    file: Option<File>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct File {
    path: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
struct Unmapped {
    action: Option<String>,
    reason: Option<String>,
    door: Option<String>,
    endpoint: Option<String>,
    generation: Option<u64>,
    suggestion: Option<String>,
}

const HEADER: &str = "time,sequence,sandbox,class,action,reason,door,host,ip,port,endpoint,rule,generation,pid,exe,count,message,suggestion";

impl Entry {
    /// Reads a line. `None` when it is no event.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The reason code, raw.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.unmapped.reason.as_deref()
    }

    /// `allowed`, `denied`, `failed` or `closed`, raw.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.unmapped.action.as_deref()
    }

    fn csv(&self) -> String {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let process = self.actor.process.as_ref();
        let fields = [
            Timestamp(self.time).to_string(),
            self.metadata.sequence.to_string(),
            self.device.uid.clone(),
            self.class_name.clone(),
            text(&self.unmapped.action),
            text(&self.unmapped.reason),
            text(&self.unmapped.door),
            text(&self.dst_endpoint.hostname),
            self.dst_endpoint.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            number(self.dst_endpoint.port.map(u64::from)),
            text(&self.unmapped.endpoint),
            self.firewall_rule.as_ref().map(|r| r.name.clone()).unwrap_or_default(),
            number(self.unmapped.generation),
            number(process.map(|p| p.pid.into())),
            process.and_then(|p| p.file.as_ref()).map(|f| f.path.clone()).unwrap_or_default(),
            number(self.count),
            self.message.clone(),
            text(&self.unmapped.suggestion),
        ];
        let mut row = String::new();
        for (n, field) in fields.iter().enumerate() {
            if n > 0 {
                row.push(',');
            }
            cell(&mut row, field);
        }
        row
    }
}

/// A quoted cell. Text that a spreadsheet would take for a formula gets an apostrophe before it.
fn cell(row: &mut String, text: &str) {
    row.push('"');
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        row.push('\'');
    }
    let mut shown = String::new();
    // Writing to a String cannot fail.
    let _ = write!(shown, "{}", Escaped(text));
    row.push_str(&shown.replace('"', "\"\""));
    row.push('"');
}

/// The human line, the same as a [`crate::Record`] shows.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        human(f, self.time, self.severity_id, &self.message)
    }
}

/// A line of a log for people: the human line, or the line itself, escaped, when it is no event.
#[must_use]
pub fn text(line: &[u8]) -> String {
    match Entry::parse(line) {
        Some(entry) => entry.to_string(),
        None => format!("unreadable line: {}", Escaped(&String::from_utf8_lossy(line))),
    }
}

/// Copies a log to another form.
///
/// # Errors
/// When reading or writing fails.
pub fn export(mut from: impl BufRead, format: Format, mut to: impl Write) -> io::Result<Exported> {
    let mut exported = Exported::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut from).take(MAX_LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(exported);
        }
        let body = line.strip_suffix(b"\n").unwrap_or(&line);
        let entry = Entry::parse(body);
        exported.unreadable += u64::from(entry.is_none());
        exported.lines += 1;
        match (format, entry) {
            (Format::Ocsf, Some(_)) => to.write_all(&line)?,
            (Format::Text, _) => writeln!(to, "{}", text(body))?,
            (Format::Csv, Some(entry)) => writeln!(to, "{}", entry.csv())?,
            (Format::Ocsf | Format::Csv, None) => exported.lines -= 1,
        }
    }
}

/// The first row of [`Format::Csv`], written once before all files.
#[must_use]
pub fn csv_header() -> &'static str {
    HEADER
}
