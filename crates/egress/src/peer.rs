//! Who is at the door.

use std::net::SocketAddr;

/// The client end of an accepted connection. Its address proves nothing and decides nothing; it is what an owner
/// would be looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Source address inside the sandbox.
    pub(crate) source: SocketAddr,
    /// The listener's address; on the transparent door, the destination the command wanted.
    pub(crate) local: SocketAddr,
}

impl Peer {
    /// Reads both ends.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub(crate) fn of(stream: &tokio::net::TcpStream) -> std::io::Result<Self> {
        Ok(Self { source: stream.peer_addr()?, local: stream.local_addr()? })
    }
}
