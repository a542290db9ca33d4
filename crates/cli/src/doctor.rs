//! `doctor`: what this machine can enforce, what is missing, how to get it.

use std::{fs, path::Path};

use stockade_supervisor::{
    self as supervisor, Access, Config, Duty, Examination, Limits, Operations, Posture, TerminalChoice, Voice,
    Workspace,
};
use stockade_types::{Enforcement, Escaped, Layer};

use crate::{Failure, args::DoctorArgs};

pub(crate) fn run(args: &DoctorArgs) -> Result<u8, Failure> {
    let examined = supervisor::examine(&trial());
    let facts = facts();
    if args.json {
        println!("{}", json(&examined, &facts));
    } else {
        facts.iter().for_each(|(name, value)| println!("{name:<12} {value}"));
        println!();
        show(&examined);
    }
    let whole = examined.is_ok_and(|e| e.layers.iter().all(|s| s.enforcement.is_full()));
    Ok(u8::from(!whole))
}

/// The built-in policy without a workspace: what does not depend on where it is called.
fn trial() -> Config {
    Config {
        command: vec!["true".into()],
        policy: Vec::new(),
        allow: Vec::new(),
        posture: Posture::Enforce,
        workspace: Workspace { path: None, access: Some(Access::None) },
        env: Vec::new(),
        user: None,
        limits: Limits::default(),
        upstream_ca: Vec::new(),
        timeout: None,
        grace: None,
        audit_log: None,
        require: Vec::new(),
        terminal: TerminalChoice::Never,
        voice: Voice::Errors,
        read_only: Vec::new(),
        duty: Duty::default(),
        operations: Operations::default(),
        ssh: None,
    }
}

fn show(examined: &Result<Examination, supervisor::Error>) {
    match examined {
        Ok(e) => {
            println!("a sandbox was built {}:", if e.root { "as root" } else { "rootless" });
            for s in &e.layers {
                let (mark, why) = match &s.enforcement {
                    Enforcement::Enforced => ("enforced", ""),
                    Enforcement::Partial(why) => ("partial", why.as_str()),
                    Enforcement::Absent(why) => ("absent", why.as_str()),
                };
                println!("  {:<12} {mark:<9} {}", s.layer.name(), Escaped(why));
                if let (false, Some(hint)) = (s.enforcement.is_full(), way_out(s.layer)) {
                    println!("               {hint}");
                }
            }
            e.notes.iter().for_each(|n| println!("  note: {}", Escaped(n)));
        }
        Err(e) => {
            println!("no sandbox can be built here:\n  {e}");
            if supervisor::is_powerless() {
                println!("\nthe AppArmor profile for this program:\n{}", supervisor::APPARMOR_PROFILE);
            }
        }
    }
}

/// How to get what is missing, where that is in the operator's hands.
fn way_out(layer: Layer) -> Option<&'static str> {
    match layer {
        Layer::Limits => Some(supervisor::LIMITS_WAY_OUT),
        Layer::Landlock => Some("boot with lsm=landlock,… and CONFIG_SECURITY_LANDLOCK=y (Linux 5.13 or newer)"),
        Layer::Privileges => Some("rootless, supplementary groups cannot be dropped: run as a user without them"),
        Layer::Fence => Some("load nf_tables and nft_tproxy (modprobe), or accept what is said above"),
        Layer::Namespaces | Layer::Netns | Layer::Mounts | Layer::Hidden | Layer::Seccomp | Layer::Identity => None,
    }
}

/// What the machine is, as far as it matters for the layers.
fn facts() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).ok();
    let kernel = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let mut cgroups = Vec::new();
    for line in read("/proc/self/mountinfo").unwrap_or_default().lines() {
        match line.split(" - ").nth(1).and_then(|t| t.split(' ').next()) {
            Some("cgroup") => cgroups.push("v1"),
            Some("cgroup2") => cgroups.push("v2"),
            _ => {}
        }
    }
    cgroups.dedup();
    let lsm = read("/sys/kernel/security/lsm").unwrap_or_else(|| "unknown".to_owned());
    let users = read("/proc/sys/user/max_user_namespaces").unwrap_or_else(|| "none".to_owned());
    let apparmor = match read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() {
        Some("1") => "user namespaces of programs without a profile are made, but powerless",
        Some(_) => "user namespaces not restricted",
        None => "not in this kernel",
    };
    vec![
        ("stockade", env!("CARGO_PKG_VERSION").to_owned()),
        ("kernel", format!("{kernel} {}", std::env::consts::ARCH)),
        ("cgroups", if cgroups.is_empty() { "none".to_owned() } else { cgroups.join(" and ") }),
        ("user ns", format!("at most {users}")),
        ("LSMs", lsm),
        ("AppArmor", apparmor.to_owned()),
        (
            "GPU nodes",
            if Path::new("/dev/nvidiactl").exists() || Path::new("/dev/kfd").exists() { "present" } else { "none" }
                .to_owned(),
        ),
    ]
}

fn json(examined: &Result<Examination, supervisor::Error>, facts: &[(&str, String)]) -> serde_json::Value {
    let facts: serde_json::Map<_, _> = facts.iter().map(|(k, v)| ((*k).to_owned(), v.clone().into())).collect();
    match examined {
        Ok(e) => serde_json::json!({"machine": facts, "root": e.root, "layers": e.layers, "notes": e.notes}),
        Err(e) => serde_json::json!({"machine": facts, "error": e.to_string()}),
    }
}
