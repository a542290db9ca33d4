//! Asking a running sandbox how it is: the HEALTHCHECK of images without curl.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

/// Bytes of an answer that are read.
const ANSWER: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens, or the network is in the way.
    #[error("{0}: {1}; is the sandbox running, and was it started with --health {0}?")]
    Connect(SocketAddr, #[source] io::Error),
    /// It took too long.
    #[error("{0} did not answer within {1:?}")]
    Timeout(SocketAddr, Duration),
    /// What came is no answer.
    #[error("{0} did not answer as Stockade does: {1}")]
    Answer(SocketAddr, String),
    /// No runtime could be made.
    #[error("cannot ask: {0}")]
    Io(#[from] io::Error),
}

/// Gets one page, within a time: status and body.
///
/// # Errors
/// [`AskError`].
pub fn ask(addr: SocketAddr, path: &str, within: Duration) -> Result<(u16, String), AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match tokio::time::timeout(within, get(addr, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::Timeout(addr, within)),
        }
    })
}

async fn get(addr: SocketAddr, path: &str) -> Result<(u16, String), AskError> {
    let bad = |e: &dyn std::fmt::Display| AskError::Answer(addr, e.to_string());
    let stream = tokio::net::TcpStream::connect(addr).await.map_err(|e| AskError::Connect(addr, e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| bad(&e))?;
    let driven = tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, addr.to_string()).body(Empty::<Bytes>::new());
    let response = sender.send_request(request.map_err(|e| bad(&e))?).await.map_err(|e| bad(&e))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER).collect().await.map_err(|e| bad(&e))?;
    driven.abort();
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}
