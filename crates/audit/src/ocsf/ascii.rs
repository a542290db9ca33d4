//! JSON in plain ASCII: a log shown with `cat` must not speak to the terminal, so C1 controls, DEL and text that
//! reorders text are escaped as well, by escaping everything outside printable ASCII.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

struct Ascii;

impl Formatter for Ascii {
    /// Gets the runs that need no escape in JSON.
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().all(|b| b.is_ascii() && b != 0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if c.is_ascii() && c != '\u{7f}' {
                write!(writer, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// Appends the value. Types of this crate serialise without error and a `Vec` takes every write.
pub(super) fn write(value: &impl Serialize, out: &mut Vec<u8>) {
    let written = value.serialize(&mut Serializer::with_formatter(out, Ascii));
    debug_assert!(written.is_ok(), "{written:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_text_survives_and_stays_printable(text in proptest::prelude::any::<String>()) {
            let mut out = Vec::new();
            write(&text, &mut out);
            proptest::prop_assert!(out.iter().all(|b| (0x20..0x7f).contains(b)));
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
