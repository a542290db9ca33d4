//! The name server, over UDP and TCP.

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use stockade_types::Reason;

use crate::world::{SOON, World};

fn query(name: &str, kind: &str) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind.parse::<RecordType>().unwrap()));
    message.to_vec().unwrap()
}

fn ask(world: &World, query: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.send_to(query, world.dns).unwrap();
    let mut buffer = [0; 2048];
    let n = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..n]).unwrap()
}

/// The addresses of a name.
pub(crate) fn lookup(world: &World, name: &str, kind: &str) -> Vec<String> {
    ask(world, &query(name, kind))
        .answers
        .iter()
        .map(|r| match &r.data {
            RData::A(a) => a.to_string(),
            RData::AAAA(a) => a.to_string(),
            other => panic!("{other}"),
        })
        .collect()
}

#[test]
fn only_permitted_names_exist_and_no_question_leaves() {
    World::run(|world| {
        assert_eq!(lookup(world, "allowed.test", "A").len(), 1);
        assert_eq!(lookup(world, "ALLOWED.test", "A"), lookup(world, "allowed.test", "A"));
        world.no_refusal();
        let secret = ask(world, &query("c2VjcmV0.attacker.test", "A"));
        assert_eq!(secret.metadata.response_code, ResponseCode::NXDomain);
        let event = world.one_refusal(Reason::DnsNoPolicy);
        assert_eq!((event.door, event.protocol), ("dns", 17));
        assert!(world.names.queries().is_empty(), "the resolver outside saw nothing");
    });
}

#[test]
fn tcp_answers_the_same_and_a_slow_client_stops_nobody() {
    World::run(|world| {
        let mut slow = TcpStream::connect(world.dns).unwrap();
        slow.write_all(&[0]).unwrap();
        let mut stream = TcpStream::connect(world.dns).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        for _ in 0..2 {
            let query = query("allowed.test", "A");
            stream.write_all(&u16::try_from(query.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&query).unwrap();
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut reply = vec![0; u16::from_be_bytes(len).into()];
            stream.read_exact(&mut reply).unwrap();
            assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 1);
        }
        let mut long = TcpStream::connect(world.dns).unwrap();
        long.set_read_timeout(Some(SOON)).unwrap();
        long.write_all(&[0xff, 0xff]).unwrap();
        assert_eq!(long.read(&mut [0]).unwrap(), 0, "longer than any query: closed");
    });
}

#[test]
fn ten_thousand_questions_later_the_next_is_answered_as_fast_and_one_finding_says_so() {
    World::run(|world| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for n in 0..10_000 {
            socket.send_to(&query(&format!("x{n}.attacker.test"), "A"), world.dns).unwrap();
        }
        let start = Instant::now();
        while lookup_or_none(world).is_none() {
            assert!(start.elapsed() < SOON, "no answer any more");
        }
        let start = Instant::now();
        assert_eq!(lookup(world, "allowed.test", "A").len(), 1);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        let findings = world
            .events()
            .iter()
            .filter(|e| matches!(e, stockade_audit::Event::Finding(f) if f.reason == Reason::DnsVolume))
            .count();
        assert!((1..=2).contains(&findings), "{findings}: one per minute");
    });
}

fn lookup_or_none(world: &World) -> Option<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket.send_to(&query("allowed.test", "A"), world.dns).unwrap();
    socket.recv(&mut [0; 512]).ok().map(drop)
}
