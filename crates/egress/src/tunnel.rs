//! A permitted connection from its first byte to its last.

use std::sync::Arc;

use stockade_policy::Protocol;
use stockade_types::{Authority, Reason};
use tokio::net::TcpStream;

use crate::{
    door::Shared,
    grant::Grant,
    http::{
        session::{Front, Inside},
        stream::Stream,
    },
    intercept,
    linger::{linger, reset},
    opening::{self, OpeningError, Way},
    record::Open,
    relay::{self, Flow, Stop},
    rescue::Refusal,
    upstream::Connection,
};

/// Both ends of a connection that may go ahead.
pub(crate) struct Tunnel {
    pub(crate) grant: Grant,
    /// The host as the client named it.
    pub(crate) authority: Authority,
    /// Dialled already, unless TLS ends here.
    pub(crate) upstream: Option<TcpStream>,
}

/// Carries a tunnel. `first` came from the client already.
pub(crate) async fn run(shared: Arc<Shared>, client: TcpStream, first: Vec<u8>, tunnel: Tunnel) {
    match tunnel.grant.permit().terms().protocol {
        Protocol::Tcp => Box::pin(carry(&shared, client, first, tunnel, Start::Looking)).await,
        _ => judge(shared, client, first, tunnel).await,
    }
}

/// Waits for the client's first bytes, then relays or serves what they are.
async fn judge(shared: Arc<Shared>, client: TcpStream, mut first: Vec<u8>, mut tunnel: Tunnel) {
    let way = tokio::select! {
        way = begin(&shared, &client, &mut first, &tunnel) => way,
        refusal = async { tunnel.grant.clone().lost().await } => Err(refusal),
    };
    match way.and_then(|way| tunnel.grant.check().map(|()| way)) {
        Ok(Way::Relay) => Box::pin(carry(&shared, client, first, tunnel, Start::Judged)).await,
        Ok(Way::Http) => {
            let Tunnel { grant, authority, upstream } = tunnel;
            if let (Some(stream), Ok(slot)) = (upstream, shared.origin_slot())
                && let Ok(connection) = Connection::plain(stream, &grant, slot).await
            {
                shared.origins.keep(connection);
            }
            let front = Front::Host(Box::new(Inside::plain(grant, authority)));
            // The server is the caller's caller: without the box the two would contain each other.
            Box::pin(crate::http::serve(shared, Stream::Tcp(client), &first, front)).await;
        }
        Ok(Way::Intercept) => {
            let Tunnel { grant, authority, .. } = tunnel;
            Box::pin(intercept::serve(shared, client, first, grant, authority)).await;
        }
        Ok(Way::Ended) => {
            // Allowed, and nothing came of it: recorded like every other tunnel.
            drop(Open::new(shared.audit.clone(), tunnel.grant.facts(), tunnel.grant.addr()));
            linger(client).await;
        }
        Err(refusal) => {
            tunnel.grant.report(&shared, &refusal);
            decline(&shared, client, &first, refusal).await;
        }
    }
}

async fn begin(shared: &Shared, client: &TcpStream, first: &mut Vec<u8>, tunnel: &Tunnel) -> Result<Way, Refusal> {
    let (permit, timers) = (tunnel.grant.permit(), &shared.config.timers);
    Ok(opening::read(client, first, permit.host(), permit.terms(), timers).await?)
}

/// Refuses a connection in the words of its own protocol: an alert to TLS, a response to HTTP, else a reset.
pub(crate) async fn decline(shared: &Shared, client: TcpStream, first: &[u8], refusal: Refusal) {
    shared.count_refusal();
    let error = match &refusal {
        Refusal::Opening(error) => Some(*error),
        _ => None,
    };
    match first.first() {
        Some(0x16) => {
            client.try_write(&opening::alert(error)).ok();
            linger(client).await;
        }
        Some(b) if b.is_ascii_alphabetic() && error != Some(OpeningError::UnknownProtocol) => {
            crate::http::refuse(client, &refusal, shared.policy().generation()).await;
        }
        _ => reset(client),
    }
}

/// Whether the beginning was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// It was.
    Judged,
    /// It is looked at on its way up; the server may speak first.
    Looking,
}

/// Relays until both directions end, a timer runs out or the permission is lost.
pub(crate) async fn carry(shared: &Shared, client: TcpStream, first: Vec<u8>, tunnel: Tunnel, start: Start) {
    let Tunnel { mut grant, upstream, .. } = tunnel;
    let Some(upstream) = upstream else { return reset(client) };
    let mut open = Open::new(shared.audit.clone(), grant.facts(), grant.addr());
    let ended = {
        let flow = Flow::new(&open);
        let mut watcher = grant.clone();
        let both = async {
            let up = up(shared, &client, &upstream, (first, start), &mut grant, &flow);
            tokio::try_join!(up, relay::down(&client, &upstream, &flow, &shared.pipes))
        };
        tokio::select! {
            done = both => done.map(drop),
            refusal = watcher.lost() => Err(Stop::Refused(refusal)),
            why = flow.watch(&shared.config.timers) => Err(Stop::Timer(why)),
        }
    };
    match ended {
        Ok(()) => {}
        Err(Stop::Io) => {
            reset(client);
            reset(upstream);
        }
        Err(Stop::Timer(why)) => open.because(Reason::Limit, why),
        Err(Stop::Refused(refusal)) => {
            shared.count_refusal();
            open.because(refusal.row().reason, &refusal.to_string());
            grant.report(shared, &refusal);
            reset(client);
            reset(upstream);
        }
    }
}

/// The client's direction: what it began with, looked at where it was not yet, then the rest.
async fn up(
    shared: &Shared,
    client: &TcpStream,
    upstream: &TcpStream,
    (mut first, start): (Vec<u8>, Start),
    grant: &mut Grant,
    flow: &Flow<'_>,
) -> Result<(), Stop> {
    if start == Start::Looking {
        let (permit, timers) = (grant.permit(), &shared.config.timers);
        let looked = Box::pin(opening::read(client, &mut first, permit.host(), permit.terms(), timers));
        looked.await.map_err(|e| Stop::Refused(e.into()))?;
    }
    grant.check().map_err(Stop::Refused)?;
    relay::write_all(upstream, &first).await?;
    flow.sent(first.len());
    drop(first);
    relay::up(client, upstream, grant, flow, &shared.pipes).await
}
