//! SSH into the sandbox: where it is listened for, who may come in, and the way from a session to init.

mod keys;
mod listen;
mod spawner;

use std::{
    fs::File,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use stockade_audit::Audit;
use stockade_confine::view::Grant;
use stockade_ssh::{Counts, HostKey, Listener, Server, Tokens};
use stockade_types::SandboxId;
use tokio::{runtime::Handle, sync::oneshot};

use self::{keys::Listed, listen::Bound, spawner::Sessions};
use crate::{
    error::Error,
    inside::Inside,
    steering::{self, Steering, SteeringError},
};

/// The name that a certificate has to name where its authority's line has no `principals`, besides the sandbox's id.
const NAME: &str = "sandbox";

/// Where and for whom an SSH server is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// Where it listens.
    pub listen: Listen,
    /// Keys and authorities that may come in.
    pub authorized_keys: Option<PathBuf>,
    /// The server's own key; one for this run when absent.
    pub host_key: Option<PathBuf>,
    /// What a gateway's handshakes are made with.
    pub handshake: Option<Handshake>,
}

/// Where connections come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket that is made at this path.
    Unix(PathBuf),
}

/// What a gateway's handshakes are made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// A file with a shared secret.
    Secret(PathBuf),
    /// A file with the public part of an Ed25519 key.
    Key(PathBuf),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("the path is missing: unix:PATH".to_owned()),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "expected an address with a port, such as 127.0.0.1:2222 or [::1]:2222, or unix:PATH".to_owned()
            }),
        }
    }
}

/// Files that steer who comes in are read-only inside; those with secrets must not be there at all.
pub(crate) fn note(ssh: Option<&Ssh>, steering: &mut Steering) -> Result<(), Error> {
    let Some(ssh) = ssh else { return Ok(()) };
    if ssh.authorized_keys.is_none() && ssh.handshake.is_none() {
        return Err(Error::Option(
            "--ssh: nobody could come in; name keys with --ssh-authorized-keys FILE, such as ~/.ssh/id_ed25519.pub"
                .to_owned(),
        ));
    }
    let (public, secret) = match &ssh.handshake {
        Some(Handshake::Secret(path)) => (None, Some(path)),
        Some(Handshake::Key(path)) => (Some(path), None),
        None => (None, None),
    };
    for path in ssh.authorized_keys.iter().chain(public) {
        steering.ways.push(steering::way(path)?);
    }
    for path in ssh.host_key.iter().chain(secret) {
        steering.secrets.push(steering::way(path)?);
    }
    Ok(())
}

/// Listening, and nobody served yet.
pub(crate) struct Ready {
    bound: Bound,
    keys: Option<Listed>,
    config: stockade_ssh::Config,
    fingerprint: String,
    sandbox: String,
    remarks: Vec<String>,
}

/// Serving. Dropped: everybody is disconnected, and the socket's file is removed.
pub(crate) struct Serving {
    pub(crate) counts: Arc<Counts>,
    _open: oneshot::Sender<()>,
    _bound: Bound,
}

impl Ready {
    /// Reads keys and binds the socket: whatever is wrong is said before anything runs.
    pub(crate) fn new(ssh: &Ssh, id: &SandboxId, grants: &[Grant], runtime: &Handle) -> Result<Self, Error> {
        let host_key = match &ssh.host_key {
            Some(path) => HostKey::from_openssh(&private(path)?).map_err(about("--ssh-host-key", path))?,
            None => HostKey::ephemeral().map_err(|e| Error::Option(format!("--ssh: {e}")))?,
        };
        let keys = ssh.authorized_keys.as_ref().map(|path| Listed::open(path, grants)).transpose()?;
        let tokens = match &ssh.handshake {
            Some(Handshake::Secret(path)) => {
                let made = Tokens::with_secret(&private(path)?, id.as_str());
                Some(made.map_err(about("--ssh-token-secret", path))?)
            }
            Some(Handshake::Key(path)) => {
                let text = String::from_utf8_lossy(&guarded(path, steering::open(path)?)?).into_owned();
                Some(Tokens::with_key(&text, id.as_str()).map_err(about("--ssh-token-key", path))?)
            }
            None => None,
        };
        let remarks = keys.as_ref().map(Listed::remarks).unwrap_or_default();
        let fingerprint = host_key.fingerprint();
        let names = vec![NAME.to_owned(), id.to_string()];
        let bound = {
            let _entered = runtime.enter();
            Bound::new(&ssh.listen, grants)?
        };
        let config = stockade_ssh::Config { host_key, keys: None, tokens, names };
        Ok(Self { bound, keys, config, fingerprint, sandbox: id.to_string(), remarks })
    }

    /// The port that must not be dialled from inside.
    pub(crate) fn port(&self) -> Option<u16> {
        self.bound.port()
    }

    /// What an operator should know at the start.
    pub(crate) fn notices(&self) -> Vec<String> {
        let mut said = vec![format!("ssh on {}, host key {}", self.bound.place(), self.fingerprint)];
        if self.config.tokens.is_some() {
            said.push(format!("ssh takes handshakes for sandbox {}", self.sandbox));
        }
        said.extend(self.remarks.iter().map(|r| format!("--ssh-authorized-keys: {r}")));
        said
    }

    pub(crate) fn serve(
        self,
        inside: Inside,
        root: Option<OwnedFd>,
        audit: Audit,
        runtime: &Handle,
    ) -> Result<Serving, Error> {
        let Self { mut bound, keys, mut config, .. } = self;
        let listener: Listener = bound.take()?;
        let program = std::env::current_exe().map_err(Error::io("find this program"))?;
        let sessions = Arc::new(Sessions::new(inside, root, program));
        config.keys = keys.map(|listed| listed.follow(audit.clone()));
        let reminder = config.keys.clone();
        let server: Server = config.build(sessions, audit);
        let counts = server.counts();
        let (open, closed) = oneshot::channel::<()>();
        runtime.spawn(async move {
            let closed = async move { drop(closed.await) };
            let served = tokio::select! {
                served = server.serve(listener, closed) => served,
                () = keys::remind(reminder) => Ok(()),
            };
            if let Err(e) = served {
                tracing::warn!("ssh: {e}");
            }
        });
        Ok(Serving { counts, _open: open, _bound: bound })
    }
}

fn about<E: std::fmt::Display>(option: &'static str, path: &Path) -> impl Fn(E) -> Error {
    let path = path.display().to_string();
    move |e| Error::Option(format!("{option} {path}: {e}"))
}

/// A file that nobody but its owner and root may write: who writes it decides who comes in.
fn guarded(path: &Path, file: File) -> Result<Vec<u8>, Error> {
    closed(path, &file, 0o022, "may be written by others; chmod go-w")?;
    Ok(steering::bytes_of(path, file)?)
}

/// A file that nobody else may even read.
fn private(path: &Path) -> Result<Vec<u8>, Error> {
    let file = steering::open(path)?;
    closed(path, &file, 0o077, "may be read by others; chmod 600")?;
    Ok(steering::bytes_of(path, file)?)
}

/// Looks at what was opened: the path may lead elsewhere a moment later.
fn closed(path: &Path, file: &File, forbidden: u32, told: &str) -> Result<(), Error> {
    let meta = file.metadata().map_err(|source| SteeringError::Io { path: path.to_owned(), source })?;
    if meta.mode() & forbidden != 0 {
        return Err(Error::Option(format!("{}: {told} it", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen() {
        assert_eq!("127.0.0.1:22".parse(), Ok(Listen::Tcp(([127, 0, 0, 1], 22).into())));
        assert_eq!("unix:/run/x".parse(), Ok(Listen::Unix("/run/x".into())));
        for bad in ["", "22", "localhost:22", "unix:", "127.0.0.1"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_for_nobody_is_refused() {
        let ssh = Ssh { listen: Listen::Unix("x".into()), authorized_keys: None, host_key: None, handshake: None };
        let mut steering = Steering::read(&[]).unwrap();
        assert!(note(Some(&ssh), &mut steering).unwrap_err().to_string().contains("--ssh-authorized-keys"));
    }
}
