//! Files that steer the sandbox: policies and Rego modules. They are opened once, before the view is made, checked on
//! the descriptor, and never followed through a link that the command could have planted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use stockade_policy::{Policy, Source};

use crate::way::Way;

/// Largest policy or module.
const MAX: u64 = 4 << 20;

/// Why a steering file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// It cannot be opened or read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a directory, a device, a FIFO, or too large.
    #[error("{path} is {what}; a regular file of at most 4 MiB is needed")]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The command could change it, or lead the way to it elsewhere.
    #[error(
        "`{path}` steers Stockade and cannot be protected from the command: {why}; move it out of the granted directories"
    )]
    Unprotected {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        why: String,
    },
    /// Not text.
    #[error("{0} is not UTF-8 text")]
    NotText(PathBuf),
}

/// The policy in force and where it came from.
#[derive(Debug, Clone)]
pub struct Steering {
    /// The policy files with their text.
    pub sources: Vec<Source>,
    /// Rego modules with their text.
    pub modules: Vec<Source>,
    /// The way to every file, for protection and for watching.
    pub ways: Vec<Way>,
    /// Files with keys and secrets: the command must not be able to read them.
    pub secrets: Vec<Way>,
}

impl Steering {
    /// Reads the policy files.
    ///
    /// # Errors
    /// [`SteeringError`].
    pub fn read(files: &[PathBuf]) -> Result<Self, SteeringError> {
        let mut this = Self { sources: Vec::new(), modules: Vec::new(), ways: Vec::new(), secrets: Vec::new() };
        for file in files {
            let (text, way) = read(file)?;
            this.sources.push(Source { name: file.display().to_string(), text });
            this.ways.push(way);
        }
        Ok(this)
    }

    /// Notes the files that the parsed policy's endpoints name.
    ///
    /// # Errors
    /// [`SteeringError`].
    pub(crate) fn note_named(&mut self, policy: &Policy) -> Result<(), SteeringError> {
        let (steering, secret) = crate::in_force::named(policy, self);
        for path in &steering {
            self.ways.push(way(path)?);
        }
        for path in &secret {
            // A credential has no value until there is one, which is said where it is wanted.
            self.secrets.push(Way::to(path).map_err(|source| SteeringError::Io { path: path.clone(), source })?);
        }
        Ok(())
    }

    /// Notes the authorities that may sign for hosts. One that cannot be read is refused where it is read.
    ///
    /// # Errors
    /// [`SteeringError`].
    pub(crate) fn note_authorities(&mut self, files: &[PathBuf]) -> Result<(), SteeringError> {
        for path in files.iter().filter(|path| path.exists()) {
            self.ways.push(way(path)?);
        }
        Ok(())
    }

    /// Reads the Rego modules that the parsed policy names, each relative to the file that names it.
    ///
    /// # Errors
    /// [`SteeringError`].
    pub fn read_modules(&mut self, policy: &Policy) -> Result<(), SteeringError> {
        for module in policy.rego() {
            let beside = Path::new(module.origin.file.as_ref()).parent().unwrap_or(Path::new(""));
            let path = beside.join(&module.path);
            let (text, way) = read(&path)?;
            self.modules.push(Source { name: path.display().to_string(), text });
            self.ways.push(way);
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<(String, Way), SteeringError> {
    // In this order: what changes meanwhile is seen to have changed.
    let way = way(path)?;
    let text = String::from_utf8(bytes(path)?).map_err(|_| SteeringError::NotText(path.to_owned()))?;
    Ok((text, way))
}

/// The way to a file that is there.
pub(crate) fn way(path: &Path) -> Result<Way, SteeringError> {
    let io = |source| SteeringError::Io { path: path.to_owned(), source };
    let way = Way::to(path).map_err(io)?;
    fs::metadata(path).map_err(io)?;
    Ok(way)
}

/// Reads a file that steers.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, SteeringError> {
    bytes_of(path, open(path)?)
}

/// Opens a file that steers: a regular one.
pub(crate) fn open(path: &Path) -> Result<File, SteeringError> {
    let io = |source| SteeringError::Io { path: path.to_owned(), source };
    // Non-blocking, so that a FIFO in the place of a policy cannot hold the start up.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    let kind = |what| SteeringError::Kind { path: path.to_owned(), what };
    if !meta.is_file() {
        return Err(kind(if meta.is_dir() { "a directory" } else { "not a regular file" }));
    }
    Ok(file)
}

/// Reads one that was opened.
pub(crate) fn bytes_of(path: &Path, file: File) -> Result<Vec<u8>, SteeringError> {
    let io = |source| SteeringError::Io { path: path.to_owned(), source };
    if file.metadata().map_err(io)?.len() > MAX {
        return Err(SteeringError::Kind { path: path.to_owned(), what: "too large" });
    }
    let mut bytes = Vec::new();
    file.take(MAX).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_text_files_steer() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("good.yaml"), "version: 1\n").unwrap();
        std::os::unix::fs::symlink(at("good.yaml"), at("link.yaml")).unwrap();
        let link = Steering::read(&[at("link.yaml")]).unwrap();
        assert!(link.ways[0].turns.contains(&fs::canonicalize(dir.path()).unwrap().join("link.yaml")));
        fs::write(at("binary"), [0xff, 0xfe]).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(Steering::read(&[at("good.yaml")]).unwrap().sources[0].text, "version: 1\n");
        assert!(matches!(Steering::read(&[at("absent")]), Err(SteeringError::Io { .. })));
        assert!(matches!(Steering::read(&[dir.path().to_owned()]), Err(SteeringError::Kind { .. })));
        assert!(matches!(Steering::read(&[at("fifo")]), Err(SteeringError::Kind { .. })));
        assert!(matches!(Steering::read(&[at("binary")]), Err(SteeringError::NotText(_))));
    }
}
