//! TLS of one sandbox: whom the supervisor trusts, what the command trusts, and the CA between them.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use stockade_confine::view::ViewFile;
use stockade_tls::{Bundle, Ca, CaError, Connector, ConnectorError, Interceptor, Roots, RootsError};

/// Where the certificates lie inside: in the view's own read-only file system. Nothing of the machine's is changed.
pub(crate) const DIRECTORY: &str = "/run/stockade/tls";

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A bundle of authorities.
    #[error("authorities of other hosts: {0}")]
    Roots(#[from] RootsError),
    /// One that an option names.
    #[error("--upstream-ca {0}")]
    Named(#[source] RootsError),
    /// The sandbox's own.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Towards hosts.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
}

/// Made after init is forked, which has no copy of the key, and after the supervisor became non-dumpable.
#[derive(Debug)]
pub(crate) struct Trust {
    /// TLS towards the command.
    pub(crate) interceptor: Interceptor,
    /// TLS towards hosts.
    pub(crate) connector: Connector,
    /// What was read.
    pub(crate) notes: Vec<String>,
    /// What an operator should know of.
    pub(crate) notice: Option<String>,
}

impl Trust {
    /// Reads the authorities, makes the CA, and says which files the view is to hold. The supervisor's environment has
    /// no part in it. `run`: after which the command is ended, and with it all that trusts the CA.
    ///
    /// # Errors
    /// [`TrustError`]. A machine without a bundle is no error: no origin is trusted there until one is named.
    pub(crate) fn establish(
        upstream_ca: &[PathBuf],
        run: Option<Duration>,
    ) -> Result<(Self, Vec<ViewFile>), TrustError> {
        let (mut notes, mut notice) = (Vec::new(), None);
        let mut roots = match Roots::system() {
            Err(e @ RootsError::NoBundle) => {
                notice = upstream_ca.is_empty().then(|| e.to_string());
                Roots::none()
            }
            other => other?,
        };
        for path in upstream_ca {
            roots = roots.with_file(path).map_err(TrustError::Named)?;
        }
        let sources = roots.sources().iter();
        notes.extend(sources.map(|s| format!("{}: {} authorities that may sign for hosts", s.from, s.taken)));
        let ca = Ca::lasting(SystemTime::now(), run)?;
        let files = Bundle::new(&roots, &ca).files(DIRECTORY).into_iter().map(|file| ViewFile {
            path: PathBuf::from(DIRECTORY).join(file.name),
            bytes: file.bytes,
            mode: 0o444,
        });
        let files = files.collect();
        let connector = Connector::new(&roots)?;
        Ok((Self { interceptor: Interceptor::new(ca)?, connector, notes, notice }, files))
    }
}
