//! Every bound of the server, with what happens at it. `docs/limits.md` lists them.

use std::time::Duration;

/// From the first byte to a login; then the connection is closed.
pub const LOGIN_TIME: Duration = Duration::from_secs(30);
/// Bytes read before a login; more closes the connection.
pub const LOGIN_BYTES: u64 = 256 * 1024;
/// Rejected tries of one connection, offers of unknown keys included; the next one closes it.
pub const LOGIN_TRIES: usize = 10;
/// A rejected try is answered no sooner.
pub const REJECTION_TIME: Duration = Duration::from_millis(50);
/// Connections at once; a further one is closed unread.
pub const CONNECTIONS: usize = 256;
/// Of these, connections without a login.
pub const STRANGERS: usize = 128;
/// Channels at once in one connection; a further one is refused.
pub const CHANNELS: usize = 128;
/// Channels of one connection in all, because the library keeps some memory for each; then it is closed.
pub const CHANNELS_EVER: u32 = 20_000;
/// Channels opened without pause; then [`OPENS_PER_SECOND`].
pub const OPENS_BURST: f64 = 200.0;
/// Channels opened per second in the long run; more are refused.
pub const OPENS_PER_SECOND: f64 = 100.0;
/// Refused requests of one connection; the next one closes it.
pub const REFUSALS: u32 = 1000;
/// Bytes of a command. Linux takes no longer argument; a longer one is refused.
pub const COMMAND: usize = 128 * 1024 - 1;
/// Variables a client may set for one session.
pub const VARIABLES: usize = 32;
/// Bytes of a variable's value, and of a terminal's name.
pub const VALUE: usize = 256;
/// Rows or columns of a terminal; larger ones count as this.
pub const TERMINAL_SIDE: u32 = 4096;
/// Signals waiting for a session; further ones are dropped.
pub const SIGNALS: usize = 16;
/// Input that programs of one connection have not read yet; above it windows are not widened any more.
pub const BACKLOG: usize = 512 * 1024;
/// The most input that windows given out can add to; a client that sends more ignores them, and is disconnected.
pub const BACKLOG_MOST: usize = 64 * 1024 * 1024;
/// A channel's window when it is opened.
pub const WINDOW: u32 = 256 * 1024;
/// A channel's window once it was used.
pub const WINDOW_WIDE: u32 = 2 * 1024 * 1024;
/// A window that is held shut: the client may ask again with each pair of bytes.
pub const WINDOW_SHUT: u32 = 2;
/// How long a byte into a window that is held shut is left unanswered.
pub const SHUT_PAUSE: Duration = Duration::from_millis(5);
/// Silence after which a client is asked whether it is there; three unanswered questions end the connection.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// A client that takes nothing for so long is gone.
pub const STALLED: Duration = Duration::from_secs(120);
/// A connection without channels is closed after this.
pub const IDLE: Duration = Duration::from_secs(15 * 60);
/// Bytes or time after which keys are exchanged anew.
pub const REKEY_BYTES: usize = 1 << 30;
/// See [`REKEY_BYTES`].
pub const REKEY_TIME: Duration = Duration::from_secs(3600);
/// Bytes of an `authorized_keys` file.
pub const KEYS_FILE: usize = 1024 * 1024;
/// Lines of keys in it.
pub const KEYS: usize = 4096;
/// Bytes of one line.
pub const KEYS_LINE: usize = 16 * 1024;
/// Bytes of a handshake line before SSH begins.
pub const TOKEN_LINE: usize = 512;
/// How far the clocks of a gateway and this machine may differ.
pub const TOKEN_SKEW: Duration = Duration::from_secs(60);
/// Used handshakes remembered; while it is full no further one is taken.
pub const TOKENS: usize = 16 * 1024;
/// Shortest shared secret.
pub const SECRET_LEAST: usize = 32;
/// Time a forwarded connection may take to be made.
pub const DIAL: Duration = Duration::from_secs(10);
/// How long output may follow a program's end on a terminal.
pub const LAST_WORDS: Duration = Duration::from_secs(5);
