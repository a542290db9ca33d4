//! The name server inside the sandbox.
//!
//! It answers from the policy alone: a name that an endpoint could allow gets its synthetic address, every other
//! name does not exist. No question ever leaves the machine.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use stockade_policy::Snapshot;
use stockade_types::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{alarm::Alarm, door::Shared, record};

mod answer;
pub(crate) mod pool;
pub(crate) mod volume;

use answer::{Answer, Note};

/// Longest query looked at. A question needs 271 bytes; the rest is options we do not know.
const LONGEST: usize = 2048;
/// Characters of an unknown name that are recorded: enough to recognise it, too few to carry data out in a log.
const RECORDED: usize = 80;

/// The answer of a name server that has just started to one query, without a socket: what fuzzing looks at.
#[must_use]
pub fn first_answer(query: &[u8], policy: &Arc<Snapshot>) -> Option<Vec<u8>> {
    answer::answer(query, policy, &pool::Pool::new(64, 64), 60).map(|answer| answer.bytes)
}

/// The server. One per sandbox, behind all its DNS sockets.
pub(crate) struct Server {
    shared: Arc<Shared>,
    /// Names that were unknown or new.
    volume: Alarm,
}

impl Server {
    pub(crate) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, volume: Alarm::new() })
    }

    /// Serves one UDP socket until it fails. Everything is answered in place: there is no queue to fill.
    pub(crate) async fn udp(self: Arc<Self>, socket: UdpSocket) -> io::Result<()> {
        let mut buffer = [0; LONGEST];
        loop {
            let (len, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // The error of an earlier answer: its asker is gone.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(e) => return Err(e),
            };
            if let Some(bytes) = buffer.get(..len).and_then(|q| self.answer(q)) {
                // A full socket buffer loses the answer, as UDP does; waiting would let one asker stop the others.
                socket.try_send_to(&bytes, from).ok();
            }
        }
    }

    /// Serves one TCP listener until it fails.
    pub(crate) async fn tcp(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(self.shared.config.dns.tcp_connections));
        loop {
            let (stream, _): (TcpStream, SocketAddr) = crate::door::accept(&listener).await?;
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                server.stream(stream).await.ok();
                drop(place);
            });
        }
    }

    async fn stream(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let idle = self.shared.config.dns.tcp_idle;
        let lifetime = Instant::now() + idle * 12;
        let mut buffer = vec![0; LONGEST];
        while Instant::now() < lifetime {
            let query = match timeout(idle, read_query(&mut stream, &mut buffer)).await {
                Ok(Ok(Some(len))) => buffer.get(..len).unwrap_or_default(),
                Ok(Err(e)) => return Err(e),
                Ok(Ok(None)) | Err(_) => return Ok(()),
            };
            let Some(bytes) = self.answer(query) else { return Ok(()) };
            let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
            let framed = [&len.to_be_bytes()[..], &bytes].concat();
            timeout(idle, stream.write_all(&framed)).await??;
        }
        Ok(())
    }

    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        self.shared.questions.fetch_add(1, Ordering::Relaxed);
        let policy = self.shared.policy();
        let Answer { bytes, note } = answer::answer(query, &policy, &self.shared.pool, self.shared.config.dns.ttl)?;
        let audit = &self.shared.audit;
        match note {
            Note::Nothing => {}
            Note::NewWildcard => self.count(),
            Note::Unknown(name, denial) => {
                self.count();
                audit.emit(record::unknown_name(cut(&name), &denial));
            }
            // Reverse lookups name addresses and carry no wish to reach anything.
            Note::Malformed(name, _) if name.ends_with(".arpa") => {}
            Note::Malformed(name, why) => {
                self.count();
                audit.emit(record::malformed_name(cut(&name), why, policy.generation()));
            }
            Note::Exhausted(name) => audit.emit(record::pool_exhausted(&name, policy.generation())),
        }
        Some(bytes)
    }

    /// Counts a name that was unknown or new, and says once a minute when there are very many.
    fn count(&self) {
        let count = self.volume.count();
        if count == u64::from(self.shared.config.dns.alarm_per_minute) {
            let detail = "very many DNS questions for new or unknown names: data may be leaving in names";
            self.shared.audit.emit(record::finding(Reason::DnsVolume, detail, count));
        }
    }
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(RECORDED) {
        Some((at, _)) => format!("{}…", name.get(..at).unwrap_or_default()),
        None => name.to_owned(),
    }
}

/// One length-prefixed query; `None` at the end or when it is longer than any query.
async fn read_query(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let len = match stream.read_u16().await {
        Ok(len) => usize::from(len),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    let Some(space) = buffer.get_mut(..len) else { return Ok(None) };
    stream.read_exact(space).await?;
    Ok(Some(len))
}

#[cfg(test)]
mod tests;
