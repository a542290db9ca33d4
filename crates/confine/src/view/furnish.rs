//! Putting the pieces in place, from the top down: whatever is mounted at a path is there before anything below it.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Uid, chownat},
    io::Errno,
};

use super::{
    PathAccess, ViewFile, ViewPath, ViewPlan,
    covers::Wanted,
    error::{Context, ViewError},
    etc,
    grants::{Granted, Link, Source},
    host::{Host, kind_of},
    masks::{Blank, Covered, Ground, Kind, Masks},
    root::NewRoot,
    system::{self, Nodes, OWN},
    tree::{Detached, mount_id},
};

/// Everything taken from outside, opened before the view covers it.
pub(super) struct Outside {
    granted: Granted,
    nodes: Vec<(PathBuf, Detached)>,
    gpu: Vec<PathBuf>,
    wanted: Wanted,
    accounts: Vec<ViewFile>,
}

impl Outside {
    pub(super) fn open(plan: &ViewPlan) -> Result<Self, ViewError> {
        let host = Host::new(plan.uid, plan.gid)?;
        let nodes = Nodes::open(&host, plan.gpu.as_deref())?;
        let granted = Granted::open(&host, plan)?;
        workspace(&granted, plan)?;
        Ok(Self {
            nodes: nodes.copy()?,
            gpu: nodes.gpu_paths(),
            wanted: Wanted::new(&host, plan, &granted)?,
            accounts: etc::accounts(plan),
            granted,
        })
    }
}

fn workspace(granted: &Granted, plan: &ViewPlan) -> Result<(), ViewError> {
    let Some(workspace) = &plan.workspace else { return Ok(()) };
    let inside = granted.inside(workspace);
    if granted.sources.iter().any(|s| inside.starts_with(&s.path)) {
        return Ok(());
    }
    Err(ViewError::WorkspaceNotGranted(workspace.clone()))
}

/// The workspace must be a directory that is reached through no link: looked at where the command will be.
fn enterable(root: &NewRoot, inside: &Path, workspace: &Path) -> Result<(), ViewError> {
    match root.find(inside) {
        Ok(fd) if kind_of(&fd).at("stat", inside)? == FileType::Directory => Ok(()),
        Ok(_) | Err(Errno::NOTDIR | Errno::LOOP) => Err(ViewError::WorkspaceNotDirectory(workspace.to_owned())),
        Err(Errno::NOENT) => Err(ViewError::Missing(workspace.to_owned())),
        Err(e) => Err(e).at("open", inside),
    }
}

/// What came of it.
pub(super) struct Inside {
    pub(super) paths: Vec<ViewPath>,
    pub(super) notes: Vec<String>,
    /// Hidden paths that could not be hidden.
    pub(super) bare: Vec<String>,
    covered: Covered,
    /// Roots of granted trees.
    grounds: Vec<PathBuf>,
    blank: Blank,
}

impl Inside {
    /// Hands the covers over to whoever watches them. Inside the view.
    pub(super) fn watch(self, root: &NewRoot) -> Result<Masks, ViewError> {
        let ground = |path: PathBuf| Ok(Ground { fd: root.open(&path)?, path });
        let grounds: Result<Vec<_>, ViewError> = self.grounds.into_iter().map(ground).collect();
        Masks::new(grounds?, self.blank, self.covered)
    }

    fn add(&mut self, path: &Path, access: PathAccess, is_dir: bool) {
        self.paths.push(ViewPath { path: path.to_owned(), access, is_dir });
    }
}

/// One thing to be put in place.
enum Piece {
    Link(Link),
    Scratch(Scratch),
    Source(Source),
    Cover(Kind),
}

/// A private file system in memory.
struct Scratch {
    mode: &'static str,
    /// Whether it is the command's user's own, or open to all.
    own: bool,
}

impl Piece {
    /// Order among pieces at one path.
    fn rank(&self) -> u8 {
        match self {
            Self::Link(_) => 0,
            Self::Scratch { .. } => 1,
            Self::Source(s) if s.access != PathAccess::ReadOnly => 2,
            // The stricter of two grants of one path comes last and counts.
            Self::Source(_) => 3,
            Self::Cover(_) => 4,
        }
    }
}

/// Fills `root`.
pub(super) fn furnish(root: &mut NewRoot, plan: &ViewPlan, outside: Outside) -> Result<Inside, ViewError> {
    let Outside { granted, nodes, gpu, wanted, accounts } = outside;
    root.directory(Path::new(OWN), 0o755)?;
    let blank = system::blank(root)?;
    let covered = Covered { covers: Vec::new(), absent: wanted.absent };
    let mut inside =
        Inside { paths: Vec::new(), notes: Vec::new(), bare: wanted.bare, covered, grounds: Vec::new(), blank };
    system_directories(root, &mut inside, nodes, &gpu)?;
    let workspace = plan.workspace.as_deref().map(|outside| (granted.inside(outside), outside));
    for (path, piece) in pieces(plan, granted, wanted.covers) {
        place(root, plan, &mut inside, &path, piece)?;
    }
    if let Some((inside, workspace)) = workspace {
        enterable(root, &inside, workspace)?;
    }
    system::mask(root, &inside.blank)?;
    for file in plan.files.iter().chain(&accounts) {
        inside.notes.extend(etc::place(root, file)?);
    }
    for path in &inside.covered.absent {
        inside
            .notes
            .push(format!("{} does not exist yet: keeping it hidden or unchanged is not promised", path.display()));
    }
    Ok(inside)
}

fn system_directories(
    root: &mut NewRoot,
    inside: &mut Inside,
    nodes: Vec<(PathBuf, Detached)>,
    gpu: &[PathBuf],
) -> Result<(), ViewError> {
    system::proc(root)?;
    inside.notes.extend(system::sys(root)?);
    for (path, _) in &nodes {
        inside.add(path, PathAccess::Device, false);
    }
    system::dev(root, nodes)?;
    if system::mqueue(root)? {
        inside.add(Path::new("/dev/mqueue"), PathAccess::ReadWrite, true);
    }
    inside.add(Path::new("/dev/pts"), PathAccess::Device, true);
    inside.add(Path::new("/"), PathAccess::List, true);
    inside.add(Path::new("/sys"), PathAccess::ReadOnly, true);
    inside.add(Path::new(OWN), PathAccess::ReadOnly, true);
    // CUDA writes names of threads below /proc, and looks for the directory of a daemon; its socket stays outside.
    let proc = if gpu.is_empty() { PathAccess::ReadOnly } else { PathAccess::Update };
    inside.add(Path::new("/proc"), proc, true);
    if !gpu.is_empty() {
        root.directory(Path::new("/run/nvidia-persistenced"), 0o755)?;
    }
    Ok(())
}

/// All pieces, the shorter path first.
fn pieces(plan: &ViewPlan, granted: Granted, covers: BTreeMap<PathBuf, Kind>) -> Vec<(PathBuf, Piece)> {
    let shared =
        ["/tmp", "/var/tmp", "/dev/shm"].map(|path| (PathBuf::from(path), Scratch { mode: "1777", own: false }));
    let home = (granted.inside(&plan.home), Scratch { mode: "700", own: true });
    let grant_over = |path: &Path| granted.sources.iter().any(|s| path.starts_with(&s.path));
    let scratch = shared.into_iter().chain([home]).filter(|(path, _)| path != Path::new("/") && !grant_over(path));
    let mut all: Vec<_> = scratch.map(|(path, scratch)| (path, Piece::Scratch(scratch))).collect();
    all.extend(granted.links.into_iter().map(|l| (l.path.clone(), Piece::Link(l))));
    all.extend(granted.sources.into_iter().map(|s| (s.path.clone(), Piece::Source(s))));
    all.extend(covers.into_iter().map(|(path, kind)| (path, Piece::Cover(kind))));
    all.sort_by_key(|(path, piece)| (path.components().count(), piece.rank()));
    all
}

fn place(root: &mut NewRoot, plan: &ViewPlan, inside: &mut Inside, path: &Path, piece: Piece) -> Result<(), ViewError> {
    match piece {
        Piece::Link(link) => root.link(path, &link.target)?,
        Piece::Scratch(scratch) => {
            let fd = system::tmpfs(root, path, scratch.mode, plan.scratch_bytes)?;
            if scratch.own {
                let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
                chownat(&fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).at("give to the command's user", path)?;
            }
            inside.add(path, PathAccess::ReadWrite, true);
        }
        Piece::Source(source) => {
            inside.add(path, source.access, source.is_dir);
            if source.is_dir {
                inside.grounds.push(path.to_owned());
            }
            root.mount(path, source.mount)?;
        }
        Piece::Cover(kind) => match root.find(path) {
            Ok(target) => {
                let mount = inside.blank.make(target.as_fd(), kind).at("cover", path)?;
                inside.covered.covers.push((path.to_owned(), kind, mount_id(&mount).at("identify mount", path)?));
                root.cover(path, target.as_fd(), mount)?;
            }
            Err(Errno::NOENT | Errno::NOTDIR) => inside.covered.absent.push(path.to_owned()),
            Err(e) => return Err(e).at("cover", path),
        },
    }
    Ok(())
}
