//! Tries of a hostile command, in every mode, beside an allowed request that must work, and without Stockade.

use crate::{
    outer::RESOLVER,
    runner::{Finished, Mode, Stockade},
    upstream::{Dns, Http},
};

/// Where the allowed origin listens.
pub const SITE: &str = "192.0.2.10:80";

/// A resolver, an origin that one allowed request reaches, and the policy that allows it. For use inside
/// [`crate::Outer`].
#[derive(Debug)]
pub struct Arena {
    /// Knows the allowed host; tests add more.
    pub dns: Dns,
    /// Says hello.
    pub site: Http,
    policy: String,
    control: String,
}

impl Arena {
    /// An origin named `host`, which `policy` must allow on port 80.
    #[must_use]
    pub fn new(policy: &str, host: &str) -> Self {
        let dns = Dns::start((RESOLVER, 53));
        dns.host(host, SITE.split(':').next().unwrap_or_default());
        let control = format!("proxy:GET http://{host}/ HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n");
        Self { dns, site: Http::hello(SITE), policy: policy.to_owned(), control }
    }

    /// A run with the arena's policy.
    #[must_use]
    pub fn stockade(&self, mode: Mode) -> Stockade {
        Stockade::new(mode).policy(&self.policy)
    }

    /// Runs the tries in every mode, and behind them the allowed request. Nothing but that may arrive at the origin.
    ///
    /// # Panics
    /// When the allowed request fails, or something else arrives.
    #[track_caller]
    pub fn run<S: AsRef<str>>(&self, tries: &[S], check: impl Fn(Mode, &Finished)) {
        for mode in Mode::available() {
            let before = self.site.requests().len();
            let mut all: Vec<&str> = tries.iter().map(AsRef::as_ref).collect();
            all.push(&self.control);
            let run = self.stockade(*mode).probe(&all);
            let control = run.outcome(&self.control);
            assert!(control.what.starts_with("ok HTTP/1.1 200"), "the control: {mode:?} {run:?}");
            assert_eq!(self.site.requests().len(), before + 1, "only the control arrived: {mode:?} {run:?}");
            check(*mode, &run);
        }
    }

    /// The tripwire: the same tries without Stockade.
    #[track_caller]
    pub fn unwrapped<S: AsRef<str>>(&self, tries: &[S]) -> Finished {
        Stockade::new(Mode::Rootless).unwrapped().probe(tries)
    }
}

/// Runs a script in every mode.
#[track_caller]
pub fn in_every_mode(build: impl Fn(Stockade) -> Stockade, script: &str, check: impl Fn(Mode, &Finished)) {
    for mode in Mode::available() {
        check(*mode, &build(Stockade::new(*mode)).sh(script));
    }
}
