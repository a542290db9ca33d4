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

/// Makes `name` in the nearest group that may have such a child: our own, or one above it.
pub(super) fn make(hierarchy: &Hierarchy, name: &str, cpu: bool) -> Result<Dir, String> {
    if hierarchy.read_only {
        return Err(format!("{} is mounted read-only", hierarchy.mount.display()));
    }
    let mut refused = Vec::new();
    let mut bare = None;
    for parent in hierarchy.own.ancestors().take_while(|p| p.starts_with(&hierarchy.mount)) {
        let controllers = enable(parent, cpu);
        match make_in(parent, name, controllers) {
            Ok(dir) if dir.controllers.is_empty() => {
                // Better than nothing (it counts CPU time and can be killed at once), if nothing better follows.
                drop_dir(bare.replace(dir));
            }
            Ok(dir) => {
                drop_dir(bare);
                return Ok(dir);
            }
            Err(why) => refused.push(why),
        }
        // Without a controller anywhere here there is none further up either.
        if offered(parent).is_empty() {
            break;
        }
    }
    bare.ok_or_else(|| refused.join("; "))
}

fn drop_dir(dir: Option<Dir>) {
    if let Some(dir) = dir {
        // Empty and new: it can be removed, and if not it does no harm.
        let _ = fs::remove_dir(dir.path);
    }
}

fn make_in(parent: &Path, name: &str, controllers: Vec<Controller>) -> Result<Dir, String> {
    let path = parent.join(name);
    fs::create_dir(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
    let usable = || {
        fs::OpenOptions::new().write(true).open(path.join("cgroup.procs"))?;
        File::open(&path)
    };
    match usable() {
        Ok(entry) => Ok(Dir { path, controllers, version2: true, entry }),
        Err(e) => {
            let why = format!("cannot use {}: {e}", path.display());
            let _ = fs::remove_dir(&path);
            Err(why)
        }
    }
}

/// Controllers that children of `parent` get, after asking for what it offers and we need.
fn enable(parent: &Path, cpu: bool) -> Vec<Controller> {
    let mut offered = offered(parent);
    offered.retain(|c| cpu || *c != Controller::Cpu);
    let missing = || offered.difference(&enabled(parent)).copied().collect::<Vec<_>>();
    for controller in missing() {
        // One by one: one that is refused must not take the others with it.
        if let Err(e) = ask(parent, controller)
            && e.kind() == io::ErrorKind::ResourceBusy
            && make_room(parent).is_ok()
        {
            // What still fails shows below: only what is enabled counts.
            let _ = ask(parent, controller);
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

fn offered(group: &Path) -> BTreeSet<Controller> {
    listed(&group.join("cgroup.controllers"))
}

fn enabled(group: &Path) -> BTreeSet<Controller> {
    listed(&group.join("cgroup.subtree_control"))
}

fn listed(path: &Path) -> BTreeSet<Controller> {
    let text = fs::read_to_string(path).unwrap_or_default();
    Controller::ALL.into_iter().filter(|c| text.split_whitespace().any(|w| w == c.name())).collect()
}
