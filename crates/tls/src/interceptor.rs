//! TLS towards the command: a certificate for each host, minted when the verdict allowed it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use quick_cache::sync::Cache;
use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};
use stockade_types::{Host, HostName};

use crate::{Ca, CaError, Clock, VERSIONS, key::Key, provider};

use self::{rate::Rate, ticket::HostTickets};

mod rate;
mod ticket;

/// Leaves kept. One is about 1.5 KiB.
pub const MAX_LEAVES: usize = 1024;
/// Leaves minted at once, and refilled each second after that. Far above what programs open, far below what would keep
/// a core busy: a leaf costs some 16 µs.
pub const MINT_BURST: u32 = 1024;
/// See [`MINT_BURST`].
pub const MINT_PER_SECOND: u32 = 100;
/// A leaf with less left than this is minted anew, so that no connection begins with one about to expire.
const RENEW_BEFORE: Duration = Duration::from_secs(3600);

/// Why there is no certificate for a host. Nothing of a failure is kept: the next request is a fresh attempt.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// More new hosts than a program opens.
    #[error("more than {MINT_PER_SECOND} new hosts a second need a certificate; wait and try again")]
    TooMany,
    /// The sandbox outlived its CA.
    #[error("the sandbox's certificate authority has expired; start the sandbox anew")]
    AuthorityExpired,
    /// No random numbers.
    #[error("no certificate for the host: the machine gives no random numbers")]
    Random,
    /// The host or the time does not fit a certificate.
    #[error("no certificate for the host: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// What was minted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Minted {
    /// Certificates signed.
    pub leaves: u64,
    /// Refused because too many were asked for. Each rise is a reason for a `cert_mint_rate` finding.
    pub refused: u64,
    /// Failed for another reason.
    pub failed: u64,
}

/// Answers the command's TLS connections in the name of allowed hosts.
pub struct Interceptor {
    ca: Ca,
    /// One for all leaves: minting is then one signature and no key generation.
    key: Arc<Key>,
    /// Everything but certificate, tickets and ALPN, which differ by host.
    base: ServerConfig,
    tickets: Arc<dyn ProducesTickets>,
    leaves: Cache<Host, Arc<Answer>>,
    clock: Clock,
    rate: Rate,
    minted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    kept: AtomicU64,
}

impl Interceptor {
    /// Takes the CA over, on the machine's clock.
    ///
    /// # Errors
    /// No random numbers for the leaf key or the ticket keys.
    pub fn new(ca: Ca) -> Result<Self, CaError> {
        Self::with_clock(ca, Clock::system())
    }

    /// The same on a clock of the caller's.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_clock(ca: Ca, clock: Clock) -> Result<Self, CaError> {
        let key = Arc::new(Key::generate().map_err(|_| CaError::Random)?);
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        let mut base = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
            .with_protocol_versions(VERSIONS)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        // Sessions are resumed by ticket alone: nothing to store, nothing to bound.
        base.session_storage = Arc::new(NoServerSessionStorage {});
        base.max_early_data_size = 0;
        Ok(Self {
            ca,
            key,
            base,
            tickets,
            leaves: Cache::new(MAX_LEAVES),
            rate: Rate::new(MINT_BURST, MINT_PER_SECOND, clock.now()),
            clock,
            minted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        })
    }

    /// A configuration that answers for `host` alone and speaks `alpn`, what the origin chose. To be called after the
    /// verdict only: it mints.
    ///
    /// # Errors
    /// See [`MintError`].
    pub fn server_config(&self, host: &Host, alpn: Option<&[u8]>) -> Result<Arc<ServerConfig>, MintError> {
        let answer = self.answer(host)?;
        let mut config = self.base.clone();
        config.ticketer = Arc::clone(&answer.tickets);
        config.cert_resolver = answer;
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        Ok(Arc::new(config))
    }

    /// The CA's certificate, for the bundle.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        self.ca.certificate_pem()
    }

    /// Counts since the start.
    #[must_use]
    pub fn minted(&self) -> Minted {
        Minted {
            leaves: self.minted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }

    /// How often a certificate was at hand already.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    fn answer(&self, host: &Host) -> Result<Arc<Answer>, MintError> {
        let now = self.clock.now();
        if let Some(answer) = self.leaves.get(host).filter(|a| a.good_at(now)) {
            self.kept.fetch_add(1, Relaxed);
            return Ok(answer);
        }
        let result = self.mint(host, now);
        let count = match &result {
            Ok(_) => &self.minted,
            Err(MintError::TooMany) => &self.refused,
            Err(MintError::AuthorityExpired | MintError::Random | MintError::Certificate(_)) => &self.failed,
        };
        count.fetch_add(1, Relaxed);
        let answer = result?;
        self.leaves.insert(host.clone(), Arc::clone(&answer));
        Ok(answer)
    }

    fn mint(&self, host: &Host, now: SystemTime) -> Result<Arc<Answer>, MintError> {
        if !self.rate.take(now) {
            return Err(MintError::TooMany);
        }
        let leaf = self.ca.leaf(host, &self.key, now)?;
        let last = leaf.until == self.ca.until();
        let key: Arc<dyn rustls::sign::SigningKey> = self.key.clone();
        Ok(Arc::new(Answer {
            name: match host {
                Host::Name(name) => Some(name.clone()),
                Host::Addr(_) => None,
            },
            certified: Arc::new(CertifiedKey::new(vec![leaf.der], key)),
            tickets: Arc::new(HostTickets::new(host, Arc::clone(&self.tickets))),
            from: leaf.from,
            // Where the CA ends, nothing later can be had.
            until: if last { leaf.until } else { leaf.until - RENEW_BEFORE },
        }))
    }
}

impl fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interceptor").field("minted", &self.minted()).finish_non_exhaustive()
    }
}

/// One host's certificate.
struct Answer {
    /// The name that a client may ask for, if the host is one.
    name: Option<HostName>,
    certified: Arc<CertifiedKey>,
    tickets: Arc<dyn ProducesTickets>,
    from: SystemTime,
    until: SystemTime,
}

impl Answer {
    fn good_at(&self, now: SystemTime) -> bool {
        self.from <= now && now < self.until
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Answer {
    /// A client that names another host than was judged gets no certificate; one that names none gets the host's.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        let same = asked.is_none_or(|asked| self.name.as_ref().is_some_and(|n| n.as_str().eq_ignore_ascii_case(asked)));
        same.then(|| Arc::clone(&self.certified))
    }
}

/// Stands in the base configuration, which no connection is given.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[cfg(test)]
mod tests;
