//! The mount view: a new root that holds what the policy grants and nothing else.
//!
//! Everything from outside is opened, copied (`open_tree`) and restricted before the new root covers anything; then the
//! pieces are put in place from the top down, the old root is detached, hidden and steering paths are covered, and the
//! kernel's list of mounts is compared with what was made.

use std::{
    fs::read_to_string,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use stockade_types::Enforcement;

use crate::landlock;

mod covers;
mod error;
mod etc;
mod furnish;
mod gpu;
mod grants;
mod host;
mod masks;
mod readback;
mod root;
mod system;
mod tree;

pub use error::ViewError;
pub use grants::BASELINE;
pub use masks::{MaskEvent, Masks};

use error::Context;

/// What a command may do below a granted path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read and execute.
    ReadOnly,
    /// And write.
    ReadWrite,
}

/// One granted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Absolute, the same inside and outside.
    pub path: PathBuf,
    /// What may be done below it.
    pub access: Access,
    /// Whether to make it, as a directory of the command's user, where it is missing.
    pub create: bool,
}

/// A path that the command must not change although it lies in a tree that it may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    /// Absolute. Paths outside of every writable grant cost nothing.
    pub path: PathBuf,
    /// Whether it steers Stockade: then there is no view where it is missing, a link, or cannot be covered.
    pub steers: bool,
}

/// A file that the view provides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewFile {
    /// Absolute path inside.
    pub path: PathBuf,
    /// Its content.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// What the view is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewPlan {
    /// System directories, read-only: /usr, /bin, /lib…, /etc.
    pub baseline: bool,
    /// Granted paths.
    pub grants: Vec<Grant>,
    /// Paths that are to be absent, or empty, even below a granted path.
    pub hidden: Vec<PathBuf>,
    /// Paths that are to be read-only even below a writable one.
    pub protected: Vec<Protected>,
    /// The command's directory; must lie in a grant.
    pub workspace: Option<PathBuf>,
    /// Where GPU device nodes are looked for (`/dev`); `None` for no GPU.
    pub gpu: Option<PathBuf>,
    /// The command's user.
    pub uid: u32,
    /// The command's group.
    pub gid: u32,
    /// The command's home: private and empty unless a grant covers it.
    pub home: PathBuf,
    /// Bound of /tmp, /var/tmp, /dev/shm and of a private home, each, in bytes.
    pub scratch_bytes: u64,
    /// Files that the view provides: resolv.conf, hosts, nsswitch.conf, hostname.
    pub files: Vec<ViewFile>,
}

/// How a path of the view may be used; for the Landlock rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathAccess {
    /// Directories may be listed, nothing else.
    List,
    /// Read and execute.
    ReadOnly,
    /// Read, and write to what exists.
    Update,
    /// Read, execute, write, make, remove.
    ReadWrite,
    /// A device node or a directory of terminals: read, write, ioctl.
    Device,
}

/// A path that is present in the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewPath {
    /// Absolute, inside.
    pub path: PathBuf,
    /// How it may be used.
    pub access: PathAccess,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Writes a setting below /proc/sys where the /proc at hand is covered.
///
/// # Errors
/// Where the kernel refuses a fresh /proc, or the setting.
pub(crate) fn set_kernel(name: &str, value: &[u8]) -> io::Result<()> {
    system::set_kernel(name, value)
}

/// Makes the view.
#[derive(Debug)]
pub struct View;

/// The view in force: it is the root of the calling process.
#[derive(Debug)]
pub struct BuiltView {
    mounts: Enforcement,
    hidden: Enforcement,
    paths: Vec<ViewPath>,
    notes: Vec<String>,
    masks: Masks,
}

impl View {
    /// Makes the view and enters it. The caller is the only thread of PID 1 in new pid and mount namespaces, with every
    /// capability in the user namespace that owns them; its working directory is `/` afterwards. What it still needs
    /// from outside, `/proc/sys` included, it has opened or written before.
    ///
    /// # Errors
    /// [`ViewError`], which names the path and the way out. The process then has half a view and must end.
    pub fn build(plan: &ViewPlan) -> Result<BuiltView, ViewError> {
        Self::build_with(plan, || Ok(Vec::new()))
    }

    /// The same, with files besides the plan's: asked for when everything else is in place.
    ///
    /// # Errors
    /// As [`Self::build`], and what `late` says.
    pub fn build_with(
        plan: &ViewPlan,
        late: impl FnOnce() -> io::Result<Vec<ViewFile>>,
    ) -> Result<BuiltView, ViewError> {
        root::cut_propagation()?;
        let outside = furnish::Outside::open(plan)?;
        let mut root = root::NewRoot::attach()?;
        let mut inside = furnish::furnish(&mut root, plan, outside)?;
        for file in late().at("receive files for", "/")? {
            inside.notes.extend(etc::place(&mut root, &file)?);
        }
        root.seal(Path::new("/dev"), tree::READ_ONLY_DATA)?;
        root.seal(Path::new("/"), tree::READ_ONLY)?;
        root.enter()?;
        let mounts = state(verify(&root, &inside.paths)?);
        let hidden = state(inside.bare.clone());
        let (paths, notes) = (inside.paths.clone(), inside.notes.clone());
        Ok(BuiltView { mounts, hidden, paths, notes, masks: inside.watch(&root)? })
    }
}

impl BuiltView {
    /// How far [`stockade_types::Layer::Mounts`] is enforced, as read back from the kernel.
    #[must_use]
    pub fn mounts(&self) -> &Enforcement {
        &self.mounts
    }

    /// How far [`stockade_types::Layer::Hidden`] is enforced. Paths that do not exist yet are not part of it; see
    /// [`Masks::not_promised`].
    #[must_use]
    pub fn hidden(&self) -> &Enforcement {
        &self.hidden
    }

    /// What is present, and how it may be used.
    #[must_use]
    pub fn landlock_paths(&self) -> &[ViewPath] {
        &self.paths
    }

    /// The same as the Landlock module takes it.
    #[must_use]
    pub fn landlock_plan(&self) -> landlock::Plan {
        let mut plan = landlock::Plan::default();
        for ViewPath { path, access, .. } in &self.paths {
            let list = match access {
                PathAccess::List => &mut plan.list,
                PathAccess::ReadOnly => &mut plan.read_only,
                PathAccess::Update => &mut plan.update,
                PathAccess::ReadWrite => &mut plan.read_write,
                PathAccess::Device => &mut plan.devices,
            };
            list.push(path.clone());
        }
        plan
    }

    /// Remarks for the start report: what this machine lacks and which hidden paths are not promised.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The covers of hidden and steering paths, to be polled (`POLLIN`) while a command runs; `None` where there is
    /// nothing to watch.
    #[must_use]
    pub fn masks(&self) -> Option<&Masks> {
        (!self.masks.is_empty()).then_some(&self.masks)
    }

    /// Paths that were to be hidden or protected, did not exist at the start, and exist now: to be reported before
    /// anybody outside uses what the command left.
    #[must_use]
    pub fn created(&self) -> Vec<PathBuf> {
        self.masks.created()
    }

    /// Looks at every cover and puts back those that are gone; one line for each event.
    pub fn check_masks(&mut self) -> Vec<String> {
        self.masks.check().iter().map(ToString::to_string).collect()
    }
}

fn state(differences: Vec<String>) -> Enforcement {
    if differences.is_empty() { Enforcement::Enforced } else { Enforcement::Partial(differences.join("; ")) }
}

/// Compares the kernel's list of mounts with what was made, and every read-only path with what a lookup of it meets.
fn verify(root: &root::NewRoot, paths: &[ViewPath]) -> Result<Vec<String>, ViewError> {
    let path = Path::new("/proc/self/mountinfo");
    let mountinfo = read_to_string(path).at("read", path)?;
    let mut found = readback::differences(&mountinfo, &root.made);
    for path in paths.iter().filter(|p| matches!(p.access, PathAccess::ReadOnly | PathAccess::List)) {
        let fd: OwnedFd = root.open(&path.path)?;
        if path.path != Path::new("/proc") && !read_only(&fd).at("look at", &path.path)? {
            found.push(format!("{} can be written", path.path.display()));
        }
    }
    Ok(found)
}

fn read_only(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatvfs(fd)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}
