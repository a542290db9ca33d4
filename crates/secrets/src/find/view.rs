//! A window as those see it who decode it: percent-encoding or JSON escapes taken off, with the way back to the bytes.

use memchr::memchr;
use zeroize::Zeroize;

/// How many layers are taken off.
const LAYERS: usize = 2;

/// What may be taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Percent,
    Json,
}

/// What stands at a place.
enum Unit {
    /// One byte, which took so many.
    Byte(u8, usize),
    /// A character of two or three bytes, which took so many.
    Wide(char, usize),
    /// The beginning of an escape: more must come.
    Cut,
}

/// A decoded window.
#[derive(Debug)]
pub(super) struct View {
    pub(super) bytes: Vec<u8>,
    /// Where each byte's encoding begins in the window; one more entry for the end.
    starts: Vec<u32>,
    /// The window ends within an escape.
    cut: bool,
}

impl Drop for View {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// Every decoding that differs from the window itself.
pub(super) fn all(window: &[u8], last: bool) -> Vec<View> {
    let mut views: Vec<View> = Vec::new();
    let mut from = 0;
    for layer in 0..LAYERS {
        let to = views.len();
        let parents = if layer == 0 { 0..1 } else { from..to };
        for parent in parents {
            for kind in [Layer::Percent, Layer::Json] {
                let made = match layer {
                    0 => View::of(window, None, kind, last),
                    _ => View::of(&views[parent].bytes, Some(&views[parent]), kind, last),
                };
                views.extend(made);
            }
        }
        from = to;
    }
    views
}

impl View {
    /// Absent where there is nothing to decode.
    fn of(bytes: &[u8], parent: Option<&Self>, layer: Layer, last: bool) -> Option<Self> {
        let first = memchr(if layer == Layer::Percent { b'%' } else { b'\\' }, bytes)?;
        let raw = |at: usize| parent.map_or_else(|| u32::try_from(at).unwrap_or(u32::MAX), |p| p.starts[at]);
        let mut view = Self {
            bytes: Vec::with_capacity(bytes.len()),
            starts: Vec::with_capacity(bytes.len() + 1),
            cut: parent.is_some_and(|p| p.cut),
        };
        view.bytes.extend_from_slice(&bytes[..first]);
        view.starts.extend((0..first).map(raw));
        let (mut at, mut decoded) = (first, false);
        while at < bytes.len() {
            let taken = match layer.unit(&bytes[at..], last) {
                Unit::Byte(byte, taken) => {
                    view.bytes.push(byte);
                    view.starts.push(raw(at));
                    taken
                }
                Unit::Wide(character, taken) => {
                    let mut buffer = [0; 4];
                    let encoded = character.encode_utf8(&mut buffer).as_bytes();
                    view.bytes.extend_from_slice(encoded);
                    view.starts.extend(encoded.iter().map(|_| raw(at)));
                    taken
                }
                Unit::Cut => {
                    view.cut = true;
                    break;
                }
            };
            decoded |= taken > 1;
            at += taken;
        }
        view.starts.push(raw(at));
        (decoded || view.cut).then_some(view)
    }

    /// Where the encoding of a byte begins in the window.
    pub(super) fn raw(&self, at: usize) -> usize {
        self.starts.get(at).map_or(0, |start| usize::try_from(*start).unwrap_or(usize::MAX))
    }

    /// Whether it ends within an escape.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Where the character begins that goes on across `at`; absent if one begins exactly there.
    pub(super) fn begins_before(&self, at: usize) -> Option<usize> {
        let behind = self.starts.partition_point(|start| usize::try_from(*start).is_ok_and(|start| start <= at));
        let start = self.raw(behind.checked_sub(1)?);
        // Behind the last start there is only an escape that was cut, or nothing.
        let within = start < at && (behind < self.starts.len() || self.cut);
        within.then_some(start)
    }
}

impl Layer {
    fn unit(self, bytes: &[u8], last: bool) -> Unit {
        let (unit, needs) = match self {
            Self::Percent => percent(bytes),
            Self::Json => json(bytes),
        };
        if bytes.len() < needs && !last { Unit::Cut } else { unit }
    }
}

/// The unit at the beginning, and how many bytes must be there to be sure.
fn percent(bytes: &[u8]) -> (Unit, usize) {
    let plain = Unit::Byte(bytes[0], 1);
    match bytes {
        [b'%'] => (plain, 2),
        [b'%', a] if hex(*a).is_some() => (plain, 3),
        [b'%', a, b, ..] => match (hex(*a), hex(*b)) {
            (Some(a), Some(b)) => (Unit::Byte(a << 4 | b, 3), 3),
            _ => (plain, 1),
        },
        _ => (plain, 1),
    }
}

fn json(bytes: &[u8]) -> (Unit, usize) {
    let plain = Unit::Byte(bytes[0], 1);
    match bytes {
        [b'\\'] => (plain, 2),
        [b'\\', b'u', digits @ ..] => {
            let digits = &digits[..digits.len().min(4)];
            let Some(code) = digits.iter().try_fold(0, |code, d| Some(code << 4 | u32::from(hex(*d)?))) else {
                return (plain, 1);
            };
            match (digits.len(), u8::try_from(code), char::from_u32(code)) {
                (0..4, ..) => (plain, 6),
                (_, Ok(byte), _) if byte.is_ascii() => (Unit::Byte(byte, 6), 6),
                (_, _, Some(character)) => (Unit::Wide(character, 6), 6),
                // Half of a pair: no text that is searched for holds one.
                (_, _, None) => (Unit::Byte(0, 6), 6),
            }
        }
        [b'\\', escaped, ..] => match escaped {
            b'"' | b'\\' | b'/' => (Unit::Byte(*escaped, 2), 2),
            b'b' | b'f' | b'n' | b'r' | b't' => (Unit::Byte(b' ', 2), 2),
            _ => (plain, 1),
        },
        _ => (plain, 1),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
