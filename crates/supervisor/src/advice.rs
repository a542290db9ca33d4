//! What to change so that a sandbox can be built here: the smallest set, from what is seen of the surroundings.

use std::fs;

use stockade_types::Layer;

use crate::outer;

/// How an unprivileged program gets useful user namespaces where AppArmor restricts them.
pub const APPARMOR_PROFILE: &str = include_str!("../../../deploy/apparmor/stockade");

/// What was seen of the surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Facts {
    pub(crate) container: bool,
    /// uid 0.
    pub(crate) root: bool,
    /// CAP_SYS_ADMIN, in the machine's own user namespace.
    pub(crate) admin: bool,
    /// CAP_NET_ADMIN.
    pub(crate) net_admin: bool,
    /// CAP_SETUID, CAP_SETGID and CAP_SETFCAP: root may give the command another user in a user namespace.
    pub(crate) maps: bool,
    /// System calls that a filter withholds.
    pub(crate) withheld: Vec<&'static str>,
    /// Some filter is in force.
    pub(crate) filtered: bool,
    /// Parts of /proc are covered.
    pub(crate) covered: bool,
    /// The AppArmor profile that confines this process.
    pub(crate) apparmor: Option<String>,
    /// AppArmor leaves user namespaces of unconfined programs without power.
    pub(crate) powerless: bool,
    /// `user.max_user_namespaces` is 0.
    pub(crate) no_namespaces: bool,
}

impl Facts {
    pub(crate) fn look() -> Self {
        use rustix::thread::CapabilitySet as Set;
        let read = |path: &str| fs::read_to_string(path).map(|t| t.trim_end_matches(['\n', '\0']).to_owned()).ok();
        let has = |set: Set| rustix::thread::capabilities(None).is_ok_and(|c| c.effective.contains(set));
        let confined = read("/proc/self/attr/apparmor/current").filter(|t| !t.is_empty() && t != "unconfined");
        Self {
            container: outer::in_container(),
            root: rustix::process::geteuid().is_root(),
            admin: has(Set::SYS_ADMIN) && outer::is_machine_s_user_namespace(),
            net_admin: has(Set::NET_ADMIN),
            maps: outer::may_map_users(),
            withheld: stockade_sys::probe::withheld(has(Set::SYS_ADMIN)),
            filtered: read("/proc/self/status").is_some_and(|t| t.lines().any(|l| l == "Seccomp:\t2")),
            covered: outer::proc_is_covered(),
            apparmor: confined,
            powerless: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1"),
            no_namespaces: read("/proc/sys/user/max_user_namespaces").as_deref() == Some("0"),
        }
    }

    /// One line for each thing that is missing, after the layer `failed`. Empty where nothing is known to be.
    pub(crate) fn missing(&self, failed: Option<Layer>) -> Vec<String> {
        let mut lines = Vec::new();
        if self.container {
            self.options(failed, &mut lines);
        } else if !self.withheld.is_empty() {
            lines.push(format!(
                "a system call filter around this process, or a kernel that is too old, withholds {}: start Stockade \
                 outside of it; the kernel must be Linux 5.12 or newer",
                self.withheld.join(", ")
            ));
        }
        // Root with CAP_SYS_ADMIN makes no user namespace.
        let namespace = !(self.root && self.admin);
        if namespace && self.no_namespaces {
            lines.push("there are no user namespaces here: sysctl user.max_user_namespaces=15000".to_owned());
        }
        if namespace && self.powerless && self.apparmor.is_none() && !self.root {
            lines.push(
                "user namespaces are made here, but powerless: AppArmor takes their capabilities away. `stockade \
                 doctor` prints the profile that gives them to this program; without it: sysctl \
                 kernel.apparmor_restrict_unprivileged_userns=0"
                    .to_owned(),
            );
        }
        lines
    }

    /// The same for the end of an error message.
    pub(crate) fn advice(&self, failed: Option<Layer>) -> String {
        let lines: String = self.missing(failed).iter().map(|line| format!("\n  {line}")).collect();
        match (lines.is_empty(), self.container) {
            // Its own message names the path and the way out.
            (true, _) if failed == Some(Layer::Mounts) => String::new(),
            (true, _) => "; `stockade doctor` shows what this machine can enforce".to_owned(),
            (false, true) => format!("; start this container with{lines}"),
            (false, false) => format!(", because{lines}"),
        }
    }

    /// What the container must be started with.
    fn options(&self, failed: Option<Layer>, lines: &mut Vec<String>) {
        // Not every call can be asked for: some are refused for want of a right before they are refused as invalid.
        let suspected = self.filtered && self.withheld.is_empty() && failed == Some(Layer::Namespaces);
        if suspected {
            lines.push(
                "--security-opt seccomp=seccomp.json (deploy/docker/seccomp.json, or `unconfined`): the engine's \
                 filter withholds calls that make namespaces"
                    .to_owned(),
            );
        }
        if !self.withheld.is_empty() {
            lines.push(format!(
                "--security-opt seccomp=seccomp.json (deploy/docker/seccomp.json, or `unconfined`): the engine's \
                 filter withholds {}",
                self.withheld.join(", ")
            ));
        }
        if let Some(profile) = &self.apparmor {
            lines.push(format!(
                "--security-opt apparmor=unconfined: the profile {profile} may forbid mounts; or one that allows \
                 mount, umount, pivot_root and userns"
            ));
        }
        if self.root && self.admin {
            if !self.net_admin {
                lines.push(
                    "--cap-add NET_ADMIN besides SYS_ADMIN, or neither of the two: then Stockade makes a user \
                     namespace, which needs no capability of the container"
                        .to_owned(),
                );
            }
            return;
        }
        if self.covered {
            lines.push(
                "--security-opt systempaths=unconfined (Podman: unmask=ALL, Kubernetes: procMount: Unmasked): parts \
                 of /proc are covered, and the kernel then refuses the sandbox one of its own"
                    .to_owned(),
            );
        }
        if self.root && !self.maps {
            lines.push(
                "--user UID:GID (not 0), or --cap-add SETUID --cap-add SETGID --cap-add SETFCAP: the command never \
                 runs as root, and this root may not become anybody else"
                    .to_owned(),
            );
        }
    }
}

/// Whether user namespaces can be made and are powerless, which only an AppArmor profile changes.
#[must_use]
pub fn is_powerless() -> bool {
    let facts = Facts::look();
    facts.powerless && facts.apparmor.is_none()
}

#[cfg(test)]
mod tests;
