//! Who the command is: the caller when rootless, never 0 as root.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use stockade_confine::{plan::Mode, privileges::Identity};
use stockade_policy::model::User;

use crate::outer;

/// The account files are read up to this size; a larger one is refused, not searched.
const MAX_ACCOUNT_FILE: u64 = 4 << 20;
/// Who the command is when the workspace belongs to root: the kernel's overflow user, conventionally `nobody`.
const NOBODY: u32 = 65534;

/// The command's user, with what its environment says of it.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// Ids.
    pub(crate) identity: Identity,
    /// Login name.
    pub(crate) name: String,
    /// Home directory, as a path inside.
    pub(crate) home: PathBuf,
    /// Something the operator should know of this choice.
    pub(crate) notice: Option<String>,
}

/// Why no user could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The policy or option names user 0, or a user whose ids are 0.
    #[error("user `{0}` is root, and the command never runs as root; name another user")]
    Root(String),
    /// No such user.
    #[error("there is no user `{0}` in /etc/passwd; name one that exists, or give UID:GID")]
    Unknown(String),
    /// Rootless, and another user is asked for.
    #[error("user `{wanted}` needs root: without it the command runs as the caller (uid {uid})")]
    NeedsRoot {
        /// Who was asked for.
        wanted: String,
        /// The caller.
        uid: u32,
    },
    /// A root that can neither make the sandbox without a user namespace nor put the command into one as somebody else.
    #[error(
        "the command never runs as root, and this root lacks the rights to give it another user: start as another user (a container: --user UID:GID), or with CAP_SETUID, CAP_SETGID and CAP_SETFCAP"
    )]
    BareRoot,
    /// The user namespace around us does not have the user.
    #[error(
        "the user namespace around Stockade has no {uid}:{gid} (/proc/self/uid_map, gid_map): name a user that it has with --user, or give the container more ids (rootless engines: /etc/subuid and /etc/subgid)"
    )]
    NotMapped {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// An account file is not a regular file, too large, or says two things about one name.
    #[error("/etc/passwd: {0}")]
    Accounts(String),
    /// The workspace's owner is unknown.
    #[error("look at the workspace {path}: {source}")]
    Workspace {
        /// The workspace.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Chooses the command's user.
///
/// # Errors
/// [`IdentityError`].
pub(crate) fn choose(mode: Mode, wanted: &User, workspace: Option<&Path>) -> Result<Account, IdentityError> {
    let accounts = Accounts::read(Path::new("/etc/passwd"))?;
    match mode {
        Mode::Rootless if !rustix::process::geteuid().is_root() => rootless(&accounts, wanted),
        Mode::Rootless if !outer::may_map_users() => Err(IdentityError::BareRoot),
        Mode::Rootless | Mode::Root => exists(root(&accounts, wanted, workspace)?),
    }
}

/// In a container with a user namespace of its own not every user can be had.
fn exists(account: Account) -> Result<Account, IdentityError> {
    let Identity { uid, gid, .. } = account.identity;
    if outer::is_mapped("/proc/self/uid_map", uid) && outer::is_mapped("/proc/self/gid_map", gid) {
        return Ok(account);
    }
    Err(IdentityError::NotMapped { uid, gid })
}

fn rootless(accounts: &Accounts, wanted: &User) -> Result<Account, IdentityError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let same = match wanted {
        User::Default | User::Caller => true,
        User::Named(name) => accounts.by_name(name)?.is_some_and(|a| a.uid == uid),
        User::Ids { uid: u, gid: g } => (*u, *g) == (uid, gid),
    };
    if !same {
        return Err(IdentityError::NeedsRoot { wanted: wanted.to_string(), uid });
    }
    let groups = rustix::process::getgroups().map_err(|e| IdentityError::Accounts(format!("getgroups: {e}")))?;
    let groups: Vec<u32> = groups.into_iter().map(rustix::process::Gid::as_raw).collect();
    Ok(account(accounts, uid, gid, kept_groups(&groups, gid, &group_names())))
}

/// What is said of groups that no user namespace made without root can drop.
fn kept_groups(groups: &[u32], own: u32, names: &str) -> Option<String> {
    let name = |gid: &u32| {
        let line = names.lines().map(|l| l.split(':').collect::<Vec<_>>());
        let found = line.filter(|l| l.get(2) == Some(&gid.to_string().as_str())).find_map(|l| l.first().copied());
        found.map_or_else(|| gid.to_string(), str::to_owned)
    };
    let kept: Vec<String> = groups.iter().filter(|g| **g != own).map(name).collect();
    (!kept.is_empty()).then(|| {
        format!(
            "privileges are partial: without root the command keeps your supplementary groups ({}); `require: \
             [privileges]` refuses that",
            kept.join(", ")
        )
    })
}

/// `/etc/group`, to say names instead of numbers; nothing depends on it.
fn group_names() -> String {
    let file = std::fs::File::open("/etc/group").map(|f| f.take(MAX_ACCOUNT_FILE));
    let mut text = Vec::new();
    match file.and_then(|mut f| f.read_to_end(&mut text)) {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

fn root(accounts: &Accounts, wanted: &User, workspace: Option<&Path>) -> Result<Account, IdentityError> {
    let (uid, gid, notice) = match wanted {
        User::Default => owner(workspace)?,
        User::Caller => return Err(IdentityError::Root("caller".to_owned())),
        User::Ids { uid, gid } => (*uid, *gid, None),
        User::Named(name) => {
            let found = accounts.by_name(name)?.ok_or_else(|| IdentityError::Unknown(name.clone()))?;
            (found.uid, found.gid, None)
        }
    };
    if uid == 0 || gid == 0 {
        return Err(IdentityError::Root(wanted.to_string()));
    }
    Ok(account(accounts, uid, gid, notice))
}

fn owner(workspace: Option<&Path>) -> Result<(u32, u32, Option<String>), IdentityError> {
    let Some(path) = workspace else { return Ok((NOBODY, NOBODY, None)) };
    let meta =
        std::fs::symlink_metadata(path).map_err(|source| IdentityError::Workspace { path: path.to_owned(), source })?;
    if meta.uid() != 0 {
        // A directory of an ordinary user may well have group 0; the command's group must not.
        let gid = if meta.gid() == 0 { meta.uid() } else { meta.gid() };
        return Ok((meta.uid(), gid, None));
    }
    let notice = format!(
        "the workspace {} belongs to root, and the command never runs as root: it runs as uid {NOBODY} and can write \
         only what that user may; choose one with --user, or give the workspace to somebody",
        path.display()
    );
    Ok((NOBODY, NOBODY, Some(notice)))
}

fn account(accounts: &Accounts, uid: u32, gid: u32, notice: Option<String>) -> Account {
    let entry = accounts.by_uid(uid);
    let name = entry.map_or_else(|| "sandbox".to_owned(), |e| e.name.clone());
    let home = entry
        .map(|e| PathBuf::from(&e.home))
        .filter(|h| h.is_absolute() && h.components().count() > 2 && !h.starts_with("/proc") && !h.starts_with("/usr"))
        .unwrap_or_else(|| PathBuf::from("/home/sandbox"));
    Account { identity: Identity { uid, gid, groups: Vec::new() }, name, home, notice }
}

/// `/etc/passwd`, parsed strictly.
struct Accounts(Vec<Entry>);

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Accounts {
    /// No name service is asked: it would load code chosen by configuration.
    fn read(path: &Path) -> Result<Self, IdentityError> {
        let fail = |e: &dyn std::fmt::Display| IdentityError::Accounts(e.to_string());
        // A link would make another file say who the command is; a FIFO must not hold the start up.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            // An image without accounts is fine: ids work without names.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self(Vec::new())),
            Err(e) if e.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
                return Err(fail(&"is a symbolic link"));
            }
            other => other.map_err(|e| fail(&e))?,
        };
        let meta = file.metadata().map_err(|e| fail(&e))?;
        if !meta.is_file() || meta.len() > MAX_ACCOUNT_FILE {
            return Err(fail(&"not a regular file of reasonable size"));
        }
        let mut text = Vec::new();
        file.take(MAX_ACCOUNT_FILE).read_to_end(&mut text).map_err(|e| fail(&e))?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, _] = fields.as_slice() else { return None };
            Some(Entry {
                name: (*name).to_owned(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: (*home).to_owned(),
            })
        };
        Self(text.lines().filter_map(entry).collect())
    }

    fn by_name(&self, name: &str) -> Result<Option<&Entry>, IdentityError> {
        let mut found = self.0.iter().filter(|e| e.name == name);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(IdentityError::Accounts(format!("two entries for `{name}`"))),
            (one, None) => Ok(one),
        }
    }

    fn by_uid(&self, uid: u32) -> Option<&Entry> {
        self.0.iter().find(|e| e.uid == uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            "root:x:0:0::/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/bash\nbad line\nx:x:a:b:c:d:e\ntwin:x:1:1::/:/\ntwin:x:0:0::/:/\nwheel:x:7:0::/home/w:/\n",
        )
    }

    #[test]
    fn as_root_never_root() {
        let a = accounts();
        let named = |n: &str| User::Named(n.to_owned());
        assert_eq!(root(&a, &named("ann"), None).unwrap().identity.uid, 1000);
        assert!(matches!(root(&a, &named("root"), None), Err(IdentityError::Root(_))));
        assert!(matches!(root(&a, &named("wheel"), None), Err(IdentityError::Root(_))));
        assert!(matches!(root(&a, &User::Ids { uid: 5, gid: 0 }, None), Err(IdentityError::Root(_))));
        assert!(matches!(root(&a, &User::Caller, None), Err(IdentityError::Root(_))));
        assert!(matches!(root(&a, &named("nobody-here"), None), Err(IdentityError::Unknown(_))));
        assert!(matches!(root(&a, &named("twin"), None), Err(IdentityError::Accounts(_))));
    }

    #[test]
    fn groups_that_stay_are_said_by_name() {
        let names = "root:x:0:\nann:x:1000:\naudio:x:29:ann\nbad\n";
        assert_eq!(kept_groups(&[1000], 1000, names), None);
        assert_eq!(kept_groups(&[], 1000, names), None);
        let said = kept_groups(&[1000, 29, 998], 1000, names).unwrap();
        assert!(said.contains("(audio, 998)"), "{said}");
    }

    #[test]
    fn a_root_owned_workspace_gives_nobody_and_says_so() {
        let a = root(&accounts(), &User::Default, Some(Path::new("/"))).unwrap();
        assert_eq!((a.identity.uid, a.notice.is_some()), (NOBODY, true));
    }
}
