//! Rows as data: parsed from TOML, checked, and nothing else.

use serde::Deserialize;

use super::SeccompError;

/// Rows of the command's filter, by theme. Kept in the binary: the filter must not depend on a file.
const FILES: &[(&str, &str)] = &[
    ("identity.toml", include_str!("../../../../policies/seccomp/identity.toml")),
    ("kernel.toml", include_str!("../../../../policies/seccomp/kernel.toml")),
    ("namespaces.toml", include_str!("../../../../policies/seccomp/namespaces.toml")),
    ("sockets.toml", include_str!("../../../../policies/seccomp/sockets.toml")),
    ("terminal.toml", include_str!("../../../../policies/seccomp/terminal.toml")),
];

/// Rows of the supervisor's own filter.
const SUPERVISOR: &[(&str, &str)] =
    &[("supervisor.toml", include_str!("../../../../policies/seccomp/supervisor.toml"))];

/// What a row answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Action {
    /// Not permitted.
    EPERM,
    /// No such call: callers fall back to an older one.
    ENOSYS,
    /// Address family not supported.
    EAFNOSUPPORT,
    /// Protocol not supported.
    EPROTONOSUPPORT,
    /// Ends the process.
    #[serde(rename = "kill")]
    Kill,
}

/// What an argument is compared with, after masking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Equal.
    Eq(u32),
    /// Not equal.
    Ne(u32),
    /// Equal, all 64 bits.
    WideEq(u64),
    /// Not equal in any of 64 bits.
    WideNe(u64),
    /// Any of these bits is set.
    Any(u32),
    /// One of these.
    In(Vec<u32>),
    /// None of these.
    NotIn(Vec<u32>),
}

/// One argument's condition. Arguments that the kernel takes as `int` are compared on their low 32 bits, whatever
/// stands above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0.
    pub arg: u8,
    /// Bits that count, of the low 32.
    pub mask: Option<u32>,
    /// The comparison.
    pub test: Test,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The file it stands in.
    pub file: &'static str,
    /// The calls it is about.
    pub calls: Vec<String>,
    /// The answer.
    pub action: Action,
    /// Why.
    pub reason: String,
    /// The relaxation that lifts it.
    pub relax: Option<String>,
    /// Whether executable identity rests on it.
    pub identity: bool,
    /// All must hold; none means always.
    pub when: Vec<Condition>,
}

/// A named relaxation: the rows it lifts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relaxation {
    /// As written in `process.relax`.
    pub name: String,
    /// The calls it opens.
    pub calls: Vec<String>,
    /// Whether executable identity stops being evidence with it.
    pub identity: bool,
}

/// All rows of the command's filter.
///
/// # Errors
/// [`SeccompError::Parse`] or [`SeccompError::Row`].
pub fn rows() -> Result<Vec<Row>, SeccompError> {
    parse_all(FILES)
}

/// All rows of the supervisor's own filter.
///
/// # Errors
/// [`SeccompError::Parse`] or [`SeccompError::Row`].
pub fn supervisor_rows() -> Result<Vec<Row>, SeccompError> {
    parse_all(SUPERVISOR)
}

/// The relaxations that `rows` know, by name.
#[must_use]
pub fn relaxations(rows: &[Row]) -> Vec<Relaxation> {
    let mut found: Vec<Relaxation> = Vec::new();
    for row in rows {
        let Some(name) = &row.relax else { continue };
        let at = found.iter().position(|r| r.name == *name).unwrap_or_else(|| {
            found.push(Relaxation { name: name.clone(), calls: Vec::new(), identity: false });
            found.len() - 1
        });
        if let Some(relaxation) = found.get_mut(at) {
            relaxation.calls.extend(row.calls.iter().cloned());
            relaxation.identity |= row.identity;
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn parse_all(files: &[(&'static str, &str)]) -> Result<Vec<Row>, SeccompError> {
    let mut rows = Vec::new();
    for (file, text) in files {
        rows.extend(parse(file, text)?);
    }
    Ok(rows)
}

pub(super) fn parse(file: &'static str, text: &str) -> Result<Vec<Row>, SeccompError> {
    let parsed: File = toml::from_str(text).map_err(|e| SeccompError::Parse { file, detail: e.to_string() })?;
    parsed.row.into_iter().map(|raw| raw.check(file)).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    row: Vec<RawRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    calls: Vec<String>,
    action: Action,
    reason: String,
    relax: Option<String>,
    #[serde(default)]
    identity: bool,
    #[serde(default)]
    when: Vec<RawCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCondition {
    arg: u8,
    #[serde(default)]
    wide: bool,
    mask: Option<u32>,
    eq: Option<u64>,
    ne: Option<u64>,
    any: Option<u32>,
    #[serde(rename = "in")]
    one_of: Option<Vec<u32>>,
    not_in: Option<Vec<u32>>,
}

impl RawRow {
    fn check(self, file: &'static str) -> Result<Row, SeccompError> {
        let call = self.calls.first().cloned().unwrap_or_default();
        let wrong = |detail: &str| SeccompError::Row { file, call: call.clone(), detail: detail.to_owned() };
        if self.calls.is_empty() {
            return Err(wrong("no calls"));
        }
        if self.reason.trim().is_empty() {
            return Err(wrong("no reason"));
        }
        let when = self.when.into_iter().map(RawCondition::check).collect::<Result<_, _>>().map_err(wrong)?;
        let Self { calls, action, reason, relax, identity, .. } = self;
        Ok(Row { file, calls, action, reason, relax, identity, when })
    }
}

impl RawCondition {
    fn check(self) -> Result<Condition, &'static str> {
        let Self { arg, wide, mask, eq, ne, any, one_of, not_in } = self;
        if arg > 5 {
            return Err("a call has arguments 0 to 5");
        }
        let narrow = |v: u64| u32::try_from(v).map_err(|_| "a value over 32 bits needs `wide = true`");
        let test = match (eq, ne, any, one_of, not_in) {
            (Some(v), None, None, None, None) if wide => Test::WideEq(v),
            (None, Some(v), None, None, None) if wide => Test::WideNe(v),
            (Some(v), None, None, None, None) => Test::Eq(narrow(v)?),
            (None, Some(v), None, None, None) => Test::Ne(narrow(v)?),
            (None, None, Some(bits), None, None) if !wide && bits != 0 => Test::Any(bits),
            (None, None, None, Some(list), None) if !wide && !list.is_empty() => Test::In(list),
            (None, None, None, None, Some(list)) if !wide && !list.is_empty() => Test::NotIn(list),
            _ => return Err("a condition has exactly one of eq, ne, any, in, not_in; only eq and ne may be wide"),
        };
        if wide && mask.is_some() {
            return Err("a wide comparison has no mask");
        }
        Ok(Condition { arg, mask, test })
    }
}
