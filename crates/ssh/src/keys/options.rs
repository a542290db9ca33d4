//! What stands before a key.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use crate::access::{Access, PermitOpen};

/// The options of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) access: Access,
    /// The key signs certificates.
    pub(crate) authority: bool,
    /// One of these must stand in a certificate; without them, the sandbox's own name.
    pub(crate) principals: Option<Vec<String>>,
    expires: Option<SystemTime>,
    from: Option<Vec<Net>>,
}

/// One element of `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Net {
    address: IpAddr,
    bits: u8,
    negated: bool,
}

impl Options {
    /// Parses the part before the key; empty for no options.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut options =
            Self { access: Access::full(), authority: false, principals: None, expires: None, from: None };
        let mut rest = text;
        while !rest.is_empty() {
            let (name, value, after) = next(rest)?;
            options.take(name, value)?;
            rest = after;
        }
        if options.principals.is_some() && !options.authority {
            return Err("`principals` goes with `cert-authority` only".to_owned());
        }
        Ok(options)
    }

    fn take(&mut self, name: &str, value: Option<String>) -> Result<(), String> {
        let lower = name.to_ascii_lowercase();
        match (lower.as_str(), value) {
            ("cert-authority", None) => self.authority = true,
            ("restrict", None) => (self.access.pty, self.access.forwarding) = (false, false),
            ("pty", None) => self.access.pty = true,
            ("no-pty", None) => self.access.pty = false,
            ("port-forwarding", None) => self.access.forwarding = true,
            ("no-port-forwarding", None) => self.access.forwarding = false,
            // What this server never does, allowed or not.
            (
                "agent-forwarding"
                | "no-agent-forwarding"
                | "x11-forwarding"
                | "no-x11-forwarding"
                | "user-rc"
                | "no-user-rc",
                None,
            )
            | ("permitlisten", Some(_)) => {}
            ("command", Some(command)) => self.access.command = Some(command),
            ("principals", Some(list)) => self.principals = Some(names(&list)?),
            ("permitopen", Some(to)) => self.access.permit_open.get_or_insert_default().push(permit_open(&to)?),
            ("expiry-time", Some(time)) => self.expires = Some(expiry(&time)?),
            ("from", Some(list)) => self.from = Some(nets(&list)?),
            ("command" | "principals" | "permitopen" | "expiry-time" | "from", None) => {
                return Err(format!("option `{lower}` needs a value: {lower}=\"…\""));
            }
            _ => {
                return Err(format!(
                    "option `{}` is not supported; remove it, or the line",
                    stockade_types::Escaped(name)
                ));
            }
        }
        Ok(())
    }

    pub(super) fn in_time(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|until| now < until)
    }

    /// A connection without an address (a unix socket) is from nowhere.
    pub(super) fn admits(&self, peer: Option<IpAddr>) -> bool {
        self.from.as_deref().is_none_or(|nets| contains(nets, peer))
    }
}

/// Where the options end: at the first blank outside quotes.
pub(super) fn end(line: &str) -> Result<usize, String> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b' ' | b'\t' if !quoted => return Ok(at),
            _ => {}
        }
    }
    Err(if quoted { "a quote is not closed" } else { "no key" }.to_owned())
}

/// The next option, its value, and what follows the comma.
fn next(text: &str) -> Result<(&str, Option<String>, &str), String> {
    let name_end = text.find([',', '=']).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(name_end).unwrap_or((text, ""));
    if name.is_empty() {
        return Err("an option is empty".to_owned());
    }
    if let Some(rest) = rest.strip_prefix(',') {
        return if rest.is_empty() { Err("an option is empty".to_owned()) } else { Ok((name, None, rest)) };
    }
    let Some(quoted) = rest.strip_prefix('=') else { return Ok((name, None, "")) };
    let mut chars =
        quoted.strip_prefix('"').ok_or_else(|| format!("the value of `{name}` must stand in quotes"))?.char_indices();
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            // Only the quote can be escaped, as in OpenSSH.
            '\\' if chars.as_str().starts_with('"') => {
                value.push('"');
                chars.next();
            }
            '"' => {
                // One quote before, this one, and what was read between.
                let after = quoted.get(at + 2..).unwrap_or_default();
                return match (after.strip_prefix(','), after) {
                    (Some(rest), _) if !rest.is_empty() => Ok((name, Some(value), rest)),
                    (None, "") => Ok((name, Some(value), "")),
                    _ => Err(format!("a comma and another option must follow the value of `{name}`")),
                };
            }
            c => value.push(c),
        }
    }
    Err("a quote is not closed".to_owned())
}

fn names(list: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect();
    if names.is_empty() { Err("`principals` names none".to_owned()) } else { Ok(names) }
}

fn permit_open(text: &str) -> Result<PermitOpen, String> {
    let wrong = || format!("permitopen `{}` is not HOST:PORT", stockade_types::Escaped(text));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(wrong());
    }
    let port = if port == "*" { None } else { Some(port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?) };
    Ok(PermitOpen { host: (host != "*").then(|| host.to_owned()), port })
}

/// `YYYYMMDD` or `YYYYMMDDHHMM[SS]`, with or without `Z`: always UTC, for the machine's zone may be anything.
fn expiry(text: &str) -> Result<SystemTime, String> {
    let wrong =
        || format!("expiry-time `{}` is not YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS", stockade_types::Escaped(text));
    let digits = text.strip_suffix('Z').unwrap_or(text);
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let part = |from: usize, to: usize| digits.get(from..to).and_then(|d| d.parse::<i64>().ok()).unwrap_or(0);
    let (year, month, day) = (part(0, 4), part(4, 6), part(6, 8));
    let (hour, minute, second) = (part(8, 10), part(10, 12), part(12, 14));
    if !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return Err(wrong());
    }
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()))
}

/// Days since 1970-01-01 (Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Addresses and networks; names and patterns are refused, because names can be forged.
pub(crate) fn nets(list: &str) -> Result<Vec<Net>, String> {
    list.split(',').map(|text| net(text.trim())).collect()
}

fn net(text: &str) -> Result<Net, String> {
    let wrong = || format!("`{}` is not an address or a network such as 10.0.0.0/8", stockade_types::Escaped(text));
    let (negated, plain) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let (address, bits) = plain.split_once('/').map_or((plain, None), |(a, b)| (a, Some(b)));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(most), |b| b.parse().map_err(|_| wrong()))?;
    if bits > most { Err(wrong()) } else { Ok(Net { address, bits, negated }) }
}

/// Listed, and not excluded by a `!`.
pub(crate) fn contains(nets: &[Net], peer: Option<IpAddr>) -> bool {
    let Some(peer) = peer.map(|p| p.to_canonical()) else { return false };
    let mut listed = false;
    for net in nets.iter().filter(|n| n.covers(peer)) {
        if net.negated {
            return false;
        }
        listed = true;
    }
    listed
}

impl Net {
    fn covers(&self, peer: IpAddr) -> bool {
        match (self.address, peer) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            _ => false,
        }
    }
}
