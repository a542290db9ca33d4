//! Protocols without I/O: bytes in, facts out.
#![forbid(unsafe_code)]

pub mod http;
pub mod operation;
pub mod sni;
pub mod sniff;

pub use http::{MethodError, Slashes, Target, TargetError};
pub use operation::{GraphQl, GraphQlKind, Mcp, Operation};
pub use sni::{ClientHello, Hello, Invalid, Progress, ServerName};
pub use sniff::{Kind, sniff};
