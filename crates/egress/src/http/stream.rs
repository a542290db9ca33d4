//! What a client speaks through: TCP, or TLS that ends here.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

/// How long a last word may take to leave.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A connection whose beginning was read already, and is read again.
#[derive(Debug)]
pub(crate) struct Replayed {
    first: Bytes,
    stream: TcpStream,
}

impl Replayed {
    pub(crate) fn new(first: Vec<u8>, stream: TcpStream) -> Self {
        Self { first: first.into(), stream }
    }

    pub(crate) fn into_tcp(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Replayed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        }
        let n = self.first.len().min(out.remaining());
        out.put_slice(self.first.get(..n).unwrap_or_default());
        self.first.advance(n);
        if self.first.is_empty() {
            // The buffer is held as long as the connection otherwise.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// As it is.
    Tcp(TcpStream),
    /// Decrypted. Boxed: the state of a TLS connection is a kilobyte, and most of them rest.
    Tls(Box<TlsStream<Replayed>>),
}

impl Stream {
    /// Says a last word and ends TLS, each as far as the client reads; what remains is TCP.
    pub(crate) async fn end(mut self, word: &[u8]) -> TcpStream {
        let ending = async {
            if !word.is_empty() {
                self.write_all(word).await?;
            }
            match &mut self {
                Self::Tcp(_) => Ok(()),
                Self::Tls(stream) => stream.shutdown().await,
            }
        };
        // A client that does not read does not learn why.
        timeout(LAST_WORD, ending).await.ok();
        self.into_tcp()
    }

    /// The TCP connection, and with TLS an end of everything that was not read from it.
    pub(crate) fn into_tcp(self) -> TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.into_inner().0.into_tcp(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, out),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
