//! Starting a sandbox from outside: fork init, write its maps, let it build, take its sockets.

use std::{
    fs, io,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
};

use nix::sched::CloneFlags;
use stockade_sys::{
    channel::Channel,
    process::{self, Child},
};
use stockade_types::LayerStatus;

use crate::{
    init,
    limits::Cgroup,
    message::{Failure, Order, Report, recv, send},
    plan::{Mode, Plan},
    seccomp::Filter,
    view::ViewFile,
};

/// Why no sandbox stands.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The namespaces could not be made.
    #[error("namespaces: {0}")]
    Namespaces(String),
    /// A step of the start failed outside the sandbox.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A layer could not be built inside, or is required and not fully enforced.
    #[error("{0}")]
    Layer(Failure),
    /// Init ended without a word.
    #[error("init ended before the sandbox was built")]
    Lost,
}

impl StartError {
    fn io(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { step, source }
    }
}

/// The sandbox's init. Dropped, it is ended and reaped, and everything inside with it: a start that fails leaves no
/// process behind.
#[derive(Debug)]
pub struct Init(Option<Child>);

impl Init {
    /// Its pid, as seen from outside; 0 once it was waited for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.as_ref().and_then(|child| u32::try_from(child.pid).ok()).unwrap_or(0)
    }

    /// Waits until init has ended, which it does when its channel closes.
    pub fn wait(mut self) {
        if let Some(child) = self.0.take() {
            reap(&child);
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            // It fails only when init has ended already.
            let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
            reap(&child);
        }
    }
}

/// Waits by pidfd: where another thread takes every child (a PID 1 does), this one has ended when that one has it.
fn reap(child: &Child) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED) {}
}

/// Init runs in its namespaces and waits for the word to build.
#[derive(Debug)]
pub struct Starting {
    init: Init,
    pid: i32,
    channel: Channel,
}

/// A sandbox that stands, with nothing running in it yet. When it is dropped the channel closes, init ends, and with
/// init everything inside.
#[derive(Debug)]
pub struct Sandbox {
    /// Init, as seen from outside.
    pub init: Init,
    /// Orders out, reports in.
    pub channel: Channel,
    /// What holds so far; each spawned program adds its own.
    pub layers: Vec<LayerStatus>,
    /// Remarks for the start report.
    pub notes: Vec<String>,
    /// Sockets made inside.
    pub sockets: Sockets,
}

/// Sockets that belong to the sandbox's network namespace and are served from outside.
#[derive(Debug)]
pub struct Sockets {
    /// The explicit proxy.
    pub proxy: Vec<TcpListener>,
    /// Direct connections; the local address is the original destination.
    pub transparent: Vec<TcpListener>,
    /// DNS over UDP.
    pub dns_udp: Vec<UdpSocket>,
    /// DNS over TCP.
    pub dns_tcp: Vec<TcpListener>,
    /// Refused traffic (NFLOG).
    pub nflog: Option<OwnedFd>,
    /// `sock_diag`, for the owner of a connection.
    pub diag: Option<OwnedFd>,
    /// The root of the view, as a path descriptor.
    pub root: Option<OwnedFd>,
    /// Where connects inside are reported, if the plan wants that.
    pub connects: Option<OwnedFd>,
}

impl Starting {
    /// Forks init into new namespaces and `cgroup`. The caller must be single-threaded.
    ///
    /// # Errors
    /// [`StartError::Namespaces`] with the way out where one is known.
    pub fn fork(plan: &Plan, filter: &Filter, cgroup: Option<&Cgroup>) -> Result<Self, StartError> {
        // Ours and, inherited, init's.
        process::heed_children();
        let (ours, theirs) = Channel::pair().map_err(StartError::io("socketpair"))?;
        let me = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
            .map_err(|e| StartError::Io { step: "pidfd_open", source: e.into() })?;
        let mut flags = CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        if plan.mode == Mode::Rootless {
            flags |= CloneFlags::CLONE_NEWUSER;
        }
        // Init keeps no copy of anything else: not of the audit log, and not of the supervisor's end of the channel,
        // which must close when the supervisor ends.
        let entry = cgroup.map(Cgroup::entry);
        let mut keep = vec![theirs.as_fd(), me.as_fd()];
        keep.extend(entry.iter().flat_map(|e| e.descriptors()));
        let birthplace = entry.as_ref().and_then(|e| e.birthplace());
        let child = process::fork_keeping(flags, &keep, birthplace, || init::run(plan, filter, entry, &theirs, &me))
            .map_err(|e| StartError::Namespaces(refused(plan.mode, &e)))?;
        Ok(Self { pid: child.pid, init: Init(Some(child)), channel: ours })
    }

    /// Writes the maps and has init build the sandbox. Returns at once.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn go(&self, plan: &Plan) -> Result<(), StartError> {
        if plan.mode == Mode::Rootless {
            write_maps(self.pid, plan).map_err(StartError::io("map the user into the namespace"))?;
        }
        send(&self.channel, &Order::Go, &[]).map_err(StartError::io("tell init to build"))
    }

    /// Sends the files that the plan announced (`more_files`). Init waits for them when the rest of the view is made.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn files(&self, files: Vec<ViewFile>) -> Result<(), StartError> {
        match send(&self.channel, &Order::Files(files), &[]) {
            // Init has given up already; why is what it said last, and heard by `ready`.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(StartError::io("send init files of the view")),
        }
    }

    /// Waits until the sandbox stands.
    ///
    /// # Errors
    /// [`StartError::Layer`] naming the layer that cannot be enforced.
    pub fn ready(self, plan: &Plan) -> Result<Sandbox, StartError> {
        let heard = match recv::<Report>(&self.channel) {
            // It ended before it read the last order; what it said before that is still there.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => recv::<Report>(&self.channel),
            heard => heard,
        };
        let (layers, notes, counts, fds) = match heard.map_err(StartError::io("hear from init"))? {
            Some((Report::Ready(layers, notes, counts), fds)) => (layers, notes, counts, fds),
            Some((Report::Failed(failure), _)) => return Err(StartError::Layer(failure)),
            Some(_) | None => return Err(StartError::Lost),
        };
        if let Some(failure) = plan.unmet(&layers) {
            return Err(StartError::Layer(failure));
        }
        let mut fds = fds.into_iter();
        let mut tcp = |n: u8| fds.by_ref().take(n.into()).map(TcpListener::from).collect::<Vec<_>>();
        let (proxy, transparent) = (tcp(counts.proxy), tcp(counts.transparent));
        let dns_udp = fds.by_ref().take(counts.dns_udp.into()).map(UdpSocket::from).collect();
        let dns_tcp = fds.by_ref().take(counts.dns_tcp.into()).map(TcpListener::from).collect();
        let mut one = |n: u8| if n > 0 { fds.next() } else { None };
        let (nflog, diag) = (one(counts.nflog), one(counts.diag));
        let (root, connects) = (one(counts.root), one(counts.connects));
        let sockets = Sockets { proxy, transparent, dns_udp, dns_tcp, nflog, diag, root, connects };
        Ok(Sandbox { init: self.init, channel: self.channel, layers, notes, sockets })
    }
}

/// Ids mean inside what they mean outside. The caller's own, and where the command is somebody else (a container's root
/// may say so) the command's: then init stays who it is, and groups can be dropped.
fn write_maps(pid: i32, plan: &Plan) -> io::Result<()> {
    let (uid, gid) = (plan.identity.uid, plan.identity.gid);
    let (own, own_group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let map = |own: u32, other: u32| {
        let more = if own == other { String::new() } else { format!("{own} {own} 1\n") };
        format!("{more}{other} {other} 1\n")
    };
    if own == uid {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    }
    fs::write(format!("/proc/{pid}/uid_map"), map(own, uid))?;
    fs::write(format!("/proc/{pid}/gid_map"), map(own_group, gid))
}

fn refused(mode: Mode, e: &io::Error) -> String {
    let way_out = match (mode, e.raw_os_error().map(nix::errno::Errno::from_raw)) {
        (Mode::Rootless, Some(nix::errno::Errno::EPERM | nix::errno::Errno::EACCES)) => {
            "user namespaces are refused here: allow them (sysctl kernel.unprivileged_userns_clone=1, or an AppArmor \
             profile for this program), or run as root"
        }
        (Mode::Rootless, Some(nix::errno::Errno::ENOSPC | nix::errno::Errno::EUSERS)) => {
            "the limit of user namespaces is reached: raise user.max_user_namespaces"
        }
        (Mode::Root, Some(nix::errno::Errno::EPERM)) => {
            "this root lacks CAP_SYS_ADMIN: grant it, or run as another user with user namespaces"
        }
        (_, Some(nix::errno::Errno::ENOSYS)) => {
            "clone3 is not there: a system call filter around Stockade withholds it, or the kernel is older than 5.7"
        }
        _ => "the kernel cannot make these namespaces",
    };
    format!("{e}; {way_out}")
}
