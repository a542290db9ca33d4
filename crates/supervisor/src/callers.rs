//! Rules about programs: what they need from the sandbox, and from every policy that comes into force.

use std::{collections::BTreeSet, os::fd::OwnedFd, sync::Arc};

use stockade_confine::{plan::Plan, sandbox::Sandbox, seccomp::Filter};
use stockade_egress::peer::{Peers, Sources};
use stockade_policy::{Policy, Snapshot};
use stockade_types::{Enforcement, Layer};

use crate::error::Error;

/// Launchers whose programs can be told apart, after the first. Rootless the command can end a launcher; from here on
/// connects of programs of the next ones are refused.
const MAX_LAUNCHERS: usize = 16;

/// Whether it must be known who connects: the policy names programs, or `require` names identity.
pub(crate) fn wanted(policy: &Policy, require: &BTreeSet<Layer>) -> bool {
    require.contains(&Layer::Identity) || policy.network().endpoints.iter().any(|e| e.callers.is_some())
}

/// Refuses rules about programs together with a relaxation that lets a program pass for another.
pub(crate) fn compatible(policy: &Policy, filter: &Filter) -> Result<(), Error> {
    let named = policy.network().endpoints.iter().find(|e| e.callers.is_some());
    match (named, filter.relaxed().iter().find(|r| r.identity)) {
        (Some(endpoint), Some(relaxed)) => Err(Error::Option(format!(
            "network.endpoints.{}.binaries: with `process.relax: [{}]` a program can pass for another, and rules about \
             programs would mean nothing; drop one of the two",
            endpoint.name, relaxed.name
        ))),
        _ => Ok(()),
    }
}

/// How far it is known who connects.
pub(crate) fn enforcement(plan: &Plan, filter: &Filter) -> Option<Enforcement> {
    let relaxed: Vec<&str> = filter.relaxed().iter().filter(|r| r.identity).map(|r| r.name.as_str()).collect();
    match (plan.report_connects, relaxed.is_empty()) {
        (false, _) => None,
        (true, true) => Some(Enforcement::Enforced),
        (true, false) => Some(Enforcement::Absent(format!("relaxed: {}", relaxed.join(", ")))),
    }
}

/// Callers of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    peers: Option<Arc<Peers>>,
    launchers: usize,
}

impl Callers {
    /// Starts to listen where the sandbox reports connects.
    pub(crate) fn start(sandbox: &mut Sandbox) -> Result<Self, Error> {
        let (diag, root) = (sandbox.sockets.diag.take(), sandbox.sockets.root.take());
        let peers = match (sandbox.sockets.connects.take(), diag, root) {
            (Some(connects), Some(diag), Some(root)) => {
                let init = sandbox.init.pid();
                Some(Peers::start(Sources { diag, connects, root, init }).map_err(Error::io("listen to connects"))?)
            }
            _ => None,
        };
        Ok(Self { peers, launchers: 0 })
    }

    pub(crate) fn peers(&self) -> Option<Arc<Peers>> {
        self.peers.clone()
    }

    /// Pins the programs that a policy names, before it comes into force; what the operator should know of them.
    pub(crate) fn pin(&self, snapshot: &Snapshot) -> Result<Vec<String>, Error> {
        match &self.peers {
            Some(peers) => peers.pin(snapshot).map_err(|e| Error::Caller(e.to_string())),
            None if snapshot.binaries().is_empty() => Ok(Vec::new()),
            None => Err(Error::Caller(
                "`binaries`: this sandbox was started without them, so it is not known who connects; start it again, or \
                 with `require: [identity]` from the beginning"
                    .to_owned(),
            )),
        }
    }

    /// A program was started.
    pub(crate) fn started(&self, pid: i32) {
        if let (Some(peers), Ok(pid)) = (&self.peers, u32::try_from(pid)) {
            peers.started(pid);
        }
    }

    /// A program that was started ended.
    pub(crate) fn ended(&self, pid: u32) {
        if let Some(peers) = &self.peers {
            peers.ended(pid);
        }
    }

    /// Listens to another launcher's programs. Where that is not possible nobody does, and they cannot connect.
    pub(crate) fn listen(&mut self, listeners: Vec<OwnedFd>) -> Result<(), String> {
        let Some(peers) = &self.peers else { return Ok(()) };
        for listener in listeners {
            self.launchers += 1;
            if self.launchers > MAX_LAUNCHERS {
                return Err("the launcher was ended too often: what it starts now cannot connect".to_owned());
            }
            peers.listen(listener).map_err(|e| format!("listen to connects: {e}"))?;
        }
        Ok(())
    }
}
