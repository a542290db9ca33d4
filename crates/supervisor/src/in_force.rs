//! A policy made ready to decide, with the files that its endpoints name.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use stockade_egress::InForce;
use stockade_policy::{Endpoint, Policy, Posture, Snapshot};
use stockade_tls::{Extra, ExtraPem};
use stockade_types::Generation;

use crate::{
    error::Error,
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
) -> Result<InForce, Error> {
    let snapshot = Snapshot::compile(policy, &steering.modules, generation, posture)?;
    let mut extras = HashMap::new();
    for endpoint in &policy.network().endpoints {
        if let Some(extra) = extra(endpoint)? {
            extras.insert(endpoint.name.clone(), extra);
        }
    }
    Ok(InForce { snapshot, extras })
}

fn extra(endpoint: &Endpoint) -> Result<Option<Extra>, Error> {
    let wanted = &endpoint.upstream;
    if wanted.roots.is_none() && wanted.identity.is_none() {
        return Ok(None);
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
pub(crate) fn named(policy: &Policy) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut steering, mut secret) = (Vec::new(), Vec::new());
    for endpoint in &policy.network().endpoints {
        steering.extend(endpoint.upstream.roots.iter().map(|p| beside(endpoint, p)));
        if let Some((certificate, key)) = &endpoint.upstream.identity {
            steering.push(beside(endpoint, certificate));
            secret.push(beside(endpoint, key));
        }
    }
    (steering, secret)
}
