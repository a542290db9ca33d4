//! The ephemeral CA, leaves, TLS configurations of both sides and the trust bundle.
#![forbid(unsafe_code)]
