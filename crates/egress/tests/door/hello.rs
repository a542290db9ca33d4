//! ClientHellos as they should not be, names in great number, and TLS that ends too early.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned,
    client::{EchGreaseConfig, EchMode},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use stockade_audit::Event;
use stockade_testkit::upstream::{Https, Tcp};
use stockade_types::Reason;

use crate::{
    browser::{self, Raw, browse, get, request},
    world::{Answer, Client, SOON, World, client_hello, hello_with},
};

const POLICY: &str = "
version: 1
network:
  endpoints:
    api:
      hosts: [api.test, '*.wild.test']
      ports: [443]
      private_addresses: [192.0.2.0/24]
";
const GET: &str = "GET / HTTP/1.1\r\nHost: api.test\r\n\r\n";

#[track_caller]
fn with(body: impl FnOnce(&World)) {
    let mut config = stockade_egress::Config::default();
    config.timers.opening = Duration::from_millis(500);
    World::configured(config, |world| {
        world.names.host("api.test", "192.0.2.10");
        world.reload(POLICY);
        body(world);
    });
}

/// A handshake and a request on a connection of any kind.
fn served(config: Arc<ClientConfig>, stream: impl Read + Write) -> Answer {
    let client = ClientConnection::new(config, ServerName::try_from("api.test").unwrap()).unwrap();
    let mut tls = StreamOwned::new(client, stream);
    tls.write_all(GET.as_bytes()).unwrap();
    Answer::read(&mut tls).expect("an answer")
}

/// Sends bytes one by one.
struct Drops(TcpStream);

impl Read for Drops {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Drops {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends its first record, the ClientHello, as many records of a few bytes.
struct Records(TcpStream, usize, Vec<u8>);

impl Read for Records {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return self.0.write(bytes);
        }
        self.2.extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.1 > 0 && !self.2.is_empty() {
            let whole = std::mem::take(&mut self.2);
            self.0.write_all(&in_records(&whole[5..], self.1))?;
            self.1 = 0;
        }
        Ok(())
    }
}

fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[0x16, 3, 1][..], &u16::try_from(piece.len()).unwrap().to_be_bytes(), piece].concat();
    message.chunks(size).flat_map(record).collect()
}

#[test]
fn a_hello_in_pieces_is_put_together() {
    with(|world| {
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        let tunnel = || world.tunnel("api.test:443").0;
        let config = || browser::config(&world.ca, &[]);
        assert_eq!(served(config(), Drops(tunnel())).status, 200, "byte by byte");
        for size in [100, 7, 1] {
            assert_eq!(served(config(), Records(tunnel(), size, Vec::new())).status, 200, "records of {size}");
        }
        assert_eq!(origin.requests().len(), 4);
        world.no_refusal();
    });
}

#[test]
fn what_is_no_hello_reaches_nobody() {
    with(|world| {
        let origin = Tcp::sink("192.0.2.10:443");
        let good = client_hello(Some("api.test"));
        let large = hello_with(&[&[0xab, 0xcd, 0x43, 0][..], &[0; 0x4300]].concat());
        let cases: [(&str, Vec<u8>, bool); 10] = [
            ("more than 16 KiB", in_records(&large[5..], 16_000), false),
            ("more than 16 KiB in records of 10", in_records(&large[5..], 10), false),
            ("SSLv2", [&b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"[..], &[7; 35]].concat(), false),
            ("an alert", b"\x15\x03\x01\x00\x02\x01\x00".to_vec(), false),
            ("application data", b"\x17\x03\x03\x00\x05hello".to_vec(), false),
            ("a version that is none", [&b"\x16\x02"[..], &good[2..]].concat(), false),
            ("an empty record", b"\x16\x03\x01\x00\x00".to_vec(), false),
            ("a ServerHello", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00".to_vec(), false),
            ("half a hello, and then the end", good[..40].to_vec(), true),
            ("half a hello, and then nothing", good[..40].to_vec(), false),
        ];
        for (what, bytes, end) in cases {
            let since = Instant::now();
            let mut tunnel = world.tunnel("api.test:443");
            // It may be closed before all was sent.
            tunnel.0.write_all(&bytes).ok();
            if end {
                tunnel.0.shutdown(Shutdown::Write).ok();
            }
            let (answer, _) = tunnel.rest();
            assert!(answer.is_empty() || (answer[0], answer.len()) == (21, 7), "{what}: {answer:?}");
            assert!(since.elapsed() < SOON, "{what}");
            world.one_refusal(Reason::UnknownProtocol);
        }
        assert_eq!((origin.counters.arrivals(), world.door.minted().leaves), (0, 1), "CONNECT's own");
    });
}

#[test]
fn the_connects_name_is_the_only_one() {
    with(|world| {
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        let tunnel = || world.tunnel("api.test:443").0;
        let mut nameless = Arc::unwrap_or_clone(browser::config(&world.ca, &[]));
        nameless.enable_sni = false;
        assert_eq!(served(Arc::new(nameless), tunnel()).status, 200, "without a name: the host's certificate");
        let (key, _) = aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0].generate_key_pair().unwrap();
        let grease = EchMode::Grease(EchGreaseConfig::new(aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0], key));
        let hidden = browser::with_ech(&world.ca, grease);
        assert_eq!(served(Arc::new(hidden), tunnel()).status, 200, "with ECH: the host's certificate");
        world.no_refusal();

        let (asked, dialled) = (origin.requests().len(), origin.connections());
        let two = b"\0\0\0\x13\0\x11\0\0\x08api.test\0\0\x03a.b";
        let long = ["a.", &"x".repeat(298)].concat();
        let name = |name: &str| client_hello(Some(name));
        for (what, bytes, reason) in [
            ("an empty name", name(""), Reason::SniInvalid),
            ("an address", name("192.0.2.10"), Reason::SniInvalid),
            ("a dot at the end", name("api.test."), Reason::SniInvalid),
            ("a NUL", name("api.test\0"), Reason::SniInvalid),
            ("300 bytes", name(&long), Reason::SniInvalid),
            ("two names", hello_with(two), Reason::SniInvalid),
            ("another name", name("other.test"), Reason::SniMismatch),
            (
                "another name beside ECH",
                hello_with(&[&sni("o.test")[..], b"\xfe\x0d\0\0"].concat()),
                Reason::SniMismatch,
            ),
        ] {
            let mut tunnel = world.tunnel("api.test:443");
            tunnel.send(bytes);
            assert_eq!(tunnel.rest().0, [21, 3, 3, 0, 2, 2, 112], "{what}: unrecognized_name");
            world.one_refusal(reason);
        }
        assert_eq!((origin.requests().len(), origin.connections()), (asked, dialled));
        assert_eq!(world.door.minted().leaves, 1, "for api.test alone");
    });
}

fn sni(name: &str) -> Vec<u8> {
    let n = u8::try_from(name.len()).unwrap();
    [&[0, 0, 0, n + 5, 0, n + 3, 0, 0, n][..], name.as_bytes()].concat()
}

/// Asks for tunnels to hosts of these numbers, some at once, until one is answered otherwise than `usual`.
fn tunnels(world: &World, names: Range<usize>, host: fn(usize) -> String, usual: u16) -> Option<Answer> {
    const CLIENTS: usize = 4;
    let (proxy, next, found) = (world.proxy, AtomicUsize::new(names.start), Mutex::new(None));
    let client = || {
        loop {
            let (at, name) = match next.fetch_add(1, Ordering::Relaxed) {
                at if at < names.end && found.lock().unwrap().is_none() => (at, host(at)),
                _ => return,
            };
            let mut client = Client::connect(proxy);
            client.send(format!("CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n"));
            let answer = client.try_answer().unwrap_or_else(|| panic!("no answer to {at}"));
            if answer.status != usual {
                found.lock().unwrap().get_or_insert(answer);
            }
        }
    };
    std::thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(client))));
    found.into_inner().unwrap()
}

#[test]
fn names_that_are_denied_have_no_certificate() {
    with(|world| {
        let odd = tunnels(world, 0..10_000, |n| format!("n{n}.denied.test"), 403);
        assert!(odd.is_none(), "{odd:?}");
        assert_eq!(world.door.minted(), Default::default());
        let mut tunnel = world.tunnel("api.test:443");
        tunnel.send(client_hello(Some("n0.denied.test")));
        tunnel.rest();
        assert_eq!(world.door.minted().leaves, 1, "for api.test: a denied server name has none either");
    });
}

#[test]
fn names_that_are_allowed_have_a_rate() {
    with(|world| {
        let since = Instant::now();
        let refused = tunnels(world, 0..50_000, |n| format!("n{n}.wild.test"), 200).expect("a refusal");
        assert_eq!((refused.status, refused.reason().as_str()), (503, "tls_unavailable"), "{refused:?}");
        let most = 1024 + 100 * (since.elapsed().as_secs() + 1);
        let minted = world.door.minted();
        assert!((1024..=most).contains(&minted.leaves) && minted.refused > 0, "{minted:?} of {most}");
        let findings = |event: &Event| matches!(event, Event::Finding(f) if f.reason == Reason::CertMintRate);
        assert_eq!(world.events().iter().filter(|e| findings(e)).count(), 1, "one a minute");
        // It passes.
        while tunnels(world, 0..1, |_| "api.test".into(), 200).is_some() {
            assert!(since.elapsed() < 6 * SOON);
        }
    });
}

/// How an origin ends a connection: with these bytes, and then TLS properly or not at all.
type Ending = (&'static str, bool);

/// An origin that answers each request as its target says: `/0` is the first of these endings.
fn blunt(world: &World, endings: &'static [Ending]) -> Tcp {
    let (certificate, key) = world.authority.issue(&["api.test"]);
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    Tcp::serve("192.0.2.10:443", move |stream| {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tls.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let (answer, notify) = endings[usize::from(head["GET /".len()] - b'0')];
        tls.write_all(answer.as_bytes())?;
        if notify {
            tls.conn.send_close_notify();
        }
        tls.flush()?;
        tls.sock.socket().shutdown(Shutdown::Write)?;
        // What still comes is read, so that nothing is reset.
        io::copy(&mut tls.sock, &mut io::sink()).map(drop)
    })
}

#[test]
fn a_body_that_was_cut_off_is_not_passed_off_as_whole() {
    const TO_THE_END: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart";
    const OF_TEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    const ENDINGS: &[Ending] =
        &[(TO_THE_END, true), (TO_THE_END, false), (OF_TEN, true), (OF_TEN, false), (CHUNKED, true), (CHUNKED, false)];
    with(|world| {
        let _origin = blunt(world, ENDINGS);
        for alpn in [&["http/1.1"][..], &["h2"]] {
            for (at, ending) in ENDINGS.iter().enumerate() {
                let url = format!("https://api.test/{at}");
                let told = browse(world, "api.test:443", alpn, vec![get(&url)]).remove(0);
                // Only the end of TLS says that a body without a length is whole.
                let whole = at == 0;
                assert_eq!(told.as_ref().is_ok_and(|t| t.body == "part"), whole, "{alpn:?} {ending:?}: {told:?}");
                assert!(whole || told.is_err(), "{alpn:?} {ending:?}: {told:?}");
            }
        }
    });
}

#[test]
fn an_upload_that_was_cut_off_is_not_passed_off_as_whole_and_ends_cost_nothing() {
    with(|world| {
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        for framing in ["Content-Length: 10\r\n\r\npart", "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"] {
            let mut client = Raw::connect(world, "api.test:443", "api.test");
            client.send(format!("POST / HTTP/1.1\r\nHost: api.test\r\n{framing}"));
            client.cut();
        }
        let whole = request(Method::POST, "https://api.test/", "whole");
        assert_eq!(browse(world, "api.test:443", &["http/1.1"], vec![whole]).remove(0).unwrap().status, 200);
        assert_eq!(origin.requests().iter().map(|r| r.body.clone()).collect::<Vec<_>>(), [b"whole"]);

        let mut client = Raw::connect(world, "api.test:443", "api.test");
        assert_eq!(client.ask(GET).status, 200);
        client.close_and_go_on(1000);
        let since = Instant::now();
        while world.door.counts().active > 0 {
            assert!(since.elapsed() < SOON, "{:?}", world.door.counts());
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}
