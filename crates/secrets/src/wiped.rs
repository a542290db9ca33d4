//! Parts of a request that hold a value. HTTP shares them until they are sent; the last to let go overwrites them.

use bytes::Bytes;
use http::HeaderValue;
use zeroize::{Zeroize, Zeroizing};

/// Bytes that are overwritten when nobody holds them any more.
pub(crate) fn bytes<T: Zeroize + AsRef<[u8]> + Send + 'static>(owner: Zeroizing<T>) -> Bytes {
    Bytes::from_owner(owner)
}

/// A field's value, never printed and never put into a compression table. `None`: it cannot stand in a field.
pub(crate) fn field(text: Zeroizing<String>) -> Option<HeaderValue> {
    let fits = text.bytes().all(|b| matches!(b, b'\t' | 0x20..0x7f));
    let mut value = HeaderValue::from_maybe_shared(bytes(text)).ok().filter(|_| fits)?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    /// Says that it was overwritten.
    struct Watched(Vec<u8>, Arc<AtomicBool>);

    impl Zeroize for Watched {
        fn zeroize(&mut self) {
            self.0.zeroize();
            self.1.store(true, Ordering::SeqCst);
        }
    }

    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn the_last_holder_overwrites() {
        let gone = Arc::new(AtomicBool::new(false));
        let all = bytes(Zeroizing::new(Watched(b"Bearer canary".to_vec(), Arc::clone(&gone))));
        let value = HeaderValue::from_maybe_shared(all.slice(7..)).unwrap();
        drop(all);
        let again = value.clone();
        drop(value);
        assert_eq!((again.as_bytes(), gone.load(Ordering::SeqCst)), (&b"canary"[..], false));
        drop(again);
        assert!(gone.load(Ordering::SeqCst));
    }

    #[test]
    fn a_field_holds_visible_text_alone() {
        let value = field(Zeroizing::new("Bearer a\tb".to_owned())).unwrap();
        assert!(value.is_sensitive() && value == "Bearer a\tb");
        for bad in ["a\r\nb", "a\0", "\u{e9}", "a\x7f"] {
            assert!(field(Zeroizing::new(bad.to_owned())).is_none(), "{bad:?}");
        }
    }
}
