//! Where values come from: one trait, a registry row per store, one conformance suite that every store runs through.

mod env;
mod file;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use stockade_types::Secret;

/// Longest source that is read.
pub const MAX_SOURCE: usize = 64 * 1024;

/// A store of secrets.
///
/// Every fetch answers with the value as it is now: a value that was taken away is an error, never the last one known.
pub trait Backend: fmt::Debug + Send + Sync {
    /// The present value of `name`, without the newline at its end.
    fn fetch(&self, name: &str) -> Result<Arc<Secret>, FetchError>;
}

/// A store's name in the policy (`env:NAME`) and how it is opened.
#[derive(Clone, Copy)]
pub struct Store {
    /// The word before the colon.
    pub name: &'static str,
    open: fn(&Context<'_>) -> Box<dyn Backend>,
}

/// The stores there are.
pub const STORES: &[Store] = &[
    Store { name: "env", open: |context| Box::new(env::Env::open(context)) },
    Store { name: "file", open: |context| Box::new(file::File::open(context)) },
];

/// What the stores may read.
pub struct Context<'a> {
    /// The program's reader of its environment. It is asked once for each of `variables`.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// The variables that the policy names as sources; no other is read.
    pub variables: &'a [&'a str],
    /// What relative file names are relative to: the policy's directory.
    pub directory: &'a Path,
    /// How long a file is believed to be unchanged without looking.
    pub recheck: Duration,
}

impl Context<'_> {
    /// Default of [`Context::recheck`].
    pub const RECHECK: Duration = Duration::from_secs(1);
}

/// Why there is no value. None of the texts holds any part of one.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No such variable when Stockade started.
    #[error("the environment of Stockade has no variable {0}; set it before the start")]
    NotSet(String),
    /// No store of this name.
    #[error("there is no secret store `{0}`")]
    UnknownStore(String),
    /// The file cannot be opened or read.
    #[error("secret file {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, device, FIFO or socket.
    #[error("secret file {0}: not a regular file")]
    NotRegular(PathBuf),
    /// It was written while it was read, again and again.
    #[error("secret file {0}: it changes while it is read; replace it by renaming")]
    Changing(PathBuf),
    /// Over [`MAX_SOURCE`].
    #[error("the secret {0} is longer than 64 KiB")]
    TooLong(String),
    /// Nothing, or only a newline.
    #[error("the secret {0} is empty")]
    Empty(String),
    /// Not UTF-8.
    #[error("the secret {0} is not UTF-8 text")]
    NotText(String),
}

/// The stores, opened.
pub struct Backends(BTreeMap<&'static str, Box<dyn Backend>>);

impl Backends {
    /// Opens every store. Called before the sandbox is built; nothing is fetched yet, but for the environment.
    #[must_use]
    pub fn open(context: &Context<'_>) -> Self {
        Self(STORES.iter().map(|store| (store.name, (store.open)(context))).collect())
    }

    /// The present value of `store:name`.
    pub fn fetch(&self, store: &str, name: &str) -> Result<Arc<Secret>, FetchError> {
        self.0.get(store).ok_or_else(|| FetchError::UnknownStore(store.to_owned()))?.fetch(name)
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Takes one newline off the end: editors and `echo` put it there.
fn trimmed(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}
