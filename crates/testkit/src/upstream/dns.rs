//! A DNS server whose answers a test chooses, honest or not.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::{Arc, Mutex},
};

use super::{Tcp, background};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// How a name is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These addresses, with time to live 60.
    Addrs(Vec<IpAddr>),
    /// A different set for each question of one type, with time to live 0; the last one stays. For rebinding.
    Turns(Vec<Vec<IpAddr>>),
    /// An alias, and then what the alias is answered with.
    Alias(String),
    /// Something that no resolver may believe.
    Hostile(Hostile),
    /// SERVFAIL.
    Failure,
}

/// Answers that break the protocol. All carry 192.0.2.66 where they carry an address.
#[derive(Debug, Clone, Copy)]
pub enum Hostile {
    /// Another transaction id.
    WrongId,
    /// An answer to a question that was not asked.
    OtherQuestion,
    /// The right question, with an address for another name.
    OtherOwner,
    /// A compression pointer to itself.
    Loop,
    /// Far more records than fit any use.
    Huge,
    /// The truncation bit over UDP, and over TCP a connection that says nothing.
    TruncatedThenSilent,
    /// No answer at all.
    Silent,
    /// Half a header.
    Short,
}

/// A DNS server on UDP and TCP.
#[derive(Debug)]
pub struct Dns {
    /// Where it listens.
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Kept so that the TCP side's counters can be looked at.
    pub tcp: Tcp,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, Answer>,
    turns: HashMap<(String, u16), usize>,
    queries: Vec<(String, u16)>,
}

impl Dns {
    /// Starts one that knows no name: everything is NXDOMAIN until [`Self::set`].
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn start(addr: impl ToSocketAddrs) -> Self {
        let udp = UdpSocket::bind(addr).expect("binding the DNS server (is this inside Outer::run?)");
        let addr = udp.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let over_tcp = Arc::clone(&state);
        let tcp = Tcp::serve(addr, move |mut stream| {
            loop {
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut query)?;
                // Not in the match itself: the lock would be held as long as a silent answer lasts.
                let reply = respond(&mut over_tcp.lock().unwrap(), &query, true);
                match reply {
                    Some(reply) => {
                        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
                        stream.write_all(&[&length.to_be_bytes()[..], &reply].concat())?;
                    }
                    None => drop(stream.read(&mut [0])?),
                }
            }
        });
        let over_udp = Arc::clone(&state);
        background("dns", move || {
            let mut buffer = [0; 4096];
            while let Ok((n, from)) = udp.recv_from(&mut buffer) {
                let reply = respond(&mut over_udp.lock().unwrap(), &buffer[..n], false);
                if let Some(reply) = reply {
                    udp.send_to(&reply, from).ok();
                }
            }
        });
        Self { addr, state, tcp }
    }

    /// Answers `name` (lower case, no final dot) with `answer` from now on.
    pub fn set(&self, name: &str, answer: Answer) {
        self.state.lock().unwrap().answers.insert(name.to_owned(), answer);
    }

    /// Answers `name` with one address.
    ///
    /// # Panics
    /// When `addr` is not an address.
    pub fn host(&self, name: &str, addr: &str) {
        self.set(name, Answer::Addrs(vec![addr.parse().expect("an IP address")]));
    }

    /// The questions so far: name and type number.
    #[must_use]
    pub fn queries(&self) -> Vec<(String, u16)> {
        self.state.lock().unwrap().queries.clone()
    }

    /// How often `name` was asked for, whatever the type.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.state.lock().unwrap().queries.iter().filter(|(n, _)| n == name).count()
    }
}

/// The reply to a query, or `None` for silence.
fn respond(state: &mut State, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let (name, kind, end) = question(query)?;
    state.queries.push((name.clone(), kind));
    let mut records = Vec::new();
    let mut asked = name.clone();
    loop {
        match state.answers.get(&asked).cloned() {
            None => return Some(reply(query, end, if records.is_empty() { 3 } else { 0 }, &records)),
            Some(Answer::Failure) => return Some(reply(query, end, 2, &[])),
            Some(Answer::Hostile(how)) => return hostile(how, &query[..end], tcp),
            Some(Answer::Alias(to)) => {
                records.push(record(&asked, CNAME, 60, &wire_name(&to)));
                if records.len() > 20 {
                    return Some(reply(query, end, 0, &records));
                }
                asked = to;
            }
            Some(Answer::Addrs(addrs)) => {
                records.extend(addresses(&asked, kind, 60, &addrs));
                return Some(reply(query, end, 0, &records));
            }
            Some(Answer::Turns(turns)) => {
                let turn = state.turns.entry((asked.clone(), kind)).or_default();
                let addrs = turns.get(*turn).or(turns.last()).cloned().unwrap_or_default();
                *turn += 1;
                records.extend(addresses(&asked, kind, 0, &addrs));
                return Some(reply(query, end, 0, &records));
            }
        }
    }
}

fn hostile(how: Hostile, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let bad = IpAddr::from([192, 0, 2, 66]);
    let (name, _, end) = question(query)?;
    let mut honest = reply(query, end, 0, &addresses(&name, A, 60, &[bad]));
    match how {
        Hostile::WrongId => honest[0] ^= 0xff,
        Hostile::OtherQuestion => honest[13] ^= 1,
        Hostile::OtherOwner => honest = reply(query, end, 0, &addresses("other.test", A, 60, &[bad])),
        Hostile::Loop => {
            let at = u16::try_from(end).ok()?;
            let mut record = (0xc000 | at).to_be_bytes().to_vec();
            record.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 66]);
            honest = reply(query, end, 0, &[record]);
        }
        Hostile::Huge => {
            let many: Vec<_> =
                (0..if tcp { 2000 } else { 200 }).map(|_| record(&name, A, 60, &[192, 0, 2, 66])).collect();
            honest = reply(query, end, 0, &many);
        }
        Hostile::TruncatedThenSilent if tcp => return None,
        Hostile::TruncatedThenSilent => {
            honest = reply(query, end, 0, &[]);
            honest[2] |= 2;
        }
        Hostile::Silent => return None,
        Hostile::Short => honest.truncate(6),
    }
    Some(honest)
}

/// Name, type and end of the first question.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

fn reply(query: &[u8], end: usize, code: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut out = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0];
    out.extend(&query[12..end]);
    for record in records {
        out.extend(record);
    }
    out
}

fn addresses(name: &str, kind: u16, ttl: u32, addrs: &[IpAddr]) -> Vec<Vec<u8>> {
    let matching = addrs.iter().filter_map(|addr| match (addr, kind) {
        (IpAddr::V4(v4), A) => Some(record(name, A, ttl, &v4.octets())),
        (IpAddr::V6(v6), AAAA) => Some(record(name, AAAA, ttl, &v6.octets())),
        _ => None,
    });
    matching.collect()
}

fn record(name: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = wire_name(name);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    out.extend(ttl.to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
    out
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use std::{net::ToSocketAddrs, time::Duration};

    use super::*;
    use crate::{Outer, outer::RESOLVER};

    fn resolve(name: &str) -> Vec<IpAddr> {
        (name, 80).to_socket_addrs().map(|all| all.map(|a| a.ip()).collect()).unwrap_or_default()
    }

    #[test]
    fn the_c_library_believes_its_answers() {
        Outer::run(|_| {
            let dns = Dns::start((RESOLVER, 53));
            dns.host("up.test", "203.0.113.10");
            dns.set("alias.test", Answer::Alias("up.test".to_owned()));
            dns.set("turn.test", Answer::Turns(vec![vec![[203, 0, 113, 1].into()], vec![[127, 0, 0, 1].into()]]));
            assert_eq!(resolve("up.test"), [IpAddr::from([203, 0, 113, 10])]);
            assert_eq!(resolve("alias.test"), [IpAddr::from([203, 0, 113, 10])]);
            assert_eq!(resolve("turn.test"), [IpAddr::from([203, 0, 113, 1])]);
            assert_eq!(resolve("turn.test"), [IpAddr::from([127, 0, 0, 1])], "the second turn");
            assert!(resolve("unknown.test").is_empty());
            assert!(dns.count("turn.test") >= 2);
            assert_eq!(dns.count("never.test"), 0);
        });
    }

    #[test]
    fn hostile_answers_differ_from_honest_ones_as_named() {
        let dns = Dns::start("127.0.0.1:0");
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let query = [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire_name("h.test"), &[0, 1, 0, 1]].concat();
        let ask = |how| {
            dns.set("h.test", Answer::Hostile(how));
            client.send_to(&query, dns.addr).unwrap();
            let mut buffer = [0; 8192];
            client.recv(&mut buffer).map(|n| buffer[..n].to_vec()).ok()
        };
        assert_ne!(ask(Hostile::WrongId).unwrap()[..2], query[..2]);
        assert_ne!(ask(Hostile::OtherQuestion).unwrap()[12..24], query[12..24]);
        assert_eq!(ask(Hostile::TruncatedThenSilent).unwrap()[2] & 2, 2);
        assert_eq!(ask(Hostile::Short).unwrap().len(), 6);
        assert!(ask(Hostile::Huge).unwrap().len() > 4000);
        assert_eq!(ask(Hostile::Silent), None);
    }
}
