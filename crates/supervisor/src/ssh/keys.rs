//! The file of keys, followed: whoever takes a key out of it expects that to count for the next login.
//!
//! It is looked at before each login and read again when it is another. One that cannot be used lets nobody in: the keys
//! that it had before are the ones that somebody may just have taken back.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use stockade_audit::{Audit, Event, Finding};
use stockade_confine::view::Grant;
use stockade_ssh::{AuthorizedKeys, Keyring};
use stockade_types::Reason;

use super::{about, guarded};
use crate::{
    error::Error,
    held::{Held, writable},
    stamp::Stamp,
    steering::{self, SteeringError},
};

/// How often it is looked at while nobody comes, so that a file that was broken is said soon.
const LOOK: Duration = Duration::from_secs(10);

/// The file, and what was read of it last.
#[derive(Debug)]
pub(super) struct Listed {
    path: PathBuf,
    grants: Vec<Grant>,
    read: Read,
    /// The last that were in force.
    good: Arc<AuthorizedKeys>,
}

/// What was read, and of what.
#[derive(Debug)]
struct Read {
    /// None when the next look has to read again.
    of: Option<Stamp>,
    keys: Result<Arc<AuthorizedKeys>, String>,
}

impl Listed {
    /// Reads the file for the first time. `grants` are the paths that the command has.
    pub(super) fn open(path: &Path, grants: &[Grant]) -> Result<Self, Error> {
        let of = Stamp::settled(path);
        let good = Arc::new(parse(path, steering::open(path)?)?);
        let read = Read { of, keys: Ok(Arc::clone(&good)) };
        Ok(Self { path: path.to_owned(), grants: grants.to_vec(), read, good })
    }

    /// Lines that are left out.
    pub(super) fn remarks(&self) -> Vec<String> {
        self.read.keys.as_ref().map(|keys| keys.remarks.clone()).unwrap_or_default()
    }

    /// Followed from now on; what changes is written to the log.
    pub(super) fn follow(mut self, audit: Audit) -> Keyring {
        Keyring::new(move || {
            if let Some(said) = self.look() {
                audit.emit(Event::Finding(said));
            }
            self.read.keys.as_ref().ok().cloned()
        })
    }

    /// Reads the file again if it is not what was read before; what there is to say about it.
    fn look(&mut self) -> Option<Finding> {
        let now = Stamp::of(&self.path).ok();
        if now.is_some() && now == self.read.of {
            return None;
        }
        let of = Stamp::settled(&self.path);
        let keys = self.changed().map(Arc::new);
        // What could not be read for want of something else (a descriptor, say) is tried again.
        let of = of.filter(|_| !matches!(keys, Err(Error::Steering(SteeringError::Io { .. }))));
        if let Ok(keys) = &keys {
            self.good = Arc::clone(keys);
        }
        let keys = keys.map_err(|e| e.to_string());
        let before = std::mem::replace(&mut self.read, Read { of, keys });
        (before.keys != self.read.keys).then(|| self.said())
    }

    /// The keys of a file that changed. Where the command may write, the file itself is read-only for it, and yet a change
    /// is not believed: a file that is replaced on the host lies bare for a moment.
    fn changed(&self) -> Result<AuthorizedKeys, Error> {
        let file = steering::open(&self.path)?;
        let io = |source| SteeringError::Io { path: self.path.clone(), source };
        // Where the descriptor leads, whatever the path and the links in it come to mean meanwhile.
        let opened = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(io)?;
        let way = steering::way(&self.path)?;
        let keys = parse(&self.path, file)?;
        let changeable = Held::bare(&self.grants).turned(&way).is_some();
        let reached = changeable || [&way.end, &opened].iter().any(|end| writable(&self.grants, end));
        if keys != *self.good && reached {
            return Err(about("--ssh-authorized-keys", &self.path)(
                "changed where the command may write, so the change is not followed; start the sandbox anew, and keep \
                 the file elsewhere",
            ));
        }
        Ok(keys)
    }

    fn said(&self) -> Finding {
        let (severity, detail) = match &self.read.keys {
            Ok(keys) => {
                let left_out: String = keys.remarks.iter().map(|r| format!("; {r}")).collect();
                (1, format!("{} was read again, usable lines: {}{left_out}", self.path.display(), keys.len()))
            }
            Err(why) => (4, format!("{why}. Nobody comes in by this file until it is mended")),
        };
        Finding { reason: Reason::SshKeys, severity, detail, count: 1 }
    }
}

/// Asks now and then while nobody else does, for ever.
pub(super) async fn remind(ring: Option<Keyring>) {
    let Some(ring) = ring else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        // Whatever there is to say about it is said by the look.
        let _ = ring.now().await;
    }
}

fn parse(path: &Path, file: File) -> Result<AuthorizedKeys, Error> {
    let text = String::from_utf8(guarded(path, file)?).map_err(|_| SteeringError::NotText(path.to_owned()))?;
    AuthorizedKeys::parse(&text).map_err(about("--ssh-authorized-keys", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use stockade_confine::view::Access;

    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIi70ncDUKtDk89HuVFxxlWWldk/iTcMApCCXK9yyW4e one\n";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3SgzhlEpLHKS2UUkJM8kK/iN06ChBJWQTQqPWAZbNl two\n";

    /// A file of keys in a directory of its own.
    struct Written {
        path: PathBuf,
        _dir: tempfile::TempDir,
    }

    impl Written {
        fn new(text: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = fs::canonicalize(dir.path()).unwrap().join("authorized_keys");
            let file = Self { path, _dir: dir };
            file.put(text, 0o644);
            file
        }

        fn put(&self, text: &str, mode: u32) {
            fs::write(&self.path, text).unwrap();
            fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn listed(&self, access: Option<Access>) -> Listed {
            let dir = self.path.parent().unwrap().to_owned();
            let grants: Vec<_> = access.map(|access| Grant { path: dir, access, create: false }).into_iter().collect();
            Listed::open(&self.path, &grants).unwrap()
        }
    }

    fn keys(listed: &Listed) -> Option<usize> {
        listed.read.keys.as_ref().ok().map(|k| k.len())
    }

    #[test]
    fn what_changes_counts_at_once_and_is_said_once() {
        let file = Written::new(ONE);
        let mut listed = file.listed(None);
        assert_eq!(listed.look(), None, "nothing changed");
        // The same length at the same time: the clock of the file system may not tell them apart.
        file.put(TWO, 0o644);
        assert!(
            listed.look().is_some_and(|f| f.severity == 1 && f.detail.ends_with("was read again, usable lines: 1"))
        );
        file.put(&format!("{ONE}{TWO}"), 0o644);
        assert!(listed.look().is_some() && keys(&listed) == Some(2));
        file.put(ONE, 0o644);
        assert!(listed.look().is_some() && keys(&listed) == Some(1));
        assert_eq!(listed.look(), None);
    }

    #[test]
    fn a_file_that_cannot_be_used_lets_nobody_in_until_it_can() {
        let file = Written::new(ONE);
        let mut listed = file.listed(None);
        let broken: [(&str, &dyn Fn()); 7] = [
            ("line 1: not a key", &|| file.put("ssh-ed25519 AAAA\n", 0o644)),
            ("line 2: option `tunnel`", &|| file.put(&format!("{ONE}tunnel=\"1\" {TWO}"), 0o644)),
            ("no usable key", &|| file.put("# nobody\n", 0o644)),
            ("chmod go-w", &|| file.put(ONE, 0o666)),
            ("No such file", &|| fs::remove_file(&file.path).unwrap()),
            ("larger than", &|| file.put(&"#\n".repeat(600_000), 0o644)),
            ("a directory", &|| {
                fs::remove_file(&file.path).unwrap();
                fs::create_dir(&file.path).unwrap();
            }),
        ];
        for (told, break_it) in broken {
            break_it();
            let said = listed.look().unwrap_or_else(|| panic!("nothing said: {told}"));
            assert!(said.severity == 4 && said.detail.contains(told), "{told}: {said:?}");
            assert!(said.detail.contains(file.path.to_str().unwrap()), "it names the file: {said:?}");
            assert_eq!(keys(&listed), None, "{told}");
            assert_eq!(listed.look(), None, "said once: {told}");
        }
        fs::remove_dir(&file.path).unwrap();
        file.put(ONE, 0o644);
        assert!(listed.look().is_some_and(|f| f.severity == 1) && keys(&listed) == Some(1));
    }

    #[test]
    fn where_the_command_may_write_a_change_is_not_followed() {
        let file = Written::new(ONE);
        let mut read_only = file.listed(Some(Access::ReadOnly));
        let mut listed = file.listed(Some(Access::ReadWrite));
        file.put(&format!("{ONE}{TWO}"), 0o644);
        assert!(read_only.look().is_some() && keys(&read_only) == Some(2), "the positive control");
        let said = listed.look().unwrap();
        assert!(said.severity == 4 && said.detail.contains("start the sandbox anew"), "{said:?}");
        assert_eq!(keys(&listed), None);
        file.put(ONE, 0o644);
        assert!(listed.look().is_some() && keys(&listed) == Some(1), "what was believed before is believed again");
        // Nor does a link that is turned there.
        let elsewhere = Written::new(ONE);
        let mut listed = elsewhere.listed(None);
        listed.grants =
            vec![Grant { path: file.path.parent().unwrap().to_owned(), access: Access::ReadWrite, create: false }];
        file.put(TWO, 0o644);
        fs::remove_file(&elsewhere.path).unwrap();
        std::os::unix::fs::symlink(&file.path, &elsewhere.path).unwrap();
        assert!(listed.look().is_some_and(|f| f.severity == 4) && keys(&listed).is_none());
    }

    #[test]
    fn a_file_that_has_settled_is_not_read_again() {
        let file = Written::new(ONE);
        let mut listed = file.listed(None);
        assert_eq!(listed.read.of, None, "it changed just now");
        listed.read.of = Some(Stamp::of(&file.path).unwrap());
        listed.read.keys = Err("not read".to_owned());
        assert_eq!(listed.look(), None);
        assert_eq!(listed.read.keys, Err("not read".to_owned()));
        assert!(Stamp::settled(Path::new("/usr")).is_some(), "the positive control");
    }
}
