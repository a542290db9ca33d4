use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use stockade_testkit::Mode;

use crate::world::{World, err, good};

fn connect(world: &World) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads until the other end closes; what it said.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    said
}

#[test]
fn a_banner_that_does_not_end_is_cut_off() {
    let world = World::new(Mode::available()[0]);
    let mut stream = connect(&world);
    // The server may close while we still send.
    let _ = stream.write_all(&vec![b'x'; 1_000_000]);
    let said = rest(stream);
    assert!(said.starts_with(b"SSH-2.0-Stockade\r\n") && said.len() < 5000, "{} bytes", said.len());
    let mut garbage = connect(&world);
    let _ = garbage.write_all(b"SSH-2.0-x\r\n\xff\xff\xff\xff");
    let _ = garbage.write_all(&[0; 4096]);
    rest(garbage);
    assert_eq!(good(&world.ssh(&[], "echo fine")), "fine\n", "the positive control");
    world.end().events.some("ssh_auth");
}

#[test]
fn strangers_are_few_and_do_not_stay() {
    let world = World::new(Mode::available()[0]);
    let began = Instant::now();
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(&world)).collect();
    world.run.wait_for_event("limit");
    // The first that are turned away are told nothing.
    let ends: Vec<_> =
        silent.into_iter().map(|s| std::thread::spawn(move || (rest(s).len(), began.elapsed()))).collect();
    let ends: Vec<_> = ends.into_iter().map(|e| e.join().unwrap()).collect();
    let turned_away = ends.iter().filter(|(said, _)| *said == 0).count();
    assert!((60..=90).contains(&turned_away), "{turned_away} of 200");
    assert!(ends.iter().all(|(_, at)| *at < Duration::from_secs(58)), "all of them were closed");
    assert_eq!(good(&world.ssh(&[], "echo fine")), "fine\n", "the positive control");
    world.end();
}

#[test]
fn what_a_client_without_strict_key_exchange_could_be_robbed_by_is_not_offered() {
    let world = World::new(Mode::available()[0]);
    for option in [
        "Ciphers=chacha20-poly1305@openssh.com",
        "Ciphers=aes256-cbc",
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "Compression=yes",
    ] {
        let tried = world.ssh(&["-o", option], "echo fine");
        // Compression is asked for and done without; the others are the only thing that such a client would take.
        assert_eq!(tried.status.success(), option == "Compression=yes", "{option}: {tried:?}");
    }
    let etm = world.ssh(&["-o", "Ciphers=aes256-ctr", "-o", "MACs=hmac-sha2-256-etm@openssh.com"], "echo fine");
    assert!(!etm.status.success(), "{etm:?}");
    let told = world.ssh(&["-vv"], "echo fine");
    assert!(err(&told).contains("kex-strict-s-v00@openssh.com"), "{}", err(&told));
    for option in
        ["Ciphers=aes256-gcm@openssh.com", "Ciphers=aes128-ctr", "KexAlgorithms=curve25519-sha256", "RekeyLimit=1M"]
    {
        let bytes = vec![b'y'; 5_000_000];
        let echoed = world.fed(&["-o", option], "cat", &bytes);
        assert!(echoed.stdout == bytes, "{option}: {}", err(&echoed));
    }
    world.end();
}

#[test]
fn names_and_commands_do_not_speak_to_the_operator_s_terminal() {
    let keys = crate::world::Keys::new();
    let line = keys.public("id");
    let world = World::with(Mode::available()[0], keys, &line, |s| s.arg("--log-level").arg("debug"));
    good(&world.ssh(&[], "true '\u{1b}]52;c;aGk=\u{7}\u{1b}[31m'"));
    world.ssh(&["-l", "\u{1b}[31mann"], "true");
    let told = world.run.wait_to_be_told("u{1b}]52");
    assert!(!told.contains('\u{1b}'), "{told:?}");
    world.end();
}
