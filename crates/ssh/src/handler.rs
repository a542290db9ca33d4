//! The library's callbacks: each answers at once, and hands what takes time to the channel's own task.

mod login;
mod requests;

use std::{collections::HashMap, sync::Arc, time::Instant};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty, Sig,
    keys::Certificate,
    server::{self, Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey},
};
use stockade_types::Reason;

use crate::{
    access::Login,
    forward, limits,
    server::link::{Fed, Link},
    session::{self, Terminal},
    transport::Allowance,
};

/// Why a connection is ended from here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Protocol(#[from] russh::Error),
    #[error("the client asked {0}")]
    Abuse(&'static str),
}

/// The state of one connection that callbacks need.
pub(crate) struct Handler {
    link: Arc<Link>,
    allowance: Arc<Allowance>,
    /// The one key that may come in, when a handshake named it.
    only: Option<String>,
    login: Option<Login>,
    offers: usize,
    /// Channels that were opened and have not started anything.
    fresh: HashMap<ChannelId, Fresh>,
    opens: Opens,
    refusals: u32,
}

/// A session channel before its program.
struct Fresh {
    write: ChannelWriteHalf<Msg>,
    terminal: Option<Terminal>,
    env: Vec<Vec<u8>>,
}

/// How fast channels may be opened: a bucket that fills with time.
struct Opens {
    left: f64,
    at: Instant,
    ever: u32,
}

impl Opens {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * limits::OPENS_PER_SECOND;
        self.left = (self.left + filled).min(limits::OPENS_BURST);
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
            self.ever = self.ever.saturating_add(1);
        }
        enough
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.link.close_all();
    }
}

impl Handler {
    pub(crate) fn new(link: Arc<Link>, allowance: Arc<Allowance>, only: Option<String>) -> Self {
        Self {
            link,
            allowance,
            only,
            login: None,
            offers: 0,
            fresh: HashMap::new(),
            opens: Opens { left: limits::OPENS_BURST, at: Instant::now(), ever: 0 },
            refusals: 0,
        }
    }

    fn user(&self) -> &str {
        self.login.as_ref().map_or("", |l| &l.user)
    }

    /// Writes a refusal down; one too many ends the connection.
    fn refuse(&mut self, what: &'static str, reason: Reason, detail: String) -> Result<(), Fault> {
        self.refusals += 1;
        self.link.shared.counts.refused(what);
        self.link.shared.recorder.refused(what, self.link.peer, self.user(), reason, detail);
        if self.refusals > limits::REFUSALS { Err(Fault::Abuse("too often for what is refused")) } else { Ok(()) }
    }

    /// Whether one more channel may be opened.
    fn room(&mut self) -> Result<bool, Fault> {
        let many = self.link.channels() + self.fresh.len() >= limits::CHANNELS;
        if !many && self.opens.take() {
            return if self.opens.ever > limits::CHANNELS_EVER {
                Err(Fault::Abuse("for more channels than one connection may open"))
            } else {
                Ok(true)
            };
        }
        let detail = if many { "too many channels at once" } else { "channels are opened too fast" };
        self.refuse("channel", Reason::Limit, detail.to_owned())?;
        Ok(false)
    }
}

impl server::Handler for Handler {
    type Error = Fault;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Fault> {
        self.offered(user, offer.public_key).await
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Fault> {
        Ok(self.proven(user, key.public_key).await)
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Fault> {
        Ok(self.certified(user, certificate).await)
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Fault> {
        let login = self.login.as_ref().ok_or(Fault::Abuse("to come in without a key"))?;
        self.allowance.lift();
        self.link.came_in(login);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        if !self.room()? {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // The other half would have to be emptied all the time; data comes by the callback, too.
        let id = channel.id();
        let (_, write) = channel.split();
        self.fresh.insert(id, Fresh { write, terminal: None, env: Vec::new() });
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        if !self.room()? {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let target = forward::target(host, port).and_then(|target| self.may_forward(host, target));
        match target {
            Ok(target) => {
                let user = self.user().to_owned();
                forward::start(Arc::clone(&self.link), user, target, channel, reply);
            }
            Err(detail) => {
                reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
                self.refuse("forward", Reason::ForwardTarget, detail)?;
            }
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        self.refuse("forward", Reason::SshRequest, format!("unix sockets are not forwarded: {path}"))
    }

    async fn channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        self.refuse("forward", Reason::SshRequest, "X11 is not forwarded".to_owned())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        self.refuse("forward", Reason::SshRequest, "a server's channel, opened by the client".to_owned())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Fault> {
        self.fresh.remove(&id);
        self.link.close(id);
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Fault> {
        self.link.feed(id, Fed::End);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Fault> {
        let backlog = Arc::clone(&self.link.backlog);
        let knocks = backlog.is_full() && data.len() <= limits::WINDOW_SHUT as usize;
        let held = backlog.hold(data).ok_or(Fault::Abuse("to take more than its windows allow"))?;
        self.link.feed(id, Fed::Bytes(held));
        if knocks {
            backlog.pause().await;
        }
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.link.backlog.window()
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Fault> {
        let terminal = Terminal { size: session::size(cols, rows), modes: modes.to_vec() };
        self.terminal(id, term, terminal, session)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Fault> {
        self.variable(id, name, value, session)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Fault> {
        self.start(id, requests::Wanted::Shell, session)
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Fault> {
        self.start(id, requests::Wanted::Command(command), session)
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Fault> {
        self.start(id, requests::Wanted::Subsystem(name), session)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Fault> {
        self.link.resize(id, session::size(cols, rows));
        session.channel_success(id)?;
        Ok(())
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, session: &mut Session) -> Result<(), Fault> {
        match session::signal_number(&signal) {
            Some(number) => {
                self.link.signal(id, number);
                session.channel_success(id)?;
                Ok(())
            }
            None => self.deny(id, format!("signal {signal:?}"), session),
        }
    }

    async fn agent_request(&mut self, id: ChannelId, session: &mut Session) -> Result<bool, Fault> {
        self.deny(id, "agent forwarding".to_owned(), session)?;
        Ok(false)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Fault> {
        self.deny(id, "X11 forwarding".to_owned(), session)
    }

    async fn tcpip_forward(&mut self, host: &str, port: &mut u32, _: &mut Session) -> Result<bool, Fault> {
        self.refuse("forward", Reason::SshRequest, format!("ports are not forwarded from inside: {host}:{port}"))?;
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Fault> {
        self.refuse("forward", Reason::SshRequest, format!("sockets are not forwarded from inside: {path}"))?;
        Ok(false)
    }
}
