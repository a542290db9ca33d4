//! What the tasks of one connection share.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use russh::ChannelId;
use stockade_types::Reason;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::Instant,
};

use super::Shared;
use crate::{
    access::Login,
    backlog::{Backlog, Held},
    limits,
    record::Peer,
    spawner::Size,
};

/// One connection.
pub(crate) struct Link {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Peer,
    pub(crate) backlog: Arc<Backlog>,
    state: Mutex<State>,
}

struct State {
    /// Open channels. Dropped when the connection ends: every task then finishes.
    channels: HashMap<ChannelId, Inbox>,
    /// When the last channel closed, or the connection began.
    idle_since: Instant,
    login: Option<Login>,
    /// The place among those without a login.
    stranger: Option<OwnedSemaphorePermit>,
    /// Keys offered in vain, for the event of a failed login.
    offered: Vec<String>,
    user: String,
}

/// Where input of a channel goes. Dropped when the channel closes.
pub(crate) struct Inbox {
    /// Bounded by the [`Backlog`].
    pub(crate) input: mpsc::UnboundedSender<Fed>,
    /// Of a session.
    pub(crate) control: Option<Control>,
    /// Dropped with the rest, and noticed even by a task that waits for something else.
    #[expect(dead_code, reason = "its drop is what it is for")]
    alive: oneshot::Sender<()>,
}

/// The other ends of an [`Inbox`].
pub(crate) struct Ends {
    pub(crate) input: mpsc::UnboundedReceiver<Fed>,
    /// Ready when the channel is closed.
    pub(crate) gone: oneshot::Receiver<()>,
}

impl Inbox {
    pub(crate) fn new(control: Option<Control>) -> (Self, Ends) {
        let (sender, input) = mpsc::unbounded_channel();
        let (alive, gone) = oneshot::channel();
        (Self { input: sender, control, alive }, Ends { input, gone })
    }
}

/// Input of a channel.
pub(crate) enum Fed {
    Bytes(Held),
    End,
}

/// What else may be said to a session.
pub(crate) struct Control {
    pub(crate) size: watch::Sender<Size>,
    pub(crate) signals: mpsc::Sender<i32>,
}

impl Link {
    pub(crate) fn new(shared: Arc<Shared>, peer: Peer, stranger: OwnedSemaphorePermit) -> Self {
        let state = State {
            channels: HashMap::new(),
            idle_since: Instant::now(),
            login: None,
            stranger: Some(stranger),
            offered: Vec::new(),
            user: String::new(),
        };
        Self { shared, peer, backlog: Arc::default(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer's address, where it has one.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self.peer {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Unix { .. } => None,
        }
    }

    pub(crate) fn has_login(&self) -> bool {
        self.state().login.is_some()
    }

    /// Somebody came in: a place for the next stranger.
    pub(crate) fn came_in(&self, login: &Login) {
        self.shared.counts.came_in();
        self.shared.recorder.login(self.peer, login);
        let mut state = self.state();
        state.login = Some(login.clone());
        state.stranger = None;
        state.idle_since = Instant::now();
    }

    /// A key that was not taken.
    pub(crate) fn offered(&self, user: &str, key: String) {
        let mut state = self.state();
        user.clone_into(&mut state.user);
        if state.offered.len() < limits::LOGIN_TRIES && !state.offered.contains(&key) {
            state.offered.push(key);
        }
    }

    pub(crate) fn open(&self, id: ChannelId, inbox: Inbox) {
        self.state().channels.insert(id, inbox);
    }

    pub(crate) fn channels(&self) -> usize {
        self.state().channels.len()
    }

    pub(crate) fn close(&self, id: ChannelId) {
        let mut state = self.state();
        state.channels.remove(&id);
        state.idle_since = Instant::now();
    }

    pub(crate) fn close_all(&self) {
        self.state().channels.clear();
    }

    pub(crate) fn feed(&self, id: ChannelId, fed: Fed) {
        if let Some(inbox) = self.state().channels.get(&id) {
            // A task that is done takes nothing more; what it was sent is dropped with the message.
            let _ = inbox.input.send(fed);
        }
    }

    pub(crate) fn signal(&self, id: ChannelId, signal: i32) {
        if let Some(control) = self.state().channels.get(&id).and_then(|i| i.control.as_ref()) {
            let _ = control.signals.try_send(signal);
        }
    }

    pub(crate) fn resize(&self, id: ChannelId, size: Size) {
        if let Some(control) = self.state().channels.get(&id).and_then(|i| i.control.as_ref()) {
            control.size.send_replace(size);
        }
    }

    /// Waits until there is a reason to end the connection: no login in time, or nothing done for long.
    pub(crate) async fn outlived(&self, login_by: Instant) -> &'static str {
        tokio::time::sleep_until(login_by).await;
        if !self.has_login() {
            return "no login in time";
        }
        loop {
            let (busy, until) = {
                let state = self.state();
                (!state.channels.is_empty(), state.idle_since + limits::IDLE)
            };
            if !busy && Instant::now() >= until {
                return "idle for too long";
            }
            tokio::time::sleep_until(if busy { Instant::now() + limits::IDLE / 4 } else { until }).await;
        }
    }

    pub(crate) fn record_end(&self, why: &str) {
        let state = self.state();
        let recorder = &self.shared.recorder;
        match &state.login {
            Some(login) => recorder.closed(self.peer, login, why),
            None => {
                let keys = if state.offered.is_empty() { "none".to_owned() } else { state.offered.join(", ") };
                self.shared.counts.turned_away(Reason::SshAuth);
                let detail = format!("no login; keys refused: {keys}; {why}");
                recorder.refused("login", self.peer, &state.user, Reason::SshAuth, detail);
            }
        }
    }
}
