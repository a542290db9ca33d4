//! Connections whose TLS ends here: the command sees a certificate of the sandbox's authority, the origin sees the door.

use std::sync::Arc;

use rustls::ServerConfig;
use stockade_tls::{ClientFault, MintError};
use stockade_types::{Authority, Host, Reason};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::{
    door::Shared,
    grant::Grant,
    http::{
        self,
        session::{Front, Inside},
        stream::{Replayed, Stream},
    },
    linger::linger,
    opening::OpeningError,
    record,
    rescue::Refusal,
    upstream::{Connection, Place, Scheme, Speech},
};

/// Decrypts a permitted connection whose ClientHello was judged, and serves its requests. `first` holds the
/// ClientHello.
pub(crate) async fn serve(shared: Arc<Shared>, client: TcpStream, first: Vec<u8>, grant: Grant, authority: Authority) {
    let mut watcher = grant.clone();
    let shaken = tokio::select! {
        shaken = shake(&shared, client, first, &grant) => shaken,
        refusal = watcher.lost() => Err(refusal),
    };
    let Shaken { stream, speech, offered, failed } = match shaken {
        Ok(shaken) => shaken,
        Err(refusal) => {
            shared.count_refusal();
            return grant.report(&shared, &refusal);
        }
    };
    let front = Front::Host(Box::new(Inside { grant, authority, scheme: Scheme::Https, offered, failed }));
    match speech {
        Speech::Http1 => http::serve(shared, stream, &[], front).await,
        Speech::Http2 => http::serve_http2(shared, stream, front).await,
    }
}

/// What the command is shown for a host that was allowed. Says once a minute when there are too many of them.
pub(crate) fn certificate(shared: &Shared, host: &Host, alpn: Option<&[u8]>) -> Result<Arc<ServerConfig>, Refusal> {
    let made = shared.tls.interceptor.server_config(host, alpn);
    if matches!(made, Err(MintError::TooMany)) && shared.unminted.count() == 1 {
        let detail = "more new hosts were asked for than certificates are made: data may be leaving in names";
        shared.audit.emit(record::finding(Reason::CertMintRate, detail, 1));
    }
    Ok(made?)
}

/// A client that shook hands.
struct Shaken {
    stream: Stream,
    speech: Speech,
    /// What origins are offered for it.
    offered: &'static [Speech],
    /// Why the origin was not reached.
    failed: Option<Refusal>,
}

/// The handshake with the client, in the protocol that the origin chose. An origin that cannot be reached is told to
/// the client in the answer to its first request: TLS has no words for it.
async fn shake(shared: &Shared, client: TcpStream, first: Vec<u8>, grant: &Grant) -> Result<Shaken, Refusal> {
    let limit = shared.config.timers.handshake;
    let hello = LazyConfigAcceptor::new(Default::default(), Replayed::new(first, client));
    let start = match timeout(limit, hello).await {
        Ok(Ok(start)) => start,
        Ok(Err(e)) => return Err(ClientFault::of(&e).into()),
        Err(_) => return Err(OpeningError::Slow.into()),
    };
    let offered = offered(&start);
    let mut grant = grant.clone();
    let (speech, failed) = match meet(shared, &mut grant, speeches(&offered)).await {
        // A client that speaks only HTTP/2 is translated for.
        Ok(speech) if offered.contains(&speech) || offered.is_empty() => (speech, None),
        met => (offered.first().copied().unwrap_or(Speech::Http1), met.err()),
    };
    grant.check()?;
    let alpn = (!offered.is_empty()).then(|| speech.alpn());
    let config = certificate(shared, grant.permit().host(), alpn)?;
    match timeout(limit, start.into_stream(config).into_fallible()).await {
        Ok(Ok(stream)) => {
            Ok(Shaken { stream: Stream::Tls(Box::new(stream)), speech, offered: speeches(&offered), failed })
        }
        Ok(Err((e, stream))) => {
            let fault = ClientFault::of(&e);
            linger(stream.into_tcp()).await;
            Err(fault.into())
        }
        Err(_) => Err(OpeningError::Slow.into()),
    }
}

/// What the client can speak, best first. Empty: it does not say, and speaks HTTP/1.
fn offered(start: &StartHandshake<Replayed>) -> Vec<Speech> {
    let hello = start.client_hello();
    hello.alpn().map_or_else(Vec::new, |names| names.filter_map(Speech::of_alpn).collect())
}

/// What an origin is offered for a client. One that speaks HTTP/2 can be given the answers of either.
fn speeches(offered: &[Speech]) -> &'static [Speech] {
    match offered {
        [Speech::Http1, .., Speech::Http2] => &[Speech::Http1, Speech::Http2],
        _ if offered.contains(&Speech::Http2) => &[Speech::Http2, Speech::Http1],
        _ => &[Speech::Http1],
    }
}

/// What the origin speaks: known from a connection at rest, or learned by making one.
async fn meet(shared: &Shared, grant: &mut Grant, offered: &'static [Speech]) -> Result<Speech, Refusal> {
    let place = Place::new(grant.permit(), Scheme::Https);
    if let Some(speech) = shared.origins.speech(grant, &place, offered) {
        return Ok(speech);
    }
    let connection = Connection::open(shared, grant, Scheme::Https, offered).await?;
    let speech = connection.speech();
    shared.origins.keep(connection);
    Ok(speech)
}
