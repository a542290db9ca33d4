//! TCP servers: one that returns what it gets, one that only takes, one of the test's own.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{Arc, Mutex},
};

use super::{Counters, background};

/// How much of each connection's start is kept: room for a ClientHello.
const KEPT: usize = 4096;

/// A TCP server.
#[derive(Debug)]
pub struct Tcp {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What reached it.
    pub counters: Counters,
    first: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tcp {
    /// Sends back every byte.
    pub fn echo(addr: impl ToSocketAddrs) -> Self {
        Self::serve(addr, |mut stream| {
            let mut buffer = [0; 64 * 1024];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => stream.write_all(&buffer[..n])?,
                }
            }
        })
    }

    /// Takes everything, answers nothing; [`Self::first_bytes`] shows how each connection began.
    pub fn sink(addr: impl ToSocketAddrs) -> Self {
        Self::serve(addr, |mut stream| io::copy(&mut stream, &mut io::sink()).map(drop))
    }

    /// Runs `handler` for each connection on a thread of its own. Its error ends the connection.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn serve(
        addr: impl ToSocketAddrs,
        handler: impl Fn(Counted) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).expect("binding an upstream (is this inside Outer::run?)");
        let server =
            Self { addr: listener.local_addr().unwrap(), counters: Counters::default(), first: Arc::default() };
        let (counters, first, handler) = (server.counters.clone(), Arc::clone(&server.first), Arc::new(handler));
        background("tcp", move || {
            for stream in listener.incoming().flatten() {
                counters.arrived();
                let index = {
                    let mut all = first.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let stream = Counted { stream, counters: counters.clone(), first: Arc::clone(&first), index };
                let handler = Arc::clone(&handler);
                background("tcp-connection", move || drop(handler(stream)));
            }
        });
        server
    }

    /// The first bytes of each connection so far, in order of arrival.
    #[must_use]
    pub fn first_bytes(&self) -> Vec<Vec<u8>> {
        self.first.lock().unwrap().clone()
    }
}

/// A connection that counts what it reads.
#[derive(Debug)]
pub struct Counted {
    stream: TcpStream,
    counters: Counters,
    first: Arc<Mutex<Vec<Vec<u8>>>>,
    index: usize,
}

impl Counted {
    /// The socket itself, for options and shutdown.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buffer)?;
        self.counters.received(n);
        let first = &mut self.first.lock().unwrap()[self.index];
        let room = KEPT - first.len();
        first.extend(&buffer[..n.min(room)]);
        Ok(n)
    }
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_returns_and_counts() {
        let server = Tcp::echo("127.0.0.1:0");
        let mut client = TcpStream::connect(server.addr).unwrap();
        client.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
        assert_eq!((server.counters.arrivals(), server.counters.bytes()), (1, 5));
    }

    #[test]
    fn sink_keeps_the_first_bytes_and_untouched_notices_them() {
        let server = Tcp::sink("127.0.0.1:0");
        server.counters.assert_untouched();
        TcpStream::connect(server.addr).unwrap().write_all(b"\x16\x03\x01").unwrap();
        server.counters.wait_for_bytes(3);
        assert_eq!(server.first_bytes(), [b"\x16\x03\x01"]);
        assert!(std::panic::catch_unwind(|| server.counters.assert_untouched()).is_err());
    }
}
