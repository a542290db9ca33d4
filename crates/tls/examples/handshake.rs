//! What certificates and handshakes cost, in microseconds: `cargo run --release -p stockade-tls --example handshake`.
//! Both ends run in one thread, in memory; the least of several rounds is printed, and the median.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    hint::black_box,
    sync::Arc,
    time::{Instant, SystemTime},
};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, pki_types::ServerName};
use stockade_tls::{Bundle, Ca, Connector, Interceptor, Roots};
use stockade_types::Host;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 400;

fn main() -> Outcome<()> {
    let authority = Ca::new(SystemTime::now())?;
    let roots = Roots::none().with_pem(authority.certificate_pem().as_bytes())?;
    let interceptor = Interceptor::new(authority)?;
    let host = Host::parse("api.test")?;
    let mut at = 0;

    show("new authority", || Ok(Ca::new(SystemTime::now())?))?;
    show("certificate of a new host", || {
        at += 1;
        Ok(interceptor.server_config(&Host::parse(&format!("n{at}.test"))?, None)?)
    })?;
    interceptor.server_config(&host, None)?;
    show("configuration of a known host", || Ok(interceptor.server_config(&host, Some(b"h2"))?))?;
    show("handshake, full", || {
        let config = Connector::new(&roots)?.config(&[], None);
        shake(&config, &interceptor.server_config(&host, None)?)
    })?;
    let config = Connector::new(&roots)?.config(&[], None);
    show("handshake, resumed", || shake(&config, &interceptor.server_config(&host, None)?))?;
    if let Ok(system) = Roots::system() {
        show("reading this machine's authorities", || Ok(Roots::system()?))?;
        let authority = Ca::new(SystemTime::now())?;
        show("bundle and truststore of them", || Ok(Bundle::new(&system, &authority)))?;
    }
    Ok(())
}

fn show<T>(what: &str, mut one: impl FnMut() -> Outcome<T>) -> Outcome<()> {
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        black_box(one()?);
        took.push(start.elapsed().as_nanos());
    }
    took.sort_unstable();
    let micros = |nanos: Option<&u128>| nanos.map_or(0.0, |n| *n as f64 / 1000.0);
    println!("{what:36} {:8.1} µs least, {:8.1} µs median", micros(took.first()), micros(took.get(ROUNDS / 2)));
    Ok(())
}

fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Outcome<()> {
    let mut client = ClientConnection::new(Arc::clone(client), ServerName::try_from("api.test")?)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    let mut bytes = Vec::new();
    // Until nothing moves: the tickets that follow the handshake are read too.
    loop {
        while client.wants_write() {
            client.write_tls(&mut bytes)?;
        }
        let sent = bytes.len();
        feed(&mut bytes, |rest| server.read_tls(rest))?;
        server.process_new_packets()?;
        while server.wants_write() {
            server.write_tls(&mut bytes)?;
        }
        let sent = sent + bytes.len();
        feed(&mut bytes, |rest| client.read_tls(rest))?;
        client.process_new_packets()?;
        if sent == 0 {
            return Ok(());
        }
    }
}

/// One flight of a handshake is less than what rustls takes at once between two looks at it.
fn feed(bytes: &mut Vec<u8>, mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) -> Outcome<()> {
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        read(&mut rest)?;
    }
    bytes.clear();
    Ok(())
}
