//! One query in, one response out; no I/O.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};
use stockade_policy::{Denial, NameVerdict, Snapshot};
use stockade_types::{AuthorityError, HostName};

use super::pool::{Exhausted, Pool, Synthetic};

/// Payload size that EDNS answers state (DNS flag day 2020). No answer of ours comes near it.
const PAYLOAD: u16 = 1232;
/// Bytes of a DNS header.
const HEADER: usize = 12;

/// A response, and what is to be said about it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) note: Note,
}

/// What a query amounted to.
#[derive(Debug)]
pub(super) enum Note {
    /// Answered, nothing to say.
    Nothing,
    /// A wildcard name got its address.
    NewWildcard,
    /// The policy does not know the name.
    Unknown(String, Box<Denial>),
    /// No host has such a name.
    Malformed(String, AuthorityError),
    /// No address is left for it.
    Exhausted(HostName),
}

/// Answers a query, or says nothing to what is no query.
pub(super) fn answer(query: &[u8], policy: &Snapshot, pool: &Pool, ttl: u32) -> Option<Answer> {
    let message = match Message::from_vec(query) {
        Ok(message) => message,
        Err(_) => return malformed(query),
    };
    if message.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = Message::response(message.metadata.id, message.metadata.op_code);
    response.metadata.recursion_desired = message.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        response.set_edns(edns);
    }
    let note = match message.queries.as_slice() {
        _ if message.metadata.op_code != OpCode::Query => fail(&mut response, ResponseCode::NotImp),
        [question] => {
            response.add_query(question.clone());
            decide(question, &mut response, policy, pool, ttl)
        }
        _ => fail(&mut response, ResponseCode::FormErr),
    };
    Some(Answer { bytes: response.to_vec().ok()?, note })
}

fn fail(response: &mut Message, code: ResponseCode) -> Note {
    response.metadata.response_code = code;
    Note::Nothing
}

/// FORMERR to anything that has at least a query's header; silence to the rest.
fn malformed(query: &[u8]) -> Option<Answer> {
    let (id, flags) = (query.get(..2)?, query.get(2)?);
    if query.len() < HEADER || flags & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes(id.try_into().ok()?);
    let response = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    Some(Answer { bytes: response.to_vec().ok()?, note: Note::Nothing })
}

fn decide(question: &Query, response: &mut Message, policy: &Snapshot, pool: &Pool, ttl: u32) -> Note {
    if question.query_class() != DNSClass::IN {
        return fail(response, ResponseCode::Refused);
    }
    let text = text(question.name());
    if text == "localhost" {
        let own = Synthetic { v4: Ipv4Addr::LOCALHOST, v6: Ipv6Addr::LOCALHOST };
        add(question, response, own, ttl);
        return Note::Nothing;
    }
    let name = match HostName::parse(&text) {
        Ok(name) => name,
        Err(why) => {
            response.metadata.response_code = ResponseCode::NXDomain;
            return Note::Malformed(text, why);
        }
    };
    let literal = match policy.name(&name) {
        NameVerdict::Known { literal } => literal,
        NameVerdict::Unknown(denial) => {
            response.metadata.response_code = ResponseCode::NXDomain;
            return Note::Unknown(text, Box::new(denial));
        }
    };
    if !matches!(question.query_type(), RecordType::A | RecordType::AAAA) {
        // NODATA: the name exists. HTTPS and SVCB records would offer ECH and other addresses.
        return Note::Nothing;
    }
    match pool.assign(&name, literal) {
        Ok((synthetic, fresh)) => {
            add(question, response, synthetic, ttl);
            if fresh && !literal { Note::NewWildcard } else { Note::Nothing }
        }
        Err(Exhausted) => {
            response.metadata.response_code = ResponseCode::ServFail;
            Note::Exhausted(name)
        }
    }
}

fn add(question: &Query, response: &mut Message, addrs: Synthetic, ttl: u32) {
    let data = match question.query_type() {
        RecordType::A => RData::A(addrs.v4.into()),
        RecordType::AAAA => RData::AAAA(addrs.v6.into()),
        _ => return,
    };
    response.add_answer(Record::from_rdata(question.name().clone(), ttl, data));
}

/// The labels joined by dots, lower case. A byte that no host name has makes a text that no host name is, whatever
/// the byte: a dot inside a label must not become a separator.
fn text(name: &Name) -> String {
    let mut out = String::new();
    for (i, label) in name.iter().enumerate() {
        if i > 0 {
            out.push('.');
        }
        out.extend(label.iter().map(|b| match b {
            b'.' => '\u{fffd}',
            b if b.is_ascii() => char::from(b.to_ascii_lowercase()),
            _ => '\u{fffd}',
        }));
    }
    out
}
