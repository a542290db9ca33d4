//! The grammar of `hosts`, and the addresses that policy can never reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stockade_types::{AddressClass, AuthorityError, Cidr, Host, HostName};

use crate::model::HostPattern;

/// The pool of synthetic IPv4 addresses that DNS inside the sandbox answers with: 198.18.0.0/15.
pub const SYNTHETIC_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 15);
/// The pool of synthetic IPv6 addresses: fd53:746f:636b::/48.
pub const SYNTHETIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd53, 0x746f, 0x636b, 0, 0, 0, 0, 0), 48);

/// Whether an address is in a synthetic pool.
#[must_use]
pub fn is_synthetic(addr: IpAddr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(a) => a.to_bits() >> (32 - SYNTHETIC_V4.1) == SYNTHETIC_V4.0.to_bits() >> (32 - SYNTHETIC_V4.1),
        IpAddr::V6(a) => a.to_bits() >> (128 - SYNTHETIC_V6.1) == SYNTHETIC_V6.0.to_bits() >> (128 - SYNTHETIC_V6.1),
    }
}

/// Names with a meaning of their own, which no endpoint can claim. The Rego base policy denies them too.
const RESERVED: [(&str, &str); 4] = [
    ("localhost", "it is this machine, and the command reaches its own 127.0.0.1 without the door"),
    ("metadata.google.internal", "it is a cloud metadata service, which is never reachable"),
    ("inference.local", "it is served by Stockade itself"),
    ("stockade.local", "it is served by Stockade itself"),
];

/// Why a `hosts` entry was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `https://…`.
    #[error("a URL, not a host")]
    Url,
    /// `host:443`.
    #[error("a host with a port")]
    WithPort,
    /// A path after the host.
    #[error("a host with a path")]
    WithPath,
    /// A block.
    #[error("a block of addresses")]
    Block,
    /// Letters outside ASCII.
    #[error("a host with letters outside ASCII")]
    NonAscii,
    /// `xn--`.
    #[error("a host in punycode")]
    Punycode,
    /// `*` alone.
    #[error("a wildcard for every host there is")]
    Everything,
    /// `*.com`.
    #[error("a wildcard below the single label `{0}`")]
    TopLevel(String),
    /// `a*.test`, `a.*.test`, `*.*.test`.
    #[error("a wildcard that is not the whole leftmost label")]
    Wildcard,
    /// IPv6 without brackets.
    #[error("an IPv6 address without brackets")]
    Brackets,
    /// A name with a meaning of its own.
    #[error("`{name}` cannot be an endpoint: {why}")]
    Reserved {
        /// The name.
        name: &'static str,
        /// What it is.
        why: &'static str,
    },
    /// An address that is never dialled.
    #[error("{addr} is {what} and can never be reached")]
    Never {
        /// The address.
        addr: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// An IPv4 address in IPv6 clothes.
    #[error("an IPv4 address written as IPv6")]
    Mapped,
    /// Anything else.
    #[error("{0}")]
    Authority(#[from] AuthorityError),
}

impl PatternError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Url => "write the host alone, and its port in `ports`",
            Self::WithPort => "write the port in `ports`",
            Self::WithPath => "write the host alone",
            Self::Block => "name hosts; addresses that a name may resolve to go in `private_addresses`",
            Self::NonAscii | Self::Punycode => {
                "names are compared byte by byte and look-alike letters cannot be told apart by a reader, so neither \
                 Unicode nor punycode (xn--) names are accepted; use an ASCII name of the service"
            }
            Self::Everything => "name the hosts, or `**.example.com` for all below a name",
            Self::TopLevel(_) => "a wildcard needs at least two labels after it, such as `*.example.com`",
            Self::Wildcard => "write `*.example.com` (one label) or `**.example.com` (one or more)",
            Self::Brackets => "write it in brackets: `[2001:db8::1]`",
            Self::Mapped => "write the IPv4 address",
            Self::Authority(AuthorityError::SingleLabel) => "write the full name, with its domain",
            Self::Reserved { .. } | Self::Never { .. } | Self::Authority(_) => return None,
        };
        Some(text.to_owned())
    }
}

/// Parses a `hosts` entry.
pub(crate) fn pattern(text: &str) -> Result<HostPattern, PatternError> {
    let parsed = match text.split_once("*.") {
        _ if text == "*" || text == "**" => Err(PatternError::Everything),
        Some(("", parent)) => wildcard(parent).map(HostPattern::One),
        Some(("*", parent)) => wildcard(parent).map(HostPattern::Many),
        _ if text.contains('*') => Err(PatternError::Wildcard),
        _ => exact(text).map(HostPattern::Exact),
    }?;
    let covered = |reserved: &str| match &parsed {
        HostPattern::Exact(Host::Name(name)) | HostPattern::One(name) | HostPattern::Many(name) => {
            name.as_str() == reserved || name.as_str().strip_suffix(reserved).is_some_and(|rest| rest.ends_with('.'))
        }
        HostPattern::Exact(Host::Addr(_)) => false,
    };
    match RESERVED.into_iter().find(|(name, _)| covered(name)) {
        Some((name, why)) => Err(PatternError::Reserved { name, why }),
        None => Ok(parsed),
    }
}

fn wildcard(parent: &str) -> Result<HostName, PatternError> {
    if parent.contains('*') {
        return Err(PatternError::Wildcard);
    }
    match exact(parent) {
        Ok(Host::Name(name)) => Ok(name),
        Ok(Host::Addr(_)) => Err(PatternError::Wildcard),
        Err(PatternError::Authority(AuthorityError::SingleLabel)) => Err(PatternError::TopLevel(parent.to_owned())),
        Err(other) => Err(other),
    }
}

fn exact(text: &str) -> Result<Host, PatternError> {
    let error = match Host::parse(text) {
        Ok(Host::Addr(addr)) => return literal(addr),
        Ok(Host::Name(name)) if name.labels().any(|l| l.starts_with("xn--")) => return Err(PatternError::Punycode),
        Ok(name) => return Ok(name),
        Err(error) => error,
    };
    let plain = text.strip_suffix('.').unwrap_or(text);
    if let Some((name, why)) = RESERVED.into_iter().find(|(name, _)| plain.eq_ignore_ascii_case(name)) {
        return Err(PatternError::Reserved { name, why });
    }
    Err(if !text.is_ascii() {
        PatternError::NonAscii
    } else if text.contains("://") {
        PatternError::Url
    } else if text.parse::<Ipv6Addr>().is_ok() {
        PatternError::Brackets
    } else if text.parse::<Cidr>().is_ok() {
        PatternError::Block
    } else if text.contains('/') {
        PatternError::WithPath
    } else if text.rsplit_once(':').is_some_and(|(host, _)| Host::parse(host).is_ok()) {
        PatternError::WithPort
    } else {
        error.into()
    })
}

fn literal(addr: IpAddr) -> Result<Host, PatternError> {
    if matches!(addr, IpAddr::V6(a) if a.to_ipv4_mapped().is_some()) {
        return Err(PatternError::Mapped);
    }
    let what = match AddressClass::of(addr) {
        _ if is_synthetic(addr) => "in the pool of synthetic addresses",
        AddressClass::Global | AddressClass::Private => return Ok(Host::Addr(addr)),
        AddressClass::Loopback => "this machine",
        AddressClass::Metadata => "a cloud metadata service",
        AddressClass::Unusable => "link-local, multicast, reserved or a transition form",
    };
    Err(PatternError::Never { addr, what })
}

/// Blocks that `private_addresses` may not touch.
const FORBIDDEN: [(&str, &str); 12] = [
    ("127.0.0.0/8", "loopback"),
    ("0.0.0.0/8", "this machine"),
    ("::/127", "loopback"),
    ("169.254.0.0/16", "link-local, where metadata services live"),
    ("fe80::/10", "link-local"),
    ("100.100.100.200/32", "a metadata service"),
    ("192.0.0.192/32", "a metadata service"),
    ("168.63.129.16/32", "a metadata service"),
    ("fd00:ec2::/32", "metadata services"),
    ("224.0.0.0/3", "multicast and reserved"),
    ("198.18.0.0/15", "the pool of synthetic addresses"),
    ("fd53:746f:636b::/48", "the pool of synthetic addresses"),
];

/// Why a block cannot be listed in `private_addresses`.
pub(crate) fn forbidden_block(block: &Cidr) -> Option<String> {
    if block.bits() == 0 {
        return Some("every address there is".to_owned());
    }
    let hit = FORBIDDEN.iter().find(|(text, _)| text.parse::<Cidr>().is_ok_and(|f| f.overlaps(block)));
    if let Some((text, what)) = hit {
        return Some(format!("overlaps {text}: {what}"));
    }
    match AddressClass::of(block.network()) {
        AddressClass::Private => None,
        AddressClass::Global => Some("is public: public addresses need no entry".to_owned()),
        AddressClass::Loopback | AddressClass::Metadata | AddressClass::Unusable => {
            Some("holds addresses that are never dialled".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        for (text, shown) in [
            ("API.GitHub.com.", "api.github.com"),
            ("*.a.test", "*.a.test"),
            ("**.A.test", "**.a.test"),
            ("203.0.113.10", "203.0.113.10"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("my_host.a.test", "my_host.a.test"),
        ] {
            assert_eq!(pattern(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn refused() {
        use PatternError as E;
        let reserved = |t: &str| matches!(pattern(t), Err(E::Reserved { .. }));
        for text in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "*.a.localhost",
            "metadata.google.internal",
            "inference.local",
            "stockade.local",
            "x.stockade.local",
        ] {
            assert!(reserved(text), "{text}: {:?}", pattern(text));
        }
        for (text, want) in [
            ("*", E::Everything),
            ("**", E::Everything),
            ("*.com", E::TopLevel("com".into())),
            ("**.test", E::TopLevel("test".into())),
            ("a*.test", E::Wildcard),
            ("a.*.test", E::Wildcard),
            ("*.*.test", E::Wildcard),
            ("***.a.test", E::Wildcard),
            ("*a.test", E::Wildcard),
            ("*.10.0.0.1", E::Wildcard),
            ("bücher.test", E::NonAscii),
            ("*.bücher.test", E::NonAscii),
            ("xn--bcher-kva.test", E::Punycode),
            ("https://a.test/x", E::Url),
            ("a.test:443", E::WithPort),
            ("a.test/x", E::WithPath),
            ("10.0.0.0/8", E::Block),
            ("2001:db8::1", E::Brackets),
            ("[::ffff:8.8.8.8]", E::Mapped),
            ("", E::Authority(AuthorityError::Empty)),
            ("intranet", E::Authority(AuthorityError::SingleLabel)),
            ("127.1", E::Authority(AuthorityError::BadNumber)),
            ("a..test", E::Authority(AuthorityError::BadLabel)),
            ("a b.test", E::Authority(AuthorityError::BadCharacter)),
        ] {
            assert_eq!(pattern(text), Err(want), "{text}");
        }
        for text in
            ["127.0.0.1", "0.0.0.0", "[::1]", "169.254.169.254", "198.18.0.1", "[fd53:746f:636b::1]", "224.0.0.1"]
        {
            assert!(matches!(pattern(text), Err(E::Never { .. })), "{text}");
        }
    }

    #[test]
    fn blocks() {
        for text in [
            "0.0.0.0/0",
            "::/0",
            "127.0.0.0/8",
            "127.0.0.1/32",
            "169.254.0.0/16",
            "169.254.169.254/32",
            "::/96",
            "::1/128",
            "198.18.0.0/15",
            "198.18.5.0/24",
            "198.0.0.0/8",
            "fd53:746f:636b:1::/64",
            "fd00::/8",
            "fd00:ec2::254/128",
            "100.64.0.0/10",
            "8.8.8.0/24",
            "64:ff9b::/96",
            "2002::/16",
            "fe80::/10",
            "fec0::/10",
            "224.0.0.0/4",
            "0.0.0.0/1",
        ] {
            assert!(forbidden_block(&text.parse().unwrap()).is_some(), "{text}");
        }
        for text in [
            "10.0.0.0/8",
            "192.168.1.0/24",
            "172.16.0.0/12",
            "100.64.0.0/16",
            "192.0.2.0/24",
            "fd12:3456::/32",
            "2001:db8::/32",
        ] {
            assert_eq!(forbidden_block(&text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn synthetic() {
        for (addr, want) in [
            ("198.18.0.0", true),
            ("198.19.255.255", true),
            ("198.20.0.0", false),
            ("198.17.255.255", false),
            ("::ffff:198.18.0.1", true),
            ("fd53:746f:636b::1", true),
            ("fd53:746f:636c::1", false),
        ] {
            assert_eq!(is_synthetic(addr.parse().unwrap()), want, "{addr}");
        }
    }
}
