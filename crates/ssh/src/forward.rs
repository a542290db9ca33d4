//! Connections to the sandbox's own loopback (`ssh -L`, `-W`, `-J`), made inside its network namespace.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::BytesMut;
use russh::{
    Channel, ChannelOpenFailure, ChannelWriteHalf,
    server::{ChannelOpenHandle, Msg},
};
use stockade_types::{Escaped, Reason};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc::UnboundedReceiver, oneshot},
};

use crate::{
    counts::Opened,
    limits,
    server::link::{Ends, Fed, Inbox, Link},
};

/// Read at a time.
const CHUNK: usize = 32 * 1024;

/// Where a client may go: a loopback address written plainly, or `localhost`, which is not looked up. Everything that
/// merely resolves or maps to loopback is refused, for what it means is not the same everywhere.
pub(crate) fn target(host: &str, port: u32) -> Result<SocketAddr, String> {
    let refuse = || format!("only the sandbox's own loopback is forwarded to, not {}:{port}", Escaped(host));
    let port = u16::try_from(port).ok().filter(|p| *p != 0).ok_or_else(refuse)?;
    let ip = if host.eq_ignore_ascii_case("localhost") {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        host.parse::<IpAddr>().ok().filter(IpAddr::is_loopback).ok_or_else(refuse)?
    };
    Ok(SocketAddr::new(ip, port))
}

/// Connects, answers the client, and carries bytes until both sides are done.
pub(crate) fn start(link: Arc<Link>, user: String, to: SocketAddr, channel: Channel<Msg>, reply: ChannelOpenHandle) {
    let id = channel.id();
    let (_, write) = channel.split();
    let (inbox, ends) = Inbox::new(None);
    // Registered before it is open, so that it counts while it is being made.
    link.open(id, inbox);
    tokio::spawn(async move {
        match tokio::time::timeout(limits::DIAL, link.shared.spawner.connect(to)).await {
            Ok(Ok(stream)) => {
                let _open = Opened::forward(&link.shared.counts);
                link.shared.recorder.forwarded(link.peer, &user, to);
                reply.accept().await;
                relay(stream, write, ends).await;
            }
            failed => {
                let why = failed.map_or_else(
                    |_| "no answer".to_owned(),
                    |e| match e {
                        Ok(_) => String::new(),
                        Err(e) => e.to_string(),
                    },
                );
                link.shared.counts.forward_failed();
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
                let detail = format!("{to}: {why}");
                link.shared.recorder.failed("forward", link.peer, &user, Reason::UpstreamConnect, detail);
            }
        }
        link.close(id);
    });
}

async fn relay(stream: TcpStream, write: ChannelWriteHalf<Msg>, ends: Ends) {
    let (from, to) = stream.into_split();
    let (ended, end) = oneshot::channel();
    let both = async {
        outward(from, &write).await;
        // The client may go on sending after the program has nothing more to say.
        let _ = end.await;
    };
    tokio::select! {
        _ = ends.gone => return,
        () = inward(to, ends.input, ended) => {}
        () = both => {}
    }
    let _ = write.close().await;
}

/// From the client to the program, until the channel closes. `ended` says that the program gets nothing more.
async fn inward(to: OwnedWriteHalf, mut input: UnboundedReceiver<Fed>, ended: oneshot::Sender<()>) {
    let mut open = Some((to, ended));
    while let Some(fed) = input.recv().await {
        let Some((to, _)) = open.as_mut() else { continue };
        let goes_on = match fed {
            Fed::Bytes(held) => to.write_all(held.bytes()).await.is_ok(),
            // Its drop ends the program's input.
            Fed::End => false,
        };
        if !goes_on {
            open = None;
        }
    }
}

/// From the program to the client.
async fn outward(mut from: OwnedReadHalf, write: &ChannelWriteHalf<Msg>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                if write.data_bytes(buffer.split().freeze()).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = write.eof().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_alone_is_a_target() {
        for (host, want) in [("localhost", "127.0.0.1:80"), ("127.9.9.9", "127.9.9.9:80"), ("::1", "[::1]:80")] {
            assert_eq!(target(host, 80).unwrap().to_string(), want);
        }
        for host in [
            "",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "169.254.169.254",
            "192.0.2.1",
            "10.0.0.1",
            "localhost.",
            "localhost.localdomain",
            "ip6-localhost",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "127.0.0.1 ",
            "[::1]",
            "::1%lo",
            "fe80::1",
            "64:ff9b::7f00:1",
        ] {
            assert!(target(host, 80).is_err(), "{host}");
        }
        for port in [0, 65_536, 70_000, u32::MAX] {
            assert!(target("127.0.0.1", port).is_err(), "{port}");
        }
    }
}
