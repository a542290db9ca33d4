//! `hidden` and steering files: masks over what must not be seen, read-only covers over what must not be changed, and
//! pins on the directories above them. A mount cannot be renamed or removed from inside, so `mv .git x; mkdir .git`
//! fails; a program outside can still replace a masked file, which detaches the mask. Then it is put back and reported:
//! at once where the kernel tells of a detached mount, within a second where a program outside renamed a directory.
//! (inotify would tell of that too, but closing its descriptor made every sandbox end some 10 ms later.)

use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    event::epoll,
    fs::{FileType, Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
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

/// How long a directory that a program outside renamed may lie bare.
const SLOW: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How long a path may lie bare that was removed and came back: programs that save so do it within moments...
const FAST: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// ...and this often it is looked for, before that is no longer expected.
const FAST_LOOKS: u32 = 100;

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
    /// Tells when to look without being told.
    timer: OwnedFd,
    /// Both of them, as one descriptor to poll.
    both: OwnedFd,
    /// How often still to look at short intervals.
    fast_looks: u32,
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
        let mount_table = File::open(mountinfo).at("open", mountinfo)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).at("watch", mountinfo)?;
        let both = epoll::create(epoll::CreateFlags::CLOEXEC).at("watch", mountinfo)?;
        let data = epoll::EventData::new_u64;
        epoll::add(&both, &mount_table, data(0), epoll::EventFlags::PRI).at("watch", mountinfo)?;
        epoll::add(&both, &timer, data(1), epoll::EventFlags::IN).at("watch", mountinfo)?;
        let mut masks = Self {
            grounds,
            covers: Vec::new(),
            absent: Vec::new(),
            blank,
            _mountinfo: mount_table,
            timer,
            both,
            fast_looks: 0,
        };
        for (path, kind, mount) in covered.covers {
            if let Some((ground, below)) = masks.ground(&path) {
                masks.covers.push(Cover { ground, below, kind, mount: Some(mount) });
            }
        }
        if !masks.covers.is_empty() {
            masks.look_again_in(SLOW).at("watch", mountinfo)?;
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

    /// Whether there is nothing to watch.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.covers.is_empty()
    }

    /// Looks at every cover, puts back those that are gone, and says what happened.
    pub fn check(&mut self) -> Vec<MaskEvent> {
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
        }
        self.fast_looks = if events.is_empty() { self.fast_looks.saturating_sub(1) } else { FAST_LOOKS };
        let missing = self.covers.iter().any(|c| c.mount.is_none());
        // Setting the timer also takes back that it has run out. It cannot fail with a fixed, valid time.
        self.look_again_in(if missing && self.fast_looks > 0 { FAST } else { SLOW }).ok();
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

    fn look_again_in(&self, interval: Timespec) -> io::Result<()> {
        let setting = Itimerspec { it_interval: interval, it_value: interval };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }
}
