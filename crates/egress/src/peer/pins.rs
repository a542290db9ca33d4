//! Executables that a policy names, found in the sandbox's view and pinned: which file, untouched since, which hash.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, fstatvfs, openat2};
use sha2::{Digest, Sha256};
use stockade_policy::Binary;

use super::process::{FileId, FileState};

/// Largest executable that is hashed.
const MAX_SIZE: u64 = 1 << 30;
/// File systems of the kernel's own, whose files say what they are. On others (FUSE, 9p, network) a server decides
/// anew what each read returns. linux/magic.h.
const FILE_SYSTEMS: [u32; 11] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x794c_7630, // overlayfs
    0x0102_1994, // tmpfs
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // EROFS
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x9660,      // ISO 9660
];
/// Programs that run what a file or their arguments say, by the beginning of their name.
const INTERPRETERS: [&str; 22] = [
    "python", "pypy", "node", "deno", "bun", "bash", "sh", "dash", "zsh", "ksh", "fish", "busybox", "perl", "ruby",
    "php", "lua", "java", "tclsh", "Rscript", "awk", "git", "env",
];

/// Why a named executable cannot be relied upon: the policy is refused.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The command could change it.
    #[error("binaries: {0}: the command can write there; name an executable in a read-only part of the view")]
    Writable(PathBuf),
    /// Its file system may answer differently each time.
    #[error("binaries: {path}: file systems of this kind (0x{kind:x}) decide anew what each read returns")]
    FileSystem {
        /// As named.
        path: PathBuf,
        /// Magic number.
        kind: u32,
    },
    /// Not the contents that the policy pins.
    #[error("binaries: {path}: its SHA-256 is {found}, not the one that the policy names")]
    Hash {
        /// As named.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// Not something that can be executed.
    #[error("binaries: {0}: not a regular file of at most 1 GiB that can be executed")]
    Kind(PathBuf),
    /// It cannot be read.
    #[error("binaries: {path}: {source}")]
    Io {
        /// As named.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One executable of the policy.
#[derive(Debug, Clone)]
pub(super) struct Pin {
    /// Its place in the policy's table.
    pub(super) id: u32,
    /// The file's own path inside.
    pub(super) path: String,
    pub(super) sha256: [u8; 32],
    state: FileState,
}

/// The executables of one policy.
#[derive(Debug, Default)]
pub struct Pins {
    by_file: HashMap<FileId, Vec<Pin>>,
    /// What the operator should know: links, absent files, interpreters.
    notices: Vec<String>,
}

impl Pins {
    /// Finds each of `binaries` below `root`, the root of the sandbox's view.
    ///
    /// # Errors
    /// [`PinError`] for the first that could be changed or is not what the policy says. One that is absent is only
    /// noted: it can start nothing.
    pub fn resolve(root: impl AsFd, binaries: &[Binary]) -> Result<Self, PinError> {
        let mut pins = Self::default();
        for (id, binary) in (0..).zip(binaries) {
            pins.add(root.as_fd(), id, binary)?;
        }
        Ok(pins)
    }

    /// What to tell the operator.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The files of these places in the policy's table, as they were pinned.
    pub(super) fn files(&self, ids: &[u32]) -> Vec<FileState> {
        self.by_file.values().flatten().filter(|pin| ids.contains(&pin.id)).map(|pin| pin.state).collect()
    }

    /// What the policy calls this executable, if it was not touched since.
    pub(super) fn named<'p>(&'p self, exe: &'p FileState) -> impl Iterator<Item = &'p Pin> {
        self.by_file.get(&exe.id).into_iter().flatten().filter(move |pin| pin.state == *exe)
    }

    fn add(&mut self, root: BorrowedFd<'_>, id: u32, binary: &Binary) -> Result<(), PinError> {
        let named = &binary.path;
        let fail = |e: io::Error| PinError::Io { path: named.clone(), source: e };
        let Some(file) = open(root, named).map_err(fail)? else {
            self.notices.push(format!("binaries: {}: no such file inside; it matches nothing", named.display()));
            return Ok(());
        };
        let stat = fstat(&file).map_err(|e| fail(e.into()))?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || stat.st_mode & 0o111 == 0 || u64::try_from(stat.st_size).map_or(true, |size| size > MAX_SIZE) {
            return Err(PinError::Kind(named.clone()));
        }
        let kind = fstatfs(&file).map_err(|e| fail(e.into()))?.f_type;
        #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "magic numbers have 32 bits")]
        let kind = kind as u32;
        if !FILE_SYSTEMS.contains(&kind) {
            return Err(PinError::FileSystem { path: named.clone(), kind });
        }
        let flags = fstatvfs(&file).map_err(|e| fail(e.into()))?.f_flag;
        if !flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Err(PinError::Writable(named.clone()));
        }
        let path = inside(&file).map_err(fail)?;
        let sha256 = hash(file).map_err(fail)?;
        if binary.sha256.is_some_and(|wanted| wanted != sha256) {
            return Err(PinError::Hash { path: named.clone(), found: hex(&sha256) });
        }
        self.notice(named, &path);
        let path = path.to_string_lossy().into_owned();
        let state = FileState::of(&stat);
        self.by_file.entry(state.id).or_default().push(Pin { id, path, sha256, state });
        Ok(())
    }

    fn notice(&mut self, named: &Path, path: &Path) {
        if named != path {
            self.notices.push(format!("binaries: {} is {}", named.display(), path.display()));
        }
        if interpreter(path) {
            self.notices.push(format!(
                "binaries: {} grants any code that it is told to run; `scripts` is no protection against that",
                path.display()
            ));
        }
    }
}

/// Whether a program's name is that of an interpreter: a warning and evidence rest on it, no decision.
pub(super) fn interpreter(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    INTERPRETERS.iter().any(|i| {
        name.strip_prefix(i).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-'))
    })
}

fn open(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<File>> {
    // Without O_NONBLOCK a FIFO would hold the start up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The path of an open file inside: the kernel shows it from the root of the file's own mounts.
fn inside(file: &File) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn hash(mut file: File) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut left = MAX_SIZE;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            n => {
                left = left.checked_sub(n as u64).ok_or(io::ErrorKind::FileTooLarge)?;
                hasher.update(buffer.get(..n).unwrap_or_default());
            }
        }
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
