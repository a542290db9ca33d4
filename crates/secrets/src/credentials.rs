//! The credentials of one policy generation: what stands for them, where they belong, and what they are at the moment.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use stockade_policy::{Credential, Inject, Store};
use stockade_types::Secret;

use crate::{
    backend::Backends,
    placeholder::{Entropy, Hint, PlaceholderError, Placeholders},
    refusal::{Invalid, Refusal},
    scan::Markers,
    scrub::{Known, Values},
    sigv4::Keys,
};

/// Shortest and longest value that is injected.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=4096;
/// What the labels of an AWS credential's further placeholders end in. A name in a policy has no space.
const ACCESS_KEY_ID: &str = " access_key_id";
const SESSION_TOKEN: &str = " session_token";

/// The credentials that a policy attaches to the sandbox.
///
/// Made anew at each reload, with the same [`Placeholders`]: what was detached is known as a placeholder still, and
/// stands for nothing.
#[derive(Debug)]
pub struct Credentials {
    entries: BTreeMap<String, Entry>,
    backends: Arc<Backends>,
    pub(crate) markers: Arc<Markers>,
    /// What responses are searched for, by the credentials of an endpoint. Bounded by the number of endpoints.
    scrubbed: Mutex<BTreeMap<Vec<String>, Arc<Values>>>,
}

#[derive(Debug)]
struct Entry {
    inject: Inject,
    /// Every value it has: the credential itself, and for AWS what goes with it.
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    /// Of its placeholder.
    label: String,
    env: String,
    source: Store,
    placeholder: Arc<str>,
}

/// Where the value of a credential that is in use can be asked for again.
#[derive(Debug)]
pub(crate) struct Source {
    backends: Arc<Backends>,
    store: Store,
}

impl Source {
    /// Whether `value` is what it was when it was first fetched.
    pub(crate) fn still(&self, credential: &str, value: &Secret) -> Result<(), Refusal> {
        let unresolved = |source| Refusal::Unresolved { credential: credential.to_owned(), source };
        let now = fetch(&self.backends, &self.store).map_err(unresolved)?;
        if now.expose() == value.expose() {
            Ok(())
        } else {
            Err(Refusal::Rotated { credential: credential.to_owned() })
        }
    }
}

/// A credential of the endpoint that a request goes to, with its value.
#[derive(Debug, Clone)]
pub(crate) struct Bound<'a> {
    pub(crate) name: &'a str,
    pub(crate) inject: &'a Inject,
    pub(crate) value: Arc<Secret>,
    pub(crate) placeholder: &'a Arc<str>,
    /// For AWS: the placeholder of the access key id, and the real keys.
    pub(crate) aws: Option<(&'a str, Keys)>,
}

/// The variables that the policy names as sources: what [`crate::Context::variables`] should be.
pub fn source_variables(policy: &BTreeMap<String, Credential>) -> impl Iterator<Item = &str> {
    policy.values().flat_map(sources).filter_map(|(_, _, store)| match store {
        Store::Env(name) => Some(name.as_str()),
        Store::File(_) => None,
    })
}

/// The files that the policy names as sources. They steer Stockade: where the command could write them, they must be
/// protected before the view is made.
pub fn source_files(policy: &BTreeMap<String, Credential>) -> impl Iterator<Item = &Path> {
    policy.values().flat_map(sources).filter_map(|(_, _, store)| match store {
        Store::Env(_) => None,
        Store::File(path) => Some(path.as_path()),
    })
}

/// The label's ending, the variable inside and the source of each value of a credential.
fn sources(credential: &Credential) -> Vec<(&'static str, &str, &Store)> {
    let mut all = vec![("", credential.env.as_str(), &credential.source)];
    if let Inject::Sigv4(aws) = &credential.inject {
        all.push((ACCESS_KEY_ID, &aws.access_key_id.env, &aws.access_key_id.source));
        all.extend(aws.session_token.iter().map(|t| (SESSION_TOKEN, t.env.as_str(), &t.source)));
    }
    all
}

impl Credentials {
    /// Gives every credential of the policy its placeholders. Values are looked at for their shape, where they can be
    /// had already; a missing one is no error here (see [`Self::problems`]).
    pub fn new(
        policy: &BTreeMap<String, Credential>,
        placeholders: &mut Placeholders,
        backends: Arc<Backends>,
        entropy: Entropy<'_>,
    ) -> Result<Self, PlaceholderError> {
        let mut entries = BTreeMap::new();
        for (name, credential) in policy {
            let mut parts = Vec::new();
            for (ending, env, source) in sources(credential) {
                let label = format!("{name}{ending}");
                let value = fetch(&backends, source).ok();
                let hint = Hint { env: Some(env), value: value.as_deref() };
                let placeholder = Arc::from(placeholders.give(&label, hint, entropy)?);
                parts.push(Part { label, env: env.to_owned(), source: source.clone(), placeholder });
            }
            entries.insert(name.clone(), Entry { inject: credential.inject.clone(), parts });
        }
        let markers = Arc::new(Markers::new(placeholders));
        Ok(Self { entries, backends, markers, scrubbed: Mutex::default() })
    }

    /// What the command finds: variable and placeholder.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.values().flat_map(|entry| &entry.parts).map(|part| (part.env.as_str(), &*part.placeholder))
    }

    /// What would keep each credential from being injected now. The supervisor shows this at the start.
    #[must_use]
    pub fn problems(&self) -> Vec<Refusal> {
        self.entries.iter().filter_map(|(name, entry)| self.bind(name, entry).err()).collect()
    }

    /// The credentials of an endpoint with their present values.
    pub(crate) fn bound<'a>(&'a self, names: &'a [String]) -> Result<Vec<Bound<'a>>, Refusal> {
        let one = |name: &'a String| match self.entries.get(name) {
            Some(entry) => self.bind(name, entry),
            None => Err(Refusal::Detached { credential: name.clone() }),
        };
        names.iter().map(one).collect()
    }

    fn bind<'a>(&self, name: &'a str, entry: &'a Entry) -> Result<Bound<'a>, Refusal> {
        let mut values = Vec::new();
        for part in &entry.parts {
            let unresolved = |source| Refusal::Unresolved { credential: name.to_owned(), source };
            let value = fetch(&self.backends, &part.source).map_err(unresolved)?;
            check(&value, &entry.inject).map_err(|why| Refusal::Invalid { credential: name.to_owned(), why })?;
            values.push(value);
        }
        let mut values = values.into_iter();
        let mut next = || values.next().ok_or_else(|| Refusal::Detached { credential: name.to_owned() });
        let first = entry.parts.first().ok_or_else(|| Refusal::Detached { credential: name.to_owned() })?;
        let value = next()?;
        let aws = match (&entry.inject, entry.parts.get(1)) {
            (Inject::Sigv4(_), Some(id)) => {
                let keys = Keys { secret: Arc::clone(&value), access_key_id: next()?, session_token: next().ok() };
                Some((&*id.placeholder, keys))
            }
            _ => None,
        };
        Ok(Bound { name, inject: &entry.inject, value, placeholder: &first.placeholder, aws })
    }

    /// What is taken out of the responses to a request that these were injected into.
    pub(crate) fn scrubbed(&self, bound: &[Bound<'_>]) -> Arc<Values> {
        let names: Vec<String> = bound.iter().map(|b| b.name.to_owned()).collect();
        let known: Vec<Known> = bound.iter().flat_map(|b| self.known(b)).collect();
        // A panic of another holder leaves the map whole: each change is one insert.
        let mut scrubbed = self.scrubbed.lock().unwrap_or_else(PoisonError::into_inner);
        match scrubbed.get(&names).filter(|values| values.are_of(&known)) {
            Some(values) => Arc::clone(values),
            None => {
                let values = Arc::new(Values::new(known));
                scrubbed.insert(names, Arc::clone(&values));
                values
            }
        }
    }

    fn known(&self, bound: &Bound<'_>) -> Vec<Known> {
        let mut values = vec![Arc::clone(&bound.value)];
        if let Some((_, keys)) = &bound.aws {
            values.push(Arc::clone(&keys.access_key_id));
            values.extend(keys.session_token.clone());
        }
        let parts = self.entries.get(bound.name).map(|entry| &entry.parts);
        let known = |(part, value): (&Part, Arc<Secret>)| Known {
            credential: part.label.as_str().into(),
            value,
            placeholder: Arc::clone(&part.placeholder),
        };
        parts.into_iter().flatten().zip(values).map(known).collect()
    }

    /// Where a credential's value comes from.
    pub(crate) fn source(&self, bound: &Bound<'_>) -> Option<Source> {
        let part = self.entries.get(bound.name)?.parts.first()?;
        Some(Source { backends: Arc::clone(&self.backends), store: part.source.clone() })
    }

    /// Whether these credentials are the same in `other`: their places and sources, not their present values.
    #[must_use]
    pub fn agree(&self, other: &Self, names: &[String]) -> bool {
        let of = |all: &Self, name: &String| {
            let entry = all.entries.get(name)?;
            Some((entry.inject.clone(), entry.parts.iter().map(|p| p.source.clone()).collect::<Vec<_>>()))
        };
        names.iter().all(|name| of(self, name) == of(other, name))
    }

    /// The names of all.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whose placeholder, by its label; absent if the policy in force does not have that credential.
    pub(crate) fn owner(&self, label: &str) -> Option<&str> {
        let name = label.split(' ').next().unwrap_or(label);
        self.entries.get_key_value(name).map(|(name, _)| name.as_str())
    }
}

fn fetch(backends: &Backends, source: &Store) -> Result<Arc<Secret>, crate::FetchError> {
    match source {
        Store::Env(name) => backends.fetch("env", name),
        Store::File(path) => backends.fetch("file", &path.to_string_lossy()),
    }
}

/// Whether a value can be written where it belongs, and found again in responses.
fn check(value: &Secret, inject: &Inject) -> Result<(), Invalid> {
    let text = value.expose();
    if !LENGTHS.contains(&text.len()) {
        return Err(Invalid::Length);
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Invalid::Characters);
    }
    let path = matches!(inject, Inject::Path { .. });
    if path && (text.contains(['/', '\\', '%', ';', '?', '#']) || text.contains("..")) {
        return Err(Invalid::Path);
    }
    Ok(())
}
