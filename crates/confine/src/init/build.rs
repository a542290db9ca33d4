//! Building the sandbox, in order. Each step makes one or two layers and says how far they are enforced; the first
//! required layer that is not ends the start.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::prctl,
    unistd::sethostname,
};
use rustix::fs::OFlags;
use stockade_sys::{channel::Channel, process, socket};
use stockade_types::{Enforcement, Layer, LayerStatus};

use super::launching::Launching;
use crate::{
    fence::{self, Backend, Fence},
    launcher::Seal,
    limits::Entry,
    message::{Failure, Order, Report, Sockets, recv},
    netns, nflog,
    plan::{DNS_PORT, Mode, Plan},
    privileges::OomScore,
    seccomp::Filter,
    view::{BuiltView, View, ViewFile},
};

/// The sandbox as init holds it.
pub(super) struct Site<'a> {
    pub(super) plan: &'a Plan,
    pub(super) layers: Vec<LayerStatus>,
    pub(super) fence: Fence,
    pub(super) sockets: SocketSet,
    view: BuiltView,
    pub(super) launching: Launching<'a>,
}

/// Sockets on their way to the supervisor.
#[derive(Default)]
pub(super) struct SocketSet {
    proxy: Vec<OwnedFd>,
    transparent: Vec<OwnedFd>,
    dns_udp: Vec<OwnedFd>,
    dns_tcp: Vec<OwnedFd>,
    nflog: Vec<OwnedFd>,
    diag: Vec<OwnedFd>,
    root: Vec<OwnedFd>,
    connects: Vec<OwnedFd>,
}

impl SocketSet {
    /// Hands them over; init keeps none.
    pub(super) fn take(&mut self) -> (Sockets, Vec<OwnedFd>) {
        let count = |v: &Vec<OwnedFd>| u8::try_from(v.len()).unwrap_or(u8::MAX);
        let counts = Sockets {
            proxy: count(&self.proxy),
            transparent: count(&self.transparent),
            dns_udp: count(&self.dns_udp),
            dns_tcp: count(&self.dns_tcp),
            nflog: count(&self.nflog),
            diag: count(&self.diag),
            root: count(&self.root),
            connects: count(&self.connects),
        };
        let set = std::mem::take(self);
        let listeners = [set.proxy, set.transparent, set.dns_udp, set.dns_tcp];
        let all = listeners.into_iter().chain([set.nflog, set.diag, set.root, set.connects]);
        (counts, all.flatten().collect())
    }
}

/// Builds everything. On failure the process ends, and the kernel undoes what was built.
pub(super) fn build<'a>(
    plan: &'a Plan,
    filter: &'a Filter,
    cgroup: Option<Entry<'_>>,
    channel: &Channel,
) -> Result<Site<'a>, Failure> {
    let mut layers = Vec::new();
    let mut note = |layer, enforcement| {
        layers.push(LayerStatus { layer, enforcement });
        plan.unmet(&layers).map_or(Ok(()), Err)
    };
    if let Some(cgroup) = cgroup {
        cgroup.join().map_err(|e| Failure::of(Layer::Limits, e))?;
    }
    // While /proc is the one of outside, and its files are this user's.
    let score = OomScore::open().map_err(|e| Failure::of(Layer::Limits, e))?;
    note(Layer::Namespaces, namespaces(plan)?)?;
    note(Layer::Netns, netns::configure().map_err(|e| Failure::of(Layer::Netns, e))?)?;
    let backend = if plan.host_tools { Backend::NftablesElseIptables } else { Backend::Nftables };
    let fence = fence::install_with(&plan.fence, backend).map_err(|e| Failure::of(Layer::Fence, e))?;
    note(Layer::Fence, fence.enforcement())?;
    let late = || if plan.more_files { files(channel) } else { Ok(Vec::new()) };
    let view = View::build_with(&plan.view, late).map_err(|e| Failure::of(Layer::Mounts, e))?;
    note(Layer::Mounts, view.mounts().clone())?;
    note(Layer::Hidden, view.hidden().clone())?;
    leave_host_stdio().map_err(|e| Failure::of(Layer::Mounts, format!("replace stdio: {e}")))?;
    // From here on sandboxed code may run beside init, perhaps with the same uid.
    prctl::set_dumpable(false).map_err(|e| Failure::of(Layer::Privileges, e))?;
    let mut launching = Launching::new(Seal { plan, filter }, view.landlock_plan(), score);
    launching.start()?;
    // After the fork of the launcher, which so has no copy of them, and while it enters its domain.
    let mut sockets = sockets(plan, &fence)?;
    note(Layer::Landlock, launching.ready()?)?;
    sockets.connects = launching.take_connects();
    Ok(Site { plan, layers, fence, sockets, view, launching })
}

fn files(channel: &Channel) -> io::Result<Vec<ViewFile>> {
    match recv::<Order>(channel)? {
        Some((Order::Files(files), _)) => Ok(files),
        _ => Err(io::Error::other("the supervisor sent none")),
    }
}

/// The cgroup namespace is made only now, when init is in the cgroup that shall be its root.
fn namespaces(plan: &Plan) -> Result<Enforcement, Failure> {
    let fail = |e| Failure::of(Layer::Namespaces, e);
    let cgroup = match unshare(CloneFlags::CLONE_NEWCGROUP) {
        Ok(()) => Enforcement::Enforced,
        Err(nix::Error::EINVAL) => Enforcement::Partial("this kernel has no cgroup namespaces".to_owned()),
        Err(e) => return Err(fail(e)),
    };
    sethostname(&plan.hostname).map_err(fail)?;
    no_executable_memfds(plan)?;
    if process::is_pid_one() { Ok(cgroup) } else { Err(Failure::of(Layer::Namespaces, "init is not PID 1")) }
}

/// Memory files of this pid namespace cannot be executed: what runs has a path, and a rule about programs can be true.
/// Only root may say so; rootless the system call filter alone refuses `MFD_EXEC`.
fn no_executable_memfds(plan: &Plan) -> Result<(), Failure> {
    if plan.mode == Mode::Rootless || plan.memfd_exec {
        return Ok(());
    }
    match std::fs::write("/proc/sys/vm/memfd_noexec", "1") {
        // Linux before 6.3.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // A container's /proc is covered in parts; one of our own has the same settings.
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => crate::view::set_kernel("vm/memfd_noexec", b"1")
            .map_err(|e| Failure::of(Layer::Namespaces, format!("vm.memfd_noexec: {e}"))),
        other => other.map_err(|e| Failure::of(Layer::Namespaces, format!("vm.memfd_noexec: {e}"))),
    }
}

fn sockets(plan: &Plan, fence: &Fence) -> Result<SocketSet, Failure> {
    let fail = |what: &'static str| move |e: io::Error| Failure::of(Layer::Netns, format!("{what}: {e}"));
    let mut set = SocketSet::default();
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    set.proxy.push(TcpListener::bind(local(plan.proxy_port)).map_err(fail("listen for the proxy"))?.into());
    set.dns_udp.push(UdpSocket::bind(local(DNS_PORT)).map_err(fail("listen for DNS"))?.into());
    set.dns_tcp.push(TcpListener::bind(local(DNS_PORT)).map_err(fail("listen for DNS over TCP"))?.into());
    for port in fence.listener_ports() {
        let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, port).into();
        set.transparent.push(socket::transparent_listener(any).map_err(fail("listen for direct connections"))?.into());
        if netns::has_ipv6() {
            let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
            let listener = socket::transparent_listener(any).map_err(fail("listen for direct IPv6 connections"))?;
            set.transparent.push(listener.into());
        }
    }
    set.nflog.push(nflog::open(plan.fence.group).map_err(|e| Failure::of(Layer::Fence, e))?);
    set.diag.push(socket::open_diag().map_err(fail("open sock_diag"))?);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, rustix::fs::Mode::empty());
    set.root.push(root.map_err(|e| fail("open the root of the view")(e.into()))?);
    Ok(set)
}

/// Puts /dev/null on fds 0-2: init must not keep the host's terminal or files open.
fn leave_host_stdio() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    (0..3).try_for_each(|target| process::install_stdio(&null, target))
}

impl Site<'_> {
    /// What to poll for changes of hidden paths, where there are any.
    pub(super) fn masks_fd(&self) -> Option<BorrowedFd<'_>> {
        self.view.masks().map(AsFd::as_fd)
    }

    /// Restores masks that the host detached; one line per event.
    pub(super) fn check_masks(&mut self) -> Vec<String> {
        self.view.check_masks()
    }

    /// Hidden paths that were absent at the start and exist now; one line for each.
    pub(super) fn created(&self) -> Vec<String> {
        let line = |p: std::path::PathBuf| {
            format!("{} did not exist at the start, could not be hidden or protected, and exists now", p.display())
        };
        self.view.created().into_iter().map(line).collect()
    }

    /// Reads fence, links and routes back and compares.
    pub(super) fn verify_network(&mut self) -> Report {
        let fence = self.fence.verify().map_err(|e| e.to_string());
        match fence.and_then(|()| netns::verify().map_err(|e| e.to_string())) {
            Ok(()) => Report::FenceIntact,
            Err(drift) => Report::FenceDrift(drift),
        }
    }

    /// Begins to connect to a server of the command, never to what is served for the sandbox from outside: the door
    /// would take the one who asks for the command.
    pub(super) fn dial(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        if self.plan.door_ports().contains(&to.port()) || self.fence.listener_ports().contains(&to.port()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("port {} is the door's", to.port())));
        }
        netns::dial_loopback(to)
    }

    /// Remarks for the start report.
    pub(super) fn notes(&self) -> &[String] {
        self.view.notes()
    }
}
