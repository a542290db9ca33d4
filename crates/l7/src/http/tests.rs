use proptest::prelude::*;

use super::*;

fn wire(text: &str) -> Result<String, TargetError> {
    Target::parse(text, Slashes::Plain).map(|t| t.to_string())
}

#[test]
fn one_path_behind_every_spelling() {
    for (text, want) in [
        ("/", "/"),
        ("/public", "/public"),
        ("/public/", "/public/"),
        ("/public/../secret", "/secret"),
        ("/public/%2e%2e/secret", "/secret"),
        ("/public/.%2E/secret", "/secret"),
        ("//secret", "/secret"),
        ("///a////b//", "/a/b/"),
        ("/./secret", "/secret"),
        ("/a/./b/", "/a/b/"),
        ("/a/b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/../../etc", "/etc"),
        ("/..", "/"),
        ("/%2e", "/"),
        ("/a//../b", "/b"),
        ("/...", "/..."),
        ("/.git/config", "/.git/config"),
        ("/%41%7e%2d", "/A~-"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/café", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/{a}|^`\"<>[]", "/%7Ba%7D%7C%5E%60%22%3C%3E%5B%5D"),
        ("/a!$&'()*+,=:@", "/a!$&'()*+,=:@"),
        ("/a%21%2B%3b%3D", "/a%21%2B%3B%3D"),
        ("/100%25", "/100%25"),
        ("/100%25zz%252", "/100%25zz%252"),
        ("/a%2520b", "/a%2520b"),
    ] {
        assert_eq!(wire(text).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn what_servers_read_differently_is_refused() {
    use TargetError as E;
    for (text, want) in [
        ("", E::NotOrigin),
        ("*", E::NotOrigin),
        ("secret", E::NotOrigin),
        ("?a=b", E::NotOrigin),
        ("http://a.test/", E::NotOrigin),
        ("%2fsecret", E::NotOrigin),
        ("/public/..;/secret", E::PathParameter),
        ("/public/..%3b/secret", E::PathParameter),
        ("/public/%2e%2e;x/secret", E::PathParameter),
        ("/a;x/../b", E::PathParameter),
        ("/;/b", E::PathParameter),
        ("/public\\..\\secret", E::Backslash),
        ("/public/..%5csecret", E::Backslash),
        ("/%5C", E::Backslash),
        ("/%252e%252e/secret", E::DoubleEncoded),
        ("/%25%32%65", E::DoubleEncoded),
        ("/%25252e", E::DoubleEncoded),
        ("/a%252fb", E::DoubleEncoded),
        ("/a%255cb", E::DoubleEncoded),
        ("/a%2500", E::DoubleEncoded),
        ("/a%00b", E::Control),
        ("/a%0d%0aX:", E::Control),
        ("/a%7f", E::Control),
        ("/a%c2%85", E::Control),
        ("/a b", E::Control),
        ("/a\tb", E::Control),
        ("/a\r\n", E::Control),
        ("/a?b c", E::Control),
        ("/a#b", E::Fragment),
        ("/a?b#c", E::Fragment),
        ("/public%2f..%2fsecret", E::EncodedSlash),
        ("/a%2Fb", E::EncodedSlash),
        ("/%c0%ae%c0%ae/secret", E::NotUtf8),
        ("/%e0%80%af", E::NotUtf8),
        ("/%ed%a0%80", E::NotUtf8),
        ("/%ff", E::NotUtf8),
        ("/%", E::BadPercent),
        ("/%4", E::BadPercent),
        ("/%zz", E::BadPercent),
        ("/%u002e", E::BadPercent),
        ("/%-1", E::BadPercent),
        ("/%é", E::BadPercent),
    ] {
        assert_eq!(wire(text), Err(want), "{text}");
    }
}

#[test]
fn an_encoded_slash_stays_in_its_segment_where_the_endpoint_says_so() {
    let parse = |text| Target::parse(text, Slashes::Encoded);
    let target = parse("/@scope%2fname/-/x").unwrap();
    assert_eq!(target.to_string(), "/@scope%2Fname/-/x");
    assert_eq!(target.segments().collect::<Vec<_>>(), ["@scope/name", "-", "x"]);
    assert_eq!(parse("/o/dir%2F").unwrap().path(), "/o/dir%2F");
    for text in ["/public%2f..%2fsecret", "/a%2f%2e", "/..%2fb", "/a%2f..%3b%2fb"] {
        assert_eq!(parse(text), Err(TargetError::EncodedSlash), "{text}");
    }
    assert_eq!(parse("/a%5cb"), Err(TargetError::Backslash));
    assert_eq!(parse("/a%252fb"), Err(TargetError::DoubleEncoded));
}

#[test]
fn rules_see_decoded_segments() {
    let segments = |text| {
        let target = Target::parse(text, Slashes::Plain).unwrap();
        target.segments().map(Cow::into_owned).collect::<Vec<_>>()
    };
    assert_eq!(segments("/"), [""]);
    assert_eq!(segments("/a"), ["a"]);
    assert_eq!(segments("/a/"), ["a", ""]);
    assert_eq!(segments("/a%21/caf%C3%A9/100%25"), ["a!", "café", "100%"]);
    assert_eq!(segments("/a!/café"), ["a!", "café"]);
}

#[test]
fn queries() {
    let parse = |text: &str| Target::parse(&format!("/?{text}"), Slashes::Plain);
    let pairs = |text: &str| {
        let target = parse(text).unwrap();
        target.pairs().iter().map(|(k, v)| format!("{k}→{v}")).collect::<Vec<_>>().join(" ")
    };
    for (text, want, sent) in [
        ("a=1&b=2", "a→1 b→2", "/?a=1&b=2"),
        ("a=1&a=2", "a→1 a→2", "/?a=1&a=2"),
        ("a=x+y", "a→x y", "/?a=x%20y"),
        ("a=x%20y", "a→x y", "/?a=x%20y"),
        ("a=x%2by", "a→x+y", "/?a=x%2By"),
        ("a", "a→", "/?a"),
        ("a=", "a→", "/?a="),
        ("=b", "→b", "/?=b"),
        ("a=b=c", "a→b=c", "/?a=b=c"),
        ("a%3db=c", "a=b→c", "/?a%3Db=c"),
        ("&&a=1&&b&", "a→1 b→", "/?a=1&b"),
        ("u=http://x/?y", "u→http://x/?y", "/?u=http://x/?y"),
        ("u=http%3a%2f%2fx%252f", "u→http://x%2f", "/?u=http%3A%2F%2Fx%252f"),
        ("q=%7Ba%0A%7D", "q→{a\n}", "/?q=%7Ba%0A%7D"),
        ("a=1%3b", "a→1;", "/?a=1%3B"),
        ("a%26b=c", "a&b→c", "/?a%26b=c"),
        ("a[]=\\|é", "a[]→\\|é", "/?a%5B%5D=%5C%7C%C3%A9"),
        ("", "", "/"),
        ("&", "", "/"),
    ] {
        assert_eq!(pairs(text), want, "{text}");
        assert_eq!(parse(text).unwrap().to_string(), sent, "{text}");
    }
    for (text, want) in [
        ("a=1;b=2", TargetError::Semicolon),
        ("a=%", TargetError::BadPercent),
        ("a=%4", TargetError::BadPercent),
        ("%gg=1", TargetError::BadPercent),
        ("a=%00", TargetError::Control),
        ("a=%1b", TargetError::Control),
        ("a=%ff", TargetError::NotUtf8),
    ] {
        assert_eq!(parse(text), Err(want), "{text}");
    }
}

#[test]
fn bounds() {
    let path = |n| format!("/{}", "a".repeat(n - 1));
    assert!(wire(&path(MAX_TARGET)).is_ok());
    assert_eq!(wire(&path(MAX_TARGET + 1)), Err(TargetError::TooLong));
    assert!(wire(&"/a".repeat(MAX_SEGMENTS)).is_ok());
    assert_eq!(wire(&"/a".repeat(MAX_SEGMENTS + 1)), Err(TargetError::TooManySegments));
    assert_eq!(wire(&"/..".repeat(MAX_SEGMENTS + 1)), Err(TargetError::TooManySegments));
    assert!(wire(&format!("/?{}", "a&".repeat(MAX_PARAMETERS))).is_ok());
    assert_eq!(wire(&format!("/?{}", "a&".repeat(MAX_PARAMETERS + 1))), Err(TargetError::TooManyParameters));
}

#[test]
fn methods() {
    for text in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "VERSION-CONTROL"] {
        assert_eq!(method(text), Ok(text));
    }
    for (text, want) in [
        ("post", MethodError::Spelling),
        ("PoSt", MethodError::Spelling),
        ("POST\t", MethodError::NotToken),
        ("POST ", MethodError::NotToken),
        ("", MethodError::NotToken),
        ("G\u{0415}T", MethodError::NotToken),
        ("FROB", MethodError::Unknown),
        ("GETX", MethodError::Unknown),
        ("PRI", MethodError::Unknown),
        ("CONNECT", MethodError::Connect),
        ("connect", MethodError::Connect),
        ("TRACE", MethodError::Trace),
        ("trace", MethodError::Trace),
    ] {
        assert_eq!(method(text), Err(want), "{text:?}");
    }
}

#[test]
fn asterisk() {
    assert_eq!(Target::asterisk().to_string(), "*");
    assert_eq!(Target::asterisk().pairs(), []);
}

fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("."),
        Just(".."),
        Just("%2e"),
        Just("%2E"),
        Just("%2f"),
        Just("%25"),
        Just("a"),
        Just("%61"),
        Just("%c3%a9"),
        Just("é"),
        Just("?"),
        Just("&"),
        Just("="),
        Just("+"),
        Just("%2B"),
        Just(";"),
        Just("%3b"),
        Just("%5C"),
        Just("%"),
        Just("@"),
        Just("{"),
        Just("%00"),
        Just("%0a"),
        Just("!"),
        Just("%21"),
        Just("2e"),
    ];
    prop_oneof![
        prop::collection::vec(piece, 0..24).prop_map(|p| format!("/{}", p.concat())),
        "/[ -~]{0,40}",
        any::<String>().prop_map(|s| format!("/{s}")),
    ]
}

proptest! {
    #[test]
    fn the_canonical_form_is_its_own_and_holds_nothing_to_resolve(text in hostile(), encoded in any::<bool>()) {
        let slashes = if encoded { Slashes::Encoded } else { Slashes::Plain };
        if let Ok(target) = Target::parse(&text, slashes) {
            let wire = target.to_string();
            prop_assert_eq!(Target::parse(&wire, slashes), Ok(target.clone()));
            prop_assert!(wire.bytes().all(|b| b.is_ascii_graphic() && !b";\\#\"<>{}|^`[]".contains(&b)), "{}", wire);
            prop_assert!(target.path().starts_with('/') && !target.path().contains("//"));
            let all: Vec<_> = target.segments().collect();
            for (i, segment) in all.iter().enumerate() {
                prop_assert!(!matches!(&**segment, "." | ".."));
                prop_assert!(!segment.is_empty() || i + 1 == all.len());
                prop_assert!(encoded || !segment.contains('/'));
            }
        }
    }

    #[test]
    fn two_spellings_of_one_octet_are_one_path(text in "[a-zA-Z0-9._~-]{1,12}") {
        let plain = wire(&format!("/{text}"));
        let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
        prop_assert_eq!(wire(&format!("/{encoded}")), plain);
    }

    #[test]
    fn any_text_as_method_is_judged(text in any::<String>()) {
        if let Ok(known) = method(&text) {
            prop_assert_eq!(known, text);
        }
    }
}
