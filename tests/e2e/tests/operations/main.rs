//! What an operator sees of a running sandbox: health, metrics, logs, traces, the end.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod drain;
mod health;
mod installer;
mod logs;
mod metrics;
mod publish;
mod summary;
mod traces;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use stockade_testkit::{
    outer::RESOLVER,
    upstream::{Dns, Http},
};

/// Where health and metrics are shown: an address of the outer world, which a policy could allow.
const SHOWN: &str = "192.0.2.10:8086";

/// One host over plain HTTP, and one over raw TCP.
const POLICY: &str = "
version: 1
network:
  endpoints:
    site:
      hosts: [up.test]
      ports: [80]
      private_addresses: [192.0.2.0/24]
    raw:
      hosts: [raw.test, 192.0.2.10]
      ports: [8085, 8086, 9000]
      protocol: tcp
      private_addresses: [192.0.2.0/24]
";

/// An origin at 192.0.2.10:80, and a resolver that knows it.
fn world() -> (Http, Dns) {
    let dns = Dns::start((RESOLVER, 53));
    dns.host("up.test", "192.0.2.10");
    dns.host("raw.test", "192.0.2.10");
    (Http::hello("192.0.2.10:80"), dns)
}

/// Gets a page: status and body.
fn get(addr: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

/// Asks until the answer is as wanted.
#[track_caller]
fn wait_until(path: &str, within: Duration, wanted: impl Fn(u16, &str) -> bool) -> String {
    let until = Instant::now() + within;
    loop {
        let last = match get(SHOWN, path) {
            Ok((status, body)) if wanted(status, &body) => return body,
            other => format!("{other:?}"),
        };
        assert!(Instant::now() < until, "{path} is not as wanted: {last}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const SOON: Duration = Duration::from_secs(20);

fn ready(status: u16, body: &str) -> bool {
    status == 200 && body.starts_with(r#"{"ready":true"#)
}

/// Whether exactly this check fails.
fn only(check: &str) -> impl Fn(u16, &str) -> bool + '_ {
    move |status, body| {
        status == 503
            && body.matches(r#""ok":false"#).count() == 1
            && body.contains(&format!(r#"{{"check":"{check}","ok":false"#))
    }
}
