//! Placeholders in what leaves, and values in what comes back.

use std::sync::Arc;

use stockade_secrets::{Hint, Markers, Pace, Placeholders, Scan, Scanner, Scrubber, Values, scrub::Known};
use stockade_types::Secret;

use super::signature;

const VALUE: &str = "canary+value/0123456789";

pub(super) const WORDS: &[&[u8]] = &[
    b"ABCDEFGHIJKLMNOPQRSTUVWX",
    b"ABCDEFGHIJKLMNOPQRSTUVWXCDEFGHIJKL",
    b"ABCDEFGHIJKL",
    b"MNOPQRSTUVWX",
    b"CDEFGHIJKL",
    b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYQ0RFRkdISUpLTA",
    b"FCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWENERUZHSElKS0w",
    b"BQkNERUZHSElKS0xNTk9QUVJTVFVWV1hDREVGR0hJSktM",
    b"%41%42%43%44",
    b"%4",
    b"%2541",
    b"\\u0041",
    b"\\u00",
    b"\\\\u0041",
    b"%5Cu0041",
    b"\\",
    b"%",
    VALUE.as_bytes(),
    b"canary%2Bvalue%2F0123456789",
    b"canary\\u002bvalue\\/0123456789",
    b"Y2FuYXJ5K3ZhbHVlLzAxMjM0NTY3ODk",
    b"canary+value",
];

/// Bytes 0, 1, 2 …: the core begins with `ABC`.
fn counting() -> impl FnMut(&mut [u8]) -> std::io::Result<()> {
    let mut next = 0_u8;
    move |bytes| {
        for byte in bytes {
            *byte = next % 248;
            next = next.wrapping_add(1);
        }
        Ok(())
    }
}

/// However the bytes are cut, a placeholder is found or not, and what was let through holds none.
pub(super) fn scan(data: &[u8]) -> u64 {
    let Some((&cut, body)) = data.split_first() else { return 0 };
    let mut entropy = counting();
    let Ok(mut placeholders) = Placeholders::new(&mut entropy) else { unreachable!("counting never fails") };
    assert!(placeholders.give("token", Hint::default(), &mut entropy).is_ok());
    let markers = Arc::new(Markers::new(&placeholders));
    let whole = markers.find(body);
    let (mut scanner, mut clean, mut found) = (Scanner::new(Arc::clone(&markers)), 0, None);
    for piece in body.chunks(usize::from(cut).max(1)) {
        match scanner.feed(piece) {
            Scan::Clean(n) => clean += n,
            Scan::Found(there) => {
                found = Some(there);
                break;
            }
        }
    }
    if found.is_none() {
        match scanner.finish() {
            Scan::Clean(n) => clean += n,
            Scan::Found(there) => found = Some(there),
        }
    }
    assert_eq!(whole.is_some(), found.is_some(), "pieces and the whole differ");
    assert!(clean <= body.len());
    assert!(found.is_some() || clean == body.len(), "bytes are held back for ever");
    assert!(markers.find(&body[..clean]).is_none(), "a placeholder went on");
    signature((whole.map(|f| f.form), found.map(|f| (f.form, f.credential))))
}

/// However the bytes are cut, no value comes through and no length changes.
pub(super) fn scrub(data: &[u8]) -> u64 {
    let Some((&cut, body)) = data.split_first() else { return 0 };
    let values = Arc::new(Values::new(vec![Known {
        credential: "token".into(),
        value: Arc::new(Secret::new(VALUE.to_owned())),
        placeholder: "placeholder".into(),
    }]));
    let mut scrubber = Scrubber::new(Arc::clone(&values), if cut & 1 == 0 { Pace::Whole } else { Pace::Prompt });
    let mut out = Vec::new();
    for piece in body.chunks(usize::from(cut).max(1)) {
        scrubber.feed(piece, &mut out);
    }
    scrubber.finish(&mut out);
    assert_eq!(out.len(), body.len());
    let mut again = out.clone();
    assert_eq!(values.scrub(&mut again), 0, "a value came through");
    signature((scrubber.places().min(5), out == body))
}
