//! Policies: a file that lies in a workspace may have been written by the command.

use stockade_policy::{Policy, Source};

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b"version: 1\n",
    b"network:\n",
    b"  endpoints:\n",
    b"    e:\n",
    b"      hosts: [",
    b"]\n",
    b"      ports: [443]\n",
    b"filesystem:\n",
    b"  read_write: [.]\n",
    b"process:\n",
    b"  relax: []\n",
    b"&a ",
    b"*a",
    b"<<: *a\n",
    b"!!binary ",
    b"? ",
    b"- ",
    b"|\n",
    b"{",
    b"}",
    b"\t",
    b"\xef\xbb\xbf",
    b"'",
    b"\"",
    b"# ",
    b"---\n",
    b"...\n",
    b"4GiB",
    b"**",
    b"10.0.0.0/8",
    b"true",
    b"null",
    b"~",
    b"1e9",
];

/// Total within a bound; what is refused says why, with a position inside the text.
pub(super) fn yaml(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    match Policy::parse(&[Source::new("policy.yaml", text)]) {
        Ok(policy) => {
            assert_eq!(policy.digest().len(), 64);
            signature(("good", policy.network().endpoints.len().min(4)))
        }
        Err(refused) => {
            assert!(!refused.0.is_empty(), "refused without a reason");
            let shown = refused.to_string();
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
            let kinds: Vec<String> =
                refused.0.iter().take(3).map(|d| d.message.split('`').next().unwrap_or_default().to_owned()).collect();
            signature(kinds)
        }
    }
}
