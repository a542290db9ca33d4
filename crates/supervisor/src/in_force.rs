//! A policy made ready to decide, with the files that its endpoints name.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use stockade_egress::InForce;
use stockade_policy::{Endpoint, Policy, Posture, Snapshot};
use stockade_secrets::{Backends, Context, Credentials, Placeholders, source_files, source_variables};
use stockade_tls::{Extra, ExtraPem};
use stockade_types::Generation;

use crate::{
    error::Error,
    memory,
    steering::{self, Steering},
};

/// Compiles a policy and reads what its endpoints want towards their hosts.
///
/// # Errors
/// Whatever is wrong with any of it: the policy in force stays.
pub(crate) fn compile(
    policy: &Policy,
    steering: &Steering,
    generation: Generation,
    posture: Posture,
    secrets: &mut Secrets,
) -> Result<InForce, Error> {
    let snapshot = Snapshot::compile(policy, &steering.modules, generation, posture)?;
    let mut extras = HashMap::new();
    for endpoint in &policy.network().endpoints {
        if let Some(extra) = extra(endpoint)? {
            extras.insert(endpoint.name.clone(), extra);
        }
    }
    Ok(InForce { snapshot, extras, credentials: secrets.attach(policy, &directory(steering))? })
}

/// What stands for secrets inside, for the life of the sandbox. Made after init is forked, which has no copy.
pub(crate) struct Secrets {
    placeholders: Placeholders,
    /// Whether the command has ever been given one.
    given: bool,
}

impl Secrets {
    pub(crate) fn new() -> Result<Self, Error> {
        let placeholders = Placeholders::new(&mut random).map_err(|e| Error::Option(e.to_string()))?;
        Ok(Self { placeholders, given: false })
    }

    /// The credentials of a policy. None as long as no policy had any: then nothing needs to be searched for.
    fn attach(&mut self, policy: &Policy, directory: &Path) -> Result<Option<Arc<Credentials>>, Error> {
        self.given |= !policy.credentials().is_empty();
        if !self.given {
            return Ok(None);
        }
        memory::keeps_secrets();
        let variables: Vec<&str> = source_variables(policy.credentials()).collect();
        let context = Context {
            environment: &|name| std::env::var_os(name),
            variables: &variables,
            directory,
            recheck: Context::RECHECK,
        };
        let backends = Arc::new(Backends::open(&context));
        let made = Credentials::new(policy.credentials(), &mut self.placeholders, backends, &mut random);
        made.map(|credentials| Some(Arc::new(credentials))).map_err(|e| Error::Option(format!("credentials: {e}")))
    }
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(())
}

/// Where the policy lies: what the names of secret files are relative to.
fn directory(steering: &Steering) -> PathBuf {
    let file = steering.sources.first().map(|source| Path::new(source.name.as_str()));
    file.and_then(Path::parent).unwrap_or(Path::new("")).to_owned()
}

fn extra(endpoint: &Endpoint) -> Result<Option<Extra>, Error> {
    let wanted = &endpoint.upstream;
    if wanted.roots.is_none() && wanted.identity.is_none() {
        return Ok(None);
    }
    if wanted.identity.is_some() {
        memory::keeps_secrets();
    }
    let read = |path: &PathBuf| steering::bytes(&beside(endpoint, path));
    let roots = wanted.roots.as_ref().map(read).transpose()?;
    let identity = match &wanted.identity {
        Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
        None => None,
    };
    let pem = ExtraPem {
        roots: roots.as_deref(),
        identity: identity.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice())),
    };
    let wrong = |e| Error::Option(format!("network.endpoints.{}.upstream: {e}", endpoint.name));
    Extra::parse(pem).map(Some).map_err(wrong)
}

/// Files that a policy names lie beside it.
fn beside(endpoint: &Endpoint, path: &Path) -> PathBuf {
    let file = endpoint.origin.as_ref().map(|origin| Path::new(origin.file.as_ref()));
    file.and_then(Path::parent).unwrap_or(Path::new("")).join(path)
}

/// The files that a policy's endpoints name: what certificates are checked with, and keys, which the command must not
/// find.
pub(crate) fn named(policy: &Policy, steering: &Steering) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut trusted, mut secret) = (Vec::new(), Vec::new());
    for endpoint in &policy.network().endpoints {
        trusted.extend(endpoint.upstream.roots.iter().map(|p| beside(endpoint, p)));
        if let Some((certificate, key)) = &endpoint.upstream.identity {
            trusted.push(beside(endpoint, certificate));
            secret.push(beside(endpoint, key));
        }
    }
    let at = directory(steering);
    secret.extend(source_files(policy.credentials()).map(|path| at.join(path)));
    (trusted, secret)
}
