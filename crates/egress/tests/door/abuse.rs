//! HTTP/2 as it is abused (DOS-07): what costs a client little and a server much ends the connection, and others are
//! served meanwhile.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use stockade_audit::Network;
use stockade_testkit::upstream::Https;
use stockade_types::Reason;

use crate::{
    browser::{browse, config, get},
    world::{SOON, World},
};

const POLICY: &str = "
version: 1
network:
  endpoints:
    api: {hosts: [api.test], ports: [443], private_addresses: [192.0.2.0/24], deny: [{paths: [/denied]}]}
";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// GET https://api.test/, in static and literal fields.
pub(crate) const GET: &[u8] = b"\x82\x87\x84\x01\x08api.test";

#[track_caller]
pub(crate) fn with(body: impl FnOnce(&World, &Https)) {
    World::run(|world| {
        world.names.host("api.test", "192.0.2.10");
        world.reload(POLICY);
        let origin = Https::hello("192.0.2.10:443", &world.authority, &["api.test"]);
        body(world, &origin);
    });
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The streams of a client are odd.
pub(crate) fn request(n: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, GET)
}

/// The same with a field that HTTP/2 does not have.
pub(crate) fn malformed(n: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &[GET, b"\x00\x0aconnection\x05close"].concat())
}

/// A client that sends frames as it likes.
pub(crate) struct Frames(StreamOwned<ClientConnection, TcpStream>);

impl Frames {
    pub(crate) fn connect(world: &World) -> Self {
        let mut frames = Self::silent(world);
        frames.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames.send(&frame(SETTINGS, 0, 0, &[]));
        frames
    }

    /// One that did not begin yet.
    pub(crate) fn silent(world: &World) -> Self {
        let tunnel = world.tunnel("api.test:443").0;
        let client = ClientConnection::new(config(&world.ca, &["h2"]), ServerName::try_from("api.test").unwrap());
        Self(StreamOwned::new(client.unwrap(), tunnel))
    }

    /// The door may be gone before all is sent.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).and_then(|()| self.0.flush()).ok();
    }

    /// The next frame: its kind, stream and payload.
    pub(crate) fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, b| all << 8 | u32::from(*b));
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], number(&head[5..]) & 0x7fff_ffff, payload))
    }

    /// The door ends it, with an error or without a word: what is sent to a closed end takes the word along.
    #[track_caller]
    pub(crate) fn ended(&mut self) {
        let since = Instant::now();
        while let Some((kind, _, payload)) = self.next() {
            if let (GOAWAY, Some(code)) = (kind, payload.last_chunk::<4>()) {
                assert_ne!(u32::from_be_bytes(*code), 0, "an error");
                return;
            }
        }
        // Reading gives up after as long.
        assert!(since.elapsed() < SOON, "it goes on");
    }
}

/// Somebody else's request, in little time.
#[track_caller]
pub(crate) fn others_are_served(world: &World) {
    let since = Instant::now();
    let told = browse(world, "api.test:443", &["h2"], vec![get("https://api.test/control")]).remove(0);
    assert_eq!(told.unwrap().status, 200);
    assert!(since.elapsed() < SOON);
}

/// Requests at the origin besides those of [`others_are_served`].
pub(crate) fn arrived(origin: &Https) -> usize {
    origin.requests().iter().filter(|r| r.target() != "/control").count()
}

/// Waits for the event that says so. Others may be there too: requests that passed and were given up.
#[track_caller]
pub(crate) fn recorded(world: &World, reason: Reason, detail: &str) {
    let said = |n: &Network| n.reason == Some(reason) && n.detail.as_ref().is_some_and(|d| d.contains(detail));
    let deadline = Instant::now() + SOON;
    while !world.refusals().iter().any(said) {
        assert!(Instant::now() < deadline, "{reason} {detail}: {:#?}", world.refusals());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_control_is_served() {
    with(|world, origin| {
        let mut client = Frames::connect(world);
        client.send(&request(0));
        // Its first frame on the stream is the head of the answer.
        let head = std::iter::from_fn(|| client.next()).find(|(_, stream, _)| *stream == 1).unwrap();
        assert_eq!((head.0, head.2[0]), (HEADERS, 0x88), "status 200");
        assert_eq!(arrived(origin), 1);
        world.no_refusal();
    });
}

/// A stream that is reset while its client still sends has no answer for some of them, curl among these.
#[test]
fn a_refused_upload_is_answered_and_not_reset() {
    const POST: &[u8] = b"\x83\x87\x04\x07/denied\x01\x08api.test";
    with(|world, origin| {
        let mut client = Frames::connect(world);
        client.send(&frame(HEADERS, END_HEADERS, 1, POST));
        let answer: Vec<_> =
            std::iter::from_fn(|| client.next()).filter(|(_, stream, _)| *stream == 1).take(2).collect();
        assert_eq!(answer.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), [HEADERS, DATA]);
        assert!(String::from_utf8_lossy(&answer[1].2).contains("policy_deny"), "{answer:?}");
        client.send(&frame(DATA, 0, 1, &[b'x'; 10_000]));
        client.send(&frame(DATA, END_STREAM, 1, &[b'x'; 10_000]));
        client.send(&frame(PING, 0, 0, &[7; 8]));
        let until = std::iter::from_fn(|| client.next()).take_while(|(kind, ..)| *kind != PING);
        let odd: Vec<_> = until.filter(|(kind, ..)| matches!(*kind, RST_STREAM | GOAWAY)).collect();
        assert!(odd.is_empty(), "{odd:?}");
        client.send(&request(1));
        assert!(std::iter::from_fn(|| client.next()).any(|(kind, stream, _)| (kind, stream) == (HEADERS, 3)));
        assert_eq!(arrived(origin), 1);
    });
}

#[test]
fn requests_that_are_reset_at_once_end_the_connection() {
    const MANY: u32 = 5000;
    with(|world, origin| {
        let mut client = Frames::connect(world);
        let cancel = |n: u32| frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes());
        let all: Vec<u8> = (0..MANY).flat_map(|n| [request(n), cancel(n)].concat()).collect();
        client.send(&all);
        client.ended();
        others_are_served(world);
        assert!(arrived(origin) < 1000, "{} of {MANY} reached the origin", arrived(origin));
        recorded(world, Reason::Limit, "ENHANCE_YOUR_CALM");
    });
}

#[test]
fn requests_that_make_the_server_reset_them_end_the_connection() {
    const MANY: u32 = 5000;
    with(|world, origin| {
        let mut client = Frames::connect(world);
        // A field of HTTP/1 is an error of the stream.
        for from in (0..MANY).step_by(100) {
            client.send(&(from..from + 100).flat_map(malformed).collect::<Vec<u8>>());
        }
        client.ended();
        others_are_served(world);
        assert_eq!(arrived(origin), 0);
        recorded(world, Reason::Limit, "ENHANCE_YOUR_CALM");
    });
}

#[test]
fn a_head_that_does_not_end_ends_the_connection() {
    with(|world, origin| {
        let mut client = Frames::connect(world);
        client.send(&frame(HEADERS, END_STREAM, 1, GET));
        // Fields of nothing much: 16 KiB each.
        let fields: Vec<u8> = b"\x00\x01a\x01b".iter().copied().cycle().take(16_000).collect();
        for _ in 0..1000 {
            client.send(&frame(CONTINUATION, 0, 1, &fields));
        }
        client.ended();
        others_are_served(world);
        assert_eq!(arrived(origin), 0);
        recorded(world, Reason::Limit, "ENHANCE_YOUR_CALM");
    });
}

#[test]
fn a_head_that_unpacks_to_much_is_refused() {
    with(|world, origin| {
        let mut client = Frames::connect(world);
        // A field of 3,900 bytes goes into the table, and is then named a thousand times: 4 MiB of 5 KiB.
        let field = [&b"\x40\x01a\x7f\xbd\x1d"[..], &[b'x'; 3900]].concat();
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &[GET, &field, &[0xbe; 1000]].concat()));
        let told = loop {
            match client.next() {
                Some((HEADERS, 1, head)) => break head,
                Some((RST_STREAM | GOAWAY, ..)) | None => break Vec::new(),
                Some(_) => {}
            }
        };
        // 431, as a literal, or no answer at all.
        assert!(told.is_empty() || !matches!(told[0], 0x88..=0x8a), "{told:?}");
        others_are_served(world);
        assert_eq!(arrived(origin), 0);
        recorded(world, Reason::Limit, "ENHANCE_YOUR_CALM");
    });
}

#[test]
fn floods_of_settings_and_pings_stop_nobody() {
    with(|world, origin| {
        for flood in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[0; 8])] {
            let mut client = Frames::connect(world);
            let since = Instant::now();
            client.send(&flood.repeat(10_000));
            others_are_served(world);
            // What asks in turn is answered in turn, or not at all.
            client.send(&request(0));
            let answered = std::iter::from_fn(|| client.next()).any(|(kind, stream, _)| (kind, stream) == (HEADERS, 1));
            assert!(since.elapsed() < 2 * SOON, "answered: {answered}");
        }
        assert!(arrived(origin) <= 2);
    });
}
