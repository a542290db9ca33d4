use proptest::prelude::*;

use super::*;

fn number(text: &str) -> Option<String> {
    match Value::parse(text.as_bytes()).unwrap() {
        Value::Number(number) => number,
        other => panic!("{text} is {other:?}"),
    }
}

#[test]
fn numbers_have_one_spelling() {
    for (text, want) in [
        ("0", "0"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("5", "5"),
        ("5.0", "5"),
        ("5e0", "5"),
        ("0.5E1", "5"),
        ("-7", "-7"),
        ("1.50", "1.5"),
        ("1e-7", "0.0000001"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9007199254740991.0", "9007199254740991"),
    ] {
        assert_eq!(number(text).as_deref(), Some(want), "{text}");
    }
    for text in ["9007199254740992.0", "1e20", "18446744073709551616", "-1e300"] {
        assert_eq!(number(text), None, "{text}");
    }
    assert_eq!(Value::parse(b"1e999"), Err(Unreadable::NotJson));
}

#[test]
fn what_readers_take_differently_is_refused() {
    for (text, want) in [
        (&b""[..], Unreadable::NotJson),
        (b"{", Unreadable::NotJson),
        (b"{}{}", Unreadable::NotJson),
        (b"{} x", Unreadable::NotJson),
        (b"{} // x", Unreadable::NotJson),
        (b"\xef\xbb\xbf{}", Unreadable::NotJson),
        (b"{\"a\":1,}", Unreadable::NotJson),
        (b"[1,]", Unreadable::NotJson),
        (b"{'a':1}", Unreadable::NotJson),
        (b"{a:1}", Unreadable::NotJson),
        (b"NaN", Unreadable::NotJson),
        (b"Infinity", Unreadable::NotJson),
        (b"01", Unreadable::NotJson),
        (b"+1", Unreadable::NotJson),
        (b"0x1", Unreadable::NotJson),
        (b"\"\xff\"", Unreadable::NotJson),
        (b"\"\xc0\xae\"", Unreadable::NotJson),
        (b"\"\\ud800\"", Unreadable::NotJson),
        (b"\"\n\"", Unreadable::NotJson),
        (b"{\0}", Unreadable::NotJson),
        (b"{\"a\":1,\"a\":1}", Unreadable::DuplicateKey),
        (b"{\"a\":1,\"\\u0061\":2}", Unreadable::DuplicateKey),
        (b"{\"a\":1,\"A\":2}", Unreadable::DuplicateKey),
        ("{\"params\":1,\"param\u{17f}\":2}".as_bytes(), Unreadable::DuplicateKey),
        ("{\"k\":1,\"\u{212a}\":2}".as_bytes(), Unreadable::DuplicateKey),
        (b"{\"a\":1,\"a\\u0000\":2}", Unreadable::Name),
        (b"[[{\"x\":{\"a\":1,\"a\":1}}]]", Unreadable::DuplicateKey),
    ] {
        assert_eq!(Value::parse(text), Err(want), "{:?}", String::from_utf8_lossy(text));
    }
    // How serde_json would pass numbers on if another crate asked it to keep their text.
    let object = Value::parse(b"{\"$serde_json::private::Number\":\"1\"}").unwrap();
    assert!(matches!(object, Value::Object(_)));
}

#[test]
fn a_key_in_other_letters_is_not_overlooked() {
    let object = |text: &str| Value::parse(text.as_bytes()).unwrap().as_object().unwrap().clone();
    assert_eq!(object("{\"method\":1}").get("method").unwrap(), Some(&Value::Number(Some("1".into()))));
    assert_eq!(object("{\"Method\":1}").get("method"), Err(Unreadable::KeySpelling));
    assert_eq!(object("{\"param\u{17f}\":1}").get("params"), Err(Unreadable::KeySpelling));
    assert_eq!(object("{\"operationname\":1}").get("operationName"), Err(Unreadable::KeySpelling));
    assert_eq!(object("{\"method\":null}").get("method"), Ok(None));
    assert_eq!(object("{\"method\":null}").entry("method"), Ok(Some(&Value::Null)));
    assert_eq!(object("{}").get("method"), Ok(None));
}

#[test]
fn bounds() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n)).into_bytes();
    assert!(Value::parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(Value::parse(&nested(MAX_DEPTH + 1)), Err(Unreadable::TooDeep));
    assert_eq!(Value::parse(&nested(10_000)), Err(Unreadable::TooDeep));
    assert_eq!(Value::parse("[".repeat(1_000_000).as_bytes()), Err(Unreadable::TooDeep));
    assert_eq!(Value::parse("{\"a\":".repeat(10_000).as_bytes()), Err(Unreadable::TooDeep));
    let long = |n: usize| format!("[{}0]", "0,".repeat(n - 2)).into_bytes();
    assert!(Value::parse(&long(MAX_VALUES)).is_ok());
    assert_eq!(Value::parse(&long(MAX_VALUES + 1)), Err(Unreadable::TooMany));
}

proptest! {
    #[test]
    fn total(bytes in prop_oneof![any::<Vec<u8>>(), "[\\[\\]{}\",:0-9a-b\\\\ ]{0,40}".prop_map(String::into_bytes)]) {
        let mine = Value::parse(&bytes);
        let theirs = serde_json::from_slice::<serde_json::Value>(&bytes);
        prop_assert!(mine.is_err() || theirs.is_ok());
        prop_assert!(theirs.is_err() || mine.is_ok() || matches!(mine, Err(Unreadable::DuplicateKey | Unreadable::Name)));
    }
}
