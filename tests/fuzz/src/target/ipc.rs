//! What the kernel and init send: packets inside NFLOG messages are the command's.

use stockade_confine::{
    message::{Order, Report, recv},
    nflog,
};
use stockade_sys::channel::Channel;

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b"\x00\x04",
    b"\x09\x00",
    b"\x0b\x00",
    b"\x45\x00",
    b"\x60\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x2c",
    b"\x3c",
    b"\x06",
    b"\x11",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
];

/// Total; never more events than messages fit in.
pub(super) fn nflog(data: &[u8]) -> u64 {
    let refused = nflog::parse(data);
    assert!(refused.len() <= data.len() / 16);
    signature(refused.iter().take(3).map(|r| (r.protocol, r.dst.is_ipv4(), r.dport.is_some())).collect::<Vec<_>>())
}

/// A packet that does not decode is an error, never a panic; one that does encodes again.
pub(super) fn channel(data: &[u8]) -> u64 {
    let (a, b) = Channel::pair().unwrap();
    let receive = |report: bool| {
        a.send(data, &[]).unwrap();
        if report {
            recv::<Report>(&b).map(|m| format!("{:?}", m.map(|(m, _)| std::mem::discriminant(&m))))
        } else {
            recv::<Order>(&b).map(|m| format!("{:?}", m.map(|(m, _)| std::mem::discriminant(&m))))
        }
    };
    signature((receive(true).ok(), receive(false).ok()))
}
