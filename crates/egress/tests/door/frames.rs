//! Malformed HTTP/2, of clients and of origins: each has its event, and what is well-formed beside it is served.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use stockade_types::Reason;

use crate::{
    abuse::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, HEADERS, PING, SETTINGS, WINDOW_UPDATE, arrived,
        frame, malformed, others_are_served, recorded, request, with,
    },
    browser::{browse, get},
    world::World,
};

const PUSH_PROMISE: u8 = 5;
const PRIORITY: u8 = 0x20;

/// What a client sends behind its settings, and what is said of it.
type Case = (&'static str, Vec<u8>, &'static str);

/// What ends a connection.
fn endings() -> Vec<Case> {
    let open = |flags, payload: &[u8]| frame(HEADERS, flags, 1, payload);
    let fields = |more: &[u8]| open(END_STREAM | END_HEADERS, &[GET, more].concat());
    vec![
        ("a frame over the bound", [&[0x7f, 0xff, 0xff][..], &[DATA, 0, 0, 0, 0, 1]].concat(), "FRAME_SIZE_ERROR"),
        ("settings of half a length", frame(SETTINGS, 0, 0, &[0; 5]), "malformed"),
        ("data of no stream", frame(DATA, 0, 0, b"x"), "PROTOCOL_ERROR"),
        ("data before a head", frame(DATA, END_STREAM, 1, b"x"), "PROTOCOL_ERROR"),
        ("a server's stream", frame(HEADERS, END_STREAM | END_HEADERS, 2, GET), "PROTOCOL_ERROR"),
        ("a stream from before", [request(3), request(1)].concat(), "malformed"),
        ("a promise", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), "PROTOCOL_ERROR"),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, GET), "PROTOCOL_ERROR"),
        ("an interrupted head", [open(END_STREAM, GET), frame(PING, 0, 0, &[0; 8])].concat(), "PROTOCOL_ERROR"),
        ("no field block", open(END_STREAM | END_HEADERS, &[0xff; 8]), "malformed"),
        ("a capital letter", fields(b"\x00\x03X-Y\x011"), "malformed"),
        ("a line end", fields(b"\x00\x01x\x061\r\nx:2"), "malformed"),
        ("a window of nothing", [request(0), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(), "malformed"),
        ("a window without end", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), "FLOW_CONTROL_ERROR"),
        ("a ping of seven", frame(PING, 0, 0, &[0; 7]), "malformed"),
    ]
}

/// What is wrong with one request.
fn requests() -> Vec<Case> {
    let whole = END_STREAM | END_HEADERS;
    let fields = |more: &[u8]| frame(HEADERS, whole, 1, &[GET, more].concat());
    vec![
        ("a field of a connection", malformed(0), "PROTOCOL_ERROR"),
        ("two paths", fields(b"\x04\x02/x"), "PROTOCOL_ERROR"),
        ("no method", frame(HEADERS, whole, 1, &GET[1..]), "PROTOCOL_ERROR"),
        ("its own ancestor", frame(HEADERS, whole | PRIORITY, 1, &[&[0, 0, 0, 1, 9], GET].concat()), "PROTOCOL_ERROR"),
    ]
}

#[test]
fn what_ends_a_connection_is_recorded() {
    for (name, bytes, detail) in endings() {
        with(|world, origin| {
            let mut client = Frames::connect(world);
            client.send(&bytes);
            client.ended();
            recorded(world, Reason::Framing, detail);
            let refused = world.refusals();
            let ends = refused.iter().filter(|n| n.detail.as_ref().is_some_and(|d| d.contains("connection was ended")));
            assert_eq!(ends.count(), 1, "{name}: {refused:#?}");
            assert!(refused.iter().all(|n| n.host.as_deref() == Some("api.test")), "{name}: {refused:#?}");
            assert!(arrived(origin) <= 1, "{name}");
            others_are_served(world);
        });
    }
}

#[test]
fn what_is_wrong_with_a_request_is_recorded_and_its_connection_goes_on() {
    for (name, bytes, detail) in requests() {
        with(|world, origin| {
            let mut client = Frames::connect(world);
            client.send(&bytes);
            client.send(&request(1));
            let answered = std::iter::from_fn(|| client.next()).any(|(kind, stream, _)| (kind, stream) == (HEADERS, 3));
            assert!(answered, "{name}");
            let refused = world.one_refusal(Reason::Framing);
            let said = refused.detail.unwrap_or_default();
            assert!(said.contains(detail) && said.ends_with("the request was reset"), "{name}: {said}");
            assert_eq!(arrived(origin), 1, "{name}");
        });
    }
}

#[test]
fn a_head_many_times_over_the_bound_is_answered_and_recorded() {
    with(|world, origin| {
        let mut client = Frames::connect(world);
        // 3,900 bytes in the table, named fifty times: 190 KiB.
        let field = [&b"\x40\x01a\x7f\xbd\x1d"[..], &[b'x'; 3900]].concat();
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &[GET, &field, &[0xbe; 50]].concat()));
        client.send(&request(1));
        assert!(std::iter::from_fn(|| client.next()).any(|(kind, stream, _)| (kind, stream) == (HEADERS, 3)));
        let refused = world.one_refusal(Reason::Limit);
        let said = refused.detail.unwrap_or_default();
        assert!(said.starts_with("the request head is many times over the bound"), "{said}");
        assert_eq!(arrived(origin), 1);
    });
}

#[test]
fn what_does_not_begin_like_http2_is_recorded() {
    with(|world, origin| {
        let mut client = Frames::silent(world);
        client.send(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n");
        while client.next().is_some() {}
        let refused = world.one_refusal(Reason::Framing);
        assert_eq!(refused.detail.as_deref(), Some("malformed HTTP/2 (PROTOCOL_ERROR), and the connection was ended"));
        assert_eq!(arrived(origin), 0);
    });
}

/// A client that says that the other end is wrong hides nothing by it.
#[test]
fn a_client_that_leaves_with_an_error_is_recorded_for_its_own() {
    const GOAWAY: u8 = 7;
    with(|world, _| {
        let mut client = Frames::connect(world);
        client.send(&[frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]), frame(DATA, 0, 0, b"x")].concat());
        client.ended();
        recorded(world, Reason::Framing, "connection was ended");
    });
    with(|world, _| {
        let mut client = Frames::connect(world);
        client.send(&frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]));
        drop(client);
        others_are_served(world);
        world.no_refusal();
    });
}

#[test]
fn more_streams_than_there_may_be_are_recorded() {
    const MANY: u32 = 200;
    with(|world, origin| {
        let mut client = Frames::connect(world);
        // Bodies that do not end keep their streams.
        let post = |n: u32| frame(HEADERS, END_HEADERS, 2 * n + 1, &[b"\x83", &GET[1..]].concat());
        client.send(&(0..MANY).flat_map(post).collect::<Vec<u8>>());
        recorded(world, Reason::Limit, "REFUSED_STREAM");
        let refused = world.refusals();
        assert!(refused.len() <= (MANY - 128) as usize, "{}", refused.len());
        others_are_served(world);
        assert_eq!(arrived(origin), 0, "none is whole");
    });
}

/// An origin that answers every request with these frames.
fn hostile(world: &World, answer: Vec<u8>) {
    let (certificate, key) = world.authority.issue(&["api.test"]);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (config, listener) = (Arc::new(config), TcpListener::bind("192.0.2.11:443").unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let (mut stream, answer) = (StreamOwned::new(connection, stream), answer.clone());
            // It ends with the door's side of it.
            thread::spawn(move || misbehave(&mut stream, &answer));
        }
    });
}

fn misbehave(stream: &mut (impl Read + Write), answer: &[u8]) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24])?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = head[..3].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        std::io::copy(&mut Read::take(Read::by_ref(stream), length), &mut std::io::sink())?;
        if head[3] == HEADERS {
            stream.write_all(answer)?;
        }
        stream.flush()?;
    }
}

#[test]
fn an_origin_that_breaks_http2_is_said_to() {
    let whole = END_STREAM | END_HEADERS;
    let fields: Vec<u8> = b"\x00\x01a\x01b".iter().copied().cycle().take(16_000).collect();
    let flood = (0..200).map(|_| frame(CONTINUATION, 0, 1, &fields));
    let cases: [(&str, Vec<u8>); 8] = [
        ("no field block", frame(HEADERS, whole, 1, &[0xff; 8])),
        ("a frame over the bound", [&[0x7f, 0xff, 0xff][..], &[DATA, 0, 0, 0, 0, 1]].concat()),
        ("data before a head", frame(DATA, END_STREAM, 1, b"x")),
        ("no status", frame(HEADERS, whole, 1, b"\x00\x01x\x011")),
        ("a capital letter", frame(HEADERS, whole, 1, b"\x88\x00\x01X\x011")),
        ("another stream", frame(HEADERS, whole, 7, b"\x88")),
        ("a head without end", std::iter::once(frame(HEADERS, 0, 1, b"\x88")).chain(flood).flatten().collect()),
        ("HTTP/1", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ];
    for (name, answer) in cases {
        with(|world, _| {
            world.names.host("api.test", "192.0.2.11");
            hostile(world, answer);
            let told = browse(world, "api.test:443", &["h2"], vec![get("https://api.test/")]).remove(0).unwrap();
            assert_eq!((told.status, told.reason()), (502, "upstream_framing".to_owned()), "{name}");
            let refused = world.one_refusal(Reason::UpstreamFraming);
            assert_eq!(refused.host.as_deref(), Some("api.test"), "{name}");
        });
    }
}

#[test]
fn an_origin_that_breaks_http2_in_a_body_is_said_to() {
    let answer = [frame(HEADERS, END_HEADERS, 1, b"\x88"), frame(DATA, 0, 1, b"half of"), frame(DATA, 0, 0, b"x")];
    with(|world, _| {
        world.names.host("api.test", "192.0.2.11");
        hostile(world, answer.concat());
        let told = browse(world, "api.test:443", &["h2"], vec![get("https://api.test/")]).remove(0);
        assert!(told.is_err(), "it is not whole: {told:?}");
        world.one_refusal(Reason::UpstreamFraming);
    });
}
