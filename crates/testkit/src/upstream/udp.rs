//! A UDP server that takes datagrams and answers none.

use std::{
    net::{SocketAddr, ToSocketAddrs, UdpSocket},
    sync::{Arc, Mutex},
};

use super::{Counters, background};

/// A UDP sink.
#[derive(Debug)]
pub struct Udp {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What reached it.
    pub counters: Counters,
    datagrams: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Udp {
    /// Starts one.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn sink(addr: impl ToSocketAddrs) -> Self {
        let socket = UdpSocket::bind(addr).expect("binding a UDP sink (is this inside Outer::run?)");
        let server =
            Self { addr: socket.local_addr().unwrap(), counters: Counters::default(), datagrams: Arc::default() };
        let (counters, datagrams) = (server.counters.clone(), Arc::clone(&server.datagrams));
        background("udp", move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok((n, _)) = socket.recv_from(&mut buffer) {
                datagrams.lock().unwrap().push(buffer[..n].to_vec());
                counters.received(n);
                counters.arrived();
            }
        });
        server
    }

    /// The datagrams so far.
    #[must_use]
    pub fn datagrams(&self) -> Vec<Vec<u8>> {
        self.datagrams.lock().unwrap().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_kept_and_counted() {
        let server = Udp::sink("127.0.0.1:0");
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"ping", server.addr).unwrap();
        server.counters.wait_for_bytes(4);
        assert_eq!(server.datagrams(), [b"ping"]);
    }
}
