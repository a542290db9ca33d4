//! User certificates of OpenSSH: signed by an authority of the file of keys, for this sandbox, now, with nothing in them
//! that is not understood.

use std::{net::IpAddr, time::SystemTime};

use russh::keys::{Certificate, HashAlg, ssh_key::certificate::CertType};

use crate::{
    access::{Access, Login, PermitOpen},
    keys::{AuthorizedKeys, is_usable, options},
};

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Fault {
    #[error("its authority is not listed, or not from this address")]
    Authority,
    #[error("it is a host's certificate")]
    Host,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is not valid now")]
    Time,
    #[error("it is for none of the names that are taken: {0}")]
    Principal(String),
    #[error("its critical option `{0}` is not supported")]
    Critical(String),
    #[error("it may not be used from this address")]
    Source,
    #[error("it and its authority's line force different commands")]
    Command,
    #[error("its key or its authority's is of a kind that is not supported")]
    Kind,
}

/// Who is asked in whose name.
pub(crate) struct Visitor<'a> {
    pub(crate) user: &'a str,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) now: SystemTime,
}

/// Checks a certificate whose holder was proven.
pub(crate) fn check(
    keys: &AuthorizedKeys,
    names: &[String],
    visitor: &Visitor<'_>,
    certificate: &Certificate,
) -> Result<Login, Fault> {
    let options = keys.authority(certificate.signature_key(), visitor.peer, visitor.now).ok_or(Fault::Authority)?;
    if !is_usable(&certificate.public_key().algorithm()) || !is_usable(&certificate.signature_key().algorithm()) {
        return Err(Fault::Kind);
    }
    certificate.verify_signature().map_err(|_| Fault::Signature)?;
    match certificate.cert_type() {
        CertType::User => {}
        CertType::Host => return Err(Fault::Host),
    }
    let now = visitor.now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| Fault::Time)?.as_secs();
    if now < certificate.valid_after() || now >= certificate.valid_before() {
        return Err(Fault::Time);
    }
    // A certificate without principals would be one for everybody; OpenSSH's sshd refuses it too.
    let wanted = options.principals.as_deref().unwrap_or(names);
    if !certificate.valid_principals().iter().any(|p| wanted.contains(p)) {
        return Err(Fault::Principal(wanted.join(", ")));
    }
    let own = granted(certificate, visitor)?;
    // One cannot undo the other; OpenSSH's sshd refuses it too.
    if let (Some(forced), Some(line)) = (&own.command, &options.access.command)
        && forced != line
    {
        return Err(Fault::Command);
    }
    let access = own.and(&options.access);
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    let by = format!("certificate {:?} serial {} of {authority}", certificate.key_id(), certificate.serial());
    Ok(Login { user: visitor.user.to_owned(), by, access })
}

/// What the certificate itself grants: extensions give, critical options take.
fn granted(certificate: &Certificate, visitor: &Visitor<'_>) -> Result<Access, Fault> {
    let has = |name: &str| certificate.extensions().iter().any(|(n, _)| n == name);
    let mut access = Access {
        pty: has("permit-pty"),
        forwarding: has("permit-port-forwarding"),
        permit_open: None::<Vec<PermitOpen>>,
        command: None,
    };
    for (name, value) in certificate.critical_options().iter() {
        match name.as_str() {
            "force-command" => access.command = Some(value.clone()),
            "source-address" => {
                let nets = options::nets(value).map_err(|_| Fault::Source)?;
                if !options::contains(&nets, visitor.peer) {
                    return Err(Fault::Source);
                }
            }
            other => return Err(Fault::Critical(other.to_owned())),
        }
    }
    Ok(access)
}

#[cfg(test)]
mod tests;
