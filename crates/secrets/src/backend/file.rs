//! `file:PATH`: a regular file, read again when it changed. It is steering input: where the command could write it, the
//! supervisor must protect it before the view is made.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};
use stockade_types::Secret;
use zeroize::Zeroizing;

use super::{Backend, Context, FetchError, MAX_SOURCE, trimmed};

/// How often a file that is being written is read before it is given up.
const TRIES: usize = 3;

/// Files by name, with what was read last.
#[derive(Debug)]
pub(super) struct File {
    directory: PathBuf,
    recheck: Duration,
    /// Bounded by the number of credentials in the policy.
    read: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    value: Arc<Secret>,
    identity: Identity,
    looked: Instant,
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl File {
    pub(super) fn open(context: &Context<'_>) -> Self {
        Self { directory: context.directory.to_owned(), recheck: context.recheck, read: Mutex::default() }
    }
}

impl Backend for File {
    fn fetch(&self, name: &str) -> Result<Arc<Secret>, FetchError> {
        // A panic of another holder leaves the map whole: each change is one insert or remove.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(known) = read.get(name)
            && now.duration_since(known.looked) < self.recheck
        {
            return Ok(Arc::clone(&known.value));
        }
        let path = self.directory.join(name);
        let known = read.remove(name);
        let (value, identity) = look(&path, known.as_ref())?;
        read.insert(name.to_owned(), Known { value: Arc::clone(&value), identity, looked: now });
        Ok(value)
    }
}

/// The value, read again unless the file is the one that is known.
fn look(path: &Path, known: Option<&Known>) -> Result<(Arc<Secret>, Identity), FetchError> {
    for _ in 0..TRIES {
        let mut file = open(path)?;
        let identity = Identity::of(&file, path)?;
        if let Some(known) = known.filter(|known| known.identity == identity) {
            return Ok((Arc::clone(&known.value), identity));
        }
        let value = read(&mut file, path)?;
        if Identity::of(&file, path)? == identity {
            return Ok((Arc::new(value), identity));
        }
    }
    Err(FetchError::Changing(path.to_owned()))
}

/// Neither follows a link in the last place nor waits for the writer of a FIFO.
fn open(path: &Path) -> Result<fs::File, FetchError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(path, e.into()))?;
    Ok(fs::File::from(fd))
}

fn read(file: &mut fs::File, path: &Path) -> Result<Secret, FetchError> {
    let named = || path.display().to_string();
    // Room for all that may come and for the read that finds the end: growing would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SOURCE + 64));
    let most = u64::try_from(MAX_SOURCE + 1).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes).map_err(|e| failed(path, e))?;
    if bytes.len() > MAX_SOURCE {
        return Err(FetchError::TooLong(named()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| FetchError::NotText(named()))?;
    match trimmed(text) {
        "" => Err(FetchError::Empty(named())),
        text => Ok(Secret::new(text.to_owned())),
    }
}

impl Identity {
    fn of(file: &fs::File, path: &Path) -> Result<Self, FetchError> {
        let data = file.metadata().map_err(|e| failed(path, e))?;
        if !data.is_file() {
            return Err(FetchError::NotRegular(path.to_owned()));
        }
        Ok(Self {
            file: (data.dev(), data.ino()),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

fn failed(path: &Path, source: io::Error) -> FetchError {
    FetchError::Io { path: path.to_owned(), source }
}
