//! Protocols without I/O: bytes in, facts out.
#![forbid(unsafe_code)]

mod graphql;
mod grpc;
pub mod http;
mod json;
mod jsonrpc;
mod mcp;
pub mod operation;
pub mod protocol;
pub mod sni;
pub mod sniff;
pub mod sse;
pub mod websocket;

pub use http::{MethodError, Slashes, Target, TargetError};
pub use operation::{GraphQl, GraphQlKind, Mcp, Operation};
pub use protocol::{Head, Protocol, Reading, Unreadable, message, reader};
pub use sni::{ClientHello, Hello, Invalid, Progress, ServerName};
pub use sniff::{Kind, sniff};
