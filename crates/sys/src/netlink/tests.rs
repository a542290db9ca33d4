use super::*;

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out, 7, 0).unwrap();
    out
}

#[test]
fn what_is_written_is_read() {
    let message = Message::new(20, CREATE, &[1, 2, 3], |a| {
        a.text(1, "lo").be16(2, 443).nest(3, |a| {
            a.be32(1, 9).be64(2, 1 << 40).native(4, 5);
        });
    });
    let bytes = encoded(&message);
    let frame = frames(&bytes).next().unwrap();
    assert_eq!((frame.kind, frame.flags, frame.seq), (20, CREATE | NLM_F_REQUEST | NLM_F_ACK, 7));
    let reply = Reply { kind: frame.kind, body: frame.body.to_vec() };
    let all: Vec<_> = reply.attributes(3).collect();
    assert_eq!((all[0].text().as_ref(), all[1].be16(), all[2].nested), ("lo", Some(443), true));
    assert_eq!(all[2].find(1).unwrap().be32(), Some(9));
    assert_eq!(all[2].find(2).unwrap().be64(), Some(1 << 40));
    assert_eq!(all[2].find(4).unwrap().u32(), Some(5));
    assert_eq!(all.len(), 3);
}

#[test]
fn an_attribute_too_long_for_its_length_field_is_not_sent() {
    let message = Message::new(1, 0, &[], |a| {
        a.nest(1, |a| {
            a.put(1, &[0; 40_000]).put(2, &[0; 40_000]);
        });
    });
    assert!(message.encode(&mut Vec::new(), 1, 0).is_none());
    let mut socket = Socket::open(Protocol::Route).unwrap();
    assert!(matches!(socket.apply("test", &[message]), Err(Error::TooLarge { .. })));
}

#[test]
fn every_prefix_and_every_flipped_byte_is_read_without_panic() {
    let message = Message::new(2, 0, &[0; 20], |a| {
        a.text(1, "reason").nest(3, |a| {
            a.be32(1, 9);
        });
    });
    let whole = encoded(&message);
    for len in 0..whole.len() {
        assert_eq!(frames(&whole[..len]).count(), 0, "{len}");
        for byte in [0, 1, 3, 4, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[len] = byte;
            for frame in frames(&bytes) {
                let _ = refusal("test", 0, frame);
                assert!(attributes(frame.body).flat_map(|a| a.nested().collect::<Vec<_>>()).count() < 100);
            }
        }
    }
}

#[test]
fn the_kernel_answers_and_names_its_reason() {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let links = socket.dump("list links", &Message::new(18, 0, &[0; 16], |_| {})).unwrap();
    let names: Vec<_> = links
        .iter()
        .flat_map(|l| l.attributes(16).filter(|a| a.kind == 3).map(|a| a.text().into_owned()).collect::<Vec<_>>())
        .collect();
    assert!(names.iter().any(|n| n == "lo"), "{names:?}");
    // A link index that does not exist: the second message is the one to blame.
    let get = |index: i32| {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        Message::new(18, 0, &header, |_| {})
    };
    let error = socket.apply("look", &[get(1), get(i32::MAX)]).unwrap_err();
    let Error::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!((refusal.index, refusal.errno), (1, libc::ENODEV));
    assert!(socket.get("look", &get(1)).unwrap().is_some(), "left-over answers do not confuse the next request");
}
