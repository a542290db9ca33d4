//! Servers that a test starts in its [`crate::Outer`] world: each a few threads, each counting what reaches it.

mod dns;
mod http;
pub mod https;
mod tcp;
mod udp;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub use dns::{Answer, Dns, Hostile};
pub use http::{Http, Request, Response};
pub use https::Https;
pub use tcp::Tcp;
pub use udp::Udp;

/// What reached a server.
#[derive(Debug, Default, Clone)]
pub struct Counters {
    arrivals: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Counters {
    /// Connections accepted, or datagrams received.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::SeqCst)
    }

    /// Payload bytes received.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Nothing arrived: no connection, no datagram, no byte.
    ///
    /// # Panics
    /// When something did, also within a short while from now.
    #[track_caller]
    pub fn assert_untouched(&self) {
        // What left the sandbox is local traffic and arrives at once; the pause covers a busy machine.
        thread::sleep(Duration::from_millis(50));
        assert_eq!((self.arrivals(), self.bytes()), (0, 0), "(arrivals, bytes) of a server nothing may reach");
    }

    /// Waits until at least `bytes` bytes have arrived.
    ///
    /// # Panics
    /// After five seconds.
    #[track_caller]
    pub fn wait_for_bytes(&self, bytes: u64) {
        let began = Instant::now();
        while self.bytes() < bytes {
            assert!(began.elapsed() < Duration::from_secs(5), "{} of {bytes} bytes arrived", self.bytes());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn arrived(&self) {
        self.arrivals.fetch_add(1, Ordering::SeqCst);
    }

    fn received(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }
}

/// Starts a named thread that lives as long as the process.
fn background(name: &str, body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name.to_owned()).spawn(body).expect("starting a thread");
}
