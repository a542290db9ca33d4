//! Bytes in, requests out; replies in, bytes out. `draft-ietf-secsh-filexfer-02` with OpenSSH's extensions.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path};

use rustix::io::Errno;

use super::{BLOCK, PACKET, attributes::Attributes, handles};

macro_rules! kinds {
    ($($name:ident = $number:literal,)*) => {
        /// Kinds of requests.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind { $($name,)* }

        impl Kind {
            pub(super) fn of(byte: u8) -> Option<Self> {
                match byte { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    Init = 1, Open = 3, Close = 4, Read = 5, Write = 6, Lstat = 7, Fstat = 8, Setstat = 9, Fsetstat = 10, Opendir = 11,
    Readdir = 12, Remove = 13, Mkdir = 14, Rmdir = 15, Realpath = 16, Stat = 17, Rename = 18, Readlink = 19,
    Symlink = 20, Extended = 200,
}

/// A request with its arguments.
#[derive(Debug)]
pub(super) enum Request<'a> {
    Open(&'a Path, u32, Attributes),
    Close(u32),
    Read(u32, u64, u32),
    Write(u32, u64, &'a [u8]),
    Stat {
        path: &'a Path,
        follow: bool,
    },
    Fstat(u32),
    Setstat {
        path: &'a Path,
        attributes: Attributes,
        follow: bool,
    },
    Fsetstat(u32, Attributes),
    Opendir(&'a Path),
    Readdir(u32),
    Remove(&'a Path),
    Mkdir(&'a Path, Attributes),
    Rmdir(&'a Path),
    Realpath(&'a Path),
    Rename {
        from: &'a Path,
        to: &'a Path,
        replace: bool,
    },
    Readlink(&'a Path),
    /// In OpenSSH's order: what the link says, then where it is.
    Symlink(&'a Path, &'a Path),
    Hardlink(&'a Path, &'a Path),
    Fsync(u32),
    Statvfs(&'a Path),
    Fstatvfs(u32),
    Expand(&'a [u8]),
    Limits,
}

/// Extensions, with the version of each.
const EXTENSIONS: &[(&str, &str)] = &[
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

impl<'a> Request<'a> {
    /// Reads the arguments of a request; `None` when they are cut off or it is none.
    pub(super) fn read(kind: Kind, r: &mut Reader<'a>) -> Option<Self> {
        Some(match kind {
            Kind::Init => return None,
            Kind::Open => Self::Open(r.path()?, r.u32()?, r.attributes()?),
            Kind::Close => Self::Close(r.handle()?),
            Kind::Read => Self::Read(r.handle()?, r.u64()?, r.u32()?),
            Kind::Write => Self::Write(r.handle()?, r.u64()?, r.bytes()?),
            Kind::Lstat => Self::Stat { path: r.path()?, follow: false },
            Kind::Stat => Self::Stat { path: r.path()?, follow: true },
            Kind::Fstat => Self::Fstat(r.handle()?),
            Kind::Setstat => Self::Setstat { path: r.path()?, attributes: r.attributes()?, follow: true },
            Kind::Fsetstat => Self::Fsetstat(r.handle()?, r.attributes()?),
            Kind::Opendir => Self::Opendir(r.path()?),
            Kind::Readdir => Self::Readdir(r.handle()?),
            Kind::Remove => Self::Remove(r.path()?),
            Kind::Mkdir => Self::Mkdir(r.path()?, r.attributes()?),
            Kind::Rmdir => Self::Rmdir(r.path()?),
            Kind::Realpath => Self::Realpath(r.path()?),
            Kind::Rename => Self::Rename { from: r.path()?, to: r.path()?, replace: false },
            Kind::Readlink => Self::Readlink(r.path()?),
            Kind::Symlink => Self::Symlink(r.path()?, r.path()?),
            Kind::Extended => return Self::extended(r),
        })
    }

    fn extended(r: &mut Reader<'a>) -> Option<Self> {
        Some(match r.bytes()? {
            b"posix-rename@openssh.com" => Self::Rename { from: r.path()?, to: r.path()?, replace: true },
            b"hardlink@openssh.com" => Self::Hardlink(r.path()?, r.path()?),
            b"fsync@openssh.com" => Self::Fsync(r.handle()?),
            b"statvfs@openssh.com" => Self::Statvfs(r.path()?),
            b"fstatvfs@openssh.com" => Self::Fstatvfs(r.handle()?),
            b"lsetstat@openssh.com" => Self::Setstat { path: r.path()?, attributes: r.attributes()?, follow: false },
            b"expand-path@openssh.com" => Self::Expand(r.bytes()?),
            b"limits@openssh.com" => Self::Limits,
            _ => return None,
        })
    }
}

/// What is left of a packet.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// An empty path is the working directory.
    fn path(&mut self) -> Option<&'a Path> {
        let bytes = self.bytes()?;
        Some(Path::new(OsStr::from_bytes(if bytes.is_empty() { b"." } else { bytes })))
    }

    fn handle(&mut self) -> Option<u32> {
        self.bytes()?.try_into().ok().map(u32::from_be_bytes)
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let flags = self.u32()?;
        let size = if flags & 1 != 0 { Some(self.u64()?) } else { None };
        let owner = if flags & 2 != 0 { Some((self.u32()?, self.u32()?)) } else { None };
        let mode = if flags & 4 != 0 { Some(self.u32()?) } else { None };
        let times = if flags & 8 != 0 { Some((self.u32()?, self.u32()?)) } else { None };
        // Extended attributes follow, of which none are known.
        Some(Attributes { size, owner, mode, times })
    }
}

/// A refusal, or the end of something.
#[derive(Debug)]
pub(super) enum Status {
    Ok,
    Eof,
    Io(io::Error),
    Malformed,
    Unsupported(String),
}

impl From<io::Error> for Status {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<Errno> for Status {
    fn from(e: Errno) -> Self {
        Self::Io(e.into())
    }
}

impl Status {
    /// The number on the wire, and the text.
    fn parts(&self) -> (u32, String) {
        match self {
            Self::Ok => (0, "Success".to_owned()),
            Self::Eof => (1, "End of file".to_owned()),
            Self::Malformed => (5, "Malformed request".to_owned()),
            Self::Unsupported(what) => (8, what.clone()),
            Self::Io(e) => {
                let code = match e.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::BADF) => 2,
                    Some(Errno::PERM | Errno::ACCESS | Errno::ROFS) => 3,
                    Some(Errno::NOSYS | Errno::OPNOTSUPP) => 8,
                    _ => 4,
                };
                (code, e.to_string())
            }
        }
    }
}

/// A name in a directory.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) long: Vec<u8>,
    pub(super) attributes: Attributes,
}

/// What is sent back.
#[derive(Debug)]
pub(super) enum Reply {
    Version,
    Status(Status),
    Handle(u32),
    Data(Vec<u8>),
    Names(Vec<Name>),
    Attributes(Attributes),
    Statvfs([u64; 11]),
    Limits,
}

impl Reply {
    /// Appends the packet.
    pub(super) fn write(&self, id: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; 4]);
        out.push(self.kind());
        if !matches!(self, Self::Version) {
            out.extend(id.to_be_bytes());
        }
        match self {
            Self::Version => {
                out.extend(3u32.to_be_bytes());
                for (name, version) in EXTENSIONS {
                    string(name.as_bytes(), out);
                    string(version.as_bytes(), out);
                }
            }
            Self::Status(status) => {
                let (code, text) = status.parts();
                out.extend(code.to_be_bytes());
                string(text.as_bytes(), out);
                string(b"", out);
            }
            Self::Handle(handle) => string(&handle.to_be_bytes(), out),
            Self::Data(data) => string(data, out),
            Self::Names(names) => {
                out.extend(u32::try_from(names.len()).unwrap_or(u32::MAX).to_be_bytes());
                for name in names {
                    string(&name.name, out);
                    string(&name.long, out);
                    attributes(&name.attributes, out);
                }
            }
            Self::Attributes(a) => attributes(a, out),
            Self::Statvfs(numbers) => out.extend(numbers.iter().flat_map(|n| n.to_be_bytes())),
            Self::Limits => {
                let handles = handles::MOST as u64;
                for number in [PACKET as u64, u64::from(BLOCK), u64::from(BLOCK), handles] {
                    out.extend(number.to_be_bytes());
                }
            }
        }
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(head) = out.get_mut(start..start + 4) {
            head.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Version => 2,
            Self::Status(_) => 101,
            Self::Handle(_) => 102,
            Self::Data(_) => 103,
            Self::Names(_) => 104,
            Self::Attributes(_) => 105,
            Self::Statvfs(_) | Self::Limits => 201,
        }
    }
}

fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

fn attributes(a: &Attributes, out: &mut Vec<u8>) {
    let flags = u32::from(a.size.is_some())
        | u32::from(a.owner.is_some()) << 1
        | u32::from(a.mode.is_some()) << 2
        | u32::from(a.times.is_some()) << 3;
    out.extend(flags.to_be_bytes());
    out.extend(a.size.iter().flat_map(|n| n.to_be_bytes()));
    out.extend(a.owner.iter().flat_map(|(u, g)| [u.to_be_bytes(), g.to_be_bytes()].concat()));
    out.extend(a.mode.iter().flat_map(|n| n.to_be_bytes()));
    out.extend(a.times.iter().flat_map(|(at, mt)| [at.to_be_bytes(), mt.to_be_bytes()].concat()));
}
