//! Showing untrusted text.

use std::fmt::{self, Write};

/// Shows text from inside the sandbox without letting it speak to the terminal or forge a log line: control
/// characters, format characters that reorder text and the backslash are written as escapes; length is bounded.
pub struct Escaped<'a>(pub &'a str);

/// Characters shown before the text is cut and `…` added.
const MAX_SHOWN: usize = 512;

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.0.chars().enumerate() {
            match c {
                _ if i == MAX_SHOWN => return f.write_char('…'),
                '\\' => f.write_str("\\\\")?,
                c => visible(f, c)?,
            }
        }
        Ok(())
    }
}

/// Shows text of ours that quotes others: an error with a file's name or a line of it. Line feeds are ours and stay,
/// and so does its length; everything else that [`Escaped`] replaces is replaced.
pub struct EscapedLines<'a>(pub &'a str);

impl fmt::Display for EscapedLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| if c == '\n' { f.write_char(c) } else { visible(f, c) })
    }
}

fn visible(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    if c.is_control() || reorders(c) { write!(f, "\\u{{{:x}}}", u32::from(c)) } else { f.write_char(c) }
}

/// Zero-width and bidirectional formatting characters (Unicode TR 36, section 2.5).
fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_bidi_are_escaped() {
        assert_eq!(Escaped("a\x1b]52;c\x07\n\u{202e}b\\").to_string(), "a\\u{1b}]52;c\\u{7}\\u{a}\\u{202e}b\\\\");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(EscapedLines("a\\\n\x1b[2J\r\n\u{202e}").to_string(), "a\\\n\\u{1b}[2J\\u{d}\n\\u{202e}");
    }

    #[test]
    fn length_is_bounded() {
        assert_eq!(Escaped(&"x".repeat(10_000)).to_string().chars().count(), MAX_SHOWN + 1);
    }
}
