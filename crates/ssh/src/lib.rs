//! The SSH server of a sandbox: who may come in, and the protocol that carries what they do there.
//!
//! Nothing is run here. Programs are started through a [`Spawner`], which is the path that the command itself took, so a
//! session cannot have more rights than the command; files are served by [`sftp`], which runs inside the sandbox.
//!
//! Callbacks of the SSH library ([`handler`]) decide nothing that takes time: they answer the request and hand what comes
//! later to the task that owns the channel ([`session`], [`forward`]).
#![forbid(unsafe_code)]

mod access;
mod backlog;
mod certificate;
mod counts;
mod forward;
mod handler;
pub mod host_key;
mod keyring;
pub mod keys;
pub mod limits;
mod record;
mod server;
mod session;
pub mod sftp;
mod spawner;
pub mod token;
mod transport;

pub use access::{Access, Login};
pub use counts::{Counts, Numbers};
pub use host_key::HostKey;
pub use keyring::Keyring;
pub use keys::AuthorizedKeys;
pub use server::{Config, Listener, Server};
pub use spawner::{Ended, Happened, Program, Running, Size, Spawner};
pub use token::Tokens;
