//! Finds texts in a stream, whatever encoding they wear: as they are, in base64 at any alignment, and either of those
//! percent-encoded or JSON-escaped, up to two layers deep, in any mixture of encoded and plain characters.
//!
//! The stream is looked at through a window: what is pending from before, and what came. Needles are searched for one by
//! one with `memmem`, which borrows them: an automaton would keep copies of secrets that nothing overwrites.

mod needle;
mod view;

use std::ops::Range;

use memchr::{memchr_iter, memmem};

pub use self::needle::Form;
pub(crate) use self::needle::{Needle, inside_base64, is_base64, standard};
use self::view::View;

/// What a look at a window gave. Positions count from its beginning.
#[derive(Debug)]
pub(crate) struct Look {
    /// Where needles lie, in no particular order. One needle may be reported more than once for one place.
    pub(crate) hits: Vec<Hit>,
    /// What lies before is settled: no needle that is not reported begins there.
    pub(crate) keep: usize,
    /// What lies before begins no needle of which `strong` or more bytes are there.
    pub(crate) hold: usize,
    /// Where needles begin whose following bytes have not come in some view: what is known of a hit there may change.
    pub(crate) unsure: Vec<usize>,
}

/// A needle found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The index of the needle.
    pub(crate) needle: usize,
    /// What of the window it covers.
    pub(crate) range: Range<usize>,
    /// What follows it, decoded as it is.
    pub(crate) behind: Vec<u8>,
}

/// How to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// How many bytes of a needle at the end of the window are enough to hold them back.
    pub(crate) strong: usize,
    /// How many bytes behind a needle must be there before it counts, unless the stream ends.
    pub(crate) behind: usize,
    /// Nothing comes after this window.
    pub(crate) last: bool,
}

/// Looks for needles in a window.
pub(crate) fn look(needles: &[Needle], window: &[u8], manner: Manner) -> Look {
    let mut look = Look { hits: Vec::new(), keep: window.len(), hold: window.len(), unsure: Vec::new() };
    let views = view::all(window, manner.last);
    for (index, needle) in needles.iter().enumerate() {
        let sought = Sought { index, needle, finder: memmem::Finder::new(needle.bytes()) };
        look.through(&sought, window, None, manner);
        for view in &views {
            look.through(&sought, &view.bytes, Some(view), manner);
        }
    }
    if manner.last {
        (look.keep, look.hold) = (window.len(), window.len());
        return look;
    }
    // The next window must begin where every view begins a character, or it would be decoded differently.
    while let Some(start) = views.iter().filter_map(|view| view.begins_before(look.keep)).min() {
        look.keep = start;
    }
    look
}

/// A needle made ready, for all views.
struct Sought<'a> {
    index: usize,
    needle: &'a Needle,
    finder: memmem::Finder<'a>,
}

impl Look {
    fn through(&mut self, sought: &Sought<'_>, bytes: &[u8], view: Option<&View>, manner: Manner) {
        let Sought { index, needle, finder } = sought;
        let raw = |at: usize| view.map_or(at, |view| view.raw(at));
        let cut = view.is_some_and(View::is_cut);
        let mut border = border(bytes, needle.bytes());
        for at in finder.find_iter(bytes) {
            let end = at + needle.bytes().len();
            let behind = &bytes[end..];
            if behind.len() < manner.behind && !manner.last && needle.may_go_on(behind) {
                border = border.max(bytes.len() - at);
                self.unsure.push(raw(at));
                continue;
            }
            let behind = behind[..behind.len().min(manner.behind)].to_vec();
            self.hits.push(Hit { needle: *index, range: raw(at)..raw(end), behind });
        }
        // A character whose encoding has begun may be the next of a needle, or its first.
        let begun = border + usize::from(cut);
        if begun > 0 {
            let start = raw(bytes.len() - border);
            self.keep = self.keep.min(start);
            if begun >= manner.strong {
                self.hold = self.hold.min(start);
            }
        }
    }
}

/// How many of the last bytes are the first of `needle`, at most all but one of them.
fn border(bytes: &[u8], needle: &[u8]) -> usize {
    let Some(first) = needle.first() else { return 0 };
    let tail = &bytes[bytes.len() - bytes.len().min(needle.len() - 1)..];
    let start = memchr_iter(*first, tail).find(|at| needle.starts_with(&tail[*at..]));
    start.map_or(0, |at| tail.len() - at)
}
