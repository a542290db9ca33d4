//! The demo's upstream: an HTTPS server on an inherited socket, with a certificate authority of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};

use crate::Failure;

/// How much of its token the upstream tells the client.
const SHOWN: usize = 9;
const HELLO: &str = "hello from the allowed upstream\n";
const MAX_HEAD: u64 = 64 * 1024;
const VALID: Duration = Duration::from_secs(86_400);

/// Says on standard output which token it wants and which authority signed for it, and answers until it is killed.
pub(super) fn run() -> Result<u8, Failure> {
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let (authority, config) = identity().map_err(Failure::new)?;
    let token = token().ok_or_else(|| Failure::new("no randomness"))?;
    print!("{token}\n{authority}");
    std::io::stdout().flush()?;
    let config = Arc::new(config);
    for stream in listener.incoming() {
        // What a client does to its connection ends that connection.
        let _ = answer(stream?, &config, &token);
    }
    Ok(0)
}

/// Another one each time.
fn token() -> Option<String> {
    let mut random = [0; 16];
    aws_lc_rs::default_provider().secure_random.fill(&mut random).ok()?;
    Some(random.iter().fold("demo_".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

fn identity() -> Result<(String, ServerConfig), Box<dyn std::error::Error>> {
    let now = SystemTime::now();
    let spanned = |mut params: CertificateParams| {
        (params.not_before, params.not_after) = ((now - VALID).into(), (now + VALID).into());
        params
    };
    let mut authority = spanned(CertificateParams::default());
    authority.distinguished_name.push(DnType::CommonName, "demo upstream");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate()?;
    let pem = authority.self_signed(&key)?.pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate()?;
    let leaf = spanned(CertificateParams::new(vec!["api.demo.test".to_owned()])?).signed_by(&key, &issuer)?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    Ok((pem, config))
}

/// One request to a connection. `/whoami` shows the token that came.
fn answer(stream: TcpStream, config: &Arc<ServerConfig>, wanted: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
    let (mut whoami, mut sent) = (false, String::new());
    for line in BufReader::new(&mut stream).take(MAX_HEAD).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        whoami |= line.starts_with("GET /whoami ");
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            value.clone_into(&mut sent);
        }
    }
    let start = wanted.get(..SHOWN).unwrap_or_default();
    let body = match (whoami, sent == format!("Bearer {wanted}")) {
        (false, _) => HELLO.to_owned(),
        (true, true) => format!("welcome, holder of {start}…; you sent {sent}\n"),
        (true, false) => "who are you?\n".to_owned(),
    };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}
