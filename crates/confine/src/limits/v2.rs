//! Making a cgroup in version 2, where a group with processes of its own can have no children with controllers.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    cgroup::{Dir, write_file},
    detect::{Controller, Hierarchy},
};

/// Where this process goes when it is alone in a group that is to have children.
const LEAF: &str = "stockade-supervisor";

/// Makes `name` in the nearest group that may have such a child with the `wanted` controllers: our own, or one above
/// it. When none has them all, in the one that has most.
pub(super) fn make(hierarchy: &Hierarchy, name: &str, wanted: &[Controller]) -> Result<Dir, String> {
    if hierarchy.read_only {
        return Err(format!("{} is mounted read-only", hierarchy.mount.display()));
    }
    let mut refused = Vec::new();
    let mut best: Option<Dir> = None;
    for parent in hierarchy.own.ancestors().take_while(|p| p.starts_with(&hierarchy.mount)) {
        let has = |dir: &Dir| wanted.iter().filter(|c| dir.controllers.contains(c)).count();
        match make_in(parent, name, wanted) {
            Ok(dir) if best.as_ref().is_none_or(|b| has(b) < has(&dir)) => drop_dir(best.replace(dir)),
            Ok(dir) => drop_dir(Some(dir)),
            Err(why) => refused.push(why),
        }
        if best.as_ref().is_some_and(|b| has(b) == wanted.len()) {
            break;
        }
    }
    best.ok_or_else(|| refused.join("; "))
}

fn drop_dir(dir: Option<Dir>) {
    if let Some(dir) = dir {
        // Empty and new: it can be removed, and if not it does no harm.
        let _ = fs::remove_dir(dir.path);
    }
}

fn make_in(parent: &Path, name: &str, wanted: &[Controller]) -> Result<Dir, String> {
    let path = parent.join(name);
    fs::create_dir(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
    // Processes come in only with write access to both: to the group, and to the nearest one above both places.
    let enter = || {
        [parent, &path]
            .iter()
            .try_for_each(|dir| fs::OpenOptions::new().write(true).open(dir.join("cgroup.procs")).map(drop))?;
        File::open(&path)
    };
    match enter() {
        Ok(entry) => Ok(Dir { controllers: enable(parent, wanted), path, version2: true, entry }),
        Err(e) => {
            let why = format!("cannot enter {}: {e}", path.display());
            let _ = fs::remove_dir(&path);
            Err(why)
        }
    }
}

/// Controllers that children of `parent` get, after asking for the `wanted` ones that it offers.
fn enable(parent: &Path, wanted: &[Controller]) -> Vec<Controller> {
    let (offered, before) = (listed(&parent.join("cgroup.controllers")), enabled(parent));
    for controller in wanted.iter().filter(|c| offered.contains(c) && !before.contains(c)) {
        // One by one: one that is refused must not take the others with it.
        if let Err(e) = ask(parent, *controller)
            && e.kind() == io::ErrorKind::ResourceBusy
            && make_room(parent).is_ok()
        {
            // What still fails shows below: only what is enabled counts.
            let _ = ask(parent, *controller);
        }
    }
    enabled(parent).into_iter().collect()
}

fn ask(parent: &Path, controller: Controller) -> io::Result<()> {
    write_file(&parent.join("cgroup.subtree_control"), &format!("+{}", controller.name()))
}

/// Moves this process, when nobody else is in `parent`, into a group of its own below it.
fn make_room(parent: &Path) -> io::Result<()> {
    let me = std::process::id().to_string();
    let members = fs::read_to_string(parent.join("cgroup.procs"))?;
    if members.lines().any(|l| l.trim() != me) || members.trim().is_empty() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let leaf: PathBuf = parent.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    write_file(&leaf.join("cgroup.procs"), &me)
}

fn enabled(group: &Path) -> BTreeSet<Controller> {
    listed(&group.join("cgroup.subtree_control"))
}

fn listed(path: &Path) -> BTreeSet<Controller> {
    let text = fs::read_to_string(path).unwrap_or_default();
    Controller::ALL.into_iter().filter(|c| text.split_whitespace().any(|w| w == c.name())).collect()
}
