//! The sandbox's certificate authority.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use stockade_types::Host;

use crate::{interceptor::MintError, key::Key, roots::encode};

/// How long the CA is good for where nobody says how long the command runs. The key dies with the sandbox and is trusted
/// nowhere else, so this bound matters only for a key that was somehow taken; a shorter one would end the TLS of an agent
/// that is left running over a weekend, because programs read the bundle once.
pub const CA_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// How much longer than the command it is good for where that is said: a clock that is set forward by a day must not make
/// it invalid either.
pub const CA_MARGIN: Duration = Duration::from_secs(25 * 3600);
/// How far back the CA's validity begins: a clock that is set back by a day must not make it invalid.
pub const CA_BACKDATED: Duration = Duration::from_secs(25 * 3600);
/// How long a leaf is good for.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How far back a leaf's validity begins.
pub const LEAF_BACKDATED: Duration = Duration::from_secs(3600);
/// Longest common name (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// No random numbers, no key.
    #[error("the key of the sandbox's certificate authority cannot be made: the machine gives no random numbers")]
    Random,
    /// The certificate could not be written.
    #[error("the sandbox's certificate authority cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls takes no configuration.
    #[error("TLS towards the command cannot be configured: {0}")]
    Config(#[from] rustls::Error),
}

/// One per sandbox and start. The key is in memory only: there is no way to read, write or print it.
pub struct Ca {
    issuer: Issuer<'static, Key>,
    der: CertificateDer<'static>,
    pem: String,
    until: SystemTime,
}

/// A certificate for one host, and when it is to be used.
pub(crate) struct Leaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
}

impl Ca {
    /// Makes key and certificate, for a command that may run as long as it likes.
    ///
    /// # Errors
    /// No random numbers, or a time that no certificate can hold.
    pub fn new(now: SystemTime) -> Result<Self, CaError> {
        Self::lasting(now, None)
    }

    /// The same for a command that is ended after `run`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn lasting(now: SystemTime, run: Option<Duration>) -> Result<Self, CaError> {
        let key = Key::generate().map_err(|_| CaError::Random)?;
        let serial = serial().ok_or(CaError::Random)?;
        let mut params = CertificateParams::default();
        // The number sets apart the authorities of two sandboxes, whose leaves one program may see.
        let id: String = serial.iter().take(6).map(|b| format!("{b:02x}")).collect();
        params.distinguished_name = name(&format!("Stockade sandbox {id}"));
        params.distinguished_name.push(DnType::OrganizationName, "Stockade");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let until = now + run.map_or(CA_LIFETIME, |run| run.saturating_add(CA_MARGIN).min(CA_LIFETIME));
        params.not_before = now.checked_sub(CA_BACKDATED).unwrap_or(SystemTime::UNIX_EPOCH).into();
        params.not_after = until.into();
        let der = params.self_signed(&key)?.der().clone();
        let pem = encode(&der);
        Ok(Self { issuer: Issuer::new(params, key), der, pem, until })
    }

    /// The certificate, as every client takes it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The certificate.
    #[must_use]
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Signs a certificate for `host` and the public half of `key`. One signature.
    pub(crate) fn leaf(&self, host: &Host, key: &Key, now: SystemTime) -> Result<Leaf, MintError> {
        let from = now.checked_sub(LEAF_BACKDATED).unwrap_or(SystemTime::UNIX_EPOCH);
        let until = (now + LEAF_LIFETIME).min(self.until);
        if until <= now {
            return Err(MintError::AuthorityExpired);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&common_name(host));
        params.subject_alt_names = vec![match host {
            Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Addr(address) => SanType::IpAddress(*address),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // The default is derived from the key, which all leaves share: NSS refuses two certificates of one number.
        params.serial_number = Some(SerialNumber::from_slice(&serial().ok_or(MintError::Random)?));
        params.not_before = from.into();
        params.not_after = until.into();
        let der = params.signed_by(key, &self.issuer)?.der().clone();
        Ok(Leaf { der, from, until })
    }

    pub(crate) fn until(&self) -> SystemTime {
        self.until
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ca(redacted)")
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Clients match the alternative name; the common name is for people, and has a bound that names do not keep.
fn common_name(host: &Host) -> String {
    let text = match host {
        Host::Name(name) => name.as_str().to_owned(),
        Host::Addr(address) => address.to_string(),
    };
    if text.len() <= MAX_COMMON_NAME { text } else { "Stockade leaf".to_owned() }
}

/// 127 random bits, positive and of full length.
fn serial() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Some(bytes)
}

#[cfg(test)]
mod tests;
