use proptest::prelude::*;

use super::*;
use crate::{
    placeholder::Hint,
    test::{Writing, cut, decodings, entropy, writings},
};

/// Two credentials, and the placeholder of the second.
fn markers() -> (Arc<Markers>, String) {
    let mut placeholders = Placeholders::new(&mut entropy(7)).unwrap();
    placeholders.give("other", Hint::default(), &mut entropy(8)).unwrap();
    let hint = Hint { env: Some("GITHUB_TOKEN"), value: None };
    let text = placeholders.give("token", hint, &mut entropy(9)).unwrap().to_owned();
    (Arc::new(Markers::new(&placeholders)), text)
}

/// What a gate let through, and what it found.
fn pass(markers: &Arc<Markers>, pieces: &[&[u8]]) -> (Vec<u8>, Option<Found>) {
    let mut gate = Gate::new(Arc::clone(markers));
    let mut out = Vec::new();
    for piece in pieces {
        match gate.pass(Bytes::copy_from_slice(piece)) {
            Ok(bytes) => out.extend_from_slice(&bytes),
            Err(found) => return (out, Some(found)),
        }
    }
    match gate.finish() {
        Ok(bytes) => out.extend_from_slice(&bytes),
        Err(found) => return (out, Some(found)),
    }
    (out, None)
}

#[test]
fn every_writing_at_every_cut_is_found_before_it_left() {
    let (markers, text) = markers();
    for Writing { name, before, text, after } in writings(&text) {
        let body = [&before[..], &text, &after].concat();
        for at in 0..=body.len() {
            let (out, found) = pass(&markers, &[&body[..at], &body[at..]]);
            let found = found.unwrap_or_else(|| panic!("{name} cut at {at}"));
            assert_eq!(found.credential.as_deref(), Some("token"), "{name} cut at {at}");
            assert!(!decodings(&out).iter().any(|d| d.contains(markers.placeholders.core())), "{name} cut at {at}");
            // Less than a third of the core ever leaves.
            assert!(!decodings(&out).iter().any(|d| d.contains(&markers.placeholders.core()[..STRONG])), "{name} {at}");
        }
    }
}

#[test]
fn a_whole_text_is_searched_alike() {
    let (markers, text) = markers();
    for Writing { name, before, text, after } in writings(&text) {
        let found = markers.find(&[&before[..], &text, &after].concat()).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(found.credential.as_deref(), Some("token"), "{name}");
    }
    assert_eq!(markers.find(b"nothing"), None);
    assert_eq!(markers.find(b""), None);
}

#[test]
fn a_forged_or_cut_placeholder_is_nobodys() {
    let (markers, text) = markers();
    let core = markers.placeholders.core().to_owned();
    for body in
        [core.clone(), format!("{core}AAAAAAAAAA"), format!("{core}AA more of it"), text[..text.len() - 4].into()]
    {
        let (_, found) = pass(&markers, &[body.as_bytes()]);
        assert_eq!(found, Some(Found { credential: None, form: Form::Plain }), "{body}");
    }
    // Without the whole core it is any word.
    let (out, found) = pass(&markers, &[&core.as_bytes()[..CORE - 1], b"-", &core.as_bytes()[1..]]);
    assert_eq!((out.len(), found), (2 * CORE - 1, None));
}

#[test]
fn a_forged_one_does_not_go_on_because_another_begins_behind_it() {
    let (markers, text) = markers();
    for Writing { name, before, text: written, after } in writings(&text) {
        // Another tail than any that was given out, in whatever way it is written.
        let forged = [&before[..], &written[..written.len() / 2], markers.placeholders.core().as_bytes(), &[b'-'; 40]];
        let body = [forged.concat(), b" ".to_vec(), before.clone(), written, after].concat();
        for at in 0..=body.len() {
            let (out, found) = pass(&markers, &[&body[..at], &body[at..]]);
            assert!(found.is_some(), "{name} cut at {at}");
            assert_eq!(markers.find(&out), None, "{name} cut at {at}");
        }
    }
}

#[test]
fn of_another_sandbox_it_is_any_word() {
    let (markers, _) = markers();
    let mut others = Placeholders::new(&mut entropy(70)).unwrap();
    let text = others.give("token", Hint::default(), &mut entropy(9)).unwrap().to_owned();
    assert_eq!(pass(&markers, &[text.as_bytes()]), (text.into_bytes(), None));
}

#[test]
fn messages_are_not_delayed_by_chance() {
    let (markers, _) = markers();
    let mut scanner = Scanner::new(Arc::clone(&markers));
    let core = markers.placeholders.core().as_bytes();
    for message in [&core[..1], &core[..7], b"-", b"%", b"{\"a\": \"\\u", b"x%25%", b"\\"] {
        assert_eq!(scanner.feed(message), Scan::Clean(message.len()), "{message:?}");
    }
    assert_eq!(scanner.feed(&core[..8]), Scan::Clean(0));
    assert_eq!(scanner.feed(b"-"), Scan::Clean(9));
}

#[test]
fn what_was_found_stays_found_and_what_is_kept_is_bounded() {
    let (markers, text) = markers();
    let mut scanner = Scanner::new(Arc::clone(&markers));
    for piece in [&text.as_bytes()[..20], &b"%25".repeat(20_000), &b"\\\\".repeat(20_000), &b"%".repeat(20_000)] {
        scanner.feed(piece);
        assert!(scanner.pending.len() < (CORE + BEHIND) * 2 * 36, "{}", scanner.pending.len());
    }
    assert!(matches!(scanner.feed(text.as_bytes()), Scan::Clean(_)), "the tail may still come");
    assert!(matches!(scanner.feed(b" and so on, and so on"), Scan::Found(_)));
    assert!(matches!(scanner.feed(b"clean"), Scan::Found(_)));
    assert!(matches!(scanner.finish(), Scan::Found(_)));
}

proptest! {
    #[test]
    fn however_it_is_cut_it_is_found(
        index in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(1_usize..40, 1..40),
        noise in "[ -~]{0,60}",
    ) {
        let (markers, text) = markers();
        let all = writings(&text);
        let Writing { before, text, after, .. } = index.get(&all);
        // A line end, so that the noise swallows nothing when it is decoded.
        let body = [noise.as_bytes(), b"\n", &before[..], text, after, noise.as_bytes()].concat();
        let (out, found) = pass(&markers, &cut(&body, &cuts));
        prop_assert_eq!(found.and_then(|f| f.credential), Some("token".to_owned()));
        prop_assert!(body.starts_with(&out));
        prop_assert!(out.len() < noise.len() + 1 + before.len() + text.len());
    }

    #[test]
    fn what_holds_none_passes_unchanged(body in prop::collection::vec(any::<u8>(), 0..2000), cuts in prop::collection::vec(1_usize..400, 1..10)) {
        let (markers, _) = markers();
        prop_assert_eq!(pass(&markers, &cut(&body, &cuts)), (body, None));
    }
}
