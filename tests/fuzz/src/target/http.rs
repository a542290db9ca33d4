//! Requests as rules see them.

use stockade_l7::http::{MAX_TARGET, Slashes, Target, method};

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b"/", b".", b"..", b"/../", b"%2e", b"%2E%2E", b"%2f", b"%5c", b"\\", b"%25", b"%252e", b"%00", b"%0a", b"%c3%a9",
    b"%c0%ae", b"%ff", b"%", b";", b"%3b", b"..;", b"?", b"&", b"=", b"+", b"%2B", b"#", b" ", b"@", b"{", b"*",
    b"%61",
];

/// What is accepted has one form, which is accepted as it is and holds nothing that a server would resolve.
pub(super) fn target(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let [plain, encoded] = [Slashes::Plain, Slashes::Encoded].map(|slashes| {
        let parsed = Target::parse(&text, slashes);
        if let Ok(target) = &parsed {
            let wire = target.to_string();
            assert!(wire.bytes().all(|b| b.is_ascii_graphic() && !b"\\;#".contains(&b)), "{wire}");
            assert!(text.len() <= MAX_TARGET);
            // Encoding may make it longer than what is read.
            if wire.len() <= MAX_TARGET {
                assert_eq!(Target::parse(&wire, slashes).as_ref(), Ok(target));
            }
            assert!(target.path().starts_with('/') && !target.path().contains("//"));
            assert!(
                target
                    .segments()
                    .flat_map(|s| s.split('/').map(str::to_owned).collect::<Vec<_>>())
                    .all(|s| { !matches!(&*s, "." | "..") && !s.contains('\\') && !s.chars().any(char::is_control) })
            );
        }
        parsed
    });
    if let Ok(target) = &plain {
        assert_eq!(encoded.as_ref(), Ok(target), "opting in changes only paths with encoded slashes");
        assert!(target.segments().all(|s| !s.contains('/')));
    }
    let shape = plain.as_ref().map(|t| (t.segments().count().min(5), t.pairs().len().min(3))).map_err(|e| *e);
    signature((shape, encoded.is_ok(), method(&text)))
}
