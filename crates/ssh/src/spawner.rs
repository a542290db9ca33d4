//! What the server needs of the sandbox.

use std::{future::Future, io, net::SocketAddr, os::fd::OwnedFd, pin::Pin};

use tokio::{net::TcpStream, sync::mpsc::UnboundedReceiver};

/// A program to start inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment entries `K=V`, over those of the command.
    pub env: Vec<Vec<u8>>,
    /// With a terminal of this size; without one, descriptors are given for 0 to 2.
    pub terminal: Option<Size>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// What happens to a program that was asked for.
#[derive(Debug)]
pub enum Happened {
    /// It is about to run. With the other end of its terminal, where it has one.
    Started {
        /// To write what is typed and read what is shown.
        terminal: Option<OwnedFd>,
    },
    /// It was not started; 126 or 127 as a shell would say, and why.
    NotStarted(i32, String),
    /// It ended.
    Ended(Ended),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// A program that was asked for. Dropped: it is hung up, and killed if that does not end it.
pub trait Running: Send + Sync {
    /// Sends a signal to its process group.
    fn signal(&self, signal: i32);
}

/// The way into the sandbox.
pub trait Spawner: Send + Sync {
    /// Starts a program. `stdio` holds three descriptors, or none for a program with a terminal.
    ///
    /// # Errors
    /// The sandbox is gone, or takes no more programs.
    fn spawn(
        &self,
        program: Program,
        stdio: Vec<OwnedFd>,
    ) -> io::Result<(Box<dyn Running>, UnboundedReceiver<Happened>)>;

    /// Connects to an address of the sandbox's own loopback, as a program inside would.
    fn connect(&self, to: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

    /// Whether a listener of Stockade itself answers there.
    fn is_ours(&self, to: SocketAddr) -> bool;

    /// The shell for interactive use; with it goes a `/bin/sh` for commands.
    ///
    /// # Errors
    /// Why there is none, for the person who asked.
    fn shell(&self) -> Result<Vec<u8>, String>;

    /// The program that serves files inside, with its arguments.
    fn sftp(&self) -> Vec<Vec<u8>>;
}
