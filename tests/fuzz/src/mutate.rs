//! Changing inputs, the same way every time for the same seed.

/// A small random generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.number() % (n.max(1) as u64)).unwrap_or(0)
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// Longest input made. Bounds of parsers that are larger have tests of their own.
pub const MAX_INPUT: usize = 32 * 1024;

/// Values at which lengths and signs change.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x0a, 0x20, 0x40];

/// Changes `input` in one to eight places. `other` is a second input to take pieces from.
pub fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    let changes = 1 + random.below(8);
    for _ in 0..changes {
        change(random, input, other, words);
    }
    input.truncate(MAX_INPUT);
}

fn change(random: &mut Random, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    let at = random.below(input.len() + 1);
    let len = 1 + random.below(16);
    match random.below(10) {
        0 => with(input, at, |b| *b ^= 1 << (len % 8)),
        1 => {
            let edge = EDGES[random.below(EDGES.len())];
            with(input, at, |b| *b = edge);
        }
        2 => {
            let step = u8::try_from(len).unwrap_or(1);
            with(input, at, |b| *b = b.wrapping_add(step));
        }
        3 => insert(input, at, &[u8::try_from(random.number() & 0xff).unwrap_or(0)]),
        4 => drop(input.drain(at..(at + len).min(input.len()))),
        5 => {
            let piece = input[at..(at + len * 4).min(input.len())].to_vec();
            let to = random.below(input.len() + 1);
            insert(input, to, &piece);
        }
        6 => {
            let from = random.below(other.len() + 1);
            let piece = &other[from..(from + random.below(256)).min(other.len())];
            insert(input, at, piece);
        }
        7 => input.truncate(at),
        _ => {
            let word = random.pick(words).copied().unwrap_or_default();
            insert(input, at, word);
        }
    }
}

fn with(input: &mut [u8], at: usize, f: impl FnOnce(&mut u8)) {
    if let Some(byte) = input.get_mut(at) {
        f(byte);
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_all_stay_in_bounds() {
        let run = || {
            let (mut random, mut input) = (Random::new(7), vec![b'x'; 100]);
            let mut seen = Vec::new();
            for _ in 0..5000 {
                mutate(&mut random, &mut input, b"other input", &[b"word"]);
                assert!(input.len() <= MAX_INPUT);
                seen.push(input.clone());
            }
            seen
        };
        let seen = run();
        assert_eq!(seen, run());
        assert!(seen.iter().collect::<std::collections::BTreeSet<_>>().len() > 1000);
    }
}
