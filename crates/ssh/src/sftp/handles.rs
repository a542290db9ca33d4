//! What a client has open.

use std::{fs::File, path::PathBuf};

use super::wire::Status;

/// Most at once; a further open is refused.
pub(super) const MOST: usize = 1000;

/// An open file or directory.
pub(super) enum Handle {
    File(File),
    Dir(Dir),
}

/// A directory that is being read.
pub(super) struct Dir {
    pub(super) path: PathBuf,
    /// `.` and `..` come first, and the library leaves them out.
    pub(super) dots: bool,
    pub(super) entries: std::fs::ReadDir,
}

/// Numbered by their place.
#[derive(Default)]
pub(super) struct Handles(Vec<Option<Handle>>);

impl Handles {
    pub(super) fn insert(&mut self, handle: Handle) -> Result<u32, Status> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if free >= MOST {
            return Err(Status::Unsupported(format!("more than {MOST} files are open")));
        }
        match self.0.get_mut(free) {
            Some(place) => *place = Some(handle),
            None => self.0.push(Some(handle)),
        }
        u32::try_from(free).map_err(|_| Status::Malformed)
    }

    pub(super) fn remove(&mut self, number: u32) -> Result<(), Status> {
        let place = self.0.get_mut(number as usize).ok_or_else(unknown)?;
        place.take().map(drop).ok_or_else(unknown)
    }

    pub(super) fn file(&self, number: u32) -> Result<&File, Status> {
        match self.0.get(number as usize) {
            Some(Some(Handle::File(file))) => Ok(file),
            _ => Err(unknown()),
        }
    }

    pub(super) fn dir(&mut self, number: u32) -> Result<&mut Dir, Status> {
        match self.0.get_mut(number as usize) {
            Some(Some(Handle::Dir(dir))) => Ok(dir),
            _ => Err(unknown()),
        }
    }
}

fn unknown() -> Status {
    Status::Io(rustix::io::Errno::BADF.into())
}
