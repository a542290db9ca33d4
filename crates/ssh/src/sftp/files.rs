//! Requests, done with system calls.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, chown, fchown, lchown, symlink},
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{AtFlags, CWD, RenameFlags, StatVfs, Timespec, Timestamps, futimens, renameat_with, utimensat},
    io::Errno,
};

use super::{
    BLOCK,
    attributes::{Attributes, long},
    handles::{Dir, Handle, Handles},
    wire::{Kind, Name, Reader, Reply, Request, Status},
};

/// Names in one reply.
const NAMES: usize = 100;

/// What one client has open.
#[derive(Default)]
pub(super) struct Files {
    handles: Handles,
}

impl Files {
    pub(super) fn answer(&mut self, kind: Kind, reader: &mut Reader<'_>) -> Result<Reply, Status> {
        match Request::read(kind, reader) {
            Some(request) => self.act(request),
            None if kind == Kind::Extended => Err(Status::Unsupported("this extension is not known".to_owned())),
            None => Err(Status::Malformed),
        }
    }

    fn act(&mut self, request: Request<'_>) -> Result<Reply, Status> {
        match request {
            Request::Open(path, flags, attributes) => self.open(path, flags, attributes),
            Request::Close(handle) => self.handles.remove(handle).map(done),
            Request::Read(handle, offset, length) => self.read(handle, offset, length),
            Request::Write(handle, offset, data) => Ok(done(self.handles.file(handle)?.write_all_at(data, offset)?)),
            Request::Stat { path, follow: true } => Ok(Reply::Attributes(Attributes::of(&fs::metadata(path)?))),
            Request::Stat { path, follow: false } => {
                Ok(Reply::Attributes(Attributes::of(&fs::symlink_metadata(path)?)))
            }
            Request::Fstat(handle) => Ok(Reply::Attributes(Attributes::of(&self.handles.file(handle)?.metadata()?))),
            Request::Setstat { path, attributes, follow } => set(path, attributes, follow).map(done),
            Request::Fsetstat(handle, attributes) => set_open(self.handles.file(handle)?, attributes).map(done),
            Request::Opendir(path) => self.open_dir(path),
            Request::Readdir(handle) => read_dir(self.handles.dir(handle)?),
            Request::Remove(path) => Ok(done(fs::remove_file(path)?)),
            Request::Mkdir(path, attributes) => {
                let mode = attributes.mode.unwrap_or(0o777) & 0o7777;
                Ok(done(fs::DirBuilder::new().mode(mode).create(path)?))
            }
            Request::Rmdir(path) => Ok(done(fs::remove_dir(path)?)),
            Request::Realpath(path) => real(path).map(named),
            Request::Expand(path) => real(&expand(path)?).map(named),
            Request::Rename { from, to, replace: true } => Ok(done(fs::rename(from, to)?)),
            Request::Rename { from, to, replace: false } => rename(from, to).map(done),
            Request::Readlink(path) => Ok(named(fs::read_link(path)?)),
            Request::Symlink(says, at) => Ok(done(symlink(says, at)?)),
            Request::Hardlink(from, to) => Ok(done(fs::hard_link(from, to)?)),
            Request::Fsync(handle) => Ok(done(self.handles.file(handle)?.sync_all()?)),
            Request::Statvfs(path) => Ok(statvfs(&rustix::fs::statvfs(path)?)),
            Request::Fstatvfs(handle) => Ok(statvfs(&rustix::fs::fstatvfs(self.handles.file(handle)?)?)),
            Request::Limits => Ok(Reply::Limits),
        }
    }

    fn open(&mut self, path: &Path, flags: u32, attributes: Attributes) -> Result<Reply, Status> {
        let has = |bit: u32| flags & bit != 0;
        let mut options = OpenOptions::new();
        options.read(has(1)).write(has(2)).mode(attributes.mode.unwrap_or(0o666) & 0o7777);
        if has(4) {
            options.append(true);
        }
        if has(2) || has(4) {
            options.create(has(8) && !has(32)).create_new(has(8) && has(32)).truncate(has(16) && !has(4));
        }
        let file = options.open(path)?;
        self.handles.insert(Handle::File(file)).map(Reply::Handle)
    }

    fn read(&self, handle: u32, offset: u64, length: u32) -> Result<Reply, Status> {
        let mut data = vec![0; length.min(BLOCK) as usize];
        let read = self.handles.file(handle)?.read_at(&mut data, offset)?;
        if read == 0 {
            return Err(Status::Eof);
        }
        data.truncate(read);
        Ok(Reply::Data(data))
    }

    fn open_dir(&mut self, path: &Path) -> Result<Reply, Status> {
        let dir = Dir { path: path.to_owned(), dots: true, entries: fs::read_dir(path)? };
        self.handles.insert(Handle::Dir(dir)).map(Reply::Handle)
    }
}

fn done((): ()) -> Reply {
    Reply::Status(Status::Ok)
}

fn named(path: PathBuf) -> Reply {
    let name = path.into_os_string().into_vec();
    Reply::Names(vec![Name { long: name.clone(), name, attributes: Attributes::default() }])
}

fn read_dir(dir: &mut Dir) -> Result<Reply, Status> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut names = Vec::new();
    let mut push = |name: &[u8], metadata: &fs::Metadata| {
        let attributes = Attributes::of(metadata);
        names.push(Name { name: name.to_vec(), long: long(name, metadata, now), attributes });
        names.len()
    };
    if std::mem::take(&mut dir.dots) {
        for dot in [".", ".."] {
            // The parent may be out of reach.
            if let Ok(metadata) = fs::symlink_metadata(dir.path.join(dot)) {
                push(dot.as_bytes(), &metadata);
            }
        }
    }
    for entry in dir.entries.by_ref() {
        let entry = entry?;
        // A file that went away meanwhile is not in the directory any more.
        let Ok(metadata) = entry.metadata() else { continue };
        if push(entry.file_name().as_bytes(), &metadata) >= NAMES {
            break;
        }
    }
    if names.is_empty() { Err(Status::Eof) } else { Ok(Reply::Names(names)) }
}

/// The canonical path; its last part need not exist, because clients ask where something will be.
fn real(path: &Path) -> Result<PathBuf, Status> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(e)?;
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(fs::canonicalize(parent)?.join(name))
        }
        other => Ok(other?),
    }
}

/// `~` is the home that the command has.
fn expand(path: &[u8]) -> Result<PathBuf, Status> {
    let Some(rest) = path.strip_prefix(b"~") else { return Ok(PathBuf::from(OsStr::from_bytes(path))) };
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_else(|| ".".into()));
    match rest {
        [] => Ok(home),
        [b'/', rest @ ..] => Ok(home.join(OsStr::from_bytes(rest.trim_ascii_start()))),
        _ => Err(Status::Unsupported("there is one user here, whose home is ~".to_owned())),
    }
}

/// Version 3 says that an existing file is not replaced.
fn rename(from: &Path, to: &Path) -> Result<(), Status> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot do it in one step.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::symlink_metadata(to) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(_) => Ok(fs::rename(from, to)?),
        },
        other => Ok(other?),
    }
}

fn set(path: &Path, attributes: Attributes, follow: bool) -> Result<(), Status> {
    if follow {
        if let Some(size) = attributes.size {
            OpenOptions::new().write(true).open(path)?.set_len(size)?;
        }
        if let Some(mode) = attributes.mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))?;
        }
    }
    if let Some(times) = attributes.times {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        utimensat(CWD, path, &timestamps(times), flags)?;
    }
    if let Some((user, group)) = attributes.owner {
        let change = if follow { chown } else { lchown::<&Path> };
        change(path, Some(user), Some(group))?;
    }
    Ok(())
}

fn set_open(file: &File, attributes: Attributes) -> Result<(), Status> {
    if let Some(size) = attributes.size {
        file.set_len(size)?;
    }
    if let Some(mode) = attributes.mode {
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
    }
    if let Some(times) = attributes.times {
        futimens(file, &timestamps(times))?;
    }
    if let Some((user, group)) = attributes.owner {
        fchown(file, Some(user), Some(group))?;
    }
    Ok(())
}

fn timestamps((accessed, modified): (u32, u32)) -> Timestamps {
    let at = |seconds: u32| Timespec { tv_sec: i64::from(seconds), tv_nsec: 0 };
    Timestamps { last_access: at(accessed), last_modification: at(modified) }
}

fn statvfs(s: &StatVfs) -> Reply {
    // Of the flags, read-only and nosuid have numbers in the protocol, which are those of Linux.
    let flags = s.f_flag.bits() & 3;
    Reply::Statvfs([
        s.f_bsize,
        s.f_frsize,
        s.f_blocks,
        s.f_bfree,
        s.f_bavail,
        s.f_files,
        s.f_ffree,
        s.f_favail,
        s.f_fsid,
        flags,
        s.f_namemax,
    ])
}
