//! A program on a channel: the task that owns it from its start to its last byte.

pub(crate) mod command;
mod modes;
mod pumps;

use std::{io, os::fd::OwnedFd, sync::Arc};

use russh::{
    ChannelId, ChannelWriteHalf, Pty, Sig,
    server::{Handle, Msg},
};
use rustix::{
    pipe::{PipeFlags, pipe_with},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver},
        watch,
    },
    task::JoinSet,
};

use crate::{
    counts::Opened,
    limits,
    server::link::{Control, Ends, Fed, Inbox, Link},
    spawner::{Ended, Happened, Program, Running, Size},
};

/// A terminal that was asked for.
pub(crate) struct Terminal {
    pub(crate) size: Size,
    pub(crate) modes: Vec<(Pty, u32)>,
}

/// Everything a session begins with.
pub(crate) struct Start {
    pub(crate) argv: Result<Vec<Vec<u8>>, String>,
    pub(crate) env: Vec<Vec<u8>>,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) write: ChannelWriteHalf<Msg>,
    pub(crate) handle: Handle,
    pub(crate) link: Arc<Link>,
    /// Counts it while it is there.
    pub(crate) opened: Opened,
}

/// Runs until the program or the channel ends, whichever comes first.
pub(crate) fn start(id: ChannelId, start: Start) {
    let size = start.terminal.as_ref().map_or(Size { rows: 0, cols: 0 }, |t| t.size);
    let (sizes, resized) = watch::channel(size);
    let (signals, signaled) = mpsc::channel(limits::SIGNALS);
    let (inbox, ends) = Inbox::new(Some(Control { size: sizes, signals }));
    let link = Arc::clone(&start.link);
    link.open(id, inbox);
    tokio::spawn(async move {
        let Ends { input, gone } = ends;
        let _opened = start.opened;
        let client = Client { write: Arc::new(start.write), handle: start.handle };
        let served = async {
            let end = match start.argv {
                Ok(argv) => {
                    let program = Program { argv, env: start.env, terminal: start.terminal.as_ref().map(|t| t.size) };
                    let modes = start.terminal.map(|t| t.modes);
                    let session = Session::new(&link, client.clone(), program, modes, input);
                    match session {
                        Ok(session) => session.run(resized, signaled).await,
                        Err(e) => End::NotStarted(126, format!("the sandbox cannot start it: {e}")),
                    }
                }
                Err(why) => End::NotStarted(127, why),
            };
            client.finish(end).await;
        };
        tokio::select! {
            // The program is dropped with the future, which hangs it up.
            _ = gone => {}
            () = served => {}
        }
        link.close(id);
    });
}

/// How a session is over.
enum End {
    Ended(Ended),
    NotStarted(i32, String),
}

/// The client's side of the channel.
#[derive(Clone)]
struct Client {
    write: Arc<ChannelWriteHalf<Msg>>,
    handle: Handle,
}

impl Client {
    /// Tells how it ended, and closes. A client that is gone does not mind.
    async fn finish(self, end: End) {
        let id = self.write.id();
        match end {
            End::Ended(Ended::Exited(code)) => {
                let _ = self.write.exit_status(code.cast_unsigned()).await;
            }
            End::Ended(Ended::Signaled(signal)) => {
                let name = Sig::Custom(signal_name(signal).to_owned());
                let _ = self.handle.exit_signal_request(id, name, false, String::new(), String::new()).await;
            }
            End::NotStarted(code, why) => {
                let _ = self.write.extended_data_bytes(1, format!("stockade: {why}\r\n")).await;
                let _ = self.write.exit_status(code.cast_unsigned()).await;
            }
        }
        let _ = self.write.eof().await;
        let _ = self.write.close().await;
    }
}

/// A program that was asked for.
struct Session {
    client: Client,
    running: Box<dyn Running>,
    events: UnboundedReceiver<Happened>,
    modes: Option<Vec<(Pty, u32)>>,
    /// Until there is somewhere to write it to.
    input: Option<UnboundedReceiver<Fed>>,
    /// Copies of what the program shows. Aborted when dropped.
    outputs: JoinSet<()>,
    /// The copy of what it reads. Aborted when dropped.
    inputs: JoinSet<()>,
}

impl Session {
    fn new(
        link: &Link,
        client: Client,
        program: Program,
        modes: Option<Vec<(Pty, u32)>>,
        input: UnboundedReceiver<Fed>,
    ) -> io::Result<Self> {
        let spawner = &link.shared.spawner;
        let (mut outputs, mut inputs) = (JoinSet::new(), JoinSet::new());
        let (running, events, input) = if program.terminal.is_some() {
            let (running, events) = spawner.spawn(program, Vec::new())?;
            (running, events, Some(input))
        } else {
            let (stdin, feed) = pipe_with(PipeFlags::CLOEXEC)?;
            let (shown, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
            let (told, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
            let (running, events) = spawner.spawn(program, vec![stdin, stdout, stderr])?;
            inputs.spawn(pumps::feed(pumps::sender(feed)?, input));
            outputs.spawn(pumps::show(pumps::receiver(shown)?, Arc::clone(&client.write), None));
            outputs.spawn(pumps::show(pumps::receiver(told)?, Arc::clone(&client.write), Some(1)));
            (running, events, None)
        };
        Ok(Self { client, running, events, modes, input, outputs, inputs })
    }

    /// Serves until the program ended and everything it showed is on its way.
    async fn run(mut self, mut resized: watch::Receiver<Size>, mut signaled: mpsc::Receiver<i32>) -> End {
        let mut master = None::<OwnedFd>;
        let ended = loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Happened::Started { terminal }) => {
                        if let Some(Err(e)) = terminal.as_ref().map(|fd| self.attach(fd)) {
                            return End::NotStarted(126, format!("its terminal: {e}"));
                        }
                        master = terminal;
                    }
                    Some(Happened::NotStarted(code, why)) => return End::NotStarted(code, why),
                    Some(Happened::Ended(ended)) => break ended,
                    None => return End::NotStarted(125, "the sandbox ended".to_owned()),
                },
                Some(signal) = signaled.recv() => self.running.signal(signal),
                Ok(()) = resized.changed() => {
                    let size = *resized.borrow_and_update();
                    if let Some(master) = &master {
                        // A terminal whose programs are gone has no size.
                        let _ = tcsetwinsize(master, winsize(size));
                    }
                }
            }
        };
        let all = async { while self.outputs.join_next().await.is_some() {} };
        if master.is_some() {
            // What was left running in the background may hold the terminal for ever; `sshd` does not wait for it either.
            let _ = tokio::time::timeout(limits::LAST_WORDS, all).await;
        } else {
            all.await;
        }
        End::Ended(ended)
    }

    fn attach(&mut self, fd: &OwnedFd) -> io::Result<()> {
        if let Some(modes) = self.modes.take() {
            modes::apply(fd, &modes)?;
        }
        let (keys, screen) = pumps::terminal(fd)?;
        if let Some(input) = self.input.take() {
            self.inputs.spawn(pumps::type_in(keys, input));
        }
        self.outputs.spawn(pumps::show(screen, Arc::clone(&self.client.write), None));
        Ok(())
    }
}

/// A terminal's size from what a client says, within bounds.
pub(crate) fn size(cols: u32, rows: u32) -> Size {
    let side = |n: u32| u16::try_from(n.min(limits::TERMINAL_SIDE)).unwrap_or(u16::MAX);
    Size { rows: side(rows), cols: side(cols) }
}

fn winsize(size: Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The signals that RFC 4254 names, with the numbers of Linux, which all its architectures share for these.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("ABRT", 6),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
];

/// The number of a signal that a client may send.
pub(crate) fn signal_number(signal: &Sig) -> Option<i32> {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name.as_str(),
    };
    SIGNALS.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
}

fn signal_name(signal: i32) -> &'static str {
    SIGNALS.iter().find(|(_, number)| *number == signal).map_or("KILL", |(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(size(80, 24), Size { rows: 24, cols: 80 });
        assert_eq!(size(u32::MAX, 0), Size { rows: 0, cols: 4096 });
    }

    #[test]
    fn only_named_signals_are_sent() {
        assert_eq!(signal_number(&Sig::TERM), Some(15));
        assert_eq!(signal_number(&Sig::Custom("USR2".to_owned())), Some(12));
        assert_eq!(signal_number(&Sig::Custom("STOP".to_owned())), None);
        assert_eq!(signal_name(11), "SEGV");
    }
}
