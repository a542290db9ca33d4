//! Protocols without I/O: bytes in, facts out
#![forbid(unsafe_code)]
