//! Connections that became a WebSocket: bytes both ways, for as long as the permission lasts.

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};

use super::stream::Stream;
use crate::{
    door::Shared,
    grant::Grant,
    linger::{linger, reset},
    record::Open,
    relay::{Flow, Stop},
    upstream::Connection,
};

/// Bytes moved at once.
const STEP: usize = 16 * 1024;

/// The origin's side of a WebSocket.
pub(crate) struct Socket {
    pub(crate) grant: Grant,
    pub(crate) upstream: TokioIo<Upgraded>,
    /// Held: what drives the connection ends with it.
    pub(crate) connection: Connection,
}

/// Carries a WebSocket. `first` came from the client already.
pub(crate) async fn carry(shared: &Shared, client: Stream, first: Bytes, socket: Socket) {
    let Socket { mut grant, upstream, connection } = socket;
    let mut open = Open::new(shared.audit.clone(), grant.facts(), grant.addr());
    let (mut client_in, mut client_out) = split(client);
    let (mut upstream_in, mut upstream_out) = split(upstream);
    let ended = {
        let flow = Flow::new(&open);
        let mut watcher = grant.clone();
        let both = async {
            let up = async {
                if !first.is_empty() {
                    grant.check().map_err(Stop::Refused)?;
                    upstream_out.write_all(&first).await?;
                    flow.sent(first.len());
                }
                pump((&mut client_in, &mut upstream_out), Some(&mut grant), |n| flow.sent(n)).await?;
                flow.half_closed();
                Ok(())
            };
            let down = async {
                pump((&mut upstream_in, &mut client_out), None, |n| flow.received(n)).await?;
                flow.half_closed();
                Ok(())
            };
            tokio::try_join!(up, down).map(drop)
        };
        tokio::select! {
            done = both => done,
            refusal = watcher.lost() => Err(Stop::Refused(refusal)),
            why = flow.watch(&shared.config.timers) => Err(Stop::Timer(why)),
        }
    };
    let client = client_in.unsplit(client_out);
    drop((upstream_in, upstream_out, connection));
    match ended {
        Ok(()) => return linger(client.end(&[]).await).await,
        Err(Stop::Io) => {}
        Err(Stop::Timer(why)) => open.because(stockade_types::Reason::Limit, why),
        Err(Stop::Refused(refusal)) => {
            shared.count_refusal();
            open.because(refusal.row().reason, &refusal.to_string());
            grant.report(shared, &refusal);
        }
    }
    reset(client.into_tcp());
}

/// Moves bytes one way until their end, each with permission.
async fn pump<R, W>(
    (from, to): (&mut ReadHalf<R>, &mut WriteHalf<W>),
    mut grant: Option<&mut Grant>,
    count: impl Fn(usize),
) -> Result<(), Stop>
where
    R: AsyncRead,
    W: AsyncWrite,
{
    let mut buffer = vec![0; STEP];
    loop {
        // A peer of a WebSocket often leaves without ending TLS: the close frame has said all there is to say.
        let n = match from.read(&mut buffer).await {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            other => other?,
        };
        if n == 0 {
            to.shutdown().await.ok();
            return Ok(());
        }
        if let Some(grant) = grant.as_deref_mut() {
            grant.check().map_err(Stop::Refused)?;
        }
        to.write_all(buffer.get(..n).unwrap_or_default()).await?;
        to.flush().await?;
        count(n);
    }
}
