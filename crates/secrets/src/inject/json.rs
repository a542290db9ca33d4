//! A string in a JSON document, by pointer (RFC 6901), replaced in place: everything else stays byte for byte.

use std::ops::Range;

use serde::de::IgnoredAny;
use zeroize::Zeroizing;

/// Why there is no place to put a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Not JSON.
    Malformed,
    /// A key on the way occurs twice, or in other letters: readers differ in which one counts.
    Twice,
}

/// Where the string's literal stands, quotes included; `None` if the document has no string there.
pub(super) fn find(document: &[u8], pointer: &str) -> Result<Option<Range<usize>>, Unreadable> {
    // What follows walks a document that is known to be well-formed; the depth is bounded here too.
    serde_json::from_slice::<IgnoredAny>(document).map_err(|_| Unreadable::Malformed)?;
    let mut walk = Walk { document, at: 0 };
    let steps: Vec<String> = pointer.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
    let found = walk.value(&steps)?;
    Ok(found.filter(|range| document.get(range.start) == Some(&b'"')))
}

/// The text of a string literal.
pub(super) fn text(literal: &[u8]) -> Option<Zeroizing<String>> {
    serde_json::from_slice::<String>(literal).ok().map(Zeroizing::new)
}

/// Visible ASCII as a string literal.
pub(super) fn literal(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(2 * text.len() + 2));
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
    out
}

/// A position in a well-formed document.
struct Walk<'a> {
    document: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    /// Passes a value; gives the range of the one that the steps lead to.
    fn value(&mut self, steps: &[String]) -> Result<Option<Range<usize>>, Unreadable> {
        self.space();
        let start = self.at;
        let inside = match self.next() {
            Some(b'{') => self.members(steps, b'}')?,
            Some(b'[') => self.members(steps, b']')?,
            Some(b'"') => {
                self.string();
                None
            }
            _ => {
                while self.peek().is_some_and(|b| !matches!(b, b',' | b'}' | b']') && !b.is_ascii_whitespace()) {
                    self.at += 1;
                }
                None
            }
        };
        Ok(if steps.is_empty() { Some(start..self.at) } else { inside })
    }

    /// Passes the members of an object or array, after its opening bracket.
    fn members(&mut self, steps: &[String], end: u8) -> Result<Option<Range<usize>>, Unreadable> {
        let (mut found, mut seen) = (None, false);
        let mut index = 0_usize;
        loop {
            self.space();
            match self.peek() {
                None => return Err(Unreadable::Malformed),
                Some(byte) if byte == end => {
                    self.at += 1;
                    return Ok(found);
                }
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                Some(_) => {}
            }
            let leads = match steps.first() {
                None => {
                    if end == b'}' {
                        self.key();
                    }
                    false
                }
                Some(step) if end == b'}' => {
                    let key = self.key();
                    let alike = key.as_ref().is_some_and(|key| key.eq_ignore_ascii_case(step));
                    let leads = key.is_some_and(|key| *key == *step);
                    if alike && !leads {
                        return Err(Unreadable::Twice);
                    }
                    leads
                }
                Some(step) => *step == index.to_string(),
            };
            index += 1;
            if leads && std::mem::replace(&mut seen, true) {
                return Err(Unreadable::Twice);
            }
            // What does not lead there is passed with a step that nothing matches.
            match leads {
                true => found = self.value(&steps[1..])?,
                false => self.skip()?,
            }
        }
    }

    fn skip(&mut self) -> Result<(), Unreadable> {
        self.value(&[]).map(|_| ())
    }

    /// Passes a key with its colon.
    fn key(&mut self) -> Option<Zeroizing<String>> {
        let start = self.at;
        self.at += 1;
        self.string();
        let key = text(&self.document[start..self.at]);
        self.space();
        self.at += 1;
        key
    }

    /// Passes the rest of a string, after its opening quote.
    fn string(&mut self) {
        while let Some(byte) = self.next() {
            match byte {
                b'"' => return,
                b'\\' => self.at += 1,
                _ => {}
            }
        }
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.document.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(document: &'a str, pointer: &str) -> Result<Option<&'a str>, Unreadable> {
        find(document.as_bytes(), pointer).map(|range| range.map(|range| &document[range]))
    }

    #[test]
    fn strings_are_found_by_pointer() {
        let document = r#" {"a": [1, {"b~/c": "x\"]}y"}, null], "op": 2.5e3, "d" : {"token":"t" , "n":{}}, "":"e"} "#;
        assert_eq!(at(document, "/a/1/b~0~1c"), Ok(Some(r#""x\"]}y""#)));
        assert_eq!(at(document, "/d/token"), Ok(Some(r#""t""#)));
        assert_eq!(at(document, "/"), Ok(Some(r#""e""#)));
        for absent in ["/a", "/op", "/a/0", "/a/2", "/a/7", "/d/none", "/d/token/x", "/d/n", ""] {
            assert_eq!(at(document, absent), Ok(None), "{absent}");
        }
        assert_eq!(at(r#""alone""#, ""), Ok(Some(r#""alone""#)));
        assert_eq!(at(r#"{"\u0074oken":"t"}"#, "/token"), Ok(Some(r#""t""#)));
    }

    #[test]
    fn what_readers_may_take_differently_is_refused() {
        assert_eq!(at(r#"{"t":"a","t":"b"}"#, "/t"), Err(Unreadable::Twice));
        assert_eq!(at(r#"{"t":"a","\u0074":"b"}"#, "/t"), Err(Unreadable::Twice));
        assert_eq!(at(r#"{"d":{"t":"a"},"d":1}"#, "/d/t"), Err(Unreadable::Twice));
        assert_eq!(at(r#"{"x":1,"x":2,"t":"a"}"#, "/t"), Ok(Some(r#""a""#)));
        for malformed in ["", "{", r#"{"t":"a"} x"#, r#"{"t":"a""#, r#"{'t':'a'}"#, &"[".repeat(10_000)] {
            assert_eq!(at(malformed, "/t"), Err(Unreadable::Malformed), "{malformed}");
        }
    }

    #[test]
    fn a_literal_reads_as_the_value() {
        for value in ["plain", "a\"b\\c/d%~"] {
            assert_eq!(text(literal(value).as_bytes()).unwrap().as_str(), value);
        }
    }
}
