//! Copies between a channel and a program's descriptors.

use std::{io, os::fd::OwnedFd, sync::Arc};

use bytes::BytesMut;
use russh::{ChannelWriteHalf, server::Msg};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc::UnboundedReceiver,
};

use crate::server::link::Fed;

/// Read at a time from a pipe or terminal.
const CHUNK: usize = 64 * 1024;
/// What a pipe is widened to, where the kernel lets us: fewer changes between the program and us.
const PIPE: usize = 256 * 1024;

type Write = Arc<ChannelWriteHalf<Msg>>;

/// Our end of a program's input.
pub(super) fn sender(fd: OwnedFd) -> io::Result<pipe::Sender> {
    let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE);
    pipe::Sender::from_owned_fd(fd)
}

/// Our end of a program's output.
pub(super) fn receiver(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE);
    pipe::Receiver::from_owned_fd(fd)
}

/// From the client to the program. A program that reads no more does not stop the client from sending: the rest is
/// dropped.
pub(super) async fn feed(pipe: pipe::Sender, mut input: UnboundedReceiver<Fed>) {
    let mut pipe = Some(pipe);
    while let Some(fed) = input.recv().await {
        let Some(open) = pipe.as_mut() else { continue };
        let goes_on = match fed {
            Fed::Bytes(held) => open.write_all(held.bytes()).await.is_ok(),
            Fed::End => false,
        };
        if !goes_on {
            pipe = None;
        }
    }
}

/// From the program to the client; `extended` is 1 for what it writes to its error output. A terminal that no program has
/// open any more reads as an error (`EIO`).
pub(super) async fn show(mut pipe: pipe::Receiver, write: Write, extended: Option<u32>) {
    let mut buffer = BytesMut::new();
    while pipe.readable().await.is_ok() {
        buffer.reserve(CHUNK);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let bytes = buffer.split().freeze();
        let sent = match extended {
            None => write.data_bytes(bytes).await,
            Some(kind) => write.extended_data_bytes(kind, bytes).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Both directions of our end of a terminal. To the runtime they are pipes: descriptors that are read and written.
pub(super) fn terminal(fd: &OwnedFd) -> io::Result<(pipe::Sender, pipe::Receiver)> {
    rustix::io::ioctl_fionbio(fd, true)?;
    let sender = pipe::Sender::from_owned_fd_unchecked(fd.try_clone()?)?;
    Ok((sender, pipe::Receiver::from_owned_fd_unchecked(fd.try_clone()?)?))
}

/// From the client's keyboard to the terminal. The end of input says nothing to a terminal: what a person types to end
/// input is a character.
pub(super) async fn type_in(mut terminal: pipe::Sender, mut input: UnboundedReceiver<Fed>) {
    let mut open = true;
    while let Some(fed) = input.recv().await {
        if let Fed::Bytes(held) = fed {
            // Whatever is still sent to a terminal that is gone is dropped.
            open = open && terminal.write_all(held.bytes()).await.is_ok();
        }
    }
}
