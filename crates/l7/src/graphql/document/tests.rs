use proptest::prelude::*;

use super::{super::lexer::MAX_TOKENS, *};

fn read(text: &str) -> Result<String, Unreadable> {
    named(text, None)
}

fn named(text: &str, name: Option<&str>) -> Result<String, Unreadable> {
    let GraphQl { kind, name, fields } = operation(text, name)?;
    Ok(format!("{kind} {}: {}", name.unwrap_or_default(), fields.join(" ")))
}

#[test]
fn fields_of_the_root_by_their_real_names() {
    for (text, want) in [
        ("{me{name}}", "query : me"),
        ("query { a b a }", "query : a b"),
        ("query Q { harmless: deleteUser(id: 1) { id } }", "query Q: deleteUser"),
        ("mutation M($i: [In!]! = [{a: 1}] @d) @x(y: \"}\") { x: a(i: $i) @skip(if: true) { c } }", "mutation M: a"),
        ("subscription S { s }", "subscription S: s"),
        ("{ ...F b } fragment F on Query { a ...G } fragment G on Query { c }", "query : a c b"),
        ("{ ... on Query { a } ... { b } ... @include(if: $x) { c } }", "query : a b c"),
        ("{ ...F ...F } fragment F on Query { x: a }", "query : a"),
        ("fragment on_ on Query { a } { ...on_ }", "query : a"),
        ("{ a # } mutation { b\n c }", "query : a c"),
        ("{ a(s: \"} mutation { b \\\" # \") c }", "query : a c"),
        ("{ a(s: \"\"\"} \" \"\" \\\"\"\" # \n\"\"\") c }", "query : a c"),
        ("{ a(s: \"\") b }", "query : a b"),
        ("{ a(n: -1.5e+3, m: [0, 1 2], o: {k: {l: ENUM}}, p: null, u: \"\\u0041\\u{1F600}\") }", "query : a"),
        ("{__typename __schema{types{name}}}", "query : __typename __schema"),
        ("query query { query }", "query query: query"),
        ("\t{\r\na,,b\r c}", "query : a b c"),
        ("{ fragment mutation on }", "query : fragment mutation on"),
        ("{ a { ...Unused } }", "query : a"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn the_operation_that_is_meant() {
    let text = "query A { a } mutation B { b }";
    assert_eq!(read(text), Err(Unreadable::OperationName));
    assert_eq!(named(text, Some("")), Err(Unreadable::OperationName));
    assert_eq!(named(text, Some("A")).as_deref(), Ok("query A: a"));
    assert_eq!(named(text, Some("B")).as_deref(), Ok("mutation B: b"));
    assert_eq!(named(text, Some("C")), Err(Unreadable::OperationName));
    assert_eq!(named("query A { a }", Some("B")), Err(Unreadable::OperationName));
    assert_eq!(named("{ a }", Some("A")), Err(Unreadable::OperationName));
    assert_eq!(named("{ a }", Some("")).as_deref(), Ok("query : a"));
    for text in
        ["query A { a } mutation A { b }", "{ a } query A { b }", "{ a } { b }", "fragment F on Query { a }", ""]
    {
        assert_eq!(named(text, Some("A")), Err(Unreadable::OperationName), "{text}");
        assert_eq!(read(text), Err(Unreadable::OperationName), "{text}");
    }
}

#[test]
fn fragments_must_be_known_and_end() {
    for text in [
        "{ ...F }",
        "{ ...F } fragment F on Query { ...F }",
        "{ ...F } fragment F on Query { ...G } fragment G on Query { a ...F }",
        "{ ...F } fragment F on Query { a } fragment F on Query { b }",
    ] {
        assert_eq!(read(text), Err(Unreadable::Fragment), "{text}");
    }
}

#[test]
fn what_is_no_document_is_unreadable() {
    for text in [
        "{",
        "{}",
        "{a",
        "{a}}",
        "query",
        "query Q",
        "query Q() { a }",
        "{a()}",
        "{a:}",
        "{a{}}",
        "{ a: b: c }",
        "{ a(b) }",
        "{ a(b: ) }",
        "{ a(b: $) }",
        "{ a(b: [1) }",
        "{ a(b: 01) }",
        "{ a(b: 1a) }",
        "{ a(b: 1.) }",
        "{ a(b: 1.e1) }",
        "{ a(b: .1) }",
        "{ a(b: 1e) }",
        "{ a(b: 1.2.3) }",
        "{ a(b: \"x) }",
        "{ a(b: \"x\n\") }",
        "{ a(b: \"\\x\") }",
        "{ a(b: \"\\u12\") }",
        "{ a(b: \"\\u{}\") }",
        "{ a(b: \"\"\"x) }",
        "{ .. F }",
        "{ ... }",
        "{ ...on }",
        "fragment on on Query { a } { ...on }",
        "fragment F { a } { ...F }",
        "fragment F($x: Int) on Query { a } { ...F }",
        "type T { a: Int } { a }",
        "extend schema { query: Q } { a }",
        "\"d\" query Q { a }",
        "query Q { a } garbage",
        "{ a! }",
        "{ é }",
        "{ a \u{a0} b }",
        "{ a \0 }",
        "\u{feff}{ a }",
        "{ a ; b }",
    ] {
        assert_eq!(read(text), Err(Unreadable::Syntax), "{text:?}");
    }
}

#[test]
fn comments_and_strings_that_lexers_end_differently_are_refused() {
    for text in [
        "{ a # \r } mutation M { b }",
        "{ a # \u{2028} b }",
        "{ a # \u{2029} b\n }",
        "{ a # \u{85} b\n }",
        "{ a # \u{b} b\n }",
        "{ a # \0\n }",
        "{ a # \u{feff}\n }",
        "{ a(s: \"\"\"x\"\"\"\") }",
        "{ a(s: [\"\"\"x\"\"\"\" \"]) }",
        "{ a(s: \"\"\"\\\\\"\"\") }",
        "{ a(s: \"\"\"\\\\\\\"\"\") b(t: \"\"\"\"\"\") }",
    ] {
        assert_eq!(read(text), Err(Unreadable::Syntax), "{text:?}");
    }
}

#[test]
fn bounds() {
    let nested = |n: usize| format!("{}{}", "{a".repeat(n), "}".repeat(n));
    assert!(read(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(read(&nested(MAX_DEPTH + 1)), Err(Unreadable::TooDeep));
    assert_eq!(read(&"{a".repeat(100_000)), Err(Unreadable::TooDeep));
    assert_eq!(read(&format!("{{a(b:{}", "[".repeat(100_000))), Err(Unreadable::TooDeep));
    assert_eq!(read(&format!("{{a(b:{}", "{a:".repeat(100_000))), Err(Unreadable::TooDeep));
    assert_eq!(read(&format!("query($a:{}", "[".repeat(100_000))), Err(Unreadable::TooDeep));
    assert_eq!(read(&format!("{{{}", "...{".repeat(100_000))), Err(Unreadable::TooDeep));
    let chain = |n: usize| {
        let links: String = (0..n).map(|i| format!("fragment F{i} on Q {{ ...F{} }} ", i + 1)).collect();
        format!("{{ ...F0 }} {links} fragment F{n} on Q {{ a }}")
    };
    assert!(read(&chain(MAX_DEPTH - 1)).is_ok());
    assert_eq!(read(&chain(MAX_DEPTH)), Err(Unreadable::TooDeep));
    let fields = |n: usize| format!("{{{}}}", (0..n).map(|i| format!("f{i} ")).collect::<String>());
    assert!(read(&fields(MAX_FIELDS)).is_ok());
    assert_eq!(read(&fields(MAX_FIELDS + 1)), Err(Unreadable::TooMany));
    let tokens = |n: usize| format!("{{{}}}", "a ".repeat(n - 3));
    assert!(read(&tokens(MAX_TOKENS)).is_ok());
    assert_eq!(read(&tokens(MAX_TOKENS + 1)), Err(Unreadable::TooMany));
    assert!(read(&format!("{{{}}}", "a".repeat(MAX_NAME))).is_ok());
    assert_eq!(read(&format!("{{{}}}", "a".repeat(MAX_NAME + 1))), Err(Unreadable::Name));
    // Doubling at each level would take for ever if a fragment were read more than once.
    let doubling: String = (0..40).map(|i| format!("fragment F{i} on Q {{ ...F{0} ...F{0} }} ", i + 1)).collect();
    assert_eq!(read(&format!("{{ ...F0 }} {doubling} fragment F40 on Q {{ a }}")).as_deref(), Ok("query : a"));
}

proptest! {
    #[test]
    fn total(text in prop_oneof![any::<String>(), "[{}()\\[\\]:$@!.#\"\\\\ a-c\n\r]{0,60}"]) {
        if let Ok(read) = operation(&text, None) {
            prop_assert!(!read.fields.is_empty());
        }
    }
}
