//! Host names, addresses and ports in one strict, canonical form.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Longest host name accepted (RFC 1035, without the final dot).
const MAX_NAME: usize = 253;
/// Longest label (RFC 1035).
const MAX_LABEL: usize = 63;
/// Longest authority text looked at: a name, a colon, a port.
const MAX_AUTHORITY: usize = MAX_NAME + 8;

/// Why an authority, host or port was refused. The text is safe to show: it repeats no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// Over 253 characters, or a label over 63.
    #[error("the host is longer than DNS allows")]
    TooLong,
    /// A character outside letters, digits, `-`, `_` and `.`: user info, percent, NUL, space, non-ASCII.
    #[error("the host has a character that no host name has")]
    BadCharacter,
    /// Empty label, or a label that begins or ends with a hyphen.
    #[error("the host has an empty or malformed label")]
    BadLabel,
    /// Looks like a number in a form other than four decimal octets (`127.1`, `0x7f.1`, `017700000001`).
    #[error("the host is a number, but not four decimal octets")]
    BadNumber,
    /// A name of one label cannot be a public name and would be completed by a search list.
    #[error("the host has a single label")]
    SingleLabel,
    /// Brackets that do not hold an IPv6 address, or a zone index.
    #[error("the IPv6 literal is malformed")]
    BadLiteral,
    /// No port where one is required.
    #[error("the port is missing")]
    NoPort,
    /// Not 1 to 65535 in plain decimal without leading zeros.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
}

/// A DNS name in canonical form: lower-case ASCII, no trailing dot, at least two labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct HostName(String);

impl HostName {
    /// Parses and canonicalises: upper case is lowered, one trailing dot removed. Everything else is refused, so
    /// that no two spellings of one name exist behind this type.
    ///
    /// # Errors
    /// See [`AuthorityError`]; a dotted quad or anything that a resolver might read as a number is not a name.
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(AuthorityError::Empty);
        }
        if text.len() > MAX_NAME {
            return Err(AuthorityError::TooLong);
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(AuthorityError::BadCharacter);
        }
        let mut labels = 0;
        for label in text.split('.') {
            if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
                return Err(AuthorityError::BadLabel);
            }
            if label.len() > MAX_LABEL {
                return Err(AuthorityError::TooLong);
            }
            labels += 1;
        }
        if numeric(text) {
            return Err(AuthorityError::BadNumber);
        }
        if labels < 2 {
            return Err(AuthorityError::SingleLabel);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels, leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }
}

/// Whether the last label is a number, decimal, octal or hexadecimal: what the URL standard and inet_aton treat as
/// an address. Such a name must never reach a resolver.
fn numeric(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or(text);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|b| b.is_ascii_digit()) || hex.is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = AuthorityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::parse(s)
    }
}

/// A destination host: a name, or an address written as a literal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name still to be resolved.
    Name(HostName),
    /// An address literal.
    Addr(IpAddr),
}

impl Host {
    /// Parses a host without port: a name, four decimal octets, or an IPv6 address in brackets.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        if let Some(rest) = text.strip_prefix('[') {
            let inner = rest.strip_suffix(']').ok_or(AuthorityError::BadLiteral)?;
            return inner.parse::<Ipv6Addr>().map(|a| Self::Addr(a.into())).map_err(|_| AuthorityError::BadLiteral);
        }
        // Ipv4Addr::from_str takes exactly four decimal octets without leading zeros.
        if let Ok(v4) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Addr(v4.into()));
        }
        HostName::parse(text).map(Self::Name)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(n) => n.fmt(f),
            Self::Addr(IpAddr::V4(a)) => a.fmt(f),
            Self::Addr(IpAddr::V6(a)) => write!(f, "[{a}]"),
        }
    }
}

/// A TCP or UDP port, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(NonZeroU16);

impl Port {
    /// 80.
    pub const HTTP: Self = Self(NonZeroU16::new(80).unwrap());
    /// 443.
    pub const HTTPS: Self = Self(NonZeroU16::new(443).unwrap());

    /// `None` for 0.
    #[must_use]
    pub fn new(port: u16) -> Option<Self> {
        NonZeroU16::new(port).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl FromStr for Port {
    type Err = AuthorityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let plain = !s.is_empty() && s.len() <= 5 && s.bytes().all(|b| b.is_ascii_digit()) && !s.starts_with('0');
        if !plain {
            return Err(AuthorityError::BadPort);
        }
        s.parse().ok().and_then(Self::new).ok_or(AuthorityError::BadPort)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Host and port: what CONNECT names, what SNI, `Host` and the certificate must agree with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: Port,
}

impl Authority {
    /// Parses `host:port`; the port is required unless `default` supplies one.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn parse(text: &str, default: Option<Port>) -> Result<Self, AuthorityError> {
        if text.is_empty() {
            return Err(AuthorityError::Empty);
        }
        if text.len() > MAX_AUTHORITY {
            return Err(AuthorityError::TooLong);
        }
        let split = match text.rfind(']') {
            Some(end) => text.get(end + 1..).map(|rest| (text.get(..=end).unwrap_or_default(), rest)),
            None if text.starts_with('[') => return Err(AuthorityError::BadLiteral),
            None => text.find(':').map(|at| text.split_at(at)),
        };
        let (host, rest) = split.unwrap_or((text, ""));
        let port = match (rest.strip_prefix(':'), default) {
            (Some(digits), _) => digits.parse()?,
            (None, Some(port)) if rest.is_empty() => port,
            (None, None) if rest.is_empty() => return Err(AuthorityError::NoPort),
            (None, _) => return Err(AuthorityError::BadLiteral),
        };
        Ok(Self { host: Host::parse(host)?, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Result<String, AuthorityError> {
        Authority::parse(text, None).map(|a| a.to_string())
    }

    #[test]
    fn canonical_form() {
        assert_eq!(authority("API.GitHub.COM.:443"), Ok("api.github.com:443".into()));
        assert_eq!(authority("203.0.113.10:80"), Ok("203.0.113.10:80".into()));
        assert_eq!(authority("[2001:DB8::1]:443"), Ok("[2001:db8::1]:443".into()));
        assert_eq!(Authority::parse("a.test", Some(Port::HTTP)).unwrap().port, Port::HTTP);
    }

    #[test]
    fn authority_tricks_are_refused() {
        use AuthorityError as E;
        for (text, want) in [
            ("", E::Empty),
            ("a.test", E::NoPort),
            ("a.test:", E::BadPort),
            ("a.test:0", E::BadPort),
            ("a.test:65536", E::BadPort),
            ("a.test:-1", E::BadPort),
            ("a.test:00443", E::BadPort),
            ("a.test:443:80", E::BadPort),
            ("a.test: 443", E::BadPort),
            ("a.test:４４３", E::BadPort),
            ("[::1:443", E::BadLiteral),
            ("[::1]:443x", E::BadPort),
            ("[::1]443", E::BadLiteral),
            ("[fe80::1%eth0]:443", E::BadLiteral),
            ("allowed.test@evil.test:443", E::BadCharacter),
            ("allowed.test%2eevil.test:443", E::BadCharacter),
            ("allowed.test\\@evil.test:443", E::BadCharacter),
            ("evil.test\0.allowed.test:443", E::BadCharacter),
            ("a\t.test:443", E::BadCharacter),
            ("。test:443", E::BadCharacter),
            (".a.test:443", E::BadLabel),
            ("a..test:443", E::BadLabel),
            ("-a.test:443", E::BadLabel),
            ("127.1:80", E::BadNumber),
            ("0x7f.1:80", E::BadNumber),
            ("0x7f000001:80", E::BadNumber),
            ("2130706433:80", E::BadNumber),
            ("127.0.0.01:80", E::BadNumber),
            ("0:80", E::BadNumber),
            ("localhost:80", E::SingleLabel),
            ("metadata:80", E::SingleLabel),
        ] {
            assert_eq!(authority(text), Err(want), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_parses_is_a_fixed_point(text in "[a-zA-Z0-9.:\\[\\]@%_-]{0,40}") {
            if let Ok(a) = Authority::parse(&text, None) {
                proptest::prop_assert_eq!(Authority::parse(&a.to_string(), None), Ok(a));
            }
        }
    }
}
