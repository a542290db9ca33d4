use proptest::prelude::*;

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn pieces(sender: Sender, max: usize, pieces: &[&[u8]]) -> Result<Vec<Event>, Violation> {
    let mut frames = Frames::new(sender, max);
    let mut events = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        while let Some(event) = frames.next(&mut input)? {
            events.push(event);
        }
        assert!(input.is_empty());
    }
    Ok(events)
}

/// Reads bytes whole, cut everywhere in two, and byte by byte: the outcome must be the same.
fn read(sender: Sender, bytes: &[u8]) -> Result<Vec<Event>, Violation> {
    let whole = pieces(sender, 70_000, &[bytes]);
    for at in 0..=bytes.len().min(300) {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(pieces(sender, 70_000, &[head, tail]), whole, "cut at {at}");
    }
    assert_eq!(pieces(sender, 70_000, &bytes.chunks(1).collect::<Vec<_>>()), whole);
    whole
}

fn text(text: &str) -> Event {
    Event::Text(text.into())
}

#[test]
fn the_examples_of_the_rfc() {
    let hello = Ok(vec![text("Hello")]);
    assert_eq!(read(Sender::Server, b"\x81\x05Hello"), hello);
    assert_eq!(read(Sender::Client, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), hello);
    assert_eq!(read(Sender::Server, b"\x01\x03Hel\x80\x02lo"), hello);
    assert_eq!(read(Sender::Server, b"\x89\x05Hello"), Ok(vec![Event::Ping(b"Hello".to_vec())]));
    let long = [&b"\x82\x7e\x01\x00"[..], &[7; 256]].concat();
    assert_eq!(read(Sender::Server, &long), Ok(vec![Event::Binary(vec![7; 256])]));
    let longer = [&b"\x82\x7f\0\0\0\0\0\x01\0\0"[..], &vec![7; 65_536]].concat();
    assert_eq!(pieces(Sender::Server, 70_000, &[&longer]), Ok(vec![Event::Binary(vec![7; 65_536])]));
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let bytes = b"\x01\x01a\x89\x00\x00\x00\x80\x01b\x8a\x01x\x88\x05\x03\xe8bye";
    let close = Event::Close(Some(Close { code: 1000, reason: "bye".into() }));
    assert_eq!(
        read(Sender::Server, bytes),
        Ok(vec![Event::Ping(vec![]), text("ab"), Event::Pong(b"x".to_vec()), close])
    );
    assert_eq!(
        read(Sender::Server, b"\x01\x00\x80\x00\x82\x00\x88\x00"),
        Ok(vec![text(""), Event::Binary(vec![]), Event::Close(None)])
    );
    // A character may be cut by fragments, but not missing at the end.
    assert_eq!(read(Sender::Server, b"\x01\x01\xc3\x80\x01\xa9"), Ok(vec![text("é")]));
}

#[test]
fn violations() {
    use Violation as V;
    for (bytes, want) in [
        (&b"\xc1\x05Hello"[..], V::Reserved),
        (b"\xa1\x05Hello", V::Reserved),
        (b"\x91\x05Hello", V::Reserved),
        (b"\x83\x00", V::Opcode),
        (b"\x8b\x00", V::Opcode),
        (b"\x8f\x00", V::Opcode),
        (b"\x81\x80\0\0\0\0", V::Mask),
        (b"\x81\x7e\x00\x7d", V::Length),
        (b"\x81\x7f\0\0\0\0\0\0\xff\xff", V::Length),
        (b"\x81\x7f\x80\0\0\0\0\0\0\0", V::Length),
        (b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", V::TooLarge),
        (b"\x09\x00", V::Control),
        (b"\x89\x7e\x00\x7e", V::Control),
        (b"\x80\x00", V::Fragment),
        (b"\x00\x00", V::Fragment),
        (b"\x01\x00\x81\x00", V::Fragment),
        (b"\x01\x00\x82\x00", V::Fragment),
        (b"\x81\x01\xff", V::NotUtf8),
        (b"\x01\x01\xc3\x80\x00", V::NotUtf8),
        (b"\x81\x03\xed\xa0\x80", V::NotUtf8),
        (b"\x88\x01\x03", V::Code),
        (b"\x88\x02\x03\xed", V::Code),
        (b"\x88\x02\x03\xee", V::Code),
        (b"\x88\x02\x00\x00", V::Code),
        (b"\x88\x02\x13\x88", V::Code),
        (b"\x88\x03\x03\xe8\xff", V::NotUtf8),
        (b"\x88\x00\x81\x00", V::AfterClose),
    ] {
        assert_eq!(read(Sender::Server, bytes), Err(want), "{bytes:?}");
    }
    assert_eq!(read(Sender::Client, b"\x81\x05Hello"), Err(V::Mask));
    assert_eq!([V::NotUtf8, V::TooLarge, V::Mask].map(V::code), [1007, 1009, 1002]);
}

#[test]
fn a_message_is_bounded_before_it_is_kept() {
    let bounded = |bytes: &[u8]| pieces(Sender::Server, 5, &[bytes]);
    assert_eq!(bounded(b"\x81\x05Hello"), Ok(vec![text("Hello")]));
    assert_eq!(bounded(b"\x81\x06"), Err(Violation::TooLarge));
    assert_eq!(bounded(b"\x01\x03Hel\x80\x03"), Err(Violation::TooLarge));
    assert_eq!(bounded(b"\x01\x05Hello\x80\x00"), Ok(vec![text("Hello")]));
    // Control frames are no part of it.
    assert_eq!(bounded(b"\x01\x05Hello\x89\x01x\x80\x00").map(|e| e.len()), Ok(2));
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let control = || prop::collection::vec(any::<u8>(), 0..=MAX_CONTROL);
    let event = prop_oneof![
        any::<String>().prop_map(Event::Text),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Event::Binary),
        control().prop_map(Event::Ping),
        control().prop_map(Event::Pong),
    ];
    (prop::collection::vec(event, 0..6), prop::option::of((3000_u16..5000, "[a-zé]{0,20}"))).prop_map(
        |(mut all, close)| {
            all.push(Event::Close(close.map(|(code, reason)| Close { code, reason })));
            all
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(all in events(), mask in any::<bool>()) {
        let (sender, mask) = if mask { (Sender::Client, Some(MASK)) } else { (Sender::Server, None) };
        let bytes: Vec<u8> = all.iter().flat_map(|event| event.frame(mask)).collect();
        prop_assert_eq!(pieces(sender, 70_000, &[&bytes]), Ok(all.clone()));
        prop_assert_eq!(pieces(sender, 70_000, &bytes.chunks(3).collect::<Vec<_>>()), Ok(all));
    }

    #[test]
    fn total(bytes in any::<Vec<u8>>(), client in any::<bool>()) {
        let sender = if client { Sender::Client } else { Sender::Server };
        let whole = pieces(sender, 100, &[&bytes]);
        prop_assert_eq!(pieces(sender, 100, &bytes.chunks(1).collect::<Vec<_>>()), whole);
    }
}
