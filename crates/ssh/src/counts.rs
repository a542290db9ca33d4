//! What happened so far, in numbers: read when somebody asks. Every word is one of ours, whatever a client says.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use stockade_types::Reason;

/// Numbers told apart by a word.
#[derive(Debug)]
struct Tally<const N: usize>([(&'static str, AtomicU64); N]);

impl<const N: usize> Tally<N> {
    fn new(words: [&'static str; N]) -> Self {
        Self(words.map(|word| (word, AtomicU64::new(0))))
    }

    fn of(&self, word: &str) -> Option<&AtomicU64> {
        self.0.iter().find(|(known, _)| *known == word).map(|(_, number)| number)
    }

    fn add(&self, word: &str) {
        if let Some(number) = self.of(word) {
            number.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self) -> [(&'static str, u64); N] {
        self.0.each_ref().map(|(word, number)| (*word, number.load(Ordering::Relaxed)))
    }
}

/// What is asked for on a session's channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Shell,
    Exec,
    Sftp,
    /// Whatever it was, the line of the key runs something else.
    Forced,
}

impl Kind {
    const WORDS: [&'static str; 4] = ["shell", "exec", "sftp", "forced"];

    fn word(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Exec => "exec",
            Self::Sftp => "sftp",
            Self::Forced => "forced",
        }
    }
}

/// The counters of one server.
#[derive(Debug)]
pub struct Counts {
    connections: AtomicU64,
    logins: Tally<5>,
    sessions: Tally<4>,
    sessions_open: Tally<4>,
    forwards: Tally<3>,
    forwards_open: AtomicU64,
    refused: Tally<2>,
}

/// What they say now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Connections open.
    pub connections: u64,
    /// How connections fared that wanted to come in: `accepted`, or the reason why not.
    pub logins: [(&'static str, u64); 5],
    /// Programs started, by what was asked for.
    pub sessions: [(&'static str, u64); 4],
    /// Of these, not over.
    pub sessions_open: [(&'static str, u64); 4],
    /// Connections to the sandbox's loopback: `accepted`, `refused`, or `failed` where nobody answers.
    pub forwards: [(&'static str, u64); 3],
    /// Of these, not over.
    pub forwards_open: u64,
    /// Other things that were refused, by what they were.
    pub refused: [(&'static str, u64); 2],
}

impl Default for Counts {
    fn default() -> Self {
        let [auth, token, replay, limit] =
            [Reason::SshAuth, Reason::SshToken, Reason::Replay, Reason::Limit].map(Reason::code);
        Self {
            connections: AtomicU64::new(0),
            logins: Tally::new(["accepted", auth, token, replay, limit]),
            sessions: Tally::new(Kind::WORDS),
            sessions_open: Tally::new(Kind::WORDS),
            forwards: Tally::new(["accepted", "refused", "failed"]),
            forwards_open: AtomicU64::new(0),
            refused: Tally::new(["channel", "request"]),
        }
    }
}

impl Counts {
    /// All of them.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        Numbers {
            connections: self.connections.load(Ordering::Relaxed),
            logins: self.logins.read(),
            sessions: self.sessions.read(),
            sessions_open: self.sessions_open.read(),
            forwards: self.forwards.read(),
            forwards_open: self.forwards_open.load(Ordering::Relaxed),
            refused: self.refused.read(),
        }
    }

    pub(crate) fn came_in(&self) {
        self.logins.add("accepted");
    }

    /// A connection that does not come in; counted once.
    pub(crate) fn turned_away(&self, reason: Reason) {
        self.logins.add(reason.code());
    }

    /// A refusal after the login; `what` is one of the words of the event.
    pub(crate) fn refused(&self, what: &str) {
        if what == "forward" {
            self.forwards.add("refused");
        } else {
            self.refused.add(what);
        }
    }

    pub(crate) fn forward_failed(&self) {
        self.forwards.add("failed");
    }
}

/// Something that is open, and counted as such until it is dropped.
pub(crate) struct Opened {
    counts: Arc<Counts>,
    of: fn(&Counts) -> Option<&AtomicU64>,
}

impl Opened {
    fn new(counts: &Arc<Counts>, of: fn(&Counts) -> Option<&AtomicU64>) -> Self {
        if let Some(number) = of(counts) {
            number.fetch_add(1, Ordering::Relaxed);
        }
        Self { counts: Arc::clone(counts), of }
    }

    pub(crate) fn connection(counts: &Arc<Counts>) -> Self {
        Self::new(counts, |c| Some(&c.connections))
    }

    pub(crate) fn forward(counts: &Arc<Counts>) -> Self {
        counts.forwards.add("accepted");
        Self::new(counts, |c| Some(&c.forwards_open))
    }

    pub(crate) fn session(counts: &Arc<Counts>, kind: Kind) -> Self {
        counts.sessions.add(kind.word());
        Self::new(
            counts,
            match kind {
                Kind::Shell => |c| c.sessions_open.of(Kind::Shell.word()),
                Kind::Exec => |c| c.sessions_open.of(Kind::Exec.word()),
                Kind::Sftp => |c| c.sessions_open.of(Kind::Sftp.word()),
                Kind::Forced => |c| c.sessions_open.of(Kind::Forced.word()),
            },
        )
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(number) = (self.of)(&self.counts) {
            number.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted_until_it_is_over() {
        let counts = Arc::new(Counts::default());
        let nothing = counts.numbers();
        for (kind, word) in [Kind::Shell, Kind::Exec, Kind::Sftp, Kind::Forced].into_iter().zip(Kind::WORDS) {
            let all = (Opened::connection(&counts), Opened::session(&counts, kind), Opened::forward(&counts));
            let now = counts.numbers();
            assert_eq!((now.connections, now.forwards_open), (1, 1));
            assert_eq!(now.sessions_open.map(|(w, n)| (w, n == 1)), Kind::WORDS.map(|w| (w, w == word)));
            drop(all);
        }
        let after = counts.numbers();
        assert_eq!((after.connections, after.forwards_open, after.sessions_open), (0, 0, nothing.sessions_open));
        assert_eq!(after.sessions, Kind::WORDS.map(|word| (word, 1)));
        assert_eq!(after.forwards[0], ("accepted", 4));
    }

    #[test]
    fn every_word_that_is_counted_has_its_number() {
        let counts = Counts::default();
        counts.came_in();
        for reason in [Reason::SshAuth, Reason::SshToken, Reason::Replay, Reason::Limit] {
            counts.turned_away(reason);
        }
        for what in ["channel", "request", "forward"] {
            counts.refused(what);
        }
        counts.forward_failed();
        let now = counts.numbers();
        assert!(now.logins.iter().chain(&now.refused).all(|(_, n)| *n == 1), "{now:?}");
        assert_eq!(now.forwards.map(|(_, n)| n), [0, 1, 1]);
    }
}
