//! A window as those see it who decode it: percent-encoding or JSON escapes taken off, with the way back to the bytes.

use std::ops::Range;

use memchr::memchr;

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

/// A decoded window. It may hold secrets: what is freed is wiped (docs/decisions/0025-freed-memory.md).
#[derive(Debug)]
pub(super) struct View {
    pub(super) bytes: Vec<u8>,
    way: Way,
    /// The window ends within an escape.
    cut: bool,
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
        let next = |from: usize| memchr(layer.escape(), &bytes[from..]).map_or(bytes.len(), |ahead| from + ahead);
        let mut at = next(0);
        if at == bytes.len() {
            return None;
        }
        let mut view =
            Self { bytes: Vec::with_capacity(bytes.len()), way: Way::default(), cut: parent.is_some_and(|p| p.cut) };
        view.plain(bytes, 0..at, parent);
        let mut decoded = false;
        while at < bytes.len() {
            let taken = match layer.unit(&bytes[at..], last) {
                Unit::Byte(byte, taken) => {
                    view.character(&[byte], at, parent);
                    taken
                }
                Unit::Wide(character, taken) => {
                    view.character(character.encode_utf8(&mut [0; 4]).as_bytes(), at, parent);
                    taken
                }
                Unit::Cut => {
                    view.cut = true;
                    break;
                }
            };
            decoded |= taken > 1;
            let behind = next(at + taken);
            view.plain(bytes, at + taken..behind, parent);
            at = behind;
        }
        view.way.step(view.bytes.len(), origin(parent, at));
        (decoded || view.cut).then_some(view)
    }

    /// Appends what stands for itself.
    fn plain(&mut self, bytes: &[u8], range: Range<usize>, parent: Option<&Self>) {
        let to = self.bytes.len();
        match parent {
            None if range.is_empty() => {}
            None => self.way.step(to, range.start),
            Some(parent) => parent.way.along(&range, |at, raw| self.way.step(to + at - range.start, raw)),
        }
        self.bytes.extend_from_slice(&bytes[range]);
    }

    /// Appends a character whose encoding begins at `at`.
    fn character(&mut self, encoded: &[u8], at: usize, parent: Option<&Self>) {
        let raw = origin(parent, at);
        for byte in encoded {
            self.way.step(self.bytes.len(), raw);
            self.bytes.push(*byte);
        }
    }

    /// Where the encoding of a byte begins in the window.
    pub(super) fn raw(&self, at: usize) -> usize {
        self.way.raw(at)
    }

    /// Whether it ends within an escape.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Where the character begins that goes on across `at`; absent if one begins exactly there.
    pub(super) fn begins_before(&self, at: usize) -> Option<usize> {
        let (start, is_end) = self.way.begun(at)?;
        // Behind the end there is only an escape that was cut, or nothing.
        let within = start < at && (!is_end || self.cut);
        within.then_some(start)
    }
}

/// Where something of a parent's bytes, or of the window's, begins in the window.
fn origin(parent: Option<&View>, at: usize) -> usize {
    parent.map_or(at, |parent| parent.raw(at))
}

/// The way back from decoded bytes: steps, between which both sides go on byte by byte. The last one is the end.
#[derive(Debug, Default)]
struct Way(Vec<Step>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    at: u32,
    raw: u32,
}

impl Way {
    /// The decoded byte `at` comes from `raw`, and those behind it from behind that.
    fn step(&mut self, at: usize, raw: usize) {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.0.push(Step { at: number(at), raw: number(raw) });
    }

    fn raw(&self, at: usize) -> usize {
        let known = self.0.partition_point(|step| index(step.at) <= at);
        let last = known.checked_sub(1).and_then(|known| self.0.get(known));
        last.map_or(0, |step| index(step.raw) + at - index(step.at))
    }

    /// The steps of a range, and what it begins with.
    fn along(&self, range: &Range<usize>, mut each: impl FnMut(usize, usize)) {
        if range.is_empty() {
            return;
        }
        each(range.start, self.raw(range.start));
        let inner = self.0.partition_point(|step| index(step.at) <= range.start);
        for step in self.0.iter().skip(inner).take_while(|step| index(step.at) < range.end) {
            each(index(step.at), index(step.raw));
        }
    }

    /// The last character that begins at or before a place in the window, and whether it is the end.
    fn begun(&self, at: usize) -> Option<(usize, bool)> {
        let known = self.0.partition_point(|step| index(step.raw) <= at).checked_sub(1)?;
        let step = self.0.get(known)?;
        let Some(next) = self.0.get(known + 1) else { return Some((index(step.raw), true)) };
        // As far as it goes on byte by byte.
        let ahead = (at - index(step.raw)).min((index(next.at) - index(step.at)).saturating_sub(1));
        Some((index(step.raw) + ahead, false))
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Layer {
    /// What every escape begins with.
    fn escape(self) -> u8 {
        match self {
            Self::Percent => b'%',
            Self::Json => b'\\',
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, byte by byte.
    fn plainly(bytes: &[u8], starts: &[usize], layer: Layer, last: bool, mut cut: bool) -> (Vec<u8>, Vec<usize>, bool) {
        let (mut decoded, mut from, mut at) = (Vec::new(), Vec::new(), 0);
        while at < bytes.len() {
            let taken = match layer.unit(&bytes[at..], last) {
                Unit::Byte(byte, taken) => {
                    decoded.push(byte);
                    taken
                }
                Unit::Wide(character, taken) => {
                    decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    taken
                }
                Unit::Cut => {
                    cut = true;
                    break;
                }
            };
            from.resize(decoded.len(), starts[at]);
            at += taken;
        }
        from.push(starts[at]);
        (decoded, from, cut)
    }

    fn begins_before(starts: &[usize], cut: bool, at: usize) -> Option<usize> {
        let behind = starts.partition_point(|start| *start <= at);
        let start = *starts.get(behind.checked_sub(1)?)?;
        (start < at && (behind < starts.len() || cut)).then_some(start)
    }

    proptest::proptest! {
        #[test]
        fn the_way_back_is_that_of_every_byte(
            window in "([a-c%0-9A-Fu\\\\\"/]{0,40}|[a-c]{0,30}|%25|%5C|\\\\u0041|\\\\u00e9|\\\\u20ac|%2|\\\\u00){0,8}",
            last in proptest::bool::ANY,
        ) {
            let window = window.as_bytes();
            let itself: Vec<usize> = (0..=window.len()).collect();
            for first in [Layer::Percent, Layer::Json] {
                let (bytes, starts, cut) = plainly(window, &itself, first, last, false);
                let Some(view) = View::of(window, None, first, last) else {
                    assert_eq!((bytes.as_slice(), cut), (window, false));
                    continue;
                };
                check(&view, &bytes, &starts, cut);
                for second in [Layer::Percent, Layer::Json] {
                    let (bytes, starts, cut) = plainly(&view.bytes, &starts, second, last, cut);
                    match View::of(&view.bytes, Some(&view), second, last) {
                        Some(view) => check(&view, &bytes, &starts, cut),
                        None => assert_eq!(bytes, view.bytes),
                    }
                }
            }
        }
    }

    fn check(view: &View, bytes: &[u8], starts: &[usize], cut: bool) {
        assert_eq!((view.bytes.as_slice(), view.cut), (bytes, cut));
        let raws: Vec<usize> = (0..starts.len()).map(|at| view.raw(at)).collect();
        assert_eq!(raws, starts);
        for at in 0..=starts.last().copied().unwrap_or(0) + 7 {
            assert_eq!(view.begins_before(at), begins_before(starts, cut, at), "{at} of {starts:?}");
        }
    }
}
