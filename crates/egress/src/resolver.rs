//! Names to addresses, as the host outside the sandbox sees them.
//!
//! The host's `resolv.conf` and `hosts` are read once, when the supervisor starts. Names are absolute: no search
//! list, whatever the file says. Nothing that the command can write is looked at, and no variable.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{op::ResponseCode, rr::Name},
    system_conf::parse_resolv_conf,
};
use stockade_types::HostName;

mod hosts;

/// Entries that the cache holds. Each is small, and most runs meet a few dozen names.
const CACHE: u64 = 256;
/// Longest that an answer is believed: a changed address is noticed, a rebinding name gains nothing.
const TTL_MAX: Duration = Duration::from_secs(300);

/// A lookup under way.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'a>>;

/// Answers one name with all its addresses, without judging them.
pub trait Resolve: Send + Sync {
    /// Resolves an absolute name.
    fn resolve<'a>(&'a self, name: &'a HostName) -> Lookup<'a>;
}

/// Why a name has no addresses.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// The resolver says that there is no such name.
    #[error("the name does not exist")]
    NoSuchName,
    /// The name exists, without addresses.
    #[error("the name has no address")]
    NoAddress,
    /// No answer in time.
    #[error("the name server did not answer in time")]
    Timeout,
    /// The answer makes no sense.
    #[error("the name server's answer is malformed")]
    Invalid,
    /// The server refused or failed.
    #[error("the name server failed")]
    Failed,
    /// This machine names no server.
    #[error("this machine has no name server: see /etc/resolv.conf")]
    NoServer,
}

/// Why the host's resolver cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file exists and cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The resolver cannot be built from the file.
    #[error("cannot use /etc/resolv.conf: {0}")]
    Build(String),
}

/// The host's resolver.
pub struct System {
    /// Absent where the host names no server: then only the hosts file answers.
    servers: Option<TokioResolver>,
    hosts: hosts::Table,
}

impl System {
    /// Reads the host's files. Missing files are empty ones.
    ///
    /// # Errors
    /// When a file is there and cannot be read or used.
    pub fn from_host() -> Result<Self, SetupError> {
        let read = |path: &'static str| match std::fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(SetupError::Read { path, source }),
            Ok(bytes) => Ok(bytes),
        };
        Self::from_files(&read("/etc/resolv.conf")?, &read("/etc/hosts")?)
    }

    /// The same from the content of the two files.
    ///
    /// # Errors
    /// When no resolver can be built from them.
    pub fn from_files(resolv_conf: &[u8], hosts: &[u8]) -> Result<Self, SetupError> {
        let servers = match parse_resolv_conf(resolv_conf) {
            Ok((config, options)) => Some(build(&config, options)?),
            // The parser has one error for "no name server" and refuses nothing else.
            Err(_) => None,
        };
        Ok(Self { servers, hosts: hosts::Table::parse(hosts) })
    }
}

impl System {
    /// A name of the operator's own, in lower case, which may have one label: `localhost`, a service of a container
    /// network. Absolute like every other.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn operators(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        self.lookup(name).await
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(addrs) = self.hosts.get(name) {
            return Ok(addrs.to_vec());
        }
        let servers = self.servers.as_ref().ok_or(ResolveError::NoServer)?;
        let mut fqdn = Name::from_ascii(name).map_err(|_| ResolveError::Invalid)?;
        fqdn.set_fqdn(true);
        let answer = servers.lookup_ip(fqdn).await.map_err(|e| blame(&e))?;
        let addrs: Vec<IpAddr> = answer.iter().collect();
        if addrs.is_empty() { Err(ResolveError::NoAddress) } else { Ok(addrs) }
    }
}

fn build(config: &ResolverConfig, file: ResolverOpts) -> Result<TokioResolver, SetupError> {
    let absolute = ResolverConfig::from_parts(None, Vec::new(), config.name_servers().to_vec());
    let mut builder = TokioResolver::builder_with_config(absolute, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = file.timeout.clamp(Duration::from_secs(1), Duration::from_secs(5));
    options.attempts = file.attempts.clamp(1, 3);
    options.ndots = 0;
    options.cache_size = CACHE;
    options.positive_max_ttl = Some(TTL_MAX);
    options.negative_max_ttl = Some(Duration::from_secs(10));
    options.use_hosts_file = ResolveHosts::Never;
    options.case_randomization = false;
    options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
    builder.build().map_err(|e| SetupError::Build(e.to_string()))
}

impl Resolve for System {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Lookup<'a> {
        Box::pin(self.lookup(name.as_str()))
    }
}

fn blame(error: &NetError) -> ResolveError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            ResolveError::NoSuchName
        }
        NetError::Dns(DnsError::NoRecordsFound(_)) => ResolveError::NoAddress,
        NetError::Dns(DnsError::ResponseCode(_)) => ResolveError::Failed,
        NetError::Timeout => ResolveError::Timeout,
        NetError::Proto(_) | NetError::QueryCaseMismatch => ResolveError::Invalid,
        _ => ResolveError::Failed,
    }
}

/// A resolver shared by tasks.
impl<R: Resolve + ?Sized> Resolve for Arc<R> {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Lookup<'a> {
        (**self).resolve(name)
    }
}

#[cfg(test)]
mod tests;
