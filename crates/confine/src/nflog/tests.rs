use super::*;

/// An NFLOG datagram as the kernel makes it.
fn datagram(packet: &[u8], uid: u32, seq: u32) -> Vec<u8> {
    let mut body = vec![2, 0, 0, 5];
    for (kind, value) in
        [(1, &[0, 0, 3, 0][..]), (PAYLOAD, packet), (UID, &uid.to_be_bytes()), (SEQ, &seq.to_be_bytes())]
    {
        body.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut out = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    out.extend((SUBSYSTEM << 8 | PACKET).to_ne_bytes());
    out.extend([0; 10]);
    out.extend(body);
    out
}

fn v4(protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, 0, 0, 0];
    p.extend(fragment.to_be_bytes());
    p.extend([64, protocol, 0, 0, 127, 0, 0, 1, 198, 51, 100, 1]);
    p.extend(rest);
    p
}

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    p.extend(Ipv6Addr::LOCALHOST.octets());
    p.extend("2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
    p.extend(rest);
    p
}

const PORTS: [u8; 8] = [0x9c, 0x40, 0, 22, 0, 0, 0, 0];

fn one(packet: &[u8]) -> Refused {
    let found = parse(&datagram(packet, 1000, 3));
    assert_eq!(found.len(), 1);
    found[0].clone()
}

#[test]
fn an_ipv4_packet_is_read() {
    let expected = Refused {
        protocol: 6,
        src: "127.0.0.1".parse().unwrap(),
        dst: "198.51.100.1".parse().unwrap(),
        sport: Some(40_000),
        dport: Some(22),
        uid: Some(1000),
        seq: Some(3),
    };
    assert_eq!(one(&v4(6, 0, &PORTS)), expected);
    assert_eq!(one(&v4(6, 0x4000, &PORTS)).dport, Some(22), "don't-fragment is no fragment");
    assert_eq!(one(&v4(17, 7, &PORTS)).dport, None, "a later fragment has no ports");
    assert_eq!((one(&v4(1, 0, &PORTS)).protocol, one(&v4(1, 0, &PORTS)).dport), (1, None));
    assert_eq!(one(&v4(136, 0, &PORTS)).dport, Some(22));
    assert_eq!(one(&v4(47, 0, &PORTS)).dport, None);
    assert_eq!(one(&v4(6, 0, &PORTS[..3])).dport, None, "cut short");
}

#[test]
fn ipv6_extension_headers_are_skipped() {
    let header = |next: u8, len: u8, size: usize| {
        let mut h = vec![0; size];
        (h[0], h[1]) = (next, len);
        h
    };
    let chain = |headers: &[Vec<u8>]| [headers.concat(), PORTS.to_vec()].concat();
    assert_eq!(one(&v6(17, &PORTS)).dport, Some(22));
    let packet = v6(0, &chain(&[header(43, 0, 8), header(60, 1, 16), header(51, 4, 8), header(6, 1, 12)]));
    // hop-by-hop, routing, destination (8 bytes as its length says 0)... the last is AH of (1 + 2) * 4 bytes
    let tidy = v6(0, &chain(&[header(43, 0, 8), header(60, 1, 16), header(51, 0, 8), header(6, 1, 12)]));
    assert_eq!((one(&tidy).protocol, one(&tidy).dport), (6, Some(22)));
    assert_eq!(one(&packet).dport, None, "a header that claims more than there is");
    let first = v6(44, &chain(&[vec![17, 0, 0, 1, 0, 0, 0, 9]]));
    let later = v6(44, &chain(&[vec![17, 0, 0, 8, 0, 0, 0, 9]]));
    assert_eq!((one(&first).protocol, one(&first).dport), (17, Some(22)));
    assert_eq!((one(&later).protocol, one(&later).dport), (17, None));
    assert_eq!(one(&v6(58, &PORTS)).dport, None);
    let endless = v6(0, &vec![0; 8 * 100]);
    assert_eq!((one(&endless).protocol, one(&endless).dport), (0, None));
}

#[test]
fn hostile_bytes_never_panic_and_never_make_more_packets_than_frames() {
    let whole = datagram(&v6(0, &[&[6, 0, 0, 0, 0, 0, 0, 0], &PORTS[..]].concat()), 0, 1);
    for len in 0..whole.len() {
        assert!(parse(&whole[..len]).is_empty(), "{len}");
        for byte in 0..=255 {
            let mut bytes = whole.clone();
            bytes[len] = byte;
            assert!(parse(&bytes).len() <= 1);
        }
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20_000 {
        let mut packet = vec![0; 60];
        for b in &mut packet {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *b = state.to_le_bytes()[3];
        }
        packet[0] = if state & 1 == 0 { 0x45 } else { 0x60 };
        let found = one(&packet);
        assert_eq!(found.src.is_ipv4(), state & 1 == 0);
    }
}

#[test]
fn gaps_in_the_numbers_are_counted() {
    let (end, _other) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let mut log = Log::new(end);
    for (seq, lost) in [(0, 0), (1, 0), (5, 3), (6, 3), (u32::MAX, 3), (10, 13)] {
        log.count(seq);
        assert_eq!(log.lost(), lost, "{seq}");
    }
    let mut log = Log::new(rustix::io::dup(&log).unwrap());
    log.count(2);
    assert_eq!(log.lost(), 2, "the first number is 0");
}
