//! Hosts, authorities, blocks of addresses.

use std::net::IpAddr;

use stockade_types::{AddressClass, Authority, Cidr, Host, HostName, Port};

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b".",
    b":",
    b"[",
    b"]",
    b"::",
    b"@",
    b"%",
    b"\0",
    b"-",
    b"_",
    b"/",
    b"0x",
    b"127.0.0.1",
    b"::ffff:",
    b"64:ff9b::",
    b"fe80::1%eth0",
    b"65535",
    b"443",
    b"0",
    b"xn--",
    b"example.test",
    b"/32",
    b"/128",
    "。".as_bytes(),
];

/// What parses has one canonical form, and that form parses to the same thing.
pub(super) fn authority(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let parsed = Authority::parse(&text, None);
    if let Ok(authority) = &parsed {
        let shown = authority.to_string();
        assert!(shown.is_ascii() && shown.len() <= 270, "{shown:?}");
        assert_eq!(Authority::parse(&shown, None).as_ref(), Ok(authority));
        assert_eq!(Authority::parse(&text, Some(Port::HTTPS)).as_ref(), Ok(authority), "a default changes nothing");
        assert_eq!(Host::parse(&authority.host.to_string()).as_ref(), Ok(&authority.host));
    }
    let name = HostName::parse(&text);
    if let Ok(name) = &name {
        assert!(text.eq_ignore_ascii_case(name.as_str()) || text.len() == name.as_str().len() + 1);
        assert!(name.as_str().parse::<IpAddr>().is_err(), "{name} is an address");
        assert!(name.labels().count() >= 2);
    }
    signature((
        format!("{:?}", parsed.as_ref().err()),
        format!("{:?}", name.as_ref().err()),
        text.parse::<Port>().is_ok(),
    ))
}

/// A block holds its own network and shows as it was written; classes are total and see through mapped addresses.
pub(super) fn cidr(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let parsed = text.parse::<Cidr>();
    if let Ok(block) = &parsed {
        assert!(block.contains(block.network()) && block.overlaps(block));
        assert_eq!(block.to_string().parse::<Cidr>().as_ref(), Ok(block));
    }
    let class = data.first_chunk::<16>().map(|bytes| {
        let addr = IpAddr::from(*bytes);
        let class = AddressClass::of(addr);
        assert_eq!(class, AddressClass::of(addr.to_canonical()), "{addr}");
        class
    });
    signature((format!("{:?}", parsed.err()), class))
}
