//! What kind of place an address is, with IPv4 embedded in IPv6 unwrapped.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::Serialize;

/// The class of an address. Only [`AddressClass::Global`] may be dialled without `private_addresses`; `Loopback`,
/// `Metadata` and `Unusable` never may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressClass {
    /// Global unicast.
    Global,
    /// Loopback or unspecified: this machine.
    Loopback,
    /// A cloud metadata or credential service.
    Metadata,
    /// Link-local, multicast, broadcast, reserved, or an IPv6 form that can smuggle IPv4 and is not needed.
    Unusable,
    /// Private, shared, benchmarking or documentation ranges: dialled only where the endpoint lists them.
    Private,
}

/// Addresses of metadata services: AWS, GCP, Azure, OCI, Alibaba, ECS and EKS credentials. 168.63.129.16 is public.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// AWS IMDS and EKS credentials over IPv6.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)];

impl AddressClass {
    /// Classifies an address. IPv4-mapped addresses count as the IPv4 address; every other embedding (compatible,
    /// translated, NAT64, 6to4, Teredo, ISATAP) is judged by what it embeds and is never better than `Unusable`.
    #[must_use]
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => v4(a),
            IpAddr::V6(a) => v6(a),
        }
    }
}

fn v4(a: Ipv4Addr) -> AddressClass {
    use AddressClass as C;
    let [o0, o1, o2, _] = a.octets();
    if METADATA_V4.contains(&a) {
        return C::Metadata;
    }
    match (o0, o1, o2) {
        (0 | 127, ..) => C::Loopback,
        (169, 254, _) | (224.., ..) => C::Unusable,
        (10, ..) | (192, 168, _) | (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) => C::Private,
        (172, 16..=31, _) | (100, 64..=127, _) | (198, 18 | 19, _) => C::Private,
        _ => C::Global,
    }
}

fn v6(a: Ipv6Addr) -> AddressClass {
    use AddressClass as C;
    if METADATA_V6.contains(&a) {
        return C::Metadata;
    }
    if a.is_loopback() || a.is_unspecified() {
        return C::Loopback;
    }
    if let Some(mapped) = a.to_ipv4_mapped() {
        return v4(mapped);
    }
    if let Some(inner) = embedded(a) {
        return match v4(inner) {
            bad @ (C::Loopback | C::Metadata) => bad,
            C::Global | C::Private | C::Unusable => C::Unusable,
        };
    }
    let s = a.segments();
    match s[0] {
        0xfc00..=0xfdff => C::Private,         // unique local (RFC 4193)
        0x2001 if s[1] == 0xdb8 => C::Private, // documentation (RFC 3849)
        0x3fff if s[1] < 0x1000 => C::Private, // documentation (RFC 9637)
        0x2001 if s[1] < 0x200 => C::Unusable, // IETF protocol assignments (RFC 2928)
        0x2000..=0x3fff => C::Global,          // global unicast (IANA)
        _ => C::Unusable,                      // link- and site-local, multicast, unassigned
    }
}

/// The IPv4 address inside a transition form, where there is one.
fn embedded(a: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = a.segments();
    let tail = |hi: u16, lo: u16| Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo));
    match s {
        [0, 0, 0, 0, 0, 0, h, l] => Some(tail(h, l)), // IPv4-compatible (RFC 4291)
        [0, 0, 0, 0, 0xffff, 0, h, l] => Some(tail(h, l)), // IPv4-translated (RFC 2765)
        [0x64, 0xff9b, ..] => Some(tail(s[6], s[7])), // NAT64 (RFC 6052, RFC 8215)
        [0x2002, h, l, ..] => Some(tail(h, l)),       // 6to4 (RFC 3056)
        [0x2001, 0, ..] => Some(tail(!s[6], !s[7])),  // Teredo (RFC 4380), address is inverted
        [_, _, _, _, 0 | 0x200, 0x5efe, h, l] => Some(tail(h, l)), // ISATAP (RFC 5214)
        _ => None,
    }
}

/// An address block in CIDR notation, host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    net: IpAddr,
    bits: u8,
}

/// Why a CIDR was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not `address/bits`.
    #[error("expected ADDRESS/BITS, such as 10.0.0.0/8")]
    Syntax,
    /// Bits set past the prefix.
    #[error("the address has bits set past the prefix length")]
    HostBits,
    /// IPv4-mapped IPv6: write the IPv4 form.
    #[error("an IPv4-mapped IPv6 block; write the IPv4 form")]
    Mapped,
}

impl Cidr {
    /// Whether the block holds this address; IPv4-mapped addresses are unwrapped first.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.net, addr.to_canonical()) {
            (IpAddr::V4(n), IpAddr::V4(a)) => {
                mask(u128::from(a.to_bits()) << 96, self.bits) == u128::from(n.to_bits()) << 96
            }
            (IpAddr::V6(n), IpAddr::V6(a)) => mask(a.to_bits(), self.bits) == n.to_bits(),
            _ => false,
        }
    }

    /// Whether two blocks share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.net) || other.contains(self.net)
    }

    /// The first address of the block.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.net
    }

    /// The prefix length.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.bits
    }
}

fn mask(value: u128, bits: u8) -> u128 {
    match bits {
        0 => 0,
        b => value & (u128::MAX << (128 - u32::from(b.min(128)))),
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (addr, bits) = s.split_once('/').ok_or(CidrError::Syntax)?;
        let net: IpAddr = addr.parse().map_err(|_| CidrError::Syntax)?;
        let plain = !bits.is_empty() && bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit());
        let bits: u8 =
            if plain { bits.parse().map_err(|_| CidrError::Syntax)? } else { return Err(CidrError::Syntax) };
        let (value, width) = match net {
            IpAddr::V4(a) => (u128::from(a.to_bits()) << 96, 32),
            IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => return Err(CidrError::Mapped),
            IpAddr::V6(a) => (a.to_bits(), 128),
        };
        if bits > width {
            return Err(CidrError::Syntax);
        }
        if mask(value, bits) != value {
            return Err(CidrError::HostBits);
        }
        Ok(Self { net, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.net, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> AddressClass {
        AddressClass::of(text.parse().unwrap())
    }

    #[test]
    fn classes() {
        use AddressClass as C;
        for (class_, addrs) in [
            (
                C::Loopback,
                &["127.0.0.1", "127.255.255.254", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::127.0.0.1"][..],
            ),
            (C::Loopback, &["64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:0:7f00:1"]),
            (C::Metadata, &["169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "100.100.100.200"]),
            (C::Metadata, &["192.0.0.192", "168.63.129.16", "::ffff:a9fe:a9fe", "::a9fe:a9fe", "::ffff:0:a9fe:a9fe"]),
            (
                C::Metadata,
                &["64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::", "2001:0:1:2:3:4:5601:5601"],
            ),
            (C::Metadata, &["2606:4700::5efe:a9fe:a9fe", "fe80::200:5efe:a9fe:a9fe"]),
            (
                C::Unusable,
                &["169.254.1.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "fe80::1", "fec0::1", "ff02::1"],
            ),
            (C::Unusable, &["64:ff9b::808:808", "2002:808:808::", "100::1", "4000::1"]),
            (C::Private, &["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255"]),
            (
                C::Private,
                &["198.18.0.1", "192.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "fc00::1", "2001:db8::1"],
            ),
            (
                C::Global,
                &["100.63.255.254", "100.128.0.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"],
            ),
        ] {
            for a in addrs {
                assert_eq!(class(a), class_, "{a}");
            }
        }
    }

    #[test]
    fn cidr() {
        let c: Cidr = "10.0.0.0/8".parse().unwrap();
        assert!(c.contains("10.255.0.1".parse().unwrap()) && c.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!c.contains("11.0.0.1".parse().unwrap()) && !c.contains("::".parse().unwrap()));
        assert_eq!("10.0.0.1/8".parse::<Cidr>(), Err(CidrError::HostBits));
        assert_eq!("10.0.0.0/33".parse::<Cidr>(), Err(CidrError::Syntax));
        assert_eq!("::ffff:10.0.0.0/104".parse::<Cidr>(), Err(CidrError::Mapped));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().overlaps(&c));
        assert!(!"fc00::/7".parse::<Cidr>().unwrap().overlaps(&c));
    }
}
