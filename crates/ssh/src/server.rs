//! Listening, and one connection from its first byte to its last.

pub(crate) mod link;

use std::{
    borrow::Cow,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, keys::Algorithm, mac, server};
use stockade_audit::Audit;
use stockade_types::Reason;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};

use self::link::Link;
use crate::{
    counts::{Counts, Opened},
    handler::Handler,
    host_key::HostKey,
    keyring::Keyring,
    limits,
    record::{Peer, Recorder},
    spawner::Spawner,
    token::{Fault, Tokens},
    transport::{Stream, Transport},
};

/// What a server is made of.
#[derive(Debug)]
pub struct Config {
    /// Proves the server to clients.
    pub host_key: HostKey,
    /// Keys and authorities that may come in, asked at each login.
    pub keys: Option<Keyring>,
    /// When there, each connection begins with a handshake, which names the one key that may come in on it.
    pub tokens: Option<Tokens>,
    /// Principals that a certificate may name when its authority's line has no `principals`.
    pub names: Vec<String>,
}

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A unix socket; only these users may connect to it.
    Unix(UnixListener, Vec<u32>),
}

/// The server of one sandbox.
pub struct Server(Arc<Shared>);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) protocol: Arc<server::Config>,
    pub(crate) keys: Option<Keyring>,
    pub(crate) names: Vec<String>,
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) recorder: Recorder,
    pub(crate) counts: Arc<Counts>,
    tokens: Option<Tokens>,
    connections: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Config {
    /// Makes the server.
    #[must_use]
    pub fn build(self, spawner: Arc<dyn Spawner>, audit: Audit) -> Server {
        Server(Arc::new(Shared {
            protocol: Arc::new(protocol(self.host_key)),
            keys: self.keys,
            names: self.names,
            spawner,
            recorder: Recorder::new(audit),
            counts: Arc::default(),
            tokens: self.tokens,
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS)),
            strangers: Arc::new(Semaphore::new(limits::STRANGERS)),
        }))
    }
}

/// Few algorithms, all of them good. Neither ChaCha20-Poly1305 nor encrypt-then-MAC is among them: with what is left a
/// prefix cannot be cut off (Terrapin) even where a client does not know strict key exchange. No compression: it leaks
/// what is sent, and unpacks to more than was received.
fn protocol(host_key: HostKey) -> server::Config {
    use russh::keys::EcdsaCurve::{NistP256, NistP384, NistP521};
    let ecdsa = [NistP256, NistP384, NistP521].map(|curve| Algorithm::Ecdsa { curve });
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Stockade")),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: limits::REJECTION_TIME,
        // The first question of every client is which methods there are.
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key.into_inner()],
        limits: russh::Limits::new(limits::REKEY_BYTES, limits::REKEY_BYTES, limits::REKEY_TIME),
        window_size: limits::WINDOW,
        channel_buffer_size: 1,
        event_buffer_size: 16,
        preferred: Preferred {
            kex: Cow::Borrowed(&[
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::EXTENSION_SUPPORT_AS_SERVER,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
            ]),
            key: Cow::Owned([Algorithm::Ed25519].into_iter().chain(ecdsa).collect()),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(&[
                cipher::AES_128_GCM,
                cipher::AES_256_GCM,
                cipher::AES_256_CTR,
                cipher::AES_128_CTR,
            ]),
            mac: Cow::Borrowed(&[mac::HMAC_SHA256, mac::HMAC_SHA512]),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        max_auth_attempts: limits::LOGIN_TRIES,
        inactivity_timeout: Some(limits::STALLED),
        keepalive_interval: Some(limits::KEEPALIVE),
        keepalive_max: 3,
        nodelay: true,
        ..server::Config::default()
    }
}

impl Server {
    /// What happens here, in numbers.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.0.counts)
    }

    /// Serves until `closed` is ready; then every connection ends, and with it what was started over it.
    pub async fn serve(self, listener: Listener, closed: impl Future<Output = ()>) -> io::Result<()> {
        let mut connections = tokio::task::JoinSet::new();
        tokio::pin!(closed);
        loop {
            tokio::select! {
                () = &mut closed => break,
                accepted = accept(&listener) => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer, &listener, &mut connections),
                    // Out of descriptors, most likely: the next one may find some.
                    Err(e) => {
                        tracing::warn!("ssh: accept: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        connections.shutdown().await;
        Ok(())
    }

    fn admit(
        &self,
        stream: Box<dyn Stream>,
        peer: Peer,
        listener: &Listener,
        connections: &mut tokio::task::JoinSet<()>,
    ) {
        let shared = &self.0;
        let refuse = |reason, detail: &str| {
            shared.counts.turned_away(reason);
            shared.recorder.refused("login", peer, "", reason, detail.to_owned());
        };
        if let (Listener::Unix(_, users), Peer::Unix { uid, .. }) = (listener, peer)
            && !users.contains(&uid)
        {
            return refuse(Reason::SshAuth, "this user may not connect to the socket");
        }
        let permits = (shared.connections.clone().try_acquire_owned(), shared.strangers.clone().try_acquire_owned());
        let (Ok(connection), Ok(stranger)) = permits else {
            return refuse(Reason::Limit, "too many connections");
        };
        let opened = Opened::connection(&shared.counts);
        let link = Arc::new(Link::new(Arc::clone(shared), peer, stranger));
        connections.spawn(async move {
            attend(link, stream).await;
            drop((connection, opened));
        });
    }
}

async fn accept(listener: &Listener) -> io::Result<(Box<dyn Stream>, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            // One that is gone already shows it when it is read.
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream), Peer::Tcp(peer)))
        }
        Listener::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            let credentials = stream.peer_cred()?;
            let pid = credentials.pid().unwrap_or_default();
            Ok((Box::new(stream), Peer::Unix { uid: credentials.uid(), pid }))
        }
    }
}

/// One connection, from its first byte to its last.
async fn attend(link: Arc<Link>, mut stream: Box<dyn Stream>) {
    let shared = Arc::clone(&link.shared);
    let deadline = tokio::time::Instant::now() + limits::LOGIN_TIME;
    let mut only = None;
    if let Some(tokens) = &shared.tokens {
        let read = tokio::time::timeout_at(deadline, handshake(stream.as_mut(), tokens)).await;
        match read.unwrap_or(Err(Fault::Malformed)) {
            Ok(fingerprint) => only = Some(fingerprint),
            // The other end learns nothing: it may be anybody.
            Err(fault) => {
                shared.counts.turned_away(fault.reason());
                let detail = format!("handshake refused: {fault}");
                return shared.recorder.refused("login", link.peer, "", fault.reason(), detail);
            }
        }
    }
    let (transport, cut, allowance) = Transport::new(stream, limits::LOGIN_BYTES);
    let handler = Handler::new(Arc::clone(&link), allowance, only);
    let why = tokio::select! {
        started = server::run_stream(Arc::clone(&shared.protocol), transport, handler) => match started {
            Ok(session) => {
                let handle = session.handle();
                tokio::select! {
                    ended = session => ended.err().map_or_else(|| "closed".to_owned(), |e| e.to_string()),
                    why = link.outlived(deadline) => {
                        let bye = handle.disconnect(russh::Disconnect::ByApplication, why.to_owned(), String::new());
                        let _ = tokio::time::timeout(Duration::from_secs(1), bye).await;
                        why.to_owned()
                    }
                }
            }
            Err(e) => e.to_string(),
        },
        () = tokio::time::sleep_until(deadline), if !link.has_login() => "no login in time".to_owned(),
    };
    drop(cut);
    link.record_end(&why);
}

/// Reads the line byte by byte: what follows it is SSH.
async fn handshake(stream: &mut dyn Stream, tokens: &Tokens) -> Result<String, Fault> {
    let mut line = Vec::with_capacity(256);
    while line.len() <= limits::TOKEN_LINE {
        match stream.read_u8().await {
            Ok(b'\n') => return tokens.accept(&line, SystemTime::now()),
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    Err(Fault::Malformed)
}
