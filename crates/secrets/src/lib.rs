//! Where secrets come from, the placeholders that stand for them, injection and scrubbing.
#![forbid(unsafe_code)]
