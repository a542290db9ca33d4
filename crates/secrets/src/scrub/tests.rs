use proptest::prelude::*;

use super::*;
use crate::test::{CANARY, Writing, cut, decodings, writings};

fn values(value: &str, placeholder: &str) -> Arc<Values> {
    let known = Known {
        credential: "token".into(),
        value: Arc::new(Secret::new(value.to_owned())),
        placeholder: placeholder.into(),
    };
    Arc::new(Values::new(vec![known]))
}

/// As long as the canary.
const PLACEHOLDER: &str = "ghp_AAAAAAAAAAAAAAAAAAAAAAAABBBBBBBBBBcc";

fn scrubbed(values: &Arc<Values>, pace: Pace, pieces: &[&[u8]]) -> (Vec<u8>, u64) {
    let mut scrubber = Scrubber::new(Arc::clone(values), pace);
    let mut out = Vec::new();
    for piece in pieces {
        scrubber.feed(piece, &mut out);
    }
    scrubber.finish(&mut out);
    (out, scrubber.places())
}

#[test]
fn the_command_reads_its_placeholder() {
    assert_eq!(CANARY.len(), PLACEHOLDER.len());
    let values = values(CANARY, PLACEHOLDER);
    for (body, want) in [
        (format!("token: {CANARY}!"), format!("token: {PLACEHOLDER}!")),
        (format!("{CANARY}{CANARY}"), format!("{PLACEHOLDER}{PLACEHOLDER}")),
        ("nothing of the kind".to_owned(), "nothing of the kind".to_owned()),
    ] {
        assert_eq!(String::from_utf8(scrubbed(&values, Pace::Whole, &[body.as_bytes()]).0).unwrap(), want);
    }
}

#[test]
fn every_writing_at_every_cut_is_found_and_nothing_else_changes() {
    let values = values(CANARY, PLACEHOLDER);
    for Writing { name, before, text, after } in writings(CANARY) {
        let body = [&before[..], &text, &after].concat();
        for at in 0..=body.len() {
            let (out, places) = scrubbed(&values, Pace::Whole, &[&body[..at], &body[at..]]);
            let shown = String::from_utf8_lossy(&out).into_owned();
            assert_eq!(places, 1, "{name} cut at {at}: {shown}");
            assert_eq!(out.len(), body.len(), "{name} cut at {at}");
            assert!(!decodings(&out).iter().any(|d| d.contains(CANARY)), "{name} cut at {at}: {shown}");
            assert!(out.starts_with(&before) && out.ends_with(&after), "{name} cut at {at}: {shown}");
        }
    }
}

#[test]
fn a_value_of_another_length_keeps_the_length_of_the_body() {
    let values = values("short-value", PLACEHOLDER);
    let (out, places) = scrubbed(&values, Pace::Whole, &[b"a short-value b short-valu"]);
    assert_eq!((out.as_slice(), places), (&b"a xxxxxxxxxxx b short-valu"[..], 1));
}

#[test]
fn values_that_overlap_are_both_gone() {
    let known = ["abcdefgh12345678", "12345678ijklmnop", "abcdefgh12345678ijkl"].map(|value| Known {
        credential: value.into(),
        value: Arc::new(Secret::new(value.to_owned())),
        placeholder: "".into(),
    });
    let values = Arc::new(Values::new(known.into()));
    let (out, _) = scrubbed(&values, Pace::Whole, &[b"<abcdefgh12345678ijklmnop>"]);
    assert_eq!(out, b"<xxxxxxxxxxxxxxxxxxxxxxxx>");
}

#[test]
fn a_prompt_stream_waits_for_no_chance_byte() {
    let values = values(CANARY, PLACEHOLDER);
    let mut scrubber = Scrubber::new(Arc::clone(&values), Pace::Prompt);
    let mut out = Vec::new();
    scrubber.feed(&CANARY.as_bytes()[..3], &mut out);
    assert_eq!(out.len(), 3, "held back");
    scrubber.feed(&CANARY.as_bytes()[3..10], &mut out);
    assert_eq!(out.len(), 3, "the beginning of a value went on");
    scrubber.feed(&CANARY.as_bytes()[10..], &mut out);
    scrubber.finish(&mut out);
    assert_eq!(out.len(), CANARY.len());
    assert!(!String::from_utf8(out).unwrap().contains(&CANARY[3..]));
}

#[test]
fn what_is_held_back_is_bounded() {
    let values = values(CANARY, PLACEHOLDER);
    let mut scrubber = Scrubber::new(Arc::clone(&values), Pace::Whole);
    let mut out = Vec::new();
    let partial = &CANARY[..CANARY.len() - 1];
    for piece in [partial.as_bytes(), b"%", b"\\u00", &b"\\\\".repeat(50_000), &b"%25".repeat(50_000)] {
        scrubber.feed(piece, &mut out);
        assert!(scrubber.pending.len() <= CANARY.len() * 2 * 36, "{}", scrubber.pending.len());
    }
}

#[test]
fn fields_are_scrubbed_in_every_form() {
    let values = values(CANARY, PLACEHOLDER);
    let mut fields = HeaderMap::new();
    for Writing { text, .. } in writings(CANARY) {
        fields.append("x-echo", HeaderValue::from_bytes(&text).unwrap());
    }
    let many = fields.len();
    fields.insert("date", HeaderValue::from_static("today"));
    assert_eq!(values.scrub_fields(&mut fields), many);
    for (name, field) in &fields {
        assert!(!decodings(field.as_bytes()).iter().any(|d| d.contains(CANARY)), "{name}: {field:?}");
    }
    assert_eq!(fields["date"], "today");
    assert!(fields.get_all("x-echo").iter().any(|f| f == PLACEHOLDER));
}

#[test]
fn a_field_with_a_value_in_its_name_is_removed() {
    const VALUE: &str = "ghp_Abcdef0123456789";
    let values = values(VALUE, PLACEHOLDER);
    let mut fields = HeaderMap::new();
    let name = |text: String| HeaderName::from_bytes(text.as_bytes()).unwrap();
    fields.append(name(format!("x-{VALUE}-y")), HeaderValue::from_static("1"));
    fields.append(name(format!("x-{VALUE}-y")), HeaderValue::from_static("2"));
    fields.append(name(format!("x-{}", &VALUE[1..])), HeaderValue::from_static("not whole"));
    assert_eq!(values.scrub_fields(&mut fields), 1);
    assert_eq!(fields.len(), 1, "{fields:?}");
}

#[test]
fn a_coding_that_cannot_be_searched_is_named() {
    let with = |name: http::HeaderName, value: &'static str| {
        let mut fields = HeaderMap::new();
        fields.insert(name, HeaderValue::from_static(value));
        pace(&fields)
    };
    assert_eq!(with(header::CONTENT_ENCODING, "identity"), Ok(Pace::Whole));
    assert_eq!(with(header::CONTENT_ENCODING, "aws-chunked"), Ok(Pace::Whole));
    assert_eq!(with(header::CONTENT_ENCODING, "aws-chunked, gzip"), Err(Uninspectable { coding: "gzip".into() }));
    assert_eq!(with(header::CONTENT_ENCODING, "identity, gzip"), Err(Uninspectable { coding: "gzip".into() }));
    assert_eq!(with(header::CONTENT_TYPE, "text/event-stream"), Ok(Pace::Whole));
    assert_eq!(with(header::CONTENT_TYPE, "application/grpc+proto"), Ok(Pace::Prompt));
    assert_eq!(pace(&HeaderMap::new()), Ok(Pace::Whole));
}

#[test]
fn values_are_not_shown() {
    let values = values(CANARY, PLACEHOLDER);
    let scrubber = Scrubber::new(Arc::clone(&values), Pace::Whole);
    assert!(!format!("{values:?} {scrubber:?} {:?}", values.needles).contains("canary"));
}

proptest! {
    #[test]
    fn however_it_is_cut_and_written_the_value_does_not_appear(
        index in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(1_usize..40, 1..40),
        noise in "[a-z%\\\\u0-9]{0,40}",
        prompt in any::<bool>(),
    ) {
        let values = values(CANARY, PLACEHOLDER);
        let all = writings(CANARY);
        let Writing { before, text, after, .. } = index.get(&all);
        // The noise must not swallow the beginning of the value when it is decoded.
        let body = [noise.as_bytes(), &before[..], text, after].concat();
        let pace = if prompt { Pace::Prompt } else { Pace::Whole };
        let (out, _) = scrubbed(&values, pace, &cut(&body, &cuts));
        prop_assert_eq!(out.len(), body.len());
        for decoded in decodings(&out) {
            prop_assert!(!decoded.contains(CANARY), "{}", decoded);
        }
    }

    #[test]
    fn text_without_a_value_is_not_changed(body in "[a-zA-Z0-9%\\\\u+/=_\"-]{0,300}", cuts in prop::collection::vec(1_usize..40, 1..10)) {
        let values = values(CANARY, PLACEHOLDER);
        let (out, places) = scrubbed(&values, Pace::Whole, &cut(body.as_bytes(), &cuts));
        prop_assert_eq!((out, places), (body.into_bytes(), 0));
    }
}
