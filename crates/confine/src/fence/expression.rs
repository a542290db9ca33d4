//! Conditions and actions as nf_tables expressions.

use stockade_sys::netlink::Attributes;

use super::rules::{Action, Ip, Match};

pub(super) const SET: &str = "ports";
pub(super) const LIST_ELEM: u16 = 1;

const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const TCP: u8 = 6;
const TCP_FLAGS: u32 = 13;
const RST: u8 = 0x04;
const ACCEPT: u32 = 1;
const GOTO: i32 = -4;
const TCP_RESET: u32 = 1;
const ICMPX: u32 = 2;
const PORT_UNREACHABLE: u8 = 1;
/// Bytes of a refused packet that are logged: IPv6, some extension headers, ports.
const SNAPLEN: u32 = 128;
const LO: u32 = 1;

/// Writes one condition.
pub(super) fn condition(list: &mut Attributes, condition: Match) {
    match condition {
        Match::Family(ip) => {
            meta(list, META_NFPROTO);
            compare(list, EQUAL, &[nfproto(ip)]);
        }
        Match::InLo => {
            meta(list, META_IIF);
            compare(list, EQUAL, &LO.to_ne_bytes());
        }
        Match::NotOutLo => {
            meta(list, META_OIF);
            compare(list, NOT_EQUAL, &LO.to_ne_bytes());
        }
        Match::ToLoopback(ip) => loopback(list, ip, destination(ip), EQUAL),
        Match::NotToLoopback(ip) => loopback(list, ip, destination(ip), NOT_EQUAL),
        Match::FromLoopback(ip) => loopback(list, ip, source(ip), EQUAL),
        Match::Tcp => {
            meta(list, META_L4PROTO);
            compare(list, EQUAL, &[TCP]);
        }
        Match::ToPort(port) => {
            payload(list, TRANSPORT_HEADER, 2, 2);
            compare(list, EQUAL, &port.to_be_bytes());
        }
        Match::ToTransparentPort => {
            payload(list, TRANSPORT_HEADER, 2, 2);
            expression(list, "lookup", |d| {
                d.text(1, SET).be32(2, REGISTER);
            });
        }
        Match::ResetFlag => {
            payload(list, TRANSPORT_HEADER, TCP_FLAGS, 1);
            expression(list, "bitwise", |d| {
                d.be32(1, REGISTER).be32(2, REGISTER).be32(3, 1);
                value(d, 4, &[RST]);
                value(d, 5, &[0]);
            });
            compare(list, NOT_EQUAL, &[0]);
        }
        Match::Rate { per_second, burst } => expression(list, "limit", |d| {
            d.be64(1, per_second.into()).be64(2, 1).be32(3, burst).be32(4, 0);
        }),
    }
}

/// Writes what happens when all conditions hold.
pub(super) fn action(list: &mut Attributes, action: Action) {
    match action {
        Action::Accept => verdict(list, ACCEPT, None),
        Action::Refuse => verdict(list, GOTO.cast_unsigned(), Some("refuse")),
        Action::Transparent(ip, port) => {
            expression(list, "immediate", |d| {
                d.be32(1, REGISTER);
                value(d, 2, &port.to_be_bytes());
            });
            expression(list, "tproxy", |d| {
                d.be32(1, nfproto(ip).into()).be32(3, REGISTER);
            });
            verdict(list, ACCEPT, None);
        }
        Action::Count => expression(list, "counter", |_| {}),
        // No prefix: events are told apart by their group, never by text.
        Action::Log(group) => expression(list, "log", |d| {
            d.be16(1, group).be32(3, SNAPLEN).be16(4, 1);
        }),
        Action::Reset => expression(list, "reject", |d| {
            d.be32(1, TCP_RESET);
        }),
        Action::Unreachable => expression(list, "reject", |d| {
            d.be32(1, ICMPX).put(2, &[PORT_UNREACHABLE]);
        }),
    }
}

fn nfproto(ip: Ip) -> u8 {
    match ip {
        Ip::V4 => NFPROTO_IPV4,
        Ip::V6 => NFPROTO_IPV6,
    }
}

fn source(ip: Ip) -> u32 {
    match ip {
        Ip::V4 => 12,
        Ip::V6 => 8,
    }
}

fn destination(ip: Ip) -> u32 {
    match ip {
        Ip::V4 => 16,
        Ip::V6 => 24,
    }
}

/// 127.0.0.0/8 or ::1, at an offset of the network header.
fn loopback(list: &mut Attributes, ip: Ip, offset: u32, operator: u32) {
    let address: &[u8] = match ip {
        Ip::V4 => &[127],
        Ip::V6 => &std::net::Ipv6Addr::LOCALHOST.octets(),
    };
    payload(list, NETWORK_HEADER, offset, u32::try_from(address.len()).unwrap_or_default());
    compare(list, operator, address);
}

fn meta(list: &mut Attributes, key: u32) {
    expression(list, "meta", |d| {
        d.be32(1, REGISTER).be32(2, key);
    });
}

fn payload(list: &mut Attributes, base: u32, offset: u32, len: u32) {
    expression(list, "payload", |d| {
        d.be32(1, REGISTER).be32(2, base).be32(3, offset).be32(4, len);
    });
}

fn compare(list: &mut Attributes, operator: u32, with: &[u8]) {
    expression(list, "cmp", |d| {
        d.be32(1, REGISTER).be32(2, operator);
        value(d, 3, with);
    });
}

fn verdict(list: &mut Attributes, code: u32, chain: Option<&str>) {
    expression(list, "immediate", |d| {
        d.be32(1, VERDICT).nest(2, |data| {
            data.nest(2, |v| {
                v.be32(1, code);
                if let Some(chain) = chain {
                    v.text(2, chain);
                }
            });
        });
    });
}

fn value(data: &mut Attributes, kind: u16, bytes: &[u8]) {
    data.nest(kind, |v| {
        v.put(1, bytes);
    });
}

fn expression(list: &mut Attributes, name: &str, data: impl FnOnce(&mut Attributes)) {
    list.nest(LIST_ELEM, |e| {
        e.text(1, name).nest(2, data);
    });
}
