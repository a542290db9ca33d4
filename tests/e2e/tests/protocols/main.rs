//! Real clients of each protocol that the door reads, and real servers: each request allowed or denied by its own rule,
//! seen by the server or not, and written down.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chat;
mod code;
mod graphql;
mod grpc;
mod jsonrpc;
mod mcp;
mod registries;
mod rest;
mod world;
