//! Streams of messages.

use std::mem::discriminant;

use stockade_l7::{
    sse::{self, Events},
    websocket::{Event, Frames, Sender, Violation},
};

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b"\x81",
    b"\x82",
    b"\x88",
    b"\x89",
    b"\x8a",
    b"\x80",
    b"\x01",
    b"\x00\x00",
    b"\x7e\x00\x7e",
    b"\x7f\0\0\0\0\0\x01\0\0",
    b"\x85\x37\xfa\x21\x3d",
    b"\x05Hello",
    b"\x02\x03\xe8",
    b"\xc3\xa9",
    b"data: ",
    b"event: ",
    b":",
    b"\n",
    b"\r\n",
    b"\r",
    b"\n\n",
    b"\xef\xbb\xbf",
];
/// Longest message.
const MAX: usize = 4096;

fn frames(sender: Sender, data: &[u8], size: usize) -> (Vec<Event>, Option<Violation>) {
    let (mut frames, mut events) = (Frames::new(sender, MAX), Vec::new());
    for mut piece in data.chunks(size) {
        loop {
            match frames.next(&mut piece) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break assert!(piece.is_empty()),
                Err(why) => return (events, Some(why)),
            }
        }
    }
    (events, None)
}

/// Cuts change nothing; what is read is bounded, and reads the same when it is written anew.
pub(super) fn websocket(data: &[u8]) -> u64 {
    let outcomes = [(Sender::Client, Some([1, 2, 3, 4])), (Sender::Server, None)].map(|(sender, mask)| {
        let (events, violation) = frames(sender, data, data.len().max(1));
        assert_eq!(frames(sender, data, 3), (events.clone(), violation));
        for event in &events {
            assert!(matches!(event, Event::Text(t) if t.len() <= MAX) || event.frame(None).len() <= MAX + 4);
        }
        let written: Vec<u8> = events.iter().flat_map(|event| event.frame(mask)).collect();
        assert_eq!(frames(sender, &written, written.len().max(1)), (events.clone(), None));
        (events.iter().take(3).map(discriminant).collect::<Vec<_>>(), violation)
    });
    signature(outcomes)
}

/// Cuts change nothing; events are bounded.
pub(super) fn sse(data: &[u8]) -> u64 {
    let run = |size: usize| -> (Vec<sse::Event>, bool) {
        let (mut events, mut read) = (Events::new(MAX), Vec::new());
        for mut piece in data.chunks(size) {
            loop {
                match events.next(&mut piece) {
                    Ok(Some(event)) => read.push(event),
                    Ok(None) => break assert!(piece.is_empty()),
                    Err(_) => return (read, true),
                }
            }
        }
        (read, false)
    };
    let (events, over) = run(data.len().max(1));
    assert_eq!(run(3), (events.clone(), over));
    assert!(events.iter().all(|e| e.data.len() <= 3 * MAX && !e.kind.contains(['\n', '\r'])));
    signature((events.len().min(4), over, events.first().map(|e| (e.kind.is_empty(), e.data.len().min(3)))))
}
