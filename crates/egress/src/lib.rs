//! The door: the one way out of a sandbox.
//!
//! Four front doors (CONNECT, absolute-form requests, direct TCP, DNS) share one pipeline:
//! intent → permit ([`stockade_policy`]) → destination (resolved once, judged, pinned) → relay or forwarding. Nothing
//! is resolved, dialled or answered before the verdict, and a reload asks again for every open connection.
#![forbid(unsafe_code)]

mod alarm;
pub mod config;
mod destination;
mod dns;
mod door;
mod grant;
mod http;
mod in_force;
mod intent;
mod intercept;
mod linger;
mod opening;
pub mod peer;
mod record;
mod relay;
mod rescue;
pub mod resolver;
#[cfg(test)]
mod testing;
mod transparent;
mod tunnel;
mod upstream;

pub use config::{Config, Deps, Tls};
pub use dns::first_answer;
pub use door::{Counts, Door, Listeners, ServeError};
pub use http::{Framing, chunked_length, request_framing};
pub use in_force::InForce;
pub use resolver::{Resolve, ResolveError, System};
