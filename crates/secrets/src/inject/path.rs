//! A value in a path: where the policy's pattern puts it, and nowhere else.

use stockade_policy::Inject;
use zeroize::Zeroizing;

use super::pairs;
use crate::{
    credentials::{Bound, Credentials},
    refusal::{Place, Refusal},
};

/// The path with values in it. Its other parts must hold no placeholder.
pub(super) fn inject(
    credentials: &Credentials,
    path: &str,
    bound: &[Bound<'_>],
    attached: &[String],
) -> Result<Zeroizing<String>, Refusal> {
    for bound in bound {
        let Inject::Path { before, after } = bound.inject else { continue };
        let Some((front, back)) = path.split_once(&**bound.placeholder) else {
            // Another token where the placeholder belongs.
            if matches(&format!("{before}*{after}"), path) {
                credentials.client(path.as_bytes(), &Place::Path, attached, &[])?;
                return Err(Refusal::Foreign { place: Place::Path });
            }
            continue;
        };
        if !matches(before, front) || !matches(after, back) {
            return Err(Refusal::Surface { credential: bound.name.to_owned(), place: Place::Path });
        }
        for part in [front, back] {
            credentials.client(part.as_bytes(), &Place::Path, attached, &[])?;
        }
        let value = pairs::encode(bound.value.expose());
        let mut out = Zeroizing::new(String::with_capacity(front.len() + value.len() + back.len()));
        [front, &value, back].iter().for_each(|part| out.push_str(part));
        return Ok(out);
    }
    credentials.client(path.as_bytes(), &Place::Path, attached, &[])?;
    Ok(Zeroizing::new(path.to_owned()))
}

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    /// `*`: anything within a segment.
    Within,
    /// `/**`: any number of segments, also none; `**` elsewhere: anything.
    Segments {
        slash: bool,
    },
}

/// Whether a pattern, which may begin or end within a segment, matches a text. Its time is bounded by the product of
/// their lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pieces, text) = (pieces(pattern.as_bytes()), text.as_bytes());
    // `reach[n]`: the pieces so far match the first n bytes.
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    for piece in pieces {
        let mut next = vec![false; text.len() + 1];
        let mut open = false;
        for at in 0..=text.len() {
            next[at] = match piece {
                Piece::Byte(byte) => at > 0 && reach[at - 1] && text[at - 1] == byte,
                Piece::Within => {
                    open = reach[at] || open && at > 0 && text[at - 1] != b'/';
                    open
                }
                Piece::Segments { slash: false } => {
                    open |= reach[at];
                    open
                }
                Piece::Segments { slash: true } => {
                    open |= at > 0 && reach[at - 1] && text[at - 1] == b'/';
                    reach[at] || open
                }
            };
        }
        reach = next;
    }
    reach[text.len()]
}

fn pieces(pattern: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((first, more)) = rest.split_first() {
        rest = match rest {
            [b'/', b'*', b'*', more @ ..] => {
                pieces.push(Piece::Segments { slash: true });
                more
            }
            [b'*', b'*', more @ ..] => {
                pieces.push(Piece::Segments { slash: false });
                more
            }
            [b'*', ..] => {
                pieces.push(Piece::Within);
                more
            }
            _ => {
                pieces.push(Piece::Byte(*first));
                more
            }
        };
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_parts_of_paths() {
        for (pattern, text, want) in [
            ("/bot", "/bot", true),
            ("/bot", "/bot/", false),
            ("/**", "", true),
            ("/**", "/a/b", true),
            ("/**", "x/a", false),
            ("/*/x", "/a/x", true),
            ("/*/x", "/a/b/x", false),
            ("/**/x", "/x", true),
            ("/**/x", "/a/b/x", true),
            ("/a*/b", "/abc/b", true),
            ("/bot*/**", "/bot123/send", true),
            ("/bot*/**", "/other", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }
}
