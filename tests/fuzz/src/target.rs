//! The targets.

mod address;
mod audit;
mod dns;
mod head;
mod http;
mod ipc;
mod placeholder;
mod policy;
mod protocol;
mod ssh;
mod stream;
mod tls;

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

/// A parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and the folder of its corpus.
    pub name: &'static str,
    /// Runs it; panics when a property does not hold. Equal signatures: nothing new happened.
    pub run: fn(&[u8]) -> u64,
    /// Words that its input is made of.
    pub words: &'static [&'static [u8]],
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "authority", run: address::authority, words: address::WORDS },
    Target { name: "cidr", run: address::cidr, words: address::WORDS },
    Target { name: "escape", run: audit::escape, words: audit::WORDS },
    Target { name: "audit_log", run: audit::log, words: audit::WORDS },
    Target { name: "client_hello", run: tls::client_hello, words: tls::WORDS },
    Target { name: "sniff", run: tls::sniff, words: tls::WORDS },
    Target { name: "nflog", run: ipc::nflog, words: ipc::WORDS },
    Target { name: "channel", run: ipc::channel, words: ipc::WORDS },
    Target { name: "policy", run: policy::yaml, words: policy::WORDS },
    Target { name: "head", run: head::head, words: head::WORDS },
    Target { name: "chunked", run: head::chunked, words: head::WORDS },
    Target { name: "request_target", run: http::target, words: http::WORDS },
    Target { name: "grpc", run: protocol::grpc, words: http::WORDS },
    Target { name: "graphql", run: protocol::graphql, words: protocol::GRAPHQL },
    Target { name: "jsonrpc", run: protocol::jsonrpc, words: protocol::JSON },
    Target { name: "placeholder", run: placeholder::scan, words: placeholder::WORDS },
    Target { name: "scrub", run: placeholder::scrub, words: placeholder::WORDS },
    Target { name: "mcp", run: protocol::mcp, words: protocol::JSON },
    Target { name: "websocket", run: stream::websocket, words: stream::WORDS },
    Target { name: "sse", run: stream::sse, words: stream::WORDS },
    Target { name: "dns_query", run: dns::query, words: dns::WORDS },
    Target { name: "ssh_keys", run: ssh::keys, words: ssh::WORDS },
    Target { name: "ssh_handshake", run: ssh::handshake, words: ssh::WORDS },
    Target { name: "sftp", run: ssh::packets, words: ssh::WORDS },
];

/// A signature of an outcome.
fn signature(outcome: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    outcome.hash(&mut hasher);
    hasher.finish()
}
