use proptest::prelude::*;

use super::*;

const TLS13: &[u8] = include_bytes!("../../fixtures/openssl-tls13.bin");
const TLS12: &[u8] = include_bytes!("../../fixtures/openssl-tls12.bin");
const NO_SNI: &[u8] = include_bytes!("../../fixtures/openssl-no-sni.bin");
const GO: &[u8] = include_bytes!("../../fixtures/go.bin");

fn read(bytes: &[u8]) -> Progress {
    ClientHello::new().feed(bytes)
}

fn name(text: &str) -> Option<ServerName> {
    Some(ServerName::Name(HostName::parse(text).unwrap()))
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &long(data)[..]].concat()
}

/// A server_name extension of `(type, name)` entries.
fn sni(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|(kind, name)| [&[*kind], &long(name)[..]].concat()).collect();
    extension(0, &long(&list))
}

/// A handshake message with these extensions.
fn message(extensions: &[u8]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &long(extensions)].concat();
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO], &len[1..], &body].concat()
}

/// Cuts a message into records of `n` bytes.
fn records(message: &[u8], n: usize) -> Vec<u8> {
    message.chunks(n).flat_map(|c| [&[HANDSHAKE, 3, 1][..], &long(c)].concat()).collect()
}

fn hello(extensions: &[u8]) -> Vec<u8> {
    records(&message(extensions), MAX_RECORD)
}

fn fixtures() -> Vec<Vec<u8>> {
    let plain = message(&sni(&[(0, b"a.test")]));
    vec![
        TLS13.to_vec(),
        TLS12.to_vec(),
        NO_SNI.to_vec(),
        GO.to_vec(),
        records(&plain, 1),
        records(&plain, 7),
        hello(&[]),
        hello(&[sni(&[(0, b"a.test")]), extension(0xfe0d, &[0; 40])].concat()),
        hello(&sni(&[(0, b"127.0.0.1")])),
        hello(&sni(&[(0, b"a.test"), (0, b"b.test")])),
        hello(&extension(1234, &[0; 12_000])),
    ]
}

#[test]
fn real_clients() {
    let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let want = Progress::Done(Hello { server_name: name("api.example.test"), alpn: alpn.clone(), ech: false });
    assert_eq!(read(TLS13), want);
    assert_eq!(read(GO), want);
    let want = Hello { server_name: name("api.example.test"), alpn: Vec::new(), ech: false };
    assert_eq!(read(TLS12), Progress::Done(want));
    assert_eq!(read(NO_SNI), Progress::Done(Hello { server_name: None, alpn: Vec::new(), ech: false }));
}

#[test]
fn every_prefix_of_every_fixture_needs_more_and_every_cut_gives_the_same_answer() {
    for fixture in fixtures() {
        let whole = read(&fixture);
        assert_ne!(whole, Progress::NeedMore);
        let mut bytewise = ClientHello::new();
        let mut early = None;
        for (n, byte) in fixture.iter().enumerate() {
            let progress = bytewise.feed(&[*byte]);
            assert_eq!(read(&fixture[..=n]), progress, "prefix {n}");
            if progress != Progress::NeedMore && early.is_none() {
                assert_eq!(n + 1, fixture.len(), "answered before the end");
                early = Some(progress);
            }
        }
        assert_eq!(early, Some(whole.clone()));
        for n in 0..fixture.len() {
            let mut reader = ClientHello::new();
            let first = reader.feed(&fixture[..n]);
            assert_eq!(first, Progress::NeedMore);
            assert_eq!(reader.feed(&fixture[n..]), whole);
            assert_eq!(reader.feed(b"more"), whole, "an answer stays");
        }
    }
}

#[test]
fn names_that_are_no_host_names() {
    use AuthorityError as E;
    let long = [&b"a."[..], &[b'x'; 300]].concat();
    for (text, want) in [
        (&b"127.0.0.1"[..], E::BadNumber),
        (b"[2001:db8::1]", E::BadCharacter),
        (b"2001:db8::1", E::BadCharacter),
        (b"a.test.", E::BadLabel),
        (b"a.test\0.evil.test", E::BadCharacter),
        (b"\xff.test", E::BadCharacter),
        ("ä.test".as_bytes(), E::BadCharacter),
        (b"localhost", E::SingleLabel),
        (b"", E::Empty),
        (b"*.test", E::BadCharacter),
        (&long, E::TooLong),
    ] {
        let Progress::Done(hello) = read(&hello(&sni(&[(0, text)]))) else { panic!("{text:?}") };
        assert_eq!(hello.server_name, Some(ServerName::Malformed(want)), "{text:?}");
    }
    let Progress::Done(hello) = read(&hello(&sni(&[(0, b"API.GitHub.com")]))) else { panic!() };
    assert_eq!(hello.server_name, name("api.github.com"));
}

#[test]
fn what_is_not_one_client_hello() {
    use Invalid as I;
    let good = sni(&[(0, b"a.test")]);
    let mut longer = message(&good);
    longer.extend([0; 9]);
    longer[3] += 9;
    let mut alert = records(&message(&good), 10);
    alert[15] = 21;
    let mut version = records(&message(&good), 10);
    version[16] = 2;
    for (bytes, want) in [
        (hello(&sni(&[(0, b"a.test"), (0, b"b.test")])), I::NotOneName),
        (hello(&sni(&[(1, b"a.test")])), I::NotOneName),
        (hello(&sni(&[])), I::NotOneName),
        (hello(&extension(0, &[])), I::Malformed),
        (hello(&extension(0, &[0, 9, 0, 0, 1, b'a'])), I::Malformed),
        (hello(&extension(0, &[0, 4, 0, 0, 1, b'a', 0])), I::Malformed),
        (hello(&[&good[..], &good].concat()), I::Duplicate),
        (hello(&[&good[..], &[0]].concat()), I::Malformed),
        (hello(&extension(16, &[])), I::Malformed),
        (hello(&extension(16, &[0, 1, 0])), I::Malformed),
        (records(&longer, MAX_RECORD), I::Malformed),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00".to_vec(), I::NotClientHello),
        (b"\x16\x03\x01\x00\x00".to_vec(), I::Record),
        (b"\x16\x03\x01\x40\x01".to_vec(), I::Record),
        (b"\x16\x03\x01\x00\x04\x01\x00\x40\x01".to_vec(), I::TooLong),
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff".to_vec(), I::TooLong),
        (records(&message(&extension(1234, &[0; 15_000])), 1), I::TooLong),
        (alert, I::Interleaved),
        (version, I::Record),
    ] {
        assert_eq!(read(&bytes), Progress::Invalid(want), "{:x?}", &bytes[..bytes.len().min(60)]);
    }
}

#[test]
fn other_protocols_are_told_at_once() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x02", b"\x80\x2e\x01\x03\x01", b"\x15\x03\x01\x00\x02", b"\x05\x01\x00"]
    {
        assert_eq!(read(bytes), Progress::NotTls, "{bytes:?}");
    }
    assert_eq!(read(b""), Progress::NeedMore);
    assert_eq!(read(b"\x16"), Progress::NeedMore);
}

#[test]
fn hidden_names_are_reported() {
    for kind in [0xfe0d, 0xffce] {
        let Progress::Done(hello) = read(&hello(&[sni(&[(0, b"a.test")]), extension(kind, &[0; 9])].concat())) else {
            panic!()
        };
        assert!(hello.ech);
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_cut_give_one_answer_within_bounds(
        bytes in prop_oneof![
            any::<Vec<u8>>(),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|body| hello(&body)),
        ],
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = read(&bytes);
        let mut reader = ClientHello::new();
        let n = cut.index(bytes.len() + 1);
        let first = reader.feed(&bytes[..n]);
        let last = reader.feed(&bytes[n..]);
        prop_assert_eq!(&last, &whole);
        prop_assert!(first == Progress::NeedMore || first == whole);
        prop_assert!(reader.message.len() <= MAX_INPUT + MAX_RECORD);
    }
}
