//! Happy eyeballs (RFC 8305): addresses in turn, families alternating, each with a small head start.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, task::JoinSet, time::sleep};

/// IPv6 first, then alternating families; the resolver's order within a family.
pub(super) fn interleave(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (mut six, mut four): (Vec<_>, Vec<_>) = addrs.into_iter().partition(SocketAddr::is_ipv6);
    six.reverse();
    four.reverse();
    let mut out = Vec::with_capacity(six.len() + four.len());
    while !six.is_empty() || !four.is_empty() {
        out.extend(six.pop());
        out.extend(four.pop());
    }
    out
}

/// The first connection to come up; the others are dropped. With one address there is nothing to race.
pub(super) async fn race(addrs: &[SocketAddr], stagger: Duration) -> io::Result<TcpStream> {
    if let [only] = addrs {
        return TcpStream::connect(only).await;
    }
    let mut tries: JoinSet<io::Result<TcpStream>> = JoinSet::new();
    let mut waiting = addrs.iter().copied();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        // A failed try starts the next one at once; a slow one after the head start.
        let more = waiting.next().map(|addr| tries.spawn(TcpStream::connect(addr))).is_some();
        tokio::select! {
            done = tries.join_next() => match done {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(e))) => last = e,
                Some(Err(e)) => last = io::Error::other(e),
                None => return Err(last),
            },
            () = sleep(stagger), if more => {}
        }
    }
}
