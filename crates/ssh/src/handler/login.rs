//! Who may come in.

use std::{sync::Arc, time::SystemTime};

use russh::{
    keys::{Certificate, PublicKey},
    server::Auth,
};
use stockade_types::Reason;

use super::{Fault, Handler};
use crate::{
    access::{Access, Login},
    certificate::{self, Visitor},
    keys::{AuthorizedKeys, fingerprint},
    limits,
};

/// Offers of one connection, of keys known and unknown: more than any client has keys.
const OFFERS: usize = 4 * limits::LOGIN_TRIES;

impl Handler {
    /// A key before its proof. A certificate looks the same here as the key in it, so with authorities listed any key may
    /// go on to its proof.
    pub(super) async fn offered(&mut self, user: &str, key: &PublicKey) -> Result<Auth, Fault> {
        self.offers += 1;
        if self.offers > OFFERS {
            return Err(Fault::Abuse("with more keys than anybody has"));
        }
        let keys = self.keys().await;
        let authorities = keys.as_ref().is_some_and(|k| k.has_authorities());
        if self.access(keys.as_deref(), key).is_some() || authorities {
            return Ok(Auth::Accept);
        }
        self.link.offered(user, fingerprint(key));
        Ok(Auth::reject())
    }

    /// The holder of a key.
    pub(super) async fn proven(&mut self, user: &str, key: &PublicKey) -> Auth {
        let by = fingerprint(key);
        // Asked again: between an offer and its proof there may be half a minute.
        let keys = self.keys().await;
        match self.access(keys.as_deref(), key) {
            Some(access) => self.accept(Login { user: user.to_owned(), by, access }),
            None => {
                self.link.offered(user, by);
                Auth::reject()
            }
        }
    }

    /// The holder of a certificate.
    pub(super) async fn certified(&mut self, user: &str, certificate: &Certificate) -> Auth {
        let Some(keys) = self.keys().await else { return Auth::reject() };
        let shared = &self.link.shared;
        let visitor = Visitor { user, peer: self.link.ip(), now: SystemTime::now() };
        match certificate::check(&keys, &shared.names, &visitor, certificate) {
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

    /// Who may come in now; nobody by this list on a connection whose handshake named its key.
    async fn keys(&self) -> Option<Arc<AuthorizedKeys>> {
        match (&self.only, &self.link.shared.keys) {
            (None, Some(ring)) => ring.now().await,
            _ => None,
        }
    }

    /// What the holder of this key may do.
    fn access(&self, keys: Option<&AuthorizedKeys>, key: &PublicKey) -> Option<Access> {
        match &self.only {
            Some(only) => (fingerprint(key) == *only).then(Access::full),
            None => keys?.holder(key, self.link.ip(), SystemTime::now()),
        }
    }
}
