//! A SEQPACKET socket that carries messages and descriptors between supervisor, init and launcher.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Seek, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Payloads up to this size travel in the packet; larger ones in a sealed-size memfd beside it, because a packet is
/// bounded by the socket's send buffer and an argument list may be megabytes.
const INLINE: usize = 32 * 1024;
/// Largest payload accepted (Linux bounds argv plus environment at 6 MiB: `_STK_LIM / 4 * 3`).
const MAX: usize = 16 * 1024 * 1024;
/// Most descriptors in one message.
pub const MAX_FDS: usize = 128;

const TAG_INLINE: u8 = 0;
const TAG_MEMFD: u8 = 1;

/// One end of a channel. Closed by drop; the other end then reads end-of-file.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A received message.
#[derive(Debug)]
pub struct Message {
    /// The payload.
    pub bytes: Vec<u8>,
    /// Descriptors sent with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

impl Channel {
    /// Makes a connected pair, close-on-exec.
    ///
    /// # Errors
    /// What `socketpair(2)` says.
    pub fn pair() -> io::Result<(Self, Self)> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends one message; blocks while the other end's queue is full unless the descriptor is non-blocking.
    ///
    /// # Errors
    /// `EPIPE` when the other end is gone; `EINVAL` for too many descriptors or too large a payload.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.len() >= MAX_FDS || bytes.len() > MAX {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        if bytes.len() <= INLINE {
            return self.packet(TAG_INLINE, bytes, fds);
        }
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::memfd_create("stockade-message", flags)?);
        file.write_all(bytes)?;
        let mut all = vec![file.as_fd()];
        all.extend_from_slice(fds);
        self.packet(TAG_MEMFD, &[], &all)
    }

    fn packet(&self, tag: u8, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let parts = [IoSlice::new(std::slice::from_ref(&tag)), IoSlice::new(bytes)];
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Receives one message; `None` when the other end is gone.
    ///
    /// # Errors
    /// What `recvmsg(2)` says; `EBADMSG` for a packet that is not one of ours.
    pub fn recv(&self) -> io::Result<Option<Message>> {
        let mut bytes = vec![0; INLINE + 1];
        let mut space = nix::cmsg_space!([libc::c_int; MAX_FDS]);
        let (len, fds) = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(m) => {
                    let mut fds = Vec::new();
                    for c in m.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(raw) = c {
                            // SAFETY: the kernel installed these descriptors for this message alone.
                            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                        }
                    }
                    break (m.bytes, fds);
                }
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        };
        bytes.truncate(len);
        decode(bytes, fds)
    }

    /// Makes the descriptor non-blocking, for use under an event loop.
    ///
    /// # Errors
    /// What `fcntl(2)` says.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&self.0, true).map_err(Into::into)
    }
}

fn decode(mut bytes: Vec<u8>, mut fds: Vec<OwnedFd>) -> io::Result<Option<Message>> {
    let bad = || io::Error::from_raw_os_error(libc::EBADMSG);
    match bytes.first() {
        None => Ok(None),
        Some(&TAG_INLINE) => {
            bytes.remove(0);
            Ok(Some(Message { bytes, fds }))
        }
        Some(&TAG_MEMFD) if !fds.is_empty() => {
            let mut file = File::from(fds.remove(0));
            if file.metadata()?.len() > MAX as u64 {
                return Err(bad());
            }
            file.rewind()?;
            let mut bytes = Vec::new();
            file.take(MAX as u64).read_to_end(&mut bytes)?;
            Ok(Some(Message { bytes, fds }))
        }
        Some(_) => Err(bad()),
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(c: Channel) -> Self {
        c.0
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_large_and_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let (r, w) = rustix::pipe::pipe().unwrap();
        for len in [0, 1, INLINE, INLINE + 1, 3_000_000] {
            let sent: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            a.send(&sent, &[r.as_fd(), w.as_fd()]).unwrap();
            let got = b.recv().unwrap().unwrap();
            assert_eq!((got.bytes == sent, got.fds.len()), (true, 2), "{len}");
        }
        drop(a);
        assert!(b.recv().unwrap().is_none());
    }
}
