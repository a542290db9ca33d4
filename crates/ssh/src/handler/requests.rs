//! Requests on a channel that lead to a program.

use std::{net::SocketAddr, sync::Arc};

use russh::{ChannelId, server::Session};
use stockade_types::{Escaped, Reason};

use super::{Fault, Fresh, Handler};
use crate::{
    counts::{Kind, Opened},
    limits,
    session::{self, Start, Terminal, command},
};

/// What a client wants to run.
pub(super) enum Wanted<'a> {
    Shell,
    Command(&'a [u8]),
    Subsystem(&'a str),
}

impl Handler {
    /// A request that is answered with no.
    pub(super) fn deny(&mut self, id: ChannelId, what: String, session: &mut Session) -> Result<(), Fault> {
        session.channel_failure(id)?;
        self.refuse("request", Reason::SshRequest, what)
    }

    pub(super) fn terminal(
        &mut self,
        id: ChannelId,
        term: &str,
        terminal: Terminal,
        session: &mut Session,
    ) -> Result<(), Fault> {
        let permitted = self.login.as_ref().is_some_and(|l| l.access.pty);
        // The name goes into the environment and from there into paths of terminfo.
        let plain = term.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+'));
        let Some(fresh) = self.fresh.get_mut(&id) else {
            return self.deny(id, "a terminal for a session that runs, or for none".to_owned(), session);
        };
        if !permitted || !plain || term.len() > limits::VALUE || fresh.terminal.is_some() {
            return self.deny(id, format!("terminal {}", Escaped(term)), session);
        }
        fresh.terminal = Some(terminal);
        if !term.is_empty() {
            fresh.env.push(format!("TERM={term}").into_bytes());
        }
        session.channel_success(id)?;
        Ok(())
    }

    pub(super) fn variable(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Fault> {
        let fits = self.fresh.get_mut(&id).filter(|fresh| {
            command::may_set(name) && command::is_harmless(value) && fresh.env.len() < limits::VARIABLES
        });
        match fits {
            Some(fresh) => {
                fresh.env.push(format!("{name}={value}").into_bytes());
                session.channel_success(id)?;
                Ok(())
            }
            None => self.deny(id, format!("variable {}", Escaped(name)), session),
        }
    }

    pub(super) fn start(&mut self, id: ChannelId, wanted: Wanted<'_>, session: &mut Session) -> Result<(), Fault> {
        let Some(login) = self.login.clone() else { return Err(Fault::Abuse("for a program before a login")) };
        let Some(fresh) = self.fresh.remove(&id) else {
            return self.deny(id, "a second program on one channel".to_owned(), session);
        };
        let spawner = self.link.shared.spawner.as_ref();
        let argv = match (login.access.command.as_deref(), &wanted) {
            (_, Wanted::Command(command)) if command.len() > limits::COMMAND || command.contains(&0) => {
                let detail = format!("a command of {} bytes, or with a zero byte", command.len());
                self.fresh.insert(id, fresh);
                return self.deny(id, detail, session);
            }
            (Some(forced), _) => command::shell(spawner, forced.as_bytes()),
            (None, Wanted::Shell) => spawner.shell().map(|shell| vec![shell]),
            (None, Wanted::Command(command)) => command::shell(spawner, command),
            (None, Wanted::Subsystem("sftp")) => Ok(spawner.sftp()),
            (None, Wanted::Subsystem(name)) => {
                let detail = format!("subsystem {}", Escaped(name));
                self.fresh.insert(id, fresh);
                return self.deny(id, detail, session);
            }
        };
        self.record(&login.user, &wanted);
        let kind = match (&login.access.command, &wanted) {
            (Some(_), _) => Kind::Forced,
            (None, Wanted::Shell) => Kind::Shell,
            (None, Wanted::Command(_)) => Kind::Exec,
            (None, Wanted::Subsystem(_)) => Kind::Sftp,
        };
        let opened = Opened::session(&self.link.shared.counts, kind);
        let Fresh { write, terminal, mut env } = fresh;
        if let (Some(_), Wanted::Command(original)) = (&login.access.command, &wanted) {
            env.push([b"SSH_ORIGINAL_COMMAND=", *original].concat());
        }
        env.extend(command::MARKS.iter().map(|mark| mark.as_bytes().to_vec()));
        let link = Arc::clone(&self.link);
        let start = Start { argv, env, terminal, write, handle: session.handle(), link, opened };
        session.channel_success(id)?;
        session::start(id, start);
        Ok(())
    }

    fn record(&self, user: &str, wanted: &Wanted<'_>) {
        let what = match wanted {
            Wanted::Shell => "shell".to_owned(),
            Wanted::Command(command) => format!("exec {}", String::from_utf8_lossy(command)),
            Wanted::Subsystem(name) => format!("subsystem {name}"),
        };
        self.link.shared.recorder.session(self.link.peer, user, &what);
    }

    /// Only where the sandbox itself answers, and not Stockade.
    pub(super) fn may_forward(&self, host: &str, target: SocketAddr) -> Result<SocketAddr, String> {
        let permitted = self.login.as_ref().is_some_and(|l| l.access.may_open(host, target));
        if !permitted {
            return Err(format!("this login may not connect to {target}"));
        }
        if self.link.shared.spawner.is_ours(target) {
            return Err(format!("{target} is Stockade's own"));
        }
        Ok(target)
    }
}
