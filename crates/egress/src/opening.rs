//! What a permitted connection begins with, and whether its endpoint allows that.

use stockade_l7::{
    sni::{ClientHello, Hello, Progress, ServerName},
    sniff::{Kind, sniff},
};
use stockade_policy::{Protocol, Terms, TlsMode};
use stockade_types::{Host, Reason};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::config::Timers;

/// Bytes of the beginning that are ever held: a ClientHello in small records, and one read more.
const MOST: usize = 48 * 1024;
/// Bytes read at once.
const STEP: usize = 4 * 1024;

/// What the beginning of a connection is not allowed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpeningError {
    /// Another host's name in the ClientHello.
    #[error("the TLS server name differs from the host that the connection was permitted for")]
    SniMismatch,
    /// No comparable name.
    #[error("the TLS server name is absent, malformed or hidden")]
    SniInvalid,
    /// HTTP/2 without TLS.
    #[error("HTTP/2 without TLS is not served")]
    H2c,
    /// Neither TLS nor HTTP.
    #[error("neither TLS nor HTTP: only an endpoint with `protocol: tcp` carries other protocols")]
    UnknownProtocol,
    /// It never became clear.
    #[error("the first bytes did not become a request or a ClientHello in time")]
    Slow,
}

impl OpeningError {
    /// The stable code.
    #[must_use]
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::SniMismatch => Reason::SniMismatch,
            Self::SniInvalid => Reason::SniInvalid,
            Self::H2c => Reason::H2c,
            Self::UnknownProtocol | Self::Slow => Reason::UnknownProtocol,
        }
    }
}

/// What to do with a connection that begins well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Relay it as it is.
    Relay,
    /// Serve its requests.
    Http,
    /// End its TLS here and serve its requests.
    Intercept,
    /// It ended without a byte.
    Ended,
}

/// Reads the beginning of a connection until its kind is known. `first` receives what was read.
pub(crate) async fn read(
    stream: &TcpStream,
    first: &mut Vec<u8>,
    host: &Host,
    terms: &Terms,
    timers: &Timers,
) -> Result<Way, OpeningError> {
    let mut judge = Judge { host, terms, hello: None, fed: 0 };
    let mut deadline = Instant::now() + timers.idle;
    let mut started = false;
    loop {
        if let Some(way) = judge.look(first)? {
            return Ok(way);
        }
        if !first.is_empty() && !started {
            // The connection may rest before it begins; once begun it has little time.
            (started, deadline) = (true, Instant::now() + timers.opening);
        }
        if first.len() >= MOST {
            return Err(OpeningError::UnknownProtocol);
        }
        match timeout_at(deadline, more(stream, first)).await {
            Ok(Ok(0) | Err(_)) if first.is_empty() => return Ok(Way::Ended),
            Ok(Ok(0) | Err(_)) => return judge.at_end(),
            Ok(Ok(_)) => {}
            Err(_) if first.is_empty() => return Ok(Way::Ended),
            Err(_) => return Err(OpeningError::Slow),
        }
    }
}

async fn more(stream: &TcpStream, first: &mut Vec<u8>) -> std::io::Result<usize> {
    loop {
        stream.readable().await?;
        // On the stack, so that a connection at rest holds no buffer.
        let mut buffer = [0; STEP];
        match stream.try_read(&mut buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(n) => {
                first.extend_from_slice(buffer.get(..n).unwrap_or_default());
                return Ok(n);
            }
            Err(e) => return Err(e),
        }
    }
}

/// Looks at a growing beginning.
struct Judge<'a> {
    host: &'a Host,
    terms: &'a Terms,
    hello: Option<ClientHello>,
    fed: usize,
}

impl Judge<'_> {
    /// `None` while more bytes are needed.
    fn look(&mut self, first: &[u8]) -> Result<Option<Way>, OpeningError> {
        let opaque = self.terms.protocol == Protocol::Tcp;
        match sniff(first) {
            Kind::Tls => self.tls(first),
            // An opaque connection is only looked at for TLS; the rest is the endpoint's own business.
            Kind::NeedMore if opaque && first.first().is_some_and(|b| *b != 0x16) => Ok(Some(Way::Relay)),
            Kind::NeedMore => Ok(None),
            _ if opaque => Ok(Some(Way::Relay)),
            Kind::Http1 => Ok(Some(Way::Http)),
            Kind::H2cPreface => Err(OpeningError::H2c),
            Kind::Other => Err(OpeningError::UnknownProtocol),
        }
    }

    fn tls(&mut self, first: &[u8]) -> Result<Option<Way>, OpeningError> {
        let fresh = first.get(self.fed..).unwrap_or_default();
        self.fed = first.len();
        match self.hello.get_or_insert_with(ClientHello::new).feed(fresh) {
            Progress::NeedMore => Ok(None),
            Progress::Done(hello) if self.terms.protocol == Protocol::Tcp => opaque_name(&hello, self.host),
            Progress::Done(hello) if self.terms.tls == TlsMode::Inspect => inspected_name(&hello, self.host),
            Progress::Done(hello) => name(&hello, self.host),
            Progress::NotTls => Err(OpeningError::UnknownProtocol),
            Progress::Invalid(stockade_l7::sni::Invalid::NotOneName) => Err(OpeningError::SniInvalid),
            Progress::Invalid(_) => Err(OpeningError::UnknownProtocol),
        }
    }

    /// The stream ended before its kind was clear.
    fn at_end(&self) -> Result<Way, OpeningError> {
        if self.terms.protocol == Protocol::Tcp && self.hello.is_none() {
            return Ok(Way::Relay);
        }
        Err(OpeningError::UnknownProtocol)
    }
}

/// The name must be there, readable, and the host's.
fn name(hello: &Hello, host: &Host) -> Result<Option<Way>, OpeningError> {
    match (&hello.server_name, host) {
        _ if hello.ech => Err(OpeningError::SniInvalid),
        (Some(ServerName::Malformed(_)), _) | (None, Host::Name(_)) => Err(OpeningError::SniInvalid),
        (Some(ServerName::Name(sent)), Host::Name(own)) if sent == own => Ok(Some(Way::Relay)),
        (Some(ServerName::Name(_)), _) => Err(OpeningError::SniMismatch),
        // RFC 6066 allows no address as a server name.
        (None, Host::Addr(_)) => Ok(Some(Way::Relay)),
    }
}

/// Where TLS ends here, the certificate is for the permitted host whatever was asked for. A name that is there must be
/// the host's; one hidden behind it by ECH is not looked for, as nobody here could read it.
fn inspected_name(hello: &Hello, host: &Host) -> Result<Option<Way>, OpeningError> {
    match (&hello.server_name, host) {
        (Some(ServerName::Malformed(_)), _) => Err(OpeningError::SniInvalid),
        (Some(ServerName::Name(sent)), Host::Name(own)) if sent == own => Ok(Some(Way::Intercept)),
        (Some(ServerName::Name(_)), _) => Err(OpeningError::SniMismatch),
        (None, _) => Ok(Some(Way::Intercept)),
    }
}

/// On an opaque endpoint a name is not needed, but a wrong one is wrong.
fn opaque_name(hello: &Hello, host: &Host) -> Result<Option<Way>, OpeningError> {
    match (&hello.server_name, host) {
        (Some(ServerName::Name(sent)), Host::Name(own)) if sent != own => Err(OpeningError::SniMismatch),
        _ => Ok(Some(Way::Relay)),
    }
}

/// The TLS alert that refuses a ClientHello: fatal, and as telling as TLS allows.
pub(crate) fn alert(error: Option<OpeningError>) -> [u8; 7] {
    const UNRECOGNIZED_NAME: u8 = 112;
    const ACCESS_DENIED: u8 = 49;
    let description = match error {
        Some(OpeningError::SniMismatch | OpeningError::SniInvalid) => UNRECOGNIZED_NAME,
        _ => ACCESS_DENIED,
    };
    [21, 3, 3, 0, 2, 2, description]
}
