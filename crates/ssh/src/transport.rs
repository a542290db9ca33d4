//! The stream below SSH: it can be cut from outside, and counts what is read before a login.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

/// Whatever carries bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A stream that ends when its [`Cut`] is dropped.
pub(crate) struct Transport {
    inner: Box<dyn Stream>,
    cut: oneshot::Receiver<()>,
    is_cut: bool,
    allowance: Arc<Allowance>,
}

/// Dropped: both directions end with an error.
pub(crate) struct Cut(#[expect(dead_code, reason = "its drop is what it is for")] oneshot::Sender<()>);

/// Bytes that may still be read.
#[derive(Debug)]
pub(crate) struct Allowance(AtomicU64);

impl Allowance {
    /// No bound any more.
    pub(crate) fn lift(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(bytes) };
        self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

impl Transport {
    pub(crate) fn new(inner: Box<dyn Stream>, bytes: u64) -> (Self, Cut, Arc<Allowance>) {
        let (sender, cut) = oneshot::channel();
        let allowance = Arc::new(Allowance(AtomicU64::new(bytes)));
        (Self { inner, cut, is_cut: false, allowance: Arc::clone(&allowance) }, Cut(sender), allowance)
    }

    /// Registers with the cut, too: whoever waits here is woken by it.
    fn alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || Pin::new(&mut self.cut).poll(cx).is_ready();
        if self.is_cut { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        if !self.allowance.take(read as u64) {
            return Poll::Ready(Err(io::Error::other("more bytes than a login needs")));
        }
        polled
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_cut_ends_a_read_that_waits() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let (mut transport, cut, _) = Transport::new(Box::new(ours), 10);
        let reading = tokio::spawn(async move { transport.read_u8().await });
        tokio::task::yield_now().await;
        drop(cut);
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_stranger_s_bytes_are_counted_until_the_login() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut transport, _cut, allowance) = Transport::new(Box::new(ours), 4);
        let mut buffer = [0; 4];
        theirs.write_all(b"12345678").await.unwrap();
        transport.read_exact(&mut buffer).await.unwrap();
        assert!(transport.read_exact(&mut buffer).await.is_err());
        theirs.write_all(b"1234").await.unwrap();
        allowance.lift();
        transport.read_exact(&mut buffer).await.unwrap();
    }
}
