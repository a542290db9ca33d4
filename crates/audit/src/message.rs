//! The sentence of an event, for people: OCSF `message`, the log on stderr, `audit tail`.

use std::fmt::{self, Write};

use crate::event::{
    Action, Config, Event, Finding, Http, Lifecycle, Network, ProcessActivity, Segment, SegmentKind, Ssh,
};

/// One sentence, with raw text from inside the sandbox in it.
pub(crate) fn of(event: &Event) -> String {
    let mut out = String::with_capacity(128);
    // Writing to a String cannot fail.
    let _ = match event {
        Event::Network(e) => network(&mut out, e),
        Event::Http(e) => http(&mut out, e),
        Event::Ssh(e) => ssh(&mut out, e),
        Event::Process(e) => process(&mut out, e),
        Event::Config(e) => config(&mut out, e),
        Event::Lifecycle(e) => lifecycle(&mut out, e),
        Event::Finding(e) => finding(&mut out, e),
        Event::Log(e) => segment(&mut out, e),
    };
    out
}

fn ssh(out: &mut String, e: &Ssh) -> fmt::Result {
    let verb = match e.action {
        Action::Allowed => "allowed",
        Action::Denied => "denied",
        Action::Failed => "failed",
        Action::Closed => "closed",
    };
    write!(out, "{verb} ssh {} from {}", e.what, e.peer)?;
    if !e.user.is_empty() {
        write!(out, " as {}", Quoted(&e.user))?;
    }
    if let Some((host, port)) = &e.target {
        out.write_str(" to ")?;
        self::host(out, host)?;
        write!(out, ":{port}")?;
    }
    if let Some(reason) = e.reason {
        write!(out, " ({reason})")?;
    }
    if let Some(key) = &e.key {
        write!(out, ", by {}", Quoted(key))?;
    }
    e.detail.as_ref().map_or(Ok(()), |detail| write!(out, ": {}", Quoted(detail)))
}

fn verb(e: &Network) -> &'static str {
    match e.action {
        Action::Allowed if e.audited => "allowed (would be denied)",
        Action::Allowed => "allowed",
        Action::Denied => "denied",
        Action::Failed => "failed",
        Action::Closed => "closed",
    }
}

/// The destination as far as it is known: `host:port`, `host [addr]:port`, `addr:port`.
fn destination(out: &mut String, e: &Network) -> fmt::Result {
    match (&e.host, e.addr) {
        (Some(host), Some(addr)) if *host != addr.to_string() => {
            self::host(out, host)?;
            write!(out, " [{addr}]")?;
        }
        (Some(host), _) => self::host(out, host)?,
        (None, Some(std::net::IpAddr::V6(addr))) => write!(out, "[{addr}]")?,
        (None, Some(addr)) => write!(out, "{addr}")?,
        (None, None) => out.write_str("?")?,
    }
    e.port.map_or(Ok(()), |port| write!(out, ":{port}"))
}

/// A host as it is when it is one, else between quotes, so that it cannot pass for the rest of the sentence.
fn host(out: &mut String, host: &str) -> fmt::Result {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        write!(out, "[{host}]")
    } else if !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b)) {
        out.write_str(host)
    } else {
        write!(out, "{}", Quoted(host))
    }
}

/// Text between quotes that it cannot close. Control characters are left to whoever shows the sentence.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "'"))
    }
}

/// Arguments, each between quotes.
struct Argv<'a>(&'a [String]);

impl fmt::Display for Argv<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, arg) in self.0.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{}", Quoted(arg))?;
        }
        Ok(())
    }
}

fn network(out: &mut String, e: &Network) -> fmt::Result {
    write!(out, "{} {} ", verb(e), e.door)?;
    if e.door == "fence" {
        match e.protocol {
            1 => out.write_str("icmp ")?,
            6 => out.write_str("tcp ")?,
            17 => out.write_str("udp ")?,
            58 => out.write_str("icmpv6 ")?,
            n => write!(out, "protocol {n} ")?,
        }
    }
    destination(out, e)?;
    network_rest(out, e)
}

fn network_rest(out: &mut String, e: &Network) -> fmt::Result {
    if let Some(reason) = e.reason {
        write!(out, " ({reason})")?;
    }
    if e.action == Action::Closed {
        write!(out, ", {} bytes out, {} bytes in", e.bytes_out, e.bytes_in)?;
    }
    if e.suppressed > 0 {
        write!(out, ", and {} more", e.suppressed)?;
    }
    if let Some(p) = &e.process {
        write!(out, ", by {} (pid {}, uid {})", Quoted(&p.exe), p.pid, p.uid)?;
    }
    if let Some(detail) = &e.detail {
        write!(out, ": {detail}")?;
    }
    // YAML of several lines in one: the event itself has it as it is.
    let line = |text: &String| text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    e.suggestion.as_ref().map_or(Ok(()), |text| write!(out, " - to allow: {}", line(text)))
}

fn http(out: &mut String, e: &Http) -> fmt::Result {
    write!(out, "{} {} {} ", verb(&e.network), e.network.door, e.method)?;
    destination(out, &e.network)?;
    write!(out, " {} {}", Quoted(&e.path), e.status)?;
    network_rest(out, &e.network)
}

fn process(out: &mut String, e: &ProcessActivity) -> fmt::Result {
    let space = if e.argv.is_empty() { "" } else { " " };
    if e.launched {
        write!(out, "launched{space}{} (pid {}, uid {})", Argv(&e.argv), e.pid, e.uid)
    } else {
        write!(out, "exited{space}{} (pid {}, uid {})", Argv(&e.argv), e.pid, e.uid)?;
        e.exit.map_or(Ok(()), |code| write!(out, " with {code}"))
    }
}

fn config(out: &mut String, e: &Config) -> fmt::Result {
    let what = if e.accepted { "in force" } else { "refused" };
    write!(out, "policy {what}: {} (generation {})", e.source, e.generation)?;
    if let Some(reason) = e.reason {
        write!(out, " ({reason})")?;
    }
    if e.detail.is_empty() { Ok(()) } else { write!(out, ": {}", e.detail) }
}

fn lifecycle(out: &mut String, e: &Lifecycle) -> fmt::Result {
    write!(out, "sandbox {}", e.phase)?;
    if let Some(reason) = e.reason {
        write!(out, " ({reason})")?;
    }
    if !e.detail.is_empty() {
        write!(out, ": {}", e.detail)?;
    }
    for (i, status) in e.layers.iter().enumerate() {
        write!(out, "{}{} {}", if i == 0 { "; " } else { ", " }, status.layer, status.enforcement)?;
    }
    Ok(())
}

fn finding(out: &mut String, e: &Finding) -> fmt::Result {
    write!(out, "finding {}", e.reason)?;
    if e.count > 1 {
        write!(out, " × {}", e.count)?;
    }
    if e.detail.is_empty() { Ok(()) } else { write!(out, ": {}", e.detail) }
}

fn segment(out: &mut String, e: &Segment) -> fmt::Result {
    match (e.kind, &e.torn) {
        (SegmentKind::Genesis, _) => out.write_str("log begins"),
        (SegmentKind::Rotated, _) => out.write_str("log goes on in a new file"),
        (SegmentKind::Restarted, _) => out.write_str("log goes on with another run"),
        (SegmentKind::Repaired, None) => out.write_str("log goes on behind a damaged line"),
        (SegmentKind::Repaired, Some(torn)) => {
            write!(out, "log goes on behind a line that was cut off after {} bytes", torn.bytes)
        }
    }
}
