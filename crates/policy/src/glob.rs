//! Patterns of request rules, compiled. They match canonical text only: what is judged has been normalised before.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// A pattern of a value: `*` stands for any run of characters, also none. Everything else is itself, case included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    /// What stands between the stars; one part where there is none.
    parts: Box<[Box<str>]>,
}

impl Glob {
    pub(crate) fn new(text: &str) -> Self {
        Self { parts: text.split('*').map(Box::from).collect() }
    }

    /// From a segment of a path pattern, percent-encoded: `%2A` is a star that stands for itself.
    fn encoded(text: &str) -> Self {
        Self { parts: text.split('*').map(decoded).collect() }
    }

    /// Whether the pattern matches the whole text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.parts.split_first() else { return false };
        let Some((last, middle)) = rest.split_last() else { return **first == *text };
        let Some(mut left) = text.strip_prefix(&**first).and_then(|t| t.strip_suffix(&**last)) else { return false };
        // The leftmost place for each part leaves the most room for those after it.
        for part in middle {
            match left.find(&**part).and_then(|at| left.get(at + part.len()..)) {
                Some(after) => left = after,
                None => return false,
            }
        }
        true
    }

    /// A text that it matches.
    pub(crate) fn example(&self) -> String {
        self.parts.join("x")
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join("*"))
    }
}

/// A pattern of a path, compared segment by segment with what the path's segments decode to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathGlob {
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    /// Written out.
    Literal(Box<str>),
    /// `*`: one segment that is not empty.
    One,
    /// `a*b`: within one segment.
    Within(Glob),
    /// `**`: any number of whole segments, also none.
    Many,
}

impl Segment {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(own) => **own == *text,
            Self::One => !text.is_empty(),
            Self::Within(glob) => glob.matches(text),
            Self::Many => true,
        }
    }
}

impl PathGlob {
    /// From text that the grammar of rules accepts: it begins with `/`.
    pub(crate) fn new(text: &str) -> Self {
        let segment = |s: &str| match s {
            "*" => Segment::One,
            "**" => Segment::Many,
            _ if s.contains('*') => Segment::Within(Glob::encoded(s)),
            _ => Segment::Literal(decoded(s)),
        };
        Self { segments: text.strip_prefix('/').unwrap_or(text).split('/').map(segment).collect() }
    }

    /// The segments that every path that matches begins with.
    pub(crate) fn beginning(&self) -> Vec<&str> {
        self.segments
            .iter()
            .map_while(|segment| match segment {
                Segment::Literal(text) => Some(&**text),
                Segment::One | Segment::Within(_) | Segment::Many => None,
            })
            .collect()
    }

    /// A path that it matches, encoded, with `many` in the place of each `**`.
    pub(crate) fn example(&self, many: &str) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => encode(&mut path, text),
                Segment::One => path.push_str("/x"),
                Segment::Within(glob) => encode(&mut path, &glob.example()),
                Segment::Many => path.push_str(many),
            }
        }
        if path.is_empty() { "/".to_owned() } else { path }
    }

    /// Whether the pattern matches all segments of a path. Each `**` remembers one place to try again from, the last:
    /// an earlier one could only give a later one less room. The cost is segments times pattern at most.
    pub(crate) fn matches(&self, path: &[Cow<'_, str>]) -> bool {
        let (mut p, mut s) = (0, 0);
        let mut again: Option<(usize, usize)> = None;
        loop {
            match (self.segments.get(p), path.get(s)) {
                (Some(Segment::Many), _) => {
                    again = Some((p + 1, s));
                    p += 1;
                    continue;
                }
                (Some(own), Some(text)) if own.matches(text) => {
                    p += 1;
                    s += 1;
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let Some((after, from)) = again.filter(|(_, from)| *from < path.len()) else { return false };
            again = Some((after, from + 1));
            (p, s) = (after, from + 1);
        }
    }
}

/// Adds a segment, percent-encoded.
fn encode(path: &mut String, segment: &str) {
    path.push('/');
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
}

fn decoded(text: &str) -> Box<str> {
    // A part of a segment has no slash: it is one segment by itself.
    stockade_l7::http::segments(text).next().unwrap_or_default().into()
}

/// The segments of a path that begins with `/`, decoded; a path that ends with one has an empty last segment.
pub(crate) fn split(path: &str) -> Vec<Cow<'_, str>> {
    stockade_l7::http::segments(path).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(pattern: &str, text: &str) -> bool {
        PathGlob::new(pattern).matches(&split(text))
    }

    #[test]
    fn paths() {
        for (pattern, yes, no) in [
            ("/", &["/"][..], &["/a", "/a/"][..]),
            ("/repos", &["/repos"], &["/repos/", "/reposx", "/Repos", "/"]),
            ("/repos/*", &["/repos/a"], &["/repos", "/repos/", "/repos/a/", "/repos/a/b"]),
            ("/repos/**", &["/repos", "/repos/", "/repos/a", "/repos/a/b/"], &["/reposa", "/"]),
            ("/**", &["/", "/a", "/a/b/"], &[]),
            ("/*/b/**/c", &["/a/b/c", "/a/b/x/y/c", "/a/b/c/c"], &["/a/b", "/b/c", "/a/b/c/d", "/a/b/xc"]),
            ("/**/a/**/a", &["/a/a", "/x/a/a/a", "/a/x/a"], &["/a", "/a/b", "/x/a"]),
            ("/a/*.json", &["/a/x.json", "/a/.json"], &["/a/x.jsonl", "/a/b/x.json", "/a/x"]),
            ("/a/v*.*", &["/a/v1.2", "/a/v."], &["/a/v1", "/a/1.2"]),
            ("/a!/%41*", &["/a%21/Ab", "/a!/A"], &["/a!/a"]),
            ("/a%2Ab", &["/a*b", "/a%2Ab"], &["/ab", "/axb"]),
            ("/a%2Fb/c", &["/a%2Fb/c"], &["/a/b/c"]),
        ] {
            yes.iter().for_each(|t| assert!(path(pattern, t), "{pattern} {t}"));
            no.iter().for_each(|t| assert!(!path(pattern, t), "{pattern} {t}"));
            ["", "/m", "/m/n"].iter().for_each(|many| {
                let example = PathGlob::new(pattern).example(many);
                assert!(path(pattern, &example), "{pattern} {example}");
            });
        }
    }

    #[test]
    fn values() {
        for (pattern, yes, no) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a/b c"], &[]),
            ("application/*", &["application/json", "application/"], &["Application/json", "text/application/x"]),
            ("a*b*c", &["abc", "axxbyyc", "abbc", "abcbc"], &["ab", "acb", "abcx"]),
            ("aa*a", &["aaa", "aaxa"], &["aa", "a"]),
        ] {
            yes.iter().for_each(|t| assert!(Glob::new(pattern).matches(t), "{pattern} {t}"));
            no.iter().for_each(|t| assert!(!Glob::new(pattern).matches(t), "{pattern} {t}"));
        }
    }

    #[test]
    fn a_bomb_of_stars_is_linear() {
        let pattern = PathGlob::new(&"/**/a".repeat(1_000));
        let text = "/a".repeat(2_000) + "/b";
        let begun = std::time::Instant::now();
        assert!(!pattern.matches(&split(&text)));
        assert!(!Glob::new(&"a*".repeat(2_000)).matches(&"a".repeat(1_999)));
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    }

    /// The plain meaning of a pattern, by trying everything.
    fn slow(pattern: &[String], path: &[String]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((first, rest)) if first == "**" => (0..=path.len()).any(|n| slow(rest, &path[n..])),
            Some((first, rest)) => path.split_first().is_some_and(|(s, after)| {
                let one = if first == "*" { !s.is_empty() } else { slow_text(first.as_bytes(), s.as_bytes()) };
                one && slow(rest, after)
            }),
        }
    }

    fn slow_text(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|n| slow_text(rest, &text[n..])),
            Some((b, rest)) => text.first() == Some(b) && slow_text(rest, &text[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn as_plainly_as_it_can_be_said(pattern in "(/(a|b|ab|\\*|\\*\\*|a\\*|\\*b|a\\*b\\*)){1,6}", text in "(/(a|b|ab|aab|)){1,7}", value in "[ab*]{0,6}", of in "[ab]{0,8}") {
            let plain = |t: &str| t[1..].split('/').map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(path(&pattern, &text), slow(&plain(&pattern), &plain(&text)), "{} {}", pattern, text);
            prop_assert_eq!(Glob::new(&value).matches(&of), slow_text(value.as_bytes(), of.as_bytes()), "{} {}", value, of);
        }
    }
}
