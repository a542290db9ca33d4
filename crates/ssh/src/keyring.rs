//! Who may come in, as it is when somebody asks.

use std::{fmt, sync::Arc};

use tokio::sync::Mutex;

use crate::keys::AuthorizedKeys;

type Lookup = dyn FnMut() -> Option<Arc<AuthorizedKeys>> + Send;

/// Asked before each key is judged. Clones ask the same.
#[derive(Clone)]
pub struct Keyring(Arc<Mutex<Box<Lookup>>>);

impl Keyring {
    /// `lookup` says who may come in now, `None` for nobody. It may wait for a disk.
    pub fn new(lookup: impl FnMut() -> Option<Arc<AuthorizedKeys>> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(lookup))))
    }

    /// One question at a time, on a thread that may wait: a disk that hangs holds back logins and nothing else.
    pub async fn now(&self) -> Option<Arc<AuthorizedKeys>> {
        let mut lookup = Arc::clone(&self.0).lock_owned().await;
        // A panic is an error like any other: nobody comes in.
        tokio::task::spawn_blocking(move || (*lookup)()).await.ok().flatten()
    }
}

impl From<AuthorizedKeys> for Keyring {
    fn from(keys: AuthorizedKeys) -> Self {
        let keys = Arc::new(keys);
        Self::new(move || Some(Arc::clone(&keys)))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_lookup_that_fails_lets_nobody_in_and_is_asked_again() {
        let mut asked = 0;
        let ring = Keyring::new(move || {
            asked += 1;
            assert!(asked != 2, "a bug in a lookup");
            Some(Arc::default())
        });
        let known = [ring.now().await, ring.now().await, ring.now().await].map(|k| k.is_some());
        assert_eq!(known, [true, false, true]);
    }

    #[tokio::test]
    async fn who_waits_in_vain_leaves_no_thread_of_its_own_behind() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let ring = Keyring::new(move || {
            held.recv().unwrap();
            Some(Arc::default())
        });
        for _ in 0..100 {
            let gave_up = tokio::time::timeout(Duration::from_millis(1), ring.now()).await;
            assert!(gave_up.is_err(), "the disk hangs");
        }
        // The first question holds its place until it is answered; the others never got a thread, and want no answer.
        release.send(()).unwrap();
        release.send(()).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(20), ring.now()).await.unwrap().is_some());
    }
}
