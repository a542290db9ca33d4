//! A caller that somebody names, instead of one that was found: for questions about a policy, and its tests.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use stockade_types::Escaped;

use super::{Ancestor, Binary, Caller};
use crate::Snapshot;

/// A program as a person names it. Paths are absolute, as the sandbox sees them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// What it runs.
    pub exe: PathBuf,
    /// What the executable hashes to. Not said: no pin fits.
    pub sha256: Option<[u8; 32]>,
    /// What the processes above it run, the parent first; none: it is the command itself.
    pub ancestors: Vec<PathBuf>,
    /// The script that an interpreter was started with.
    pub script: Option<PathBuf>,
}

impl Snapshot {
    /// The caller that the door would find. `same` says whether two paths lead to one file: the door looks at files, and
    /// whoever asks knows where they are.
    #[must_use]
    pub fn claimed(&self, claim: &Claim, same: &dyn Fn(&Path, &Path) -> bool) -> Caller {
        let matched = |exe: &Path, sha256: Option<[u8; 32]>| {
            let is = |own: &Binary| same(exe, &own.path) && own.sha256.is_none_or(|pin| sha256 == Some(pin));
            (0u32..).zip(self.binaries()).filter(|(_, own)| is(own)).map(|(id, _)| id).collect()
        };
        let above = |exe: &PathBuf| Ancestor { exe: text(exe), matched: matched(exe, None) };
        Caller {
            exe: text(&claim.exe),
            sha256: claim.sha256,
            matched: matched(&claim.exe, claim.sha256),
            ancestors: Some(claim.ancestors.iter().map(above).collect()),
            script: claim.script.as_deref().map(text),
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A caller in a sentence.
pub(crate) struct Shown<'a>(pub(crate) &'a Arc<Caller>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.0.exe))?;
        if let Some(script) = &self.0.script {
            write!(f, " {}", Escaped(script))?;
        }
        for (at, above) in self.0.ancestors.iter().flatten().enumerate() {
            write!(f, "{} {}", if at == 0 { " below" } else { "," }, Escaped(&above.exe))?;
        }
        Ok(())
    }
}
