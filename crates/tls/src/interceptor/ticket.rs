//! Session tickets that are good for one host.

use std::{fmt, sync::Arc};

use rustls::server::ProducesTickets;
use stockade_types::Host;

/// A ticket names the host inside its encryption, and is no ticket for any other: resuming must not lead a client that
/// proved nothing about host B into a connection of host B. rustls compares the SNI itself; clients may send none.
pub(super) struct HostTickets {
    host: Box<[u8]>,
    inner: Arc<dyn ProducesTickets>,
}

impl HostTickets {
    pub(super) fn new(host: &Host, inner: Arc<dyn ProducesTickets>) -> Self {
        Self { host: host.to_string().into_bytes().into_boxed_slice(), inner }
    }
}

impl fmt::Debug for HostTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostTickets(redacted)")
    }
}

impl ProducesTickets for HostTickets {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let length = u8::try_from(self.host.len()).ok()?;
        self.inner.encrypt(&[&[length], &*self.host, plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let opened = self.inner.decrypt(cipher)?;
        let (length, rest) = opened.split_first()?;
        let (host, plain) = rest.split_at_checked(usize::from(*length))?;
        (host == &*self.host).then(|| plain.to_vec())
    }
}
