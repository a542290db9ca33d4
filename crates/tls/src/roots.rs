//! The authorities that origins are verified against.

use std::{
    collections::HashSet,
    fmt, fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use pem::{EncodeConfig, LineEnding, Pem};
use rustix::fs::{Mode, OFlags};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Where distributions keep the bundle, in the order in which they are tried. `SSL_CERT_FILE` and its like are not
/// read: what the supervisor trusts is not for an environment to say.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Gentoo, Nix images
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",   // older RHEL
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/ssl/cert.pem",                  // Alpine
    "/etc/pki/tls/cacert.pem",            // OpenELEC
];
/// Largest bundle read.
const MAX_BYTES: u64 = 4 << 20;
/// Most certificates of one bundle. The largest in use have some 400.
const MAX_CERTIFICATES: usize = 4096;

/// Why there are no roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// No bundle at any of the usual places.
    #[error(
        "this machine has no bundle of certificate authorities: none of {} holds one; install `ca-certificates`, or \
         name a file with --upstream-ca",
        BUNDLES.join(", ")
    )]
    NoBundle,
    /// Unreadable.
    #[error("{path}: cannot be read: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Too much of it.
    #[error("{from}: more than 4 MiB or {MAX_CERTIFICATES} certificates are no bundle of authorities")]
    TooLarge {
        /// Which bundle.
        from: String,
    },
    /// A block that is no certificate.
    #[error("{from}: certificate {number} is malformed: {why}")]
    Malformed {
        /// Which bundle.
        from: String,
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing in it.
    #[error("{from}: no certificate in it; a PEM block begins with -----BEGIN CERTIFICATE-----")]
    Empty {
        /// Which bundle.
        from: String,
    },
}

/// One bundle that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// A path, or what the caller called it.
    pub from: String,
    /// Certificates taken that no earlier source had.
    pub taken: usize,
    /// Blocks left out: not a certificate that can be an authority. System bundles have some.
    pub left_out: usize,
}

/// Read once, by the supervisor, before the command exists.
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    certificates: Vec<CertificateDer<'static>>,
    seen: HashSet<CertificateDer<'static>>,
    pem: String,
    sources: Vec<Source>,
}

impl Roots {
    /// None at all, to begin with a bundle of one's own.
    #[must_use]
    pub fn none() -> Self {
        Self {
            store: Arc::new(RootCertStore::empty()),
            certificates: Vec::new(),
            seen: HashSet::new(),
            pem: String::new(),
            sources: Vec::new(),
        }
    }

    /// The machine's bundle.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn system() -> Result<Self, RootsError> {
        Self::first_of(BUNDLES.iter().map(Path::new))
    }

    /// These and the bundle at `path`, named by the operator: every block must be good.
    ///
    /// # Errors
    /// See [`RootsError`].
    pub fn with_file(self, path: &Path) -> Result<Self, RootsError> {
        let text = read(path).map_err(|error| RootsError::Read { path: path.to_owned(), error })?;
        self.with_named(&path.display().to_string(), &text)
    }

    /// These and the authorities in `pem`: every block must be good.
    ///
    /// # Errors
    /// See [`RootsError`].
    pub fn with_pem(self, pem: &[u8]) -> Result<Self, RootsError> {
        self.with_named("additional authorities", pem)
    }

    /// The same, with a name for messages.
    ///
    /// # Errors
    /// See [`RootsError`].
    pub fn with_named(mut self, from: &str, pem: &[u8]) -> Result<Self, RootsError> {
        self.add(from, pem, Blocks::AllGood)?;
        Ok(self)
    }

    /// All certificates, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// All certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Where they came from.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.store)
    }

    fn first_of<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Self, RootsError> {
        for path in paths {
            let text = match read(path) {
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                other => other.map_err(|error| RootsError::Read { path: path.to_owned(), error })?,
            };
            let mut roots = Self::none();
            match roots.add(&path.display().to_string(), &text, Blocks::SomeGood) {
                Err(RootsError::Empty { .. }) => {}
                other => return other.map(|()| roots),
            }
        }
        Err(RootsError::NoBundle)
    }

    fn add(&mut self, from: &str, pem: &[u8], blocks: Blocks) -> Result<(), RootsError> {
        let from = from.to_owned();
        if pem.len() as u64 > MAX_BYTES {
            return Err(RootsError::TooLarge { from });
        }
        let store = Arc::make_mut(&mut self.store);
        let (mut good, mut taken, mut left_out) = (0, 0, 0);
        for (at, block) in CertificateDer::pem_slice_iter(pem).enumerate() {
            if at == MAX_CERTIFICATES {
                return Err(RootsError::TooLarge { from });
            }
            let added = block
                .map_err(|e| e.to_string())
                .and_then(|der| store.add(der.clone()).map(|()| der).map_err(|e| e.to_string()));
            match (added, blocks) {
                (Ok(der), _) => {
                    good += 1;
                    if self.seen.insert(der.clone()) {
                        taken += 1;
                        self.pem.push_str(&encode(&der));
                        self.certificates.push(der);
                    }
                }
                (Err(_), Blocks::SomeGood) => left_out += 1,
                (Err(why), Blocks::AllGood) => return Err(RootsError::Malformed { from, number: at + 1, why }),
            }
        }
        if good == 0 {
            return Err(RootsError::Empty { from });
        }
        self.sources.push(Source { from, taken, left_out });
        Ok(())
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// How a bad block of a bundle is taken.
#[derive(Debug, Clone, Copy)]
enum Blocks {
    /// The operator wrote it: an error.
    AllGood,
    /// The distribution did: left out and counted.
    SomeGood,
}

/// One certificate as PEM.
pub(crate) fn encode(der: &CertificateDer<'_>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", der.as_ref()), config)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A FIFO is opened at once like this, and not when somebody writes to it; what is open cannot be exchanged.
    let file =
        fs::File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
