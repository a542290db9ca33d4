//! `env:NAME`: a variable of Stockade's own environment, read once. The command's environment does not have it.

use std::{collections::BTreeMap, os::unix::ffi::OsStringExt, sync::Arc};

use stockade_types::Secret;
use zeroize::Zeroize;

use super::{Backend, Context, FetchError, MAX_SOURCE, trimmed};

/// The variables that the policy names, as they were at the start.
#[derive(Debug)]
pub(super) struct Env(BTreeMap<String, Read>);

/// What reading a variable gave.
#[derive(Debug)]
enum Read {
    Value(Arc<Secret>),
    TooLong,
    NotText,
}

impl Env {
    pub(super) fn open(context: &Context<'_>) -> Self {
        let read = |name: &&str| {
            let mut bytes = (context.environment)(name)?.into_vec();
            let read = match std::str::from_utf8(&bytes) {
                _ if bytes.len() > MAX_SOURCE => Read::TooLong,
                Ok(text) => Read::Value(Arc::new(Secret::new(trimmed(text).to_owned()))),
                Err(_) => Read::NotText,
            };
            bytes.zeroize();
            Some(((*name).to_owned(), read))
        };
        Self(context.variables.iter().filter_map(read).collect())
    }
}

impl Backend for Env {
    fn fetch(&self, name: &str) -> Result<Arc<Secret>, FetchError> {
        match self.0.get(name) {
            None => Err(FetchError::NotSet(name.to_owned())),
            Some(Read::TooLong) => Err(FetchError::TooLong(name.to_owned())),
            Some(Read::NotText) => Err(FetchError::NotText(name.to_owned())),
            Some(Read::Value(value)) if value.is_empty() => Err(FetchError::Empty(name.to_owned())),
            Some(Read::Value(value)) => Ok(Arc::clone(value)),
        }
    }
}
