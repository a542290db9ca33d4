//! `filesystem` and `process`: what is fixed when the sandbox starts.

use std::{collections::BTreeSet, num::NonZeroU64, path::PathBuf};

use stockade_types::Layer;

use super::{
    Located,
    fields::{Reader, Trail},
    scalars,
};
use crate::{
    model::{PathGrant, Relaxation, User},
    publish::Publish,
    yaml::{Node, Value},
};

/// `filesystem` of one file.
#[derive(Debug, Default)]
pub(crate) struct FilesystemDraft {
    /// Whether the file has the section at all.
    pub(crate) given: bool,
    pub(crate) baseline: Option<Located<bool>>,
    pub(crate) read_only: Vec<PathGrant>,
    pub(crate) read_write: Vec<PathGrant>,
    pub(crate) hidden: Vec<PathBuf>,
    /// Nothing where the file does not say it; `[]` is said.
    pub(crate) protected: Option<Vec<PathBuf>>,
}

/// `process` of one file.
#[derive(Debug, Default)]
pub(crate) struct ProcessDraft {
    pub(crate) user: Option<Located<User>>,
    pub(crate) relax: Vec<Relaxation>,
    pub(crate) memory: Option<Located<NonZeroU64>>,
    pub(crate) cpus: Option<Located<f64>>,
    pub(crate) pids: Option<Located<NonZeroU64>>,
    pub(crate) open_files: Option<Located<NonZeroU64>>,
    pub(crate) best_effort: Option<Located<bool>>,
    pub(crate) require: Option<Vec<Layer>>,
}

pub(crate) fn filesystem(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> FilesystemDraft {
    let mut draft = FilesystemDraft { given: true, ..FilesystemDraft::default() };
    let known = ["baseline", "read_only", "read_write", "hidden", "protected"];
    let Some(fields) = r.fields(trail, node, &known) else { return draft };
    if let Some(node) = fields.get("baseline") {
        draft.baseline = r.flag(&Trail::Key(trail, "baseline"), node).map(|v| Located::new(v, node.at));
    }
    if let Some(node) = fields.get("read_only") {
        draft.read_only = r.each(&Trail::Key(trail, "read_only"), node, |r, t, n| grant(r, t, n, false));
    }
    if let Some(node) = fields.get("read_write") {
        draft.read_write = r.each(&Trail::Key(trail, "read_write"), node, |r, t, n| grant(r, t, n, true));
    }
    // A key with nothing after it is no decision to protect nothing; `[]` is one.
    if let Some(node) = fields.get("protected").filter(|node| !matches!(node.value, Value::Null)) {
        draft.protected = Some(r.each(&Trail::Key(trail, "protected"), node, hidden));
    }
    if let Some(node) = fields.get("hidden") {
        draft.hidden = r.each(&Trail::Key(trail, "hidden"), node, hidden);
    }
    draft
}

fn grant(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, writable: bool) -> Option<PathGrant> {
    let (path_node, create) = if matches!(node.value, Value::Map(_)) {
        let known: &[&str] = if writable { &["path", "create"] } else { &["path"] };
        let fields = r.fields(trail, node, known)?;
        let create = match fields.get("create") {
            Some(node) => r.flag(&Trail::Key(trail, "create"), node)?,
            None => false,
        };
        let Some(path) = fields.get("path") else {
            r.error(trail, node.at, "`path` is missing", None);
            return None;
        };
        (path, create)
    } else {
        (node, false)
    };
    let path = r.parsed(trail, path_node, |text| match scalars::path(text)? {
        path if path == std::path::Path::new("/") => {
            Err("grants the whole machine, with every daemon's socket; name directories".to_owned())
        }
        path => Ok(path),
    })?;
    Some(PathGrant { path, create })
}

fn hidden(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<PathBuf> {
    r.parsed(trail, node, |text| match scalars::path(text)? {
        path if ["/", "."].iter().any(|all| path == std::path::Path::new(all)) => {
            Err("hides everything the command works with; name what is below".to_owned())
        }
        path => Ok(path),
    })
}

pub(crate) fn publish(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Vec<Publish> {
    let mut before = BTreeSet::new();
    r.each(trail, node, |r, trail, node| {
        let publish: Publish = match node.value {
            // A port alone is a number to YAML.
            Value::Int(_) => r.number(trail, node, 1..=65_535)?.to_string().parse().ok(),
            _ => r.parsed(trail, node, str::parse),
        }?;
        if publish.leads_to_the_door() {
            let help = "let the server listen on another port".to_owned();
            r.error(trail, node.at, format!("port {} inside is the proxy's own", publish.port), Some(help));
            return None;
        }
        if !before.insert(publish.listen) {
            r.error(trail, node.at, format!("{} is published twice", publish.listen), None);
            return None;
        }
        Some(publish)
    })
}

pub(crate) fn process(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> ProcessDraft {
    let mut draft = ProcessDraft::default();
    let Some(fields) = r.fields(trail, node, &["user", "relax", "limits", "require"]) else { return draft };
    if let Some(node) = fields.get("user") {
        draft.user = user(r, &Trail::Key(trail, "user"), node).map(|v| Located::new(v, node.at));
    }
    if let Some(node) = fields.get("relax") {
        let words: Vec<_> = Relaxation::ALL.iter().map(|r| (r.name(), *r)).collect();
        draft.relax = r.each(&Trail::Key(trail, "relax"), node, |r, t, n| r.word(t, n, "relaxation", &words));
    }
    if let Some(node) = fields.get("limits") {
        limits(r, &Trail::Key(trail, "limits"), node, &mut draft);
    }
    if let Some(node) = fields.get("require") {
        let words: Vec<_> = Layer::ALL.iter().map(|l| (l.name(), *l)).collect();
        draft.require = Some(r.each(&Trail::Key(trail, "require"), node, |r, t, n| r.word(t, n, "layer", &words)));
    }
    draft
}

fn user(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<User> {
    if matches!(node.value, Value::Int(_)) {
        let help = "write \"UID:GID\" in quotes".to_owned();
        r.error(trail, node.at, "a user id without a group id", Some(help));
        return None;
    }
    r.parsed(trail, node, str::parse)
}

fn limits(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, draft: &mut ProcessDraft) {
    /// Linux's PID_MAX_LIMIT on 64 bits.
    const MAX_PIDS: i64 = 4_194_304;
    /// The kernel's default ceiling for open files (fs.nr_open).
    const MAX_FILES: i64 = 1_048_576;
    let known = ["memory", "cpus", "pids", "open_files", "best_effort"];
    let Some(fields) = r.fields(trail, node, &known) else { return };
    if let Some(node) = fields.get("memory") {
        let trail = Trail::Key(trail, "memory");
        let memory = match node.value {
            Value::Int(n) => r.number(&trail, node, 1..=i64::MAX).map(|_| n.unsigned_abs()).and_then(NonZeroU64::new),
            _ => r.parsed(&trail, node, scalars::size),
        };
        draft.memory = memory.map(|v| Located::new(v, node.at));
    }
    if let Some(node) = fields.get("cpus") {
        draft.cpus = cpus(r, &Trail::Key(trail, "cpus"), node).map(|v| Located::new(v, node.at));
    }
    let mut count = |key: &str, max: i64| {
        let node = fields.get(key)?;
        let n = r.number(&Trail::Key(trail, key), node, 1..=max)?;
        NonZeroU64::new(n.unsigned_abs()).map(|v| Located::new(v, node.at))
    };
    draft.pids = count("pids", MAX_PIDS);
    draft.open_files = count("open_files", MAX_FILES);
    if let Some(node) = fields.get("best_effort") {
        draft.best_effort = r.flag(&Trail::Key(trail, "best_effort"), node).map(|v| Located::new(v, node.at));
    }
}

fn cpus(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node) -> Option<f64> {
    /// More than any machine has; less than what the cgroup file can hold.
    const MAX_CPUS: f64 = 8192.0;
    /// The kernel takes no quota below a millisecond per tenth of a second.
    const MIN_CPUS: f64 = 0.01;
    let value = match node.value {
        Value::Float(v) => Some(v),
        Value::Int(v) => i32::try_from(v).ok().map(f64::from),
        _ => None,
    };
    let fits = value.filter(|v| (MIN_CPUS..=MAX_CPUS).contains(v));
    if fits.is_none() {
        r.error(trail, node.at, format!("expected a number of processors from {MIN_CPUS} to {MAX_CPUS}"), None);
    }
    fits
}
