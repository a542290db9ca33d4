//! Synthetic addresses: one per name, for as long as the sandbox lives.
//!
//! A name keeps its address and an address its name whatever the policy becomes: what an old answer says can only
//! lead back to the name it was given for, and that name is judged anew by every connection.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use stockade_policy::{SYNTHETIC_V4, SYNTHETIC_V6};
use stockade_types::HostName;

const V4: u32 = SYNTHETIC_V4.0.to_bits();
const V4_SIZE: u32 = 1 << (32 - SYNTHETIC_V4.1);
const V6: u128 = SYNTHETIC_V6.0.to_bits();
const V6_SHIFT: u32 = 128 - SYNTHETIC_V6.1 as u32;

/// The pool.
#[derive(Debug)]
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    literals: u32,
    wildcards: u32,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<HostName, u32>,
    by_slot: Vec<HostName>,
    literals: u32,
    wildcards: u32,
}

/// The two addresses of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Synthetic {
    /// In 198.18.0.0/15.
    pub(crate) v4: Ipv4Addr,
    /// In fd53:746f:636b::/48.
    pub(crate) v6: Ipv6Addr,
}

/// What an address stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Itself: it is not in the pool.
    Itself,
    /// The name that it was given to.
    Name(HostName),
    /// Nothing: it is in the pool and was given to no name.
    Nothing,
}

/// No address is left for another name of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no synthetic address is left for another name")]
pub(crate) struct Exhausted;

impl Pool {
    /// A pool with room for so many names of each kind, and never more than it has addresses.
    #[must_use]
    pub(crate) fn new(literals: u32, wildcards: u32) -> Self {
        let wildcards = wildcards.min(V4_SIZE - 2);
        Self { inner: Mutex::default(), literals: literals.min(V4_SIZE - 2 - wildcards), wildcards }
    }

    /// The addresses of a name. Names written out in a policy and names that a wildcard matched have separate room,
    /// so that asking for many of the latter takes nothing from the former.
    ///
    /// # Errors
    /// When the room of its kind is full. Nothing is ever taken from another name.
    pub(crate) fn assign(&self, name: &HostName, literal: bool) -> Result<(Synthetic, bool), Exhausted> {
        let mut inner = self.lock();
        if let Some(slot) = inner.by_name.get(name) {
            return Ok((Synthetic::of(*slot), false));
        }
        let full = if literal { inner.literals >= self.literals } else { inner.wildcards >= self.wildcards };
        let slot = u32::try_from(inner.by_slot.len()).map_err(|_| Exhausted)?;
        if full {
            return Err(Exhausted);
        }
        *(if literal { &mut inner.literals } else { &mut inner.wildcards }) += 1;
        inner.by_slot.push(name.clone());
        inner.by_name.insert(name.clone(), slot);
        Ok((Synthetic::of(slot), true))
    }

    /// What an address that the command dials stands for.
    #[must_use]
    pub(crate) fn meaning(&self, addr: IpAddr) -> Meaning {
        let Some(slot) = slot(addr) else { return Meaning::Itself };
        let inner = self.lock();
        let name = slot.and_then(|s| inner.by_slot.get(usize::try_from(s).ok()?));
        name.map_or(Meaning::Nothing, |n| Meaning::Name(n.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the maps usable, so a poisoned lock is still a good one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Synthetic {
    /// Slot 0 has the second address of each block: the first is a network address to some tools.
    fn of(slot: u32) -> Self {
        Self { v4: Ipv4Addr::from_bits(V4 + 1 + slot), v6: Ipv6Addr::from_bits(V6 + 1 + u128::from(slot)) }
    }
}

/// `None` outside the pool; `Some(None)` inside it where no slot can be.
fn slot(addr: IpAddr) -> Option<Option<u32>> {
    match addr.to_canonical() {
        IpAddr::V4(a) => {
            let offset = a.to_bits().wrapping_sub(V4);
            (offset < V4_SIZE).then(|| offset.checked_sub(1))
        }
        IpAddr::V6(a) => {
            let bits = a.to_bits();
            (bits >> V6_SHIFT == V6 >> V6_SHIFT).then(|| u32::try_from((bits - V6).checked_sub(1)?).ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn names_keep_their_addresses_and_addresses_their_names() {
        let pool = Pool::new(10, 10);
        let (a, fresh) = pool.assign(&name("a.test"), true).unwrap();
        let (b, _) = pool.assign(&name("b.test"), false).unwrap();
        assert!(fresh && a != b);
        assert_eq!((a.v4.to_string(), a.v6.to_string()), ("198.18.0.1".into(), "fd53:746f:636b::1".into()));
        assert_eq!(pool.assign(&name("a.test"), false), Ok((a, false)), "same name, same address");
        for addr in [IpAddr::from(a.v4), a.v6.into(), a.v4.to_ipv6_mapped().into()] {
            assert_eq!(pool.meaning(addr), Meaning::Name(name("a.test")), "{addr}");
        }
    }

    #[test]
    fn what_was_never_given_out_means_nothing_and_other_addresses_themselves() {
        let pool = Pool::new(10, 10);
        for addr in ["198.18.0.0", "198.18.0.9", "198.19.255.255", "fd53:746f:636b::", "fd53:746f:636b:ffff::1"] {
            assert_eq!(pool.meaning(addr.parse().unwrap()), Meaning::Nothing, "{addr}");
        }
        for addr in ["198.17.255.255", "198.20.0.0", "fd53:746f:636c::1", "8.8.8.8", "::1"] {
            assert_eq!(pool.meaning(addr.parse().unwrap()), Meaning::Itself, "{addr}");
        }
    }

    #[test]
    fn a_full_room_takes_nothing_from_the_other() {
        let pool = Pool::new(1, 2);
        for n in ["x.w.test", "y.w.test"] {
            pool.assign(&name(n), false).unwrap();
        }
        assert_eq!(pool.assign(&name("z.w.test"), false), Err(Exhausted));
        pool.assign(&name("lit.test"), true).unwrap();
        assert_eq!(pool.assign(&name("lit2.test"), true), Err(Exhausted));
        assert!(pool.assign(&name("x.w.test"), false).is_ok(), "who has one keeps it");
    }

    #[test]
    fn the_whole_pool_stays_inside_its_block() {
        let pool = Pool::new(u32::MAX, u32::MAX);
        assert_eq!(pool.literals + pool.wildcards, V4_SIZE - 2);
        let last = Synthetic::of(pool.literals + pool.wildcards - 1);
        assert_eq!(last.v4.to_string(), "198.19.255.254");
    }
}
