//! The door: listeners, intent, destination, DNS, tunnels and forwarding
#![forbid(unsafe_code)]
