//! Where secrets come from, the placeholders that stand for them, injection and scrubbing.
#![forbid(unsafe_code)]

pub mod backend;
pub mod credentials;
mod find;
pub mod inject;
pub mod placeholder;
pub mod refusal;
pub mod scan;
pub mod scrub;
pub mod sigv4;
#[cfg(test)]
mod test;
pub mod verified;
mod wiped;

pub use backend::{Backend, Backends, Context, FetchError, STORES};
pub use credentials::{Credentials, source_files, source_variables};
pub use find::Form;
pub use inject::{Body, Collect, Messages, Passage, Response, Stream};
pub use placeholder::{Hint, PlaceholderError, Placeholders, Resolved};
pub use refusal::{Invalid, Place, Refusal};
pub use scan::{Found, Gate, Markers, Scan, Scanner};
pub use scrub::{Pace, Scrubber, Uninspectable, Values};
pub use verified::VerifiedTls;
