//! From what was asked for to a plan: policy read, user and workspace chosen, the view decided. Nothing is made yet.

mod view;

use std::{collections::BTreeSet, env, ffi::OsStr, num::NonZeroU64, os::unix::ffi::OsStrExt, path::PathBuf};

use stockade_confine::{
    fence,
    limits::{Limits as LimitPlan, Rlimits},
    plan::{Mode, Plan},
    seccomp::{Arch, Filter},
};
use stockade_policy::Policy;

use self::view::Scene;
use crate::{
    callers,
    config::{Access, Config, Duty, Limits},
    environment,
    error::Error,
    held::Held,
    identity::{self, Account},
    outer, ssh,
    steering::Steering,
    workspace,
};

/// Port of the explicit proxy on 127.0.0.1 inside.
const PROXY_PORT: u16 = 3128;
/// Port of the listener that direct connections are steered to; dialling it directly is refused.
const TRANSPARENT_PORT: u16 = 15_001;
/// NFLOG group of the fence, local to the namespace.
const NFLOG_GROUP: u16 = 1;

/// Least limit of memory: init has to fit too.
const LEAST_MEMORY: u64 = 8 << 20;
/// Endpoints that a notice names.
const NAMED: usize = 8;

/// Everything decided, nothing made.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) policy: Policy,
    pub(crate) steering: Steering,
    pub(crate) held: Held,
    pub(crate) account: Account,
    pub(crate) plan: Plan,
    pub(crate) filter: Filter,
    pub(crate) limits: LimitPlan,
    pub(crate) environment: Vec<Vec<u8>>,
    pub(crate) cwd: PathBuf,
    pub(crate) notices: Vec<String>,
    /// What is weak around the sandbox.
    pub(crate) outer: Vec<String>,
}

/// Decides.
///
/// # Errors
/// [`Error`]: the policy, an option, the workspace or the user was refused.
pub(crate) fn decide(config: &Config, hostname: &str) -> Result<Decided, Error> {
    let (policy, mut steering) = policy(config)?;
    ssh::note(config.ssh.as_ref(), &mut steering)?;
    steering.note_authorities(&config.upstream_ca)?;
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
    callers::compatible(&policy, &filter)?;
    let workspace = workspace.as_deref();
    let view = Scene { config, policy: &policy, steering: &steering, account: &account, workspace }.view(hostname);
    let held = Held::new(&view.grants, &steering);
    held.check(&steering)?;
    let cwd = view.workspace.clone().unwrap_or_else(|| account.home.clone());
    let away = workspace.filter(|_| view.workspace.is_none());
    let mut require = policy.process().require.clone();
    require.extend(config.require.iter().copied());
    let mut notices: Vec<String> = account.notice.clone().into_iter().collect();
    notices.extend(weaknesses(&policy));
    notices.extend(away.map(|workspace| {
        format!(
            "the workspace {} is not granted, the command starts in {}; `filesystem: {{read_write: [.]}}` or \
             `--workspace DIR` grants it",
            workspace.display(),
            cwd.display()
        )
    }));
    let plan = Plan {
        mode,
        identity: account.identity.clone(),
        hostname: hostname.to_owned(),
        view,
        more_files: true,
        fence: fence::Spec { transparent_ports: BTreeSet::new(), private_port: TRANSPARENT_PORT, group: NFLOG_GROUP },
        proxy_port: PROXY_PORT,
        rlimits: Rlimits::default(),
        host_tools: !outer::in_container(),
        memfd_exec: relax.contains(&"memfd_exec"),
        report_connects: callers::wanted(&policy, &require),
        require,
    };
    let (environment, replaced) = environment::build(env::vars_os(), &config.env, &account, PROXY_PORT, &cwd);
    notices.extend(replaced);
    notices.extend(config.duty.notices.iter().cloned());
    notices.extend(from_environment(&config.duty));
    let outer = outer::weaknesses();
    Ok(Decided { policy, steering, held, account, plan, filter, limits, environment, cwd, notices, outer })
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
    steering.note_named(&policy)?;
    Ok((policy, steering))
}

fn mode() -> Mode {
    let root = rustix::process::geteuid().is_root();
    let admin = rustix::thread::capabilities(None)
        .is_ok_and(|c| c.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
    // Root of a container's own user namespace is not the machine's, whatever capabilities it shows.
    if root && admin && outer::is_machine_s_user_namespace() { Mode::Root } else { Mode::Rootless }
}

/// What the environment has set: an operator sees at every start which of the options are not on the command line.
fn from_environment(duty: &Duty) -> Option<String> {
    (!duty.environment.is_empty()).then(|| format!("set by the environment: {}", duty.environment.join(", ")))
}

/// The policy's limits with the command line's over them, in the policy's own grammar, and the environment's where it
/// lowers them.
fn limits(config: &Config, policy: &Policy) -> Result<LimitPlan, Error> {
    let p = &policy.process().limits;
    let number = |n: Option<NonZeroU64>| n.map(NonZeroU64::get);
    let given = numbers(&config.limits, "--memory", "--cpus", "--pids")?;
    let ceiling = numbers(&config.duty.ceilings, "STOCKADE_MEMORY", "STOCKADE_CPUS", "STOCKADE_PIDS")?;
    let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    let cpus = given.cpus.or(p.cpus);
    Ok(LimitPlan {
        memory: least(given.memory.or(number(p.memory)), ceiling.memory),
        cpus: cpus.into_iter().chain(ceiling.cpus).reduce(f64::min),
        pids: least(given.pids.or(number(p.pids)), ceiling.pids),
        open_files: number(p.open_files),
        best_effort: p.best_effort,
    })
}

/// Limits as numbers; the names are for who wrote them.
fn numbers(limits: &Limits, memory: &str, cpus: &str, pids: &str) -> Result<LimitPlan, Error> {
    let size = |text: &String| {
        let size = stockade_policy::size(text).map_err(|e| Error::Option(format!("{memory} {text}: {e}")))?;
        if size.get() < LEAST_MEMORY {
            return Err(Error::Option(format!("{memory} {text}: the sandbox itself needs more; at least 8MiB")));
        }
        Ok::<_, Error>(size.get())
    };
    if limits.cpus.is_some_and(|c| !c.is_finite() || c <= 0.0) {
        return Err(Error::Option(format!("{cpus}: expected a number above 0, such as 1.5")));
    }
    if limits.pids == Some(0) {
        return Err(Error::Option(format!("{pids}: expected a number above 0")));
    }
    let memory = limits.memory.as_ref().map(size).transpose()?;
    Ok(LimitPlan { memory, cpus: limits.cpus, pids: limits.pids, ..LimitPlan::default() })
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
    if policy.filesystem().protected.is_empty() {
        said.push(
            "not protected by policy: git hooks, settings of editors and agents (`filesystem.protected`)".to_owned(),
        );
    }
    said.extend(recorded_only(policy));
    said
}

/// Endpoints whose denials do not deny.
pub(crate) fn recorded_only(policy: &Policy) -> Option<String> {
    let names = policy.audited();
    let more = names.len().saturating_sub(NAMED);
    let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("not enforced by policy (mode: audit): {shown}{more}"))
}

/// The command's program and arguments as bytes.
pub(crate) fn argv(config: &Config) -> Vec<Vec<u8>> {
    config.command.iter().map(|a| OsStr::as_bytes(a).to_vec()).collect()
}
