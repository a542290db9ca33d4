use super::*;
use crate::test::entropy;

#[test]
fn shapes_are_those_of_the_real_thing() {
    let cases = [
        (None, "sk-ant-api03-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "sk-ant-api03-", 65),
        (Some("GITHUB_TOKEN"), "github_pat_11AAAAAAA0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "github_pat_", 52),
        (Some("GITHUB_TOKEN"), "ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ghp_", 40),
        (Some("GITHUB_TOKEN"), "", "ghp_", 40),
        (Some("ANTHROPIC_API_KEY"), "", "sk-ant-api03-", 108),
        (Some("AWS_ACCESS_KEY_ID"), "AKIAIOSFODNN7EXAMPLE", "AKIA", 38),
        (Some("AWS_SECRET_ACCESS_KEY"), "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "", 40),
        (Some("GITHUB_TOKEN"), "an-opaque-token-of-an-appliance-0123456789", "", 42),
        (None, "hunter22", "", 34),
        (None, "", "", 34),
    ];
    for (env, value, prefix, length) in cases {
        let value = Secret::new(value.to_owned());
        let hint = Hint { env, value: (!value.is_empty()).then_some(&value) };
        let mut placeholders = Placeholders::new(&mut entropy(1)).unwrap();
        let text = placeholders.give("c", hint, &mut entropy(2)).unwrap().to_owned();
        assert!(text.starts_with(prefix) && text.len() == length, "{env:?} {prefix}: {text}");
        assert!(text.contains(placeholders.core()));
        let rest = &text[prefix.len()..];
        assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric()), "{text}");
    }
}

#[test]
fn a_long_value_has_a_placeholder_of_bounded_length() {
    let value = Secret::new("x".repeat(60_000));
    let mut placeholders = Placeholders::new(&mut entropy(1)).unwrap();
    let hint = Hint { value: Some(&value), env: None };
    assert_eq!(placeholders.give("c", hint, &mut entropy(2)).unwrap().len(), MAX_PLACEHOLDER);
}

#[test]
fn each_stands_for_its_credential_and_a_forged_one_for_nothing() {
    let mut placeholders = Placeholders::new(&mut entropy(1)).unwrap();
    let a = placeholders.give("a", Hint::default(), &mut entropy(2)).unwrap().to_owned();
    let b = placeholders.give("b", Hint::default(), &mut entropy(3)).unwrap().to_owned();
    assert_eq!(placeholders.give("a", Hint::default(), &mut entropy(9)).unwrap(), a, "given once");
    assert_ne!(a, b);
    assert_eq!(placeholders.resolve(&a.as_bytes()[CORE..]), Resolved::Credential("a"));
    assert_eq!(placeholders.resolve(&b.as_bytes()[CORE..]), Resolved::Credential("b"));
    for forged in [&b"AAAAAAAAAA"[..], b"", &a.as_bytes()[CORE..CORE + TAIL - 1]] {
        assert_eq!(placeholders.resolve(forged), Resolved::Unknown);
    }
    assert_eq!(placeholders.text("a"), Some(a.as_str()));
    assert_eq!(placeholders.text("c"), None);
}

#[test]
fn two_sandboxes_share_nothing() {
    let [a, b] = [1, 2].map(|seed| Placeholders::new(&mut entropy(seed)).unwrap());
    assert_ne!(a.core(), b.core());
    assert_eq!(a.core().len(), CORE);
}

#[test]
fn a_placeholder_never_holds_the_value() {
    // Entropy that always draws `A`: every draw would hold this value.
    let value = Secret::new("AAAAAAAA".to_owned());
    let mut zeros = |bytes: &mut [u8]| {
        bytes.fill(0);
        Ok(())
    };
    let mut placeholders = Placeholders::new(&mut zeros).unwrap();
    let hint = Hint { value: Some(&value), env: None };
    let error = placeholders.give("c", hint, &mut zeros).unwrap_err();
    assert_eq!(error.to_string(), "the placeholder of credential c always resembles its value");
}

#[test]
fn without_random_bytes_there_is_none() {
    let mut broken = |_: &mut [u8]| Err(io::Error::other("no device"));
    assert!(matches!(Placeholders::new(&mut broken), Err(PlaceholderError::Entropy(_))));
}
