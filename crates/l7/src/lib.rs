//! Protocols without I/O: bytes in, facts out.
#![forbid(unsafe_code)]

pub mod sni;
pub mod sniff;

pub use sni::{ClientHello, Hello, Invalid, Progress, ServerName};
pub use sniff::{Kind, sniff};
