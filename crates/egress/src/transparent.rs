//! Direct TCP connections that the wall led to the door.

use std::sync::Arc;

use stockade_policy::{Door, Protocol};
use stockade_types::Authority;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    door::Shared,
    grant::Grant,
    http::{
        session::{Front, Inside},
        stream::Stream,
    },
    intent, intercept,
    linger::linger,
    opening::{self, Way},
    peer::Client,
    record::{self, Facts},
    rescue::Refusal,
    tunnel::{self, Start, Tunnel},
};

/// Serves one connection; where it wanted to go is its local address.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, client: Client) {
    let Ok(wanted) = stream.local_addr() else { return };
    let asked = intent::of_destination(wanted).map_err(|refusal| (None, refusal)).and_then(|authority| {
        let intent = intent::of(Door::Transparent, authority, &shared.pool).map_err(|(i, r)| (Some(i), r))?;
        Grant::ask(&shared, &client, intent).map_err(|(i, r)| (Some(i), r))
    });
    match asked {
        Ok(grant) => permitted(shared, stream, grant).await,
        Err((intent, refusal)) => {
            let generation = shared.policy().generation();
            let facts = Facts {
                door: Door::Transparent,
                intent: intent.as_ref(),
                permit: None,
                client: Some(&client),
                generation,
            };
            shared.audit.emit(record::refusal(facts, &refusal));
            refused(&shared, stream, refusal).await;
        }
    }
}

/// Listens for a moment, so that the refusal can be said in the client's protocol.
async fn refused(shared: &Shared, client: TcpStream, refusal: Refusal) {
    let mut first = [0; 1];
    let peeked = timeout(shared.config.timers.refusal, client.peek(&mut first)).await;
    let seen = match peeked {
        Ok(Ok(n)) => first.get(..n).unwrap_or_default(),
        _ => &[],
    };
    tunnel::decline(shared, client, seen, refusal).await;
}

async fn permitted(shared: Arc<Shared>, client: TcpStream, mut grant: Grant) {
    let authority = Authority { host: grant.permit().host().clone(), port: grant.permit().port() };
    let mut first = Vec::new();
    if let Err(refusal) = grant.confirm().await {
        return fail(&shared, client, &grant, &first, refusal).await;
    }
    let opaque = grant.permit().terms().protocol == Protocol::Tcp;
    if !opaque {
        match begin(&shared, &client, &mut first, &grant).await {
            Ok(Way::Relay) => {}
            Ok(Way::Http) => {
                let front = Front::Host(Box::new(Inside::plain(grant, authority)));
                return Box::pin(crate::http::serve(shared, Stream::Tcp(client), &first, front)).await;
            }
            Ok(Way::Intercept) => return Box::pin(intercept::serve(shared, client, first, grant, authority)).await,
            Ok(Way::Ended) => {
                drop(record::Open::new(shared.audit.clone(), grant.facts(), None));
                return linger(client).await;
            }
            Err(refusal) => return fail(&shared, client, &grant, &first, refusal).await,
        }
    }
    let upstream = match grant.check() {
        Ok(()) => grant.dial(&shared).await.map_err(Refusal::from),
        Err(refusal) => Err(refusal),
    };
    match upstream {
        Ok(upstream) => {
            let start = if opaque { Start::Looking } else { Start::Judged };
            let tunnel = Tunnel { grant, authority, upstream: Some(upstream) };
            Box::pin(tunnel::carry(&shared, client, first, tunnel, start)).await;
        }
        Err(refusal) => fail(&shared, client, &grant, &first, refusal).await,
    }
}

async fn begin(shared: &Shared, client: &TcpStream, first: &mut Vec<u8>, grant: &Grant) -> Result<Way, Refusal> {
    let (permit, timers) = (grant.permit(), &shared.config.timers);
    let mut watcher = grant.clone();
    tokio::select! {
        way = opening::read(client, first, permit.host(), permit.terms(), timers) => Ok(way?),
        refusal = watcher.lost() => Err(refusal),
    }
}

async fn fail(shared: &Shared, client: TcpStream, grant: &Grant, first: &[u8], refusal: Refusal) {
    grant.report(shared, &refusal);
    tunnel::decline(shared, client, first, refusal).await;
}
