//! What is parsed, validated and then refused, because nothing acts on it yet. A key is never accepted and ignored:
//! whoever builds a feature takes its row out of this list.

/// A part of the policy language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// `ask` of an endpoint, and `unmatched: ask`.
    Ask,
    /// `inference`.
    Inference,
}

/// What is not there.
const NOT_YET: &[Feature] = &[Feature::Ask, Feature::Inference];

impl Feature {
    pub(crate) fn available(self) -> bool {
        !NOT_YET.contains(&self)
    }
}
