//! Two ends of TLS in memory, a made clock, and authorities to try them with.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, ServerConfig, ServerConnection, pki_types::ServerName,
};
use stockade_types::Host;

use crate::{Ca, Clock, Connector, Interceptor, Roots};

/// A Sunday in 2026, in seconds.
pub(crate) const START: u64 = 1_790_000_000;
pub(crate) const HOUR: u64 = 3600;

/// A clock that tests set.
#[derive(Clone)]
pub(crate) struct Made(Arc<AtomicU64>);

impl Made {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START)))
    }

    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, SeqCst);
    }

    pub(crate) fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(SeqCst))
    }

    pub(crate) fn clock(&self) -> Clock {
        let seconds = Arc::clone(&self.0);
        Clock::new(move || UNIX_EPOCH + Duration::from_secs(seconds.load(SeqCst)))
    }
}

/// An interceptor, the roots that trust it, and the clock of both.
pub(crate) struct Side {
    pub(crate) interceptor: Interceptor,
    pub(crate) roots: Roots,
    pub(crate) time: Made,
}

impl Side {
    pub(crate) fn new() -> Self {
        let time = Made::new();
        let ca = Ca::new(time.now()).unwrap();
        let roots = Roots::none().with_pem(ca.certificate_pem().as_bytes()).unwrap();
        Self { interceptor: Interceptor::with_clock(ca, time.clock()).unwrap(), roots, time }
    }

    pub(crate) fn server(&self, host: &str, alpn: Option<&[u8]>) -> Arc<ServerConfig> {
        self.interceptor.server_config(&self::host(host), alpn).unwrap()
    }

    pub(crate) fn connector(&self) -> Connector {
        Connector::with_clock(&self.roots, &self.time.clock()).unwrap()
    }
}

pub(crate) fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

pub(crate) fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).unwrap()
}

/// Both ends after a handshake, or how each failed.
pub(crate) struct Ends {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_error: Option<Error>,
    pub(crate) server_error: Option<Error>,
}

impl Ends {
    pub(crate) fn kinds(&self) -> [Option<HandshakeKind>; 2] {
        [self.client.handshake_kind(), self.server.handshake_kind()]
    }

    pub(crate) fn ok(self) -> Self {
        assert_eq!((&self.client_error, &self.server_error), (&None, &None));
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
        self
    }

    /// A message each way: what follows a handshake (tickets, alerts) is then read too.
    pub(crate) fn talk(&mut self) {
        self.client.writer().write_all(b"ping").unwrap();
        self.pump();
        self.server.writer().write_all(b"pong").unwrap();
        self.pump();
        let mut got = [0; 4];
        self.server.reader().read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ping");
        self.client.reader().read_exact(&mut got).unwrap();
        assert_eq!(&got, b"pong");
    }

    fn pump(&mut self) {
        for _ in 0..20 {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            let sent = bytes.len();
            let mut rest = &bytes[..];
            while !rest.is_empty() && self.server_error.is_none() {
                self.server.read_tls(&mut rest).unwrap();
                self.server_error = self.server.process_new_packets().err();
            }
            let mut bytes = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() && self.client_error.is_none() {
                self.client.read_tls(&mut rest).unwrap();
                self.client_error = self.client.process_new_packets().err();
            }
            if sent + bytes.len() == 0 {
                return;
            }
        }
    }
}

/// Shakes hands until nothing moves.
pub(crate) fn shake(client: &Arc<ClientConfig>, to: &str, server: &Arc<ServerConfig>) -> Ends {
    let client = ClientConnection::new(Arc::clone(client), name(to)).unwrap();
    let server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut ends = Ends { client, server, client_error: None, server_error: None };
    ends.pump();
    ends
}
