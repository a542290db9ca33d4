//! Which covers a plan needs: worked out from the outside, before anything is mounted, so that each is put in place
//! in its turn and nothing mounted later lies over it.

use std::{
    collections::BTreeMap,
    fs::read_link,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use rustix::{fs::fstat, io::Errno};

use super::{
    Access, PathAccess, Protected, ViewPlan,
    error::{Context, ViewError},
    grants::{Granted, Source},
    host::{Host, names},
    masks::Kind,
};

/// Everything to be covered.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By path inside; the strongest kind where several meet.
    pub(super) covers: BTreeMap<PathBuf, Kind>,
    /// Paths inside at which nothing lies yet.
    pub(super) absent: Vec<PathBuf>,
    /// Hidden paths that cannot be hidden, and why.
    pub(super) bare: Vec<String>,
}

impl Wanted {
    pub(super) fn new(host: &Host, plan: &ViewPlan, granted: &Granted) -> Result<Self, ViewError> {
        let mut wanted = Self::default();
        for path in &plan.hidden {
            wanted.hide(host, granted, path)?;
        }
        for protected in &plan.protected {
            wanted.protect(host, plan, granted, protected)?;
        }
        for source in granted.sources.iter().filter(|s| s.access == PathAccess::ReadOnly) {
            // Mounted read-only already; noted so that it is pinned, watched and put back like the others.
            if writable_above(granted, &source.path).next().is_some() {
                wanted.add(source.path.clone(), Kind::Protect);
            }
        }
        wanted.pin(granted);
        Ok(wanted)
    }

    fn hide(&mut self, host: &Host, granted: &Granted, path: &Path) -> Result<(), ViewError> {
        names(path)?;
        if ["/proc", "/sys", "/dev"].iter().any(|own| path.starts_with(own)) {
            self.bare.push(format!("{} belongs to the sandbox itself and is not hidden", path.display()));
            return Ok(());
        }
        match real(host, path)? {
            Some(real) => insides(granted, &real).for_each(|(_, inside)| self.add(inside, Kind::Hide)),
            None => self.note_absent(granted, path),
        }
        Ok(())
    }

    fn protect(
        &mut self,
        host: &Host,
        plan: &ViewPlan,
        granted: &Granted,
        protected: &Protected,
    ) -> Result<(), ViewError> {
        let path = &protected.path;
        names(path)?;
        if protected.steers && plan.grants.iter().any(|g| g.access == Access::ReadWrite) {
            steers(host, path).map_err(|why| ViewError::Unprotected { path: path.clone(), why })?;
        }
        let Some(real) = real(host, path)? else {
            self.note_absent(granted, path);
            return Ok(());
        };
        for (source, inside) in insides(granted, &real) {
            if source.access == PathAccess::ReadWrite {
                if inside == source.path && protected.steers {
                    let why = "it is itself granted for writing".to_owned();
                    return Err(ViewError::Unprotected { path: path.clone(), why });
                }
                self.add(inside, Kind::Protect);
            }
        }
        Ok(())
    }

    /// Every directory between the root of a writable tree and a cover.
    fn pin(&mut self, granted: &Granted) {
        let mut pins = Vec::new();
        for path in self.covers.keys() {
            for tree in writable_above(granted, path) {
                let between = path.ancestors().skip(1).take_while(|a| *a != tree.path);
                pins.extend(between.map(Path::to_owned));
            }
        }
        for pin in pins {
            self.covers.entry(pin).or_insert(Kind::Pin);
        }
    }

    fn add(&mut self, path: PathBuf, kind: Kind) {
        let entry = self.covers.entry(path).or_insert(kind);
        *entry = kind.max(*entry);
    }

    fn note_absent(&mut self, granted: &Granted, path: &Path) {
        let inside = granted.inside(path);
        if granted.sources.iter().any(|s| s.is_dir && inside.starts_with(&s.path)) {
            self.absent.push(inside);
        }
    }
}

/// Writable trees that hold `path` below their root.
fn writable_above<'g>(granted: &'g Granted, path: &Path) -> impl Iterator<Item = &'g Source> {
    let path = path.to_owned();
    let writable = |s: &&Source| s.is_dir && s.access == PathAccess::ReadWrite;
    granted.sources.iter().filter(writable).filter(move |s| path != s.path && path.starts_with(&s.path))
}

/// Where something that really lies at `real` appears inside, and by which grant. Where grants lie in each other, the
/// innermost counts.
fn insides<'g>(granted: &'g Granted, real: &Path) -> impl Iterator<Item = (&'g Source, PathBuf)> {
    let mut found: BTreeMap<PathBuf, &Source> = BTreeMap::new();
    for source in &granted.sources {
        let Ok(below) = real.strip_prefix(&source.real) else { continue };
        let inside = if below.as_os_str().is_empty() { source.path.clone() } else { source.path.join(below) };
        let entry = found.entry(inside).or_insert(source);
        if source.path.as_os_str().len() > entry.path.as_os_str().len() {
            *entry = source;
        }
    }
    found.into_iter().map(|(inside, source)| (source, inside))
}

/// Where `path` really lies outside, all links followed; `None` where nothing does, or only what the command could not
/// reach either.
fn real(host: &Host, path: &Path) -> Result<Option<PathBuf>, ViewError> {
    match host.look(path) {
        Ok(fd) => read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map(Some).at("find the place of", path),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(None),
        Err(e) => Err(e).at("open", path),
    }
}

/// Whether a steering file can be held, wherever it lies.
fn steers(host: &Host, path: &Path) -> Result<(), String> {
    let fd = host.open(path).map_err(|e| e.to_string())?;
    let stat = fstat(&fd).map_err(|e| e.to_string())?;
    if super::host::kind(&stat) == rustix::fs::FileType::RegularFile && stat.st_nlink > 1 && host.writable(&stat) {
        return Err("it has other names (hard links), which may lie anywhere".to_owned());
    }
    Ok(())
}
