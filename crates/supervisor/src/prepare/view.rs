//! What the command will see: grants of policy and command line, what is hidden or read-only in them, files of ours.

use std::path::{Path, PathBuf};

use stockade_confine::view::{Access as ViewAccess, Grant, Protected, ViewFile, ViewPlan};
use stockade_policy::Policy;

use crate::{
    config::{Access, Config, Posture},
    held::{granted, writable},
    identity::Account,
    steering::Steering,
};

/// Bound of /tmp and of a private home.
const SCRATCH: u64 = 1 << 30;
/// Name resolution inside: files first, so that `localhost` needs no server, then the sandbox's own DNS.
const NSSWITCH: &str =
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n";

/// What the view follows from.
pub(super) struct Scene<'a> {
    pub(super) config: &'a Config,
    pub(super) policy: &'a Policy,
    pub(super) steering: &'a Steering,
    pub(super) account: &'a Account,
    /// `None` where the operator left it out.
    pub(super) workspace: Option<&'a Path>,
}

impl Scene<'_> {
    pub(super) fn view(&self, hostname: &str) -> ViewPlan {
        let fs = self.policy.filesystem();
        let grants = self.grants();
        let granted = self.workspace.filter(|w| grants.iter().any(|g| w.starts_with(&g.path)));
        ViewPlan {
            baseline: fs.baseline,
            hidden: fs.hidden.iter().filter_map(|path| self.absolute(path)).chain(self.log(&grants)).collect(),
            protected: self.protected(&grants),
            workspace: granted.map(Path::to_owned),
            grants,
            gpu: fs.baseline.then(|| PathBuf::from("/dev")),
            uid: self.account.identity.uid,
            gid: self.account.identity.gid,
            home: self.account.home.clone(),
            scratch_bytes: SCRATCH,
            files: files(hostname),
        }
    }

    fn grants(&self) -> Vec<Grant> {
        let fs = self.policy.filesystem();
        let wanted = self.config.workspace.access;
        let mut grants = Vec::new();
        for (list, access) in [(&fs.read_only, ViewAccess::ReadOnly), (&fs.read_write, ViewAccess::ReadWrite)] {
            for grant in list {
                let Some(path) = self.absolute(&grant.path) else { continue };
                let ours = self.workspace.is_some_and(|w| path == w);
                let access = if ours && wanted == Some(Access::ReadOnly) { ViewAccess::ReadOnly } else { access };
                grants.push(Grant { path, access, create: grant.create });
            }
        }
        if let (Some(w), Some(wanted)) = (self.workspace, wanted) {
            let access = if wanted == Access::ReadOnly { ViewAccess::ReadOnly } else { ViewAccess::ReadWrite };
            grants.retain(|g| g.path != w);
            grants.push(Grant { path: w.to_owned(), access, create: false });
        }
        let read_only = |path: &PathBuf| Grant { path: path.clone(), access: ViewAccess::ReadOnly, create: false };
        grants.extend(self.config.read_only.iter().map(read_only));
        grants
    }

    /// Relative paths start at the workspace. `None` for a path of a workspace that the operator left out.
    fn absolute(&self, path: &Path) -> Option<PathBuf> {
        if path.is_absolute() {
            return Some(path.to_owned());
        }
        let normal: PathBuf = path.components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect();
        self.workspace.map(|w| if normal.as_os_str().is_empty() { w.to_owned() } else { w.join(normal) })
    }

    /// What was recorded is not for the command to read.
    fn log(&self, grants: &[Grant]) -> Option<PathBuf> {
        let log = std::fs::canonicalize(self.config.audit_log.as_ref()?).ok()?;
        granted(grants, &log).then_some(log)
    }

    /// Steering files are read-only inside even where the command may write around them, and so is what the policy
    /// names.
    fn protected(&self, grants: &[Grant]) -> Vec<Protected> {
        let mut paths: Vec<_> = self.steering.ways.iter().map(|way| way.end.clone()).collect();
        paths.extend(self.config.audit_log.iter().filter_map(|p| std::fs::canonicalize(p).ok()));
        if let Posture::Learn { output, .. } = &self.config.posture {
            paths.extend(std::fs::canonicalize(output).ok());
        }
        paths.retain(|p| writable(grants, p));
        let steering = paths.into_iter().map(|path| Protected { path, steers: true });
        let named = self.policy.filesystem().protected.iter().filter_map(|path| self.absolute(path));
        steering.chain(named.map(|path| Protected { path, steers: false })).collect()
    }
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
