//! Files of keys, handshakes of gateways, and what SFTP clients send.

use std::time::{Duration, SystemTime};

use stockade_ssh::{AuthorizedKeys, Tokens, sftp, token};

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b"ssh-ed25519 ",
    b"AAAAC3NzaC1lZDI1NTE5AAAAIGzTfNDc2Jc0sV5eG3lCqsfkYjwVuCcc7cy8DVLmGMnh",
    b"cert-authority",
    b"principals=\"",
    b"command=\"",
    b"from=\"",
    b"expiry-time=\"",
    b"permitopen=\"",
    b"restrict",
    b"\\\"",
    b"\"",
    b",",
    b" ",
    b"\n",
    b"#",
    b"!",
    b"/33",
    b"20240229Z",
    b"stockade-ssh-1 ",
    b"00112233aabbccdd ",
    b"1000 ",
    b"AAAAAAAAAAAAAAAAAAAAAA ",
    b"SHA256:abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ ",
    b"hmac-sha256:",
    b"ed25519:",
    b"\0\0\0\x05\x01\0\0\0\x03",
    b"\0\0\0\x08",
    b"\xff\xff\xff\xff",
    b"posix-rename@openssh.com",
];

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Whatever a file holds, nobody is let in whose key is not in it as a whole word, and an error names its line.
pub(super) fn keys(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    match AuthorizedKeys::parse(&text) {
        Ok(keys) => {
            assert!(!keys.is_empty() && keys.len() <= text.lines().count());
            assert!(text.contains("AAAA"), "a key out of nothing: {text:?}");
            signature((keys.len(), keys.remarks.len()))
        }
        Err(e) => {
            let told = e.to_string();
            // Digits and quoted words differ between equal faults.
            signature(told.split('`').next().unwrap_or_default().replace(|c: char| c.is_ascii_digit(), ""))
        }
    }
}

/// No line is taken but one that was made with the secret, and that once.
pub(super) fn handshake(data: &[u8]) -> u64 {
    let tokens = Tokens::with_secret(SECRET, "00112233aabbccdd").unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let first = tokens.accept(data, now);
    if let Ok(fingerprint) = &first {
        let text = std::str::from_utf8(data).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        let made = token::make(SECRET, words[1], words[2].parse().unwrap(), words[3], fingerprint).unwrap();
        assert_eq!(made.trim_end(), text, "a line that nobody made");
        assert_eq!(tokens.accept(data, now), Err(token::Fault::Replay));
    }
    signature(format!("{first:?}"))
}

/// Any stream of packets is read to its end or to what is no packet.
pub(super) fn packets(data: &[u8]) -> u64 {
    let packets = sftp::parse_only(data);
    assert!(packets <= data.len() / 9 + 1);
    signature((packets.min(8), data.get(4).copied()))
}
