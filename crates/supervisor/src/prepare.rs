//! From what was asked for to a plan: policy read, user and workspace chosen, the view decided. Nothing is made yet.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use stockade_confine::{
    fence,
    limits::{Limits as LimitPlan, Rlimits},
    plan::{Mode, Plan},
    seccomp::{Arch, Filter},
    view::{Access as ViewAccess, Grant, Protected, ViewFile, ViewPlan},
};
use stockade_policy::Policy;

use crate::{
    config::{Access, Config, Posture},
    environment,
    error::Error,
    identity::{self, Account},
    steering::Steering,
    workspace,
};

/// Port of the explicit proxy on 127.0.0.1 inside.
const PROXY_PORT: u16 = 3128;
/// Port of the listener that direct connections are steered to; dialling it directly is refused.
const TRANSPARENT_PORT: u16 = 15_001;
/// NFLOG group of the fence, local to the namespace.
const NFLOG_GROUP: u16 = 1;
/// Bound of /tmp and of a private home.
const SCRATCH: u64 = 1 << 30;
/// Name resolution inside: files first, so that `localhost` needs no server, then the sandbox's own DNS.
const NSSWITCH: &str =
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n";

/// Everything decided, nothing made.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) policy: Policy,
    pub(crate) steering: Steering,
    pub(crate) account: Account,
    pub(crate) plan: Plan,
    pub(crate) filter: Filter,
    pub(crate) limits: LimitPlan,
    pub(crate) environment: Vec<Vec<u8>>,
    pub(crate) cwd: PathBuf,
    pub(crate) notices: Vec<String>,
}

/// Decides.
///
/// # Errors
/// [`Error`]: the policy, an option, the workspace or the user was refused.
pub(crate) fn decide(config: &Config, hostname: &str) -> Result<Decided, Error> {
    let (policy, steering) = policy(config)?;
    let mode = mode();
    let workspace = match config.workspace.access {
        Some(Access::None) => None,
        _ => Some(workspace::resolve(config.workspace.path.as_deref(), env::home_dir().as_deref())?),
    };
    let wanted = match &config.user {
        Some(text) => text.parse().map_err(|e: String| Error::Option(format!("--user {text}: {e}")))?,
        None => policy.process().user.clone(),
    };
    let account = identity::choose(mode, &wanted, workspace.as_deref())?;
    let limits = limits(config, &policy)?;
    let relax: Vec<&str> = policy.process().relax.iter().map(|r| r.name()).collect();
    let filter = Filter::compile(Arch::native().map_err(filter_error)?, &relax).map_err(filter_error)?;
    let view = view(config, &policy, &steering, &account, workspace.as_deref(), hostname)?;
    let cwd = workspace
        .filter(|w| view.grants.iter().any(|g| w.starts_with(&g.path)))
        .unwrap_or_else(|| account.home.clone());
    let mut require = policy.process().require.clone();
    require.extend(config.require.iter().copied());
    let mut notices: Vec<String> = account.notice.clone().into_iter().collect();
    notices.extend(weaknesses(&policy));
    let plan = Plan {
        mode,
        identity: account.identity.clone(),
        hostname: hostname.to_owned(),
        view,
        fence: fence::Spec { transparent_ports: BTreeSet::new(), private_port: TRANSPARENT_PORT, group: NFLOG_GROUP },
        proxy_port: PROXY_PORT,
        rlimits: Rlimits::default(),
        host_tools: !in_container(),
        memfd_exec: relax.contains(&"memfd_exec"),
        require,
    };
    let environment = environment::build(env::vars_os(), &config.env, &account, PROXY_PORT, &cwd);
    Ok(Decided { policy, steering, account, plan, filter, limits, environment, cwd, notices })
}

fn filter_error(e: impl std::fmt::Display) -> Error {
    Error::Option(format!("the system call filter cannot be made: {e}"))
}

/// Reads and merges the policy; the built-in one when none is named.
pub(crate) fn policy(config: &Config) -> Result<(Policy, Steering), Error> {
    let mut steering = Steering::read(&config.policy)?;
    let mut policy = if steering.sources.is_empty() { Policy::builtin()? } else { Policy::parse(&steering.sources)? };
    policy.allow_endpoints(&config.allow)?;
    steering.read_modules(&policy)?;
    Ok((policy, steering))
}

fn mode() -> Mode {
    let root = rustix::process::geteuid().is_root();
    let admin = rustix::thread::capabilities(None)
        .is_ok_and(|c| c.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
    if root && admin { Mode::Root } else { Mode::Rootless }
}

/// Marks that Docker and Podman leave in every container.
fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists())
}

/// The policy's limits with the command line's over them, in the policy's own grammar.
fn limits(config: &Config, policy: &Policy) -> Result<LimitPlan, Error> {
    let p = &policy.process().limits;
    let memory = match &config.limits.memory {
        Some(text) => Some(stockade_policy::size(text).map_err(|e| Error::Option(format!("--memory {text}: {e}")))?),
        None => p.memory,
    };
    let cpus = config.limits.cpus.or(p.cpus);
    if cpus.is_some_and(|c| !c.is_finite() || c <= 0.0) {
        return Err(Error::Option("--cpus: expected a number above 0, such as 1.5".to_owned()));
    }
    let pids = match config.limits.pids {
        Some(0) => return Err(Error::Option("--pids: expected a number above 0".to_owned())),
        Some(n) => std::num::NonZeroU64::new(n),
        None => p.pids,
    };
    let number = |n: Option<std::num::NonZeroU64>| n.map(std::num::NonZeroU64::get);
    Ok(LimitPlan {
        memory: number(memory),
        cpus,
        pids: number(pids),
        open_files: number(p.open_files),
        best_effort: p.best_effort,
    })
}

/// What the policy asks for that weakens the sandbox: said at every start.
fn weaknesses(policy: &Policy) -> Vec<String> {
    let mut said: Vec<String> =
        policy.process().relax.iter().map(|r| format!("relaxed by policy: {}", r.name())).collect();
    let weakened = policy.process().require_weakened();
    if !weakened.is_empty() {
        let names: Vec<&str> = weakened.iter().map(|l| l.name()).collect();
        said.push(format!("not required by policy: {}", names.join(", ")));
    }
    said
}

fn view(
    config: &Config,
    policy: &Policy,
    steering: &Steering,
    account: &Account,
    workspace: Option<&Path>,
    hostname: &str,
) -> Result<ViewPlan, Error> {
    let fs = policy.filesystem();
    let mut grants = Vec::new();
    for (list, access) in [(&fs.read_only, ViewAccess::ReadOnly), (&fs.read_write, ViewAccess::ReadWrite)] {
        for grant in list {
            let Some(path) = absolute(&grant.path, workspace) else { continue };
            let ours = workspace.is_some_and(|w| path == w);
            let access =
                if ours && config.workspace.access == Some(Access::ReadOnly) { ViewAccess::ReadOnly } else { access };
            grants.push(Grant { path, access, create: grant.create });
        }
    }
    if let (Some(w), Some(wanted)) = (workspace, config.workspace.access) {
        let access = if wanted == Access::ReadOnly { ViewAccess::ReadOnly } else { ViewAccess::ReadWrite };
        grants.retain(|g| g.path != w);
        grants.push(Grant { path: w.to_owned(), access, create: false });
    }
    grants.extend(config.read_only.iter().map(|p| Grant {
        path: p.clone(),
        access: ViewAccess::ReadOnly,
        create: false,
    }));
    let hidden = fs.hidden.iter().filter_map(|path| absolute(path, workspace)).collect();
    let named = fs.protected.iter().filter_map(|path| absolute(path, workspace));
    let granted = workspace.filter(|w| grants.iter().any(|g| w.starts_with(&g.path)));
    Ok(ViewPlan {
        baseline: fs.baseline,
        hidden,
        protected: protected(config, steering, &grants, named),
        workspace: granted.map(Path::to_owned),
        grants,
        gpu: fs.baseline.then(|| PathBuf::from("/dev")),
        uid: account.identity.uid,
        gid: account.identity.gid,
        home: account.home.clone(),
        scratch_bytes: SCRATCH,
        files: files(hostname),
    })
}

/// Relative paths start at the workspace. `None` for a path of a workspace that the operator left out.
fn absolute(path: &Path, workspace: Option<&Path>) -> Option<PathBuf> {
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let normal: PathBuf = path.components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect();
    workspace.map(|w| if normal.as_os_str().is_empty() { w.to_owned() } else { w.join(normal) })
}

/// Steering files are read-only inside even where the command may write around them, and so is what the policy names.
fn protected(
    config: &Config,
    steering: &Steering,
    grants: &[Grant],
    named: impl Iterator<Item = PathBuf>,
) -> Vec<Protected> {
    let mut paths = steering.paths.clone();
    paths.extend(config.audit_log.iter().filter_map(|p| std::fs::canonicalize(p).ok()));
    if let Posture::Learn(output) = &config.posture {
        paths.extend(std::fs::canonicalize(output).ok());
    }
    paths.retain(|p| writable(grants, p));
    let steering = paths.into_iter().map(|path| Protected { path, steers: true });
    steering.chain(named.map(|path| Protected { path, steers: false })).collect()
}

/// Whether the command could write below this path's directory.
pub(crate) fn writable(grants: &[Grant], path: &Path) -> bool {
    grants.iter().any(|g| g.access == ViewAccess::ReadWrite && path.starts_with(&g.path))
}

fn files(hostname: &str) -> Vec<ViewFile> {
    let hosts = format!("127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost ip6-loopback\n");
    [
        ("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n".to_owned()),
        ("/etc/hosts", hosts),
        ("/etc/nsswitch.conf", NSSWITCH.to_owned()),
        ("/etc/hostname", format!("{hostname}\n")),
    ]
    .into_iter()
    .map(|(path, text)| ViewFile { path: path.into(), bytes: text.into_bytes(), mode: 0o444 })
    .collect()
}

/// The command's program and arguments as bytes.
pub(crate) fn argv(config: &Config) -> Vec<Vec<u8>> {
    config.command.iter().map(|a| OsStr::as_bytes(a).to_vec()).collect()
}
