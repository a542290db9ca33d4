//! Traffic that the fence refused, as events. Read from NFLOG, whose fields are binary: nothing the command writes is
//! parsed.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, poll};
use stockade_audit::{Action, Audit, Event, Finding, Network};
use stockade_confine::nflog::{Log, Refused};
use stockade_egress::InForce;
use stockade_policy::Snapshot;
use stockade_types::{Host, Port, Reason};
use tokio::sync::watch;

/// The thread that reads refusals; ends when told to, after everything that is there was read.
pub(crate) struct Refusals {
    stop: OwnedFd,
    thread: JoinHandle<()>,
}

impl Refusals {
    /// Starts reading.
    ///
    /// # Errors
    /// When the pipe or the thread cannot be made.
    pub(crate) fn listen(fd: OwnedFd, audit: Audit, policy: watch::Receiver<Arc<InForce>>) -> io::Result<Self> {
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut reader = Reader { log: Log::new(fd), audit, policy, lost: 0 };
        let thread = thread::Builder::new().name("refusals".to_owned()).stack_size(256 * 1024).spawn(move || {
            loop {
                let mut fds = [PollFd::new(&reader.log, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
                let polled = poll(&mut fds, None);
                let stop = !fds[1].revents().is_empty();
                if polled.is_err_and(|e| e != rustix::io::Errno::INTR) {
                    return;
                }
                reader.drain();
                if stop {
                    return;
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Reads what is left and ends.
    pub(crate) fn finish(self) {
        drop(self.stop);
        // The thread panics only with a bug in the parser, which must not take the exit code with it.
        let _ = self.thread.join();
    }
}

struct Reader {
    log: Log,
    audit: Audit,
    policy: watch::Receiver<Arc<InForce>>,
    lost: u64,
}

impl Reader {
    fn drain(&mut self) {
        while let Ok(refused) = self.log.read() {
            let policy = self.policy.borrow().clone();
            refused.iter().for_each(|r| self.audit.emit(Event::Network(event(r, &policy))));
        }
        let lost = self.log.lost();
        if lost > self.lost {
            let detail = "refused packets that the kernel could not report one by one".to_owned();
            let count = lost - self.lost;
            self.audit.emit(Event::Finding(Finding { reason: Reason::Bypass, severity: 2, detail, count }));
            self.lost = lost;
        }
    }
}

fn event(r: &Refused, policy: &Snapshot) -> Network {
    let what = match r.protocol {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        1 | 58 => "ICMP".to_owned(),
        n => format!("IP protocol {n}"),
    };
    let port = r.dport.and_then(Port::new).filter(|_| r.protocol == 6);
    let rest = if port.is_some() { "" } else { ", which no policy can allow" };
    Network {
        reason: Some(Reason::Bypass),
        protocol: r.protocol,
        addr: Some(r.dst),
        port: r.dport,
        rule: Some("fence".to_owned()),
        detail: Some(format!("{what} that goes around the proxy is refused{rest}")),
        suggestion: port.and_then(|port| policy.line_for(Host::Addr(r.dst.to_canonical()), port)),
        ..Network::new(Action::Denied, "fence", policy.generation())
    }
}
