//! YAML sources to a [`Policy`]: read each, report everything that is wrong, merge, check across endpoints.

mod agree;
mod credentials;
pub(crate) mod fields;
mod fixed;
mod network;
mod requests;
mod rules;
mod scalars;

pub(crate) use requests::absolute;
pub(crate) use scalars::{method, path_glob, value_glob};
pub use scalars::{sha256, size};

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use sha2::{Digest, Sha256};

use self::{
    fields::{Reader, Trail, says_nothing},
    fixed::{FilesystemDraft, ProcessDraft},
    network::NetworkDraft,
};
use crate::{
    availability::Feature,
    credential::Credential,
    diagnostic::{Diagnostic, Position, Rejected, Report, Source, shown},
    model::{DEFAULT_REQUIRE, Filesystem, Limits, Network, Origin, Policy, Process, RegoFile, User, VERSION},
    publish::{MAX_PUBLISHED, Publish},
    yaml::{self, Node, Value},
};

/// Most endpoints and rules of one policy.
pub const MAX_ITEMS: usize = 100_000;
/// Most hosts of one policy.
pub const MAX_HOSTS: usize = 100_000;
/// Most sources of one policy.
pub const MAX_SOURCES: usize = 64;

/// A value and where it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) at: Position,
}

impl<T> Located<T> {
    pub(crate) fn new(value: T, at: Position) -> Self {
        Self { value, at }
    }
}

/// One file, read.
struct Draft {
    file: Arc<str>,
    filesystem: FilesystemDraft,
    process: ProcessDraft,
    network: NetworkDraft,
    credentials: BTreeMap<String, Credential>,
    rego: Vec<RegoFile>,
    publish: Vec<Publish>,
}

impl Policy {
    /// Parses and merges sources: maps are united, lists appended; a name or a single value that two sources give
    /// differently is an error.
    ///
    /// # Errors
    /// Everything found wrong, in the order of the sources. YAML that cannot be read ends the reading of its source.
    pub fn parse(sources: &[Source]) -> Result<Self, Rejected> {
        let mut report = Report::default();
        if sources.len() > MAX_SOURCES {
            return Err(Rejected::one("policy", Position::default(), format!("more than {MAX_SOURCES} files"), None));
        }
        let mut drafts = Vec::new();
        for source in sources {
            match yaml::parse(source) {
                Ok(root) => drafts.push(read(source, &root, &mut report)),
                Err(rejected) => report.extend(rejected),
            }
        }
        let digest = digest(sources);
        let policy = merge(drafts, digest, &mut report);
        report.finish(policy)
    }
}

/// SHA-256 over texts, each with its length, so that moving a line from one to the next is a change.
pub(crate) fn digest(sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        hash.update((source.text.len() as u64).to_be_bytes());
        hash.update(source.text.as_bytes());
    }
    hex(&hash.finalize())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn read(source: &Source, root: &Node, report: &mut Report) -> Draft {
    let file: Arc<str> = source.name.as_str().into();
    let mut r = Reader { file: &source.name, report };
    let mut draft = Draft {
        file: Arc::clone(&file),
        filesystem: FilesystemDraft::default(),
        process: ProcessDraft::default(),
        network: NetworkDraft::default(),
        credentials: BTreeMap::new(),
        rego: Vec::new(),
        publish: Vec::new(),
    };
    let top = Trail::Root;
    let known = ["version", "filesystem", "process", "network", "credentials", "inference", "rego", "publish"];
    let Some(fields) = r.fields(&top, root, &known) else { return draft };
    match fields.get("version") {
        Some(Node { value: Value::Int(VERSION), .. }) => {}
        Some(node) => {
            let help = format!("this program reads `version: {VERSION}`");
            r.error(&Trail::Key(&top, "version"), node.at, "unknown version of the policy language", Some(help));
        }
        None => r.error(&top, root.at, "`version` is missing", Some(format!("begin with `version: {VERSION}`"))),
    }
    if let Some(node) = fields.get("filesystem") {
        draft.filesystem = fixed::filesystem(&mut r, &Trail::Key(&top, "filesystem"), node);
    }
    if let Some(node) = fields.get("process") {
        draft.process = fixed::process(&mut r, &Trail::Key(&top, "process"), node);
    }
    if let Some(node) = fields.get("network") {
        draft.network = network::network(&mut r, &Trail::Key(&top, "network"), node, &file);
    }
    if let Some(node) = fields.get("credentials") {
        draft.credentials = credentials::credentials(&mut r, &Trail::Key(&top, "credentials"), node, &file);
    }
    if let Some((key, node)) = fields.entry("inference") {
        let trail = Trail::Key(&top, "inference");
        rules::inference(&mut r, &trail, node);
        if !says_nothing(node) {
            r.gate(Feature::Inference, &trail, key.at, "inference routes");
        }
    }
    if let Some(node) = fields.get("rego") {
        draft.rego = rego(&mut r, &Trail::Key(&top, "rego"), node, &file);
    }
    if let Some(node) = fields.get("publish") {
        draft.publish = fixed::publish(&mut r, &Trail::Key(&top, "publish"), node);
    }
    draft
}

fn rego(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, file: &Arc<str>) -> Vec<RegoFile> {
    r.each(trail, node, |r, trail, node| {
        let path = r.parsed(trail, node, |text| match scalars::path(text)? {
            path if path.extension().is_some_and(|e| e == "rego") => Ok(path),
            _ => Err("not a .rego file".to_owned()),
        })?;
        Some(RegoFile { path, origin: Origin { file: Arc::clone(file), at: node.at } })
    })
}

fn merge(drafts: Vec<Draft>, digest: String, report: &mut Report) -> Policy {
    let mut scalars = Scalars { report };
    let baseline = scalars.one(&drafts, "filesystem.baseline", |d| d.filesystem.baseline.as_ref());
    let user = scalars.one(&drafts, "process.user", |d| d.process.user.as_ref());
    let unmatched = scalars.one(&drafts, "network.unmatched", |d| d.network.unmatched.as_ref());
    let limits = Limits {
        memory: scalars.one(&drafts, "process.limits.memory", |d| d.process.memory.as_ref()),
        cpus: scalars.one(&drafts, "process.limits.cpus", |d| d.process.cpus.as_ref()),
        pids: scalars.one(&drafts, "process.limits.pids", |d| d.process.pids.as_ref()),
        open_files: scalars.one(&drafts, "process.limits.open_files", |d| d.process.open_files.as_ref()),
        best_effort: scalars
            .one(&drafts, "process.limits.best_effort", |d| d.process.best_effort.as_ref())
            .unwrap_or(false),
    };
    let unsaid = drafts.iter().all(|d| !d.filesystem.given);
    let mut filesystem = Filesystem {
        baseline: baseline.unwrap_or(true),
        read_only: Vec::new(),
        read_write: Vec::new(),
        hidden: Vec::new(),
        protected: Vec::new(),
    };
    let mut relax = BTreeSet::new();
    let mut require: Option<BTreeSet<_>> = None;
    let mut protected: Option<Vec<_>> = None;
    let mut endpoints = Vec::new();
    let (mut rego, mut publish) = (Vec::new(), Vec::new());
    let mut credentials = BTreeMap::new();
    let (mut items, mut hosts) = (0, 0);
    for draft in drafts {
        filesystem.read_only.extend(draft.filesystem.read_only);
        filesystem.read_write.extend(draft.filesystem.read_write);
        filesystem.hidden.extend(draft.filesystem.hidden);
        if let Some(named) = draft.filesystem.protected {
            protected.get_or_insert_default().extend(named);
        }
        relax.extend(draft.process.relax);
        if let Some(named) = draft.process.require {
            require.get_or_insert_default().extend(named);
        }
        endpoints.extend(draft.network.endpoints);
        rego.extend(draft.rego);
        publish.extend(draft.publish);
        agree::unite(&mut credentials, draft.credentials, report);
        items += draft.network.items;
        hosts += draft.network.hosts;
        if items > MAX_ITEMS || hosts > MAX_HOSTS {
            let message = format!("more than {MAX_ITEMS} endpoints and rules, or {MAX_HOSTS} hosts, in all files");
            report.extend(Rejected::one(&draft.file, Position::default(), message, None));
        }
    }
    // A policy that is only about the network works in the same directory as no policy, and one that grants a directory
    // does not thereby open what the host obeys in it. The built-in policy says both, so this ends there.
    match protected {
        Some(named) => filesystem.protected = named,
        None => match Policy::builtin() {
            Ok(builtin) if unsaid => filesystem = builtin.filesystem,
            Ok(builtin) => filesystem.protected = builtin.filesystem.protected,
            Err(rejected) => report.extend(rejected),
        },
    }
    granted_twice(&filesystem, report);
    published_twice(&publish, report);
    if report.is_empty() {
        agree::endpoints(&endpoints, report);
        agree::credentials(&endpoints, &credentials, report);
    }
    Policy {
        filesystem,
        process: Process {
            user: user.unwrap_or(User::Default),
            relax,
            limits,
            require: require.unwrap_or_else(|| DEFAULT_REQUIRE.into_iter().collect()),
        },
        network: Network { unmatched: unmatched.unwrap_or_default(), endpoints },
        credentials,
        rego,
        publish,
        digest,
    }
}

/// Single values that at most one source may decide.
struct Scalars<'r> {
    report: &'r mut Report,
}

impl Scalars<'_> {
    fn one<T: Clone + PartialEq>(
        &mut self,
        drafts: &[Draft],
        path: &str,
        get: impl Fn(&Draft) -> Option<&Located<T>>,
    ) -> Option<T> {
        let mut first: Option<(&Draft, &Located<T>)> = None;
        for draft in drafts {
            let Some(here) = get(draft) else { continue };
            match first {
                None => first = Some((draft, here)),
                Some((_, there)) if there.value == here.value => {}
                Some((other, there)) => self.report.push(Diagnostic {
                    file: draft.file.to_string(),
                    line: here.at.line,
                    column: here.at.column,
                    path: path.to_owned(),
                    message: format!("differs from {}:{}:{}", other.file, there.at.line, there.at.column),
                    help: Some("say it in one of the files".to_owned()),
                }),
            }
        }
        first.map(|(_, here)| here.value.clone())
    }
}

/// A path granted for reading in one place and for writing in another means two things.
fn granted_twice(filesystem: &Filesystem, report: &mut Report) {
    let writable: BTreeSet<&PathBuf> = filesystem.read_write.iter().map(|g| &g.path).collect();
    for grant in filesystem.read_only.iter().filter(|g| writable.contains(&g.path)) {
        let message = format!("{} is both in read_only and in read_write", shown(&grant.path.to_string_lossy()));
        report.extend(Rejected::one("policy", Position::default(), message, None));
    }
}

/// Two servers cannot be behind one port.
fn published_twice(publish: &[Publish], report: &mut Report) {
    if let Some(twice) = crate::publish::clash(publish) {
        let message = format!("publish: {} is published twice", twice.listen);
        report.extend(Rejected::one("policy", Position::default(), message, None));
    }
    if publish.len() > MAX_PUBLISHED {
        let message = format!("publish: more than {MAX_PUBLISHED} ports");
        report.extend(Rejected::one("policy", Position::default(), message, None));
    }
}

/// `binaries` alone, whether or not anything acts on it yet.
#[cfg(test)]
pub(crate) fn callers(text: &str) -> Result<Option<Arc<crate::caller::Callers>>, Rejected> {
    let root = yaml::parse(&Source::new("binaries", text))?;
    if says_nothing(&root) {
        return Ok(None);
    }
    let mut report = Report::default();
    let mut r = Reader { file: "binaries", report: &mut report };
    let callers = requests::callers(&mut r, &Trail::Root, &root);
    report.finish(callers)
}

#[cfg(test)]
mod tests;
