//! Ending connections so that the other end learns what it was told.

use std::time::Duration;

use rustix::net::{Shutdown, shutdown, sockopt::set_socket_linger};
use tokio::{net::TcpStream, time::timeout};

/// How long the other end may take to read a last answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most that is read and thrown away meanwhile.
const MOST: usize = 1 << 20;

/// Sends FIN and reads on for a moment: closing with unread bytes would send RST, and RST makes the other end lose
/// the answer that it has not read yet.
pub(crate) async fn linger(stream: TcpStream) {
    if shutdown(&stream, Shutdown::Write).is_err() {
        return;
    }
    let drain = async {
        let mut read = 0;
        while read < MOST && stream.readable().await.is_ok() {
            let mut waste = [0; 4096];
            match stream.try_read(&mut waste) {
                Ok(0) => return,
                Ok(n) => read += n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    timeout(PATIENCE, drain).await.ok();
}

/// Sends RST: for refusals that have no words, and for connections whose other end was reset.
pub(crate) fn reset(stream: TcpStream) {
    // Where the option fails the close is an ordinary one.
    set_socket_linger(&stream, Some(Duration::ZERO)).ok();
    drop(stream);
}
