//! Who may come in.

use std::time::SystemTime;

use russh::{
    keys::{Certificate, PublicKey},
    server::Auth,
};
use stockade_types::Reason;

use super::{Fault, Handler};
use crate::{
    access::{Access, Login},
    certificate::{self, Visitor},
    keys::fingerprint,
    limits,
};

/// Offers of one connection, of keys known and unknown: more than any client has keys.
const OFFERS: usize = 4 * limits::LOGIN_TRIES;

impl Handler {
    /// A key before its proof. A certificate looks the same here as the key in it, so with authorities listed any key may
    /// go on to its proof.
    pub(super) fn offered(&mut self, user: &str, key: &PublicKey) -> Result<Auth, Fault> {
        self.offers += 1;
        if self.offers > OFFERS {
            return Err(Fault::Abuse("with more keys than anybody has"));
        }
        let authorities = self.only.is_none() && self.link.shared.keys.as_ref().is_some_and(|k| k.has_authorities());
        if self.access(key).is_some() || authorities {
            return Ok(Auth::Accept);
        }
        self.link.offered(user, fingerprint(key));
        Ok(Auth::reject())
    }

    /// The holder of a key.
    pub(super) fn proven(&mut self, user: &str, key: &PublicKey) -> Auth {
        let by = fingerprint(key);
        match self.access(key) {
            Some(access) => self.accept(Login { user: user.to_owned(), by, access }),
            None => {
                self.link.offered(user, by);
                Auth::reject()
            }
        }
    }

    /// The holder of a certificate.
    pub(super) fn certified(&mut self, user: &str, certificate: &Certificate) -> Auth {
        let shared = &self.link.shared;
        let Some(keys) = shared.keys.as_ref().filter(|_| self.only.is_none()) else { return Auth::reject() };
        let visitor = Visitor { user, peer: self.link.ip(), now: SystemTime::now() };
        match certificate::check(keys, &shared.names, &visitor, certificate) {
            Ok(login) => self.accept(login),
            Err(fault) => {
                let detail = format!("certificate {:?} refused: {fault}", certificate.key_id());
                shared.recorder.refused("login", self.link.peer, user, Reason::SshAuth, detail);
                Auth::reject()
            }
        }
    }

    fn accept(&mut self, login: Login) -> Auth {
        self.login = Some(login);
        Auth::Accept
    }

    /// What the holder of this key may do.
    fn access(&self, key: &PublicKey) -> Option<Access> {
        match &self.only {
            Some(only) => (fingerprint(key) == *only).then(Access::full),
            None => self.link.shared.keys.as_ref()?.holder(key, self.link.ip(), SystemTime::now()),
        }
    }
}
