//! What the command can do about the files that steer: the paths that it has, and what it cannot change among them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use stockade_confine::view::{Access, Grant};

use crate::{
    error::Error,
    steering::{Steering, SteeringError},
    way::Way,
};

/// As it is from the start of the sandbox to its end.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    grants: Vec<Grant>,
    /// Files in what the command may write that are read-only for it, and whose directories it cannot move.
    covered: Vec<PathBuf>,
}

impl Held {
    /// `steering` is what the sandbox starts with, and is covered.
    pub(crate) fn new(grants: &[Grant], steering: &Steering) -> Self {
        let ends = steering.ways.iter().map(|way| &way.end);
        let covered = ends.filter(|end| writable(grants, end)).cloned().collect();
        Self { grants: grants.to_vec(), covered }
    }

    /// With nothing covered.
    pub(crate) fn bare(grants: &[Grant]) -> Self {
        Self { grants: grants.to_vec(), covered: Vec::new() }
    }

    /// The same for every start and every reload.
    ///
    /// # Errors
    /// The first file whose content, or whose way, the command could change; the first secret that it could read.
    pub(crate) fn check(&self, steering: &Steering) -> Result<(), Error> {
        for way in &steering.ways {
            self.straight(way)?;
            if writable(&self.grants, &way.end) && !self.covered.contains(&way.end) {
                let why = format!(
                    "`{}` lies where the command may write, and was not read-only for it from the start",
                    way.end.display()
                );
                return Err(SteeringError::Unprotected { path: way.given.clone(), why }.into());
            }
        }
        for way in &steering.secrets {
            self.straight(way)?;
            self.unreadable(way)?;
        }
        Ok(())
    }

    fn straight(&self, way: &Way) -> Result<(), SteeringError> {
        let Some(turn) = self.turned(way) else { return Ok(()) };
        let why = format!("the way to it leads over `{}`, where the command may write", turn.display());
        Err(SteeringError::Unprotected { path: way.given.clone(), why })
    }

    /// Where on the way the command could lead it elsewhere. It cannot replace what is granted itself, nor a directory
    /// that holds something covered.
    pub(crate) fn turned<'w>(&self, way: &'w Way) -> Option<&'w Path> {
        let pinned = |turn: &Path| self.covered.iter().any(|covered| covered.starts_with(turn));
        let turns = way.turns.iter().map(PathBuf::as_path).filter(|turn| !pinned(turn));
        let mut changeable = turns.filter(|turn| turn.parent().is_some_and(|above| writable(&self.grants, above)));
        changeable.next()
    }

    /// A secret that lies where the command can read it is none. Hiding it would not do: when the file is replaced, as
    /// rotation does, it lies bare for a moment.
    fn unreadable(&self, secret: &Way) -> Result<(), Error> {
        if !granted(&self.grants, &secret.end) {
            return Ok(());
        }
        Err(Error::Option(format!(
            "{}: a secret that the command could read; keep it outside of every path that is granted to the command",
            secret.end.display()
        )))
    }
}

/// Whether the command sees this path, unless it is hidden.
pub(crate) fn granted(grants: &[Grant], path: &Path) -> bool {
    grants.iter().any(|g| holds(g, path))
}

/// Whether the command could write below this path's directory.
pub(crate) fn writable(grants: &[Grant], path: &Path) -> bool {
    grants.iter().any(|g| g.access == Access::ReadWrite && holds(g, path))
}

/// Whether it is the granted path, or lies below it: as that is written, or where it really is.
fn holds(grant: &Grant, path: &Path) -> bool {
    path.starts_with(&grant.path) || fs::canonicalize(&grant.path).is_ok_and(|real| path.starts_with(real))
}
