//! `hidden` and steering files: masks over what must not be seen, read-only covers over what must not be changed, and
//! pins on the directories above them. A mount cannot be renamed or removed from inside, so `mv .git x; mkdir .git`
//! fails; a program outside can still replace a masked file, which detaches the mask. Then it is put back and reported.

use std::{
    fmt,
    fs::File,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    event::epoll,
    fs::{FileType, Mode, OFlags, ResolveFlags, inotify, openat2},
    io::Errno,
};
use stockade_sys::mount::Reach;

use super::{
    error::{Context, ViewError},
    host::kind_of,
    tree::{Detached, PLAIN, READ_ONLY, READ_ONLY_DATA, mount_id},
};

/// What lies over a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The directory itself: it cannot be renamed.
    Pin,
    /// The thing itself, read-only.
    Protect,
    /// Nothing: an empty file that cannot be opened, or an empty directory.
    Hide,
}

/// A place where covers go: the root of a granted tree.
#[derive(Debug)]
pub(super) struct Ground {
    /// Where it is mounted inside.
    pub(super) path: PathBuf,
    /// Its root, whatever happens to the directories above it.
    pub(super) fd: OwnedFd,
}

/// What was covered while the view was made.
#[derive(Debug, Default)]
pub(super) struct Covered {
    /// Path inside, kind, mount; shorter paths first.
    pub(super) covers: Vec<(PathBuf, Kind, u64)>,
    /// Paths inside at which nothing lay.
    pub(super) absent: Vec<PathBuf>,
}

/// One mount that is watched.
#[derive(Debug)]
struct Cover {
    /// Index of the ground it lies in.
    ground: usize,
    /// Path below the ground.
    below: PathBuf,
    kind: Kind,
    /// The mount that covered it when last seen; `None` while nothing lies there.
    mount: Option<u64>,
}

/// Something that happened to a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaskEvent {
    /// Somebody outside replaced what was covered; the cover lies over the new thing now. Until then it was bare.
    Restored(PathBuf),
    /// Somebody outside removed what was covered. Should it come back, it is covered again.
    Vanished(PathBuf),
    /// It cannot be covered again: the path is bare.
    Lost {
        /// The path inside the view.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// The covers of a view, to be watched for as long as a command runs. Dropping it leaves them in place, unwatched.
#[derive(Debug)]
pub struct Masks {
    grounds: Vec<Ground>,
    covers: Vec<Cover>,
    absent: Vec<(usize, PathBuf)>,
    blank: Blank,
    /// Its poll tells of detached mounts.
    _mountinfo: File,
    /// Tells of entries made, removed and renamed in the directories that matter.
    entries: OwnedFd,
    /// Both of them, as one descriptor to poll.
    both: OwnedFd,
}

/// What masks are made of.
#[derive(Debug)]
pub(super) struct Blank {
    pub(super) file: OwnedFd,
    pub(super) directory: OwnedFd,
}

impl AsFd for Masks {
    /// Readable when something may have happened; then call [`Masks::check`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}

impl fmt::Display for MaskEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored(path) => {
                write!(f, "{} was replaced from outside and lay bare; it is covered again", path.display())
            }
            Self::Vanished(path) => write!(f, "{} was removed from outside", path.display()),
            Self::Lost { path, why } => write!(f, "{} lies bare and cannot be covered: {why}", path.display()),
        }
    }
}

impl Blank {
    /// A cover for what `target` refers to.
    pub(super) fn make(&self, target: BorrowedFd<'_>, kind: Kind) -> io::Result<Detached> {
        let directory = kind_of(target)? == FileType::Directory;
        match kind {
            Kind::Pin => Detached::copy(target, PLAIN, Reach::Tree),
            Kind::Protect => Detached::copy(target, READ_ONLY, Reach::Tree),
            Kind::Hide if directory => Detached::copy(self.directory.as_fd(), READ_ONLY_DATA, Reach::One),
            Kind::Hide => Detached::copy(self.file.as_fd(), READ_ONLY_DATA, Reach::One),
        }
    }
}

impl Masks {
    /// Takes over the watch. To be called inside the view, where /proc is the new one.
    pub(super) fn new(grounds: Vec<Ground>, blank: Blank, covered: Covered) -> Result<Self, ViewError> {
        let mountinfo = Path::new("/proc/self/mountinfo");
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let mount_table = File::open(mountinfo).at("open", mountinfo)?;
        let entries = inotify::init(flags).at("watch directories below", "/")?;
        let both = epoll::create(epoll::CreateFlags::CLOEXEC).at("watch", mountinfo)?;
        let data = epoll::EventData::new_u64;
        epoll::add(&both, &mount_table, data(0), epoll::EventFlags::PRI).at("watch", mountinfo)?;
        epoll::add(&both, &entries, data(1), epoll::EventFlags::IN).at("watch directories below", "/")?;
        let mut masks =
            Self { grounds, covers: Vec::new(), absent: Vec::new(), blank, _mountinfo: mount_table, entries, both };
        for (path, kind, mount) in covered.covers {
            if let Some((ground, below)) = masks.ground(&path) {
                masks.watch(ground, &below).at("watch", &path)?;
                masks.covers.push(Cover { ground, below, kind, mount: Some(mount) });
            }
        }
        masks.absent = covered.absent.iter().filter_map(|path| masks.ground(path)).collect();
        Ok(masks)
    }

    /// The outermost ground that holds `path`, and the way from there: a path that leads through inner ones is followed
    /// as it is at that moment.
    fn ground(&self, path: &Path) -> Option<(usize, PathBuf)> {
        let holding = self.grounds.iter().enumerate().filter(|(_, g)| path != g.path && path.starts_with(&g.path));
        let (index, ground) = holding.min_by_key(|(_, g)| g.path.as_os_str().len())?;
        Some((index, path.strip_prefix(&ground.path).ok()?.to_owned()))
    }

    /// Whether anything is covered or awaited: without, there is nothing to poll.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.covers.is_empty() && self.absent.is_empty()
    }

    /// Looks at every cover, puts back those that are gone, and says what happened.
    pub fn check(&mut self) -> Vec<MaskEvent> {
        self.drain();
        let mut events = Vec::new();
        for at in 0..self.covers.len() {
            let (ground, below, kind) = (self.covers[at].ground, self.covers[at].below.clone(), self.covers[at].kind);
            let before = self.covers[at].mount;
            let now = self.seen(ground, &below);
            if before.is_some() && matches!(now, Ok(seen) if seen == before) {
                continue;
            }
            let path = self.path(&self.covers[at]);
            let outcome = now.and_then(|_| self.cover(ground, &below, kind));
            self.covers[at].mount = outcome.as_ref().ok().copied().flatten();
            match outcome {
                Ok(Some(_)) => events.push(MaskEvent::Restored(path)),
                Ok(None) if before.is_some() => events.push(MaskEvent::Vanished(path)),
                Ok(None) => {}
                Err(e) => events.push(MaskEvent::Lost { path, why: e.to_string() }),
            }
            if let Err(e) = self.watch(ground, &below) {
                events.push(MaskEvent::Lost { path: self.path(&self.covers[at]), why: e.to_string() });
            }
        }
        events
    }

    /// Paths that were to be hidden or protected, did not exist at the start, and exist now: somebody made them, the
    /// command or a program outside.
    #[must_use]
    pub fn created(&self) -> Vec<PathBuf> {
        let exists = |(ground, below): &&(usize, PathBuf)| {
            !matches!(self.find(*ground, below), Err(Errno::NOENT | Errno::NOTDIR))
        };
        self.absent.iter().filter(exists).map(|(g, below)| self.grounds[*g].path.join(below)).collect()
    }

    /// Paths that were to be hidden or protected but did not exist at the start: nothing is promised for them.
    #[must_use]
    pub fn not_promised(&self) -> Vec<PathBuf> {
        self.absent.iter().map(|(g, below)| self.grounds[*g].path.join(below)).collect()
    }

    fn path(&self, cover: &Cover) -> PathBuf {
        self.grounds[cover.ground].path.join(&cover.below)
    }

    fn find(&self, ground: usize, below: &Path) -> Result<OwnedFd, Errno> {
        let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(&self.grounds[ground].fd, below, flags, Mode::empty(), strict)
    }

    /// The mount that `below` is on; `None` where nothing lies there.
    fn seen(&self, ground: usize, below: &Path) -> io::Result<Option<u64>> {
        match self.find(ground, below) {
            Ok(fd) => mount_id(fd).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn cover(&self, ground: usize, below: &Path, kind: Kind) -> io::Result<Option<u64>> {
        let target = match self.find(ground, below) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mount = self.blank.make(target.as_fd(), kind)?;
        let id = mount_id(&mount)?;
        mount.attach(target.as_fd())?;
        Ok(Some(id))
    }

    /// Watches the directories on the way to `below`, as far as they exist.
    fn watch(&self, ground: usize, below: &Path) -> io::Result<()> {
        let flags = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::ONLYDIR;
        for ancestor in below.ancestors().skip(1) {
            let directory = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
            if let Ok(fd) = self.find(ground, directory) {
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
                match inotify::add_watch(&self.entries, path, flags) {
                    Ok(_) | Err(Errno::NOTDIR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }

    /// Takes what the watch has queued; which entries changed does not matter. One buffer only: more makes the
    /// descriptor ready again, and a command that floods it delays nobody else.
    fn drain(&self) {
        let mut space = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(&self.entries, &mut space);
        while reader.next().is_ok() && !reader.is_buffer_empty() {}
    }
}
