//! The fence in nf_tables: one batch in, everything read back.

use std::collections::BTreeSet;

use nix::libc;
use stockade_sys::netlink::{
    APPEND, Attribute, Attributes, CREATE, EXCLUSIVE, Error, HEADER, Message, Protocol, Refusal, Reply, Socket,
    attributes,
};

use super::{
    Drift, FenceError, Mode, Spec,
    expression::{self, LIST_ELEM, SET},
    rules::{Chain, Rule, rules},
};

/// The expression whose absence has a fallback.
pub(super) const TPROXY: &str = "tproxy";

/// What is missing where the kernel has no nf_tables at all.
pub(super) const NF_TABLES: &str = "nf_tables";

const TABLE: &str = "stockade";
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFGENMSG: usize = 4;
const SUBSYSTEM: u16 = 10;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;

const TABLE_NAME: u16 = 1;
const TABLE_USE: u16 = 3;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// Attributes of a chain that the kernel adds: handle, use, flags, id.
const CHAIN_ADDED: [u16; 4] = [2, 6, 10, 11];
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
/// Attributes of a rule that the kernel adds: handle, position.
const RULE_ADDED: [u16; 2] = [3, 6];
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const INET_SERVICE: u32 = 13;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;

const HINT: &str = "load the nf_tables modules, or enable them in the kernel";

/// Our table, and the socket it is programmed by.
#[derive(Debug)]
pub(super) struct Table(Socket);

impl Table {
    pub(super) fn open() -> Result<Self, FenceError> {
        let socket = Socket::open(Protocol::Netfilter)
            .map_err(|e| FenceError::Unavailable { what: format!("netfilter netlink ({e})"), hint: HINT })?;
        Ok(Self(socket))
    }

    pub(super) fn install(&mut self, spec: &Spec, mode: Mode) -> Result<(), FenceError> {
        let messages = transaction(objects(spec, mode));
        self.0.apply("install the fence", &messages).map_err(|e| explain(e, &messages))
    }

    pub(super) fn set_ports(&mut self, old: &BTreeSet<u16>, new: &BTreeSet<u16>) -> Result<(), Error> {
        let (gone, added) = (old - new, new - old);
        let mut changes = Vec::new();
        if !gone.is_empty() {
            changes.push(elements(DELSETELEM, 0, &gone));
        }
        if !added.is_empty() {
            changes.push(elements(NEWSETELEM, CREATE, &added));
        }
        if changes.is_empty() { Ok(()) } else { self.0.apply("set transparent ports", &transaction(changes)) }
    }

    pub(super) fn verify(&mut self, spec: &Spec, mode: Mode) -> Result<(), Drift> {
        self.verify_table()?;
        let chains: Vec<_> = Chain::ALL.into_iter().map(chain).collect();
        let found = self.dump("list chains", GETCHAIN, |_| {})?;
        compare(&chains, &found, &CHAIN_ADDED, "chain", CHAIN_NAME)?;
        let all = rules(spec, mode);
        let found = self.dump("list rules", GETRULE, |_| {})?;
        for chain in Chain::ALL {
            let sent: Vec<_> = all.iter().filter(|r| r.chain == chain).map(rule).collect();
            let found: Vec<_> = found.iter().filter(|r| text(r, RULE_CHAIN) == chain.name()).cloned().collect();
            compare(&sent, &found, &RULE_ADDED, "a rule of chain", RULE_CHAIN)?;
        }
        if let Some(stray) = found.iter().find(|r| Chain::ALL.iter().all(|c| c.name() != text(r, RULE_CHAIN))) {
            return Err(Drift::Foreign(format!("a rule of chain `{}`", text(stray, RULE_CHAIN))));
        }
        self.verify_set(&spec.transparent_ports)
    }

    /// Our table alone: the namespace is ours, so another table is somebody's attempt to change what happens.
    fn verify_table(&mut self) -> Result<(), Drift> {
        let request = get(GETTABLE, NFPROTO_UNSPEC, |_| {});
        let tables = self.0.dump("list tables", &request)?;
        let ours = |r: &&Reply| r.body.first() == Some(&NFPROTO_INET) && text(r, TABLE_NAME) == TABLE;
        if let Some(other) = tables.iter().find(|r| !ours(r)) {
            return Err(Drift::Foreign(format!("table `{}`", text(other, TABLE_NAME))));
        }
        let table = tables.iter().find(ours).ok_or(Drift::Gone)?;
        // Chains, sets, objects and flow tables together: no kind of object can be added unnoticed.
        let objects = table.attributes(NFGENMSG).find(|a| a.kind == TABLE_USE).and_then(|a| a.be32());
        let expected = u32::try_from(Chain::ALL.len() + 1).ok();
        let flags = table.attributes(NFGENMSG).find(|a| a.kind == 2).and_then(|a| a.be32());
        if objects == expected && flags == Some(0) {
            Ok(())
        } else {
            Err(Drift::Altered(format!("table `{TABLE}` ({objects:?} objects, flags {flags:?})")))
        }
    }

    fn verify_set(&mut self, ports: &BTreeSet<u16>) -> Result<(), Drift> {
        let sets = self.dump("list sets", GETSET, |_| {})?;
        let number = |r: &Reply, kind| r.attributes(NFGENMSG).find(|a| a.kind == kind).and_then(|a| a.be32());
        let ours = |r: &Reply| {
            text(r, SET_NAME) == SET
                && (number(r, SET_KEY_TYPE), number(r, SET_KEY_LEN)) == (Some(INET_SERVICE), Some(2))
                && number(r, SET_FLAGS).unwrap_or(0) == 0
        };
        match sets.as_slice() {
            [set] if ours(set) => {}
            _ => return Err(Drift::Altered(format!("set `{SET}`"))),
        }
        let replies = self.dump("list transparent ports", GETSETELEM, |a| {
            a.text(2, SET);
        })?;
        let elements = || replies.iter().flat_map(elements_of);
        let found: BTreeSet<u16> = elements().flatten().collect();
        if elements().any(|port| port.is_none()) {
            return Err(Drift::Altered(format!("an element of set `{SET}`")));
        }
        if found == *ports { Ok(()) } else { Err(Drift::Ports { found }) }
    }

    /// Packets that the chain `refuse` has counted.
    pub(super) fn refused(&mut self) -> Result<u64, Error> {
        let rules = self.dump("read the fence's counter", GETRULE, |a| {
            a.text(RULE_CHAIN, Chain::Refuse.name());
        })?;
        let lists = rules.iter().filter(|r| text(r, RULE_CHAIN) == Chain::Refuse.name());
        let lists = lists.flat_map(|r| r.attributes(NFGENMSG).filter(|a| a.kind == RULE_EXPRESSIONS));
        let counters = lists.flat_map(|l| l.nested()).filter(is_counter);
        Ok(counters.filter_map(|c| c.find(EXPRESSION_DATA)?.find(COUNTER_PACKETS)?.be64()).sum())
    }

    /// All objects of a kind in our table.
    fn dump(
        &mut self,
        operation: &'static str,
        kind: u16,
        fill: impl FnOnce(&mut Attributes),
    ) -> Result<Vec<Reply>, Error> {
        let request = get(kind, NFPROTO_INET, |a| {
            a.text(1, TABLE);
            fill(a);
        });
        let mut replies = self.0.dump(operation, &request)?;
        replies.retain(|r| r.kind == SUBSYSTEM << 8 | (kind - 1) && text(r, 1) == TABLE);
        Ok(replies)
    }
}

fn get(kind: u16, family: u8, fill: impl FnOnce(&mut Attributes)) -> Message {
    Message::silent(SUBSYSTEM << 8 | kind, &[family, 0, 0, 0], fill)
}

fn new(kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes)) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags, &[NFPROTO_INET, 0, 0, 0], fill)
}

/// Wraps changes in batch delimiters: all of them or none.
fn transaction(changes: Vec<Message>) -> Vec<Message> {
    let subsystem = [NFPROTO_UNSPEC, 0, 0, SUBSYSTEM.to_be_bytes()[1]];
    let mut messages = vec![Message::silent(NFNL_MSG_BATCH_BEGIN, &subsystem, |_| {})];
    messages.extend(changes);
    messages.push(Message::silent(NFNL_MSG_BATCH_END, &subsystem, |_| {}));
    messages
}

fn objects(spec: &Spec, mode: Mode) -> Vec<Message> {
    let table = new(NEWTABLE, CREATE | EXCLUSIVE, |a| {
        a.text(TABLE_NAME, TABLE).be32(2, 0);
    });
    let set = new(NEWSET, CREATE | EXCLUSIVE, |a| {
        a.text(1, TABLE).text(SET_NAME, SET).be32(SET_FLAGS, 0);
        a.be32(SET_KEY_TYPE, INET_SERVICE).be32(SET_KEY_LEN, 2).be32(10, 1);
    });
    let mut objects = vec![table, set];
    if !spec.transparent_ports.is_empty() {
        objects.push(elements(NEWSETELEM, CREATE, &spec.transparent_ports));
    }
    objects.extend(Chain::ALL.into_iter().map(chain));
    objects.extend(rules(spec, mode).iter().map(rule));
    objects
}

fn chain(chain: Chain) -> Message {
    const DROP: u32 = 0;
    const ACCEPT: u32 = 1;
    /// Before the routing decision is made, after connection tracking would be.
    const MANGLE: i32 = -150;
    let base = match chain {
        Chain::Prerouting => Some((0, MANGLE, ACCEPT)),
        Chain::Input => Some((1, 0, DROP)),
        Chain::Forward => Some((2, 0, DROP)),
        Chain::Output => Some((3, 0, DROP)),
        Chain::Refuse => None,
    };
    new(NEWCHAIN, CREATE | EXCLUSIVE, |a| {
        a.text(CHAIN_TABLE, TABLE).text(CHAIN_NAME, chain.name());
        if let Some((hook, priority, policy)) = base {
            a.nest(4, |h| {
                h.be32(1, hook).be32(2, priority.cast_unsigned());
            });
            a.be32(5, policy).text(7, "filter");
        }
    })
}

fn rule(rule: &Rule) -> Message {
    new(NEWRULE, CREATE | APPEND, |a| {
        a.text(RULE_TABLE, TABLE).text(RULE_CHAIN, rule.chain.name());
        a.nest(RULE_EXPRESSIONS, |list| {
            for m in &rule.matches {
                expression::condition(list, *m);
            }
            expression::action(list, rule.action);
        });
        a.put(RULE_USERDATA, &comment(rule.why));
    })
}

/// A comment as `nft` stores and shows it: type 0, length, text with terminator.
fn comment(text: &str) -> Vec<u8> {
    let text: Vec<u8> = text.bytes().take(127).chain([0]).collect();
    let mut data = vec![0, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    data.extend(text);
    data
}

fn elements(kind: u16, flags: u16, ports: &BTreeSet<u16>) -> Message {
    new(kind, flags, |a| {
        a.text(1, TABLE).text(2, SET).nest(3, |list| {
            for port in ports {
                list.nest(LIST_ELEM, |e| {
                    e.nest(1, |key| {
                        key.be16(1, *port);
                    });
                });
            }
        });
    })
}

/// The ports in a set; `None` for an element that is more or less than a port, such as `*`.
fn elements_of(reply: &Reply) -> Vec<Option<u16>> {
    let lists = reply.attributes(NFGENMSG).filter(|a| a.kind == 3);
    let bare = |e: Attribute<'_>| {
        let flags = e.find(3).and_then(|f| f.be32()).unwrap_or(0);
        e.find(1)?.find(1)?.be16().filter(|_| flags == 0)
    };
    lists.flat_map(|l| l.nested().collect::<Vec<_>>()).map(bare).collect()
}

fn text(reply: &Reply, kind: u16) -> String {
    reply.attributes(NFGENMSG).find(|a| a.kind == kind).map(|a| a.text().into_owned()).unwrap_or_default()
}

/// Compares objects in order, whatever else the kernel says about them being the default.
fn compare(sent: &[Message], found: &[Reply], added: &[u16], what: &str, name: u16) -> Result<(), Drift> {
    for (sent, found) in sent.iter().zip(found) {
        let sent: Vec<_> = attributes(sent.body().get(NFGENMSG..).unwrap_or_default()).collect();
        let seen: Vec<_> = found.attributes(NFGENMSG).filter(|a| !added.contains(&a.kind)).collect();
        if !same(&sent, &seen) {
            return Err(Drift::Altered(format!("{what} `{}`", text(found, name))));
        }
    }
    match found.get(sent.len()) {
        Some(more) => Err(Drift::Foreign(format!("{what} `{}`", text(more, name)))),
        None if found.len() < sent.len() => {
            let missing = sent.get(found.len()).and_then(|m| {
                attributes(m.body().get(NFGENMSG..)?).find(|a| a.kind == name).map(|a| a.text().into_owned())
            });
            Err(Drift::Altered(format!("{what} `{}`", missing.unwrap_or_default())))
        }
        None => Ok(()),
    }
}

/// Whether the kernel has what was sent: each attribute equal, in order within its type, and any other all zero.
fn same(sent: &[Attribute<'_>], seen: &[Attribute<'_>]) -> bool {
    let kinds: BTreeSet<u16> = sent.iter().chain(seen).map(|a| a.kind).collect();
    kinds.into_iter().all(|kind| {
        let sent: Vec<_> = sent.iter().filter(|a| a.kind == kind).collect();
        let seen: Vec<_> = seen.iter().filter(|a| a.kind == kind).collect();
        if sent.is_empty() {
            return seen.iter().all(|a| a.value.iter().all(|b| *b == 0));
        }
        sent.len() == seen.len() && sent.iter().zip(&seen).all(|(sent, seen)| equal(sent, seen))
    })
}

fn equal(sent: &Attribute<'_>, seen: &Attribute<'_>) -> bool {
    if !sent.nested {
        return sent.value == seen.value;
    }
    if is_counter(sent) && is_counter(seen) {
        return true; // it has counted since
    }
    same(&sent.nested().collect::<Vec<_>>(), &seen.nested().collect::<Vec<_>>())
}

fn is_counter(expression: &Attribute<'_>) -> bool {
    expression.find(1).is_some_and(|name| name.value == b"counter\0")
}

/// Finds out what a refusal means.
fn explain(error: Error, messages: &[Message]) -> FenceError {
    let Error::Refused(refusal) = &error else { return error.into() };
    match refusal.errno {
        libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT if refusal.index == 0 => {
            FenceError::Unavailable { what: NF_TABLES.to_owned(), hint: HINT }
        }
        libc::EPERM => FenceError::Unavailable {
            what: "permission to use nf_tables".to_owned(),
            hint: "CAP_NET_ADMIN over the network namespace is needed: a user namespace gives it, or root",
        },
        libc::ENOENT | libc::EOPNOTSUPP => match blamed(refusal, messages) {
            Some(what) => FenceError::Unavailable { what, hint: HINT },
            None => error.into(),
        },
        _ => error.into(),
    }
}

/// The expression that the kernel does not know, by the offset it reports; the rule's last one where it reports
/// none, because every other is part of nf_tables proper.
fn blamed(refusal: &Refusal, messages: &[Message]) -> Option<String> {
    let body = messages.get(refusal.index)?.body();
    let name = |e: Attribute<'_>| e.find(1).map(|n| n.text().into_owned());
    if let Some(at) = refusal.offset.and_then(|o| o.checked_sub(HEADER)) {
        return name(attributes(body.get(at..)?).next()?);
    }
    let list = attributes(body.get(NFGENMSG..)?).find(|a| a.kind == RULE_EXPRESSIONS && a.nested)?;
    let names: Vec<_> = list.nested().filter_map(name).collect();
    names.iter().find(|n| *n == TPROXY).or(names.last()).cloned()
}

#[cfg(test)]
mod tests;
