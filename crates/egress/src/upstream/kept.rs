//! Connections at rest.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use stockade_policy::Permit;
use tokio::time::Instant;

use super::{Connection, Place, Sender, Speech};
use crate::{destination, grant::Grant};

/// Connections at rest to one place. As many as there may be clients with a request each at one time; more rest only
/// after a burst.
const PER_PLACE: usize = 64;
/// Connections at rest in all.
const MOST: usize = 512;
/// Longest rest. Below what common servers allow (nginx: 75 s), so that a kept connection is rarely found closed.
const REST: Duration = Duration::from_secs(50);

/// Connections to origins that the next request to the same place may use.
#[derive(Default)]
pub(crate) struct Origins(Mutex<Shelves>);

#[derive(Default)]
struct Shelves {
    places: HashMap<Place, Vec<Connection>>,
    count: usize,
}

impl Origins {
    /// A connection that a request under this grant may be sent on, if one is at rest. The grant learns its address.
    pub(crate) fn take(&self, grant: &mut Grant, place: &Place, spoken: &[Speech]) -> Option<Connection> {
        let mut shelves = self.lock();
        let shelf = shelves.places.get_mut(place)?;
        let before = shelf.len();
        shelf.retain(|c| c.usable(grant.permit()) && may_stay(c, grant));
        let at = shelf.iter().rposition(|c| spoken.contains(&c.speech()));
        let taken = at.and_then(|at| match shelf.get(at)?.share() {
            Some(shared) => Some(shared),
            None => Some(shelf.remove(at)),
        });
        let gone = before - shelf.len();
        shelves.count -= gone;
        let taken = taken?;
        grant.reached(taken.addr());
        Some(taken)
    }

    /// What the origin chose when it was offered the same before, if that connection is still at rest.
    pub(crate) fn speech(&self, grant: &Grant, place: &Place, offered: &[Speech]) -> Option<Speech> {
        let shelves = self.lock();
        let mut shelf = shelves.places.get(place)?.iter();
        let kept = shelf.find(|c| c.offered == offered && c.usable(grant.permit()) && may_stay(c, grant))?;
        Some(kept.speech())
    }

    /// Lets a connection rest whose last exchange is complete.
    pub(crate) fn keep(&self, mut connection: Connection) {
        connection.used = Instant::now();
        connection.reused = true;
        if connection.closed() || connection.personal {
            return;
        }
        let mut shelves = self.lock();
        if shelves.count >= MOST {
            shelves.sweep();
        }
        if shelves.count >= MOST {
            return;
        }
        let shelf = shelves.places.entry(connection.place.clone()).or_default();
        let shared = connection.speech() == Speech::Http2 && shelf.iter().any(|c| c.speech() == Speech::Http2);
        if shared || shelf.len() >= PER_PLACE {
            // Of an HTTP/2 connection one handle is enough.
            return;
        }
        shelf.push(connection);
        shelves.count += 1;
    }

    /// Ends all that rest: somebody needs their places.
    pub(crate) fn clear(&self) {
        *self.lock() = Shelves::default();
    }

    /// Ends what rested too long or was closed by its origin.
    pub(crate) fn sweep(&self) {
        self.lock().sweep();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shelves> {
        // Each change is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    fn sweep(&mut self) {
        self.places.retain(|_, shelf| {
            shelf.retain(|c| !c.closed() && c.used.elapsed() < REST);
            !shelf.is_empty()
        });
        self.count = self.places.values().map(Vec::len).sum();
    }
}

/// A reload may have taken away the address, or changed how the origin is to be verified.
fn may_stay(connection: &Connection, grant: &Grant) -> bool {
    destination::may_stay(connection.addr, grant.permit(), grant.config())
}

impl Connection {
    fn usable(&self, permit: &Permit) -> bool {
        !self.closed() && self.used.elapsed() < REST && self.generation == permit.generation()
    }

    fn closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender, _) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Another handle of a connection that can be shared.
    pub(crate) fn share(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else { return None };
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            place: self.place.clone(),
            addr: self.addr,
            generation: self.generation,
            verified: self.verified.clone(),
            offered: self.offered,
            used: Instant::now(),
            reused: true,
            personal: self.personal,
            slot: Arc::clone(&self.slot),
        })
    }
}
