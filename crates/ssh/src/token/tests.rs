use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const SANDBOX: &str = "00112233aabbccdd";
const NONCE: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const PRINT: &str = "SHA256:abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn tokens() -> Tokens {
    Tokens::with_secret(SECRET, SANDBOX).unwrap()
}

fn line(sandbox: &str, seconds: u64, nonce: &str) -> Vec<u8> {
    make(SECRET, sandbox, seconds, nonce, PRINT).unwrap().trim_end().as_bytes().to_vec()
}

#[test]
fn a_handshake_is_good_once() {
    let tokens = tokens();
    let line = line(SANDBOX, 1000, NONCE);
    assert_eq!(tokens.accept(&line, at(1000)), Ok(PRINT.to_owned()));
    assert_eq!(tokens.accept(&line, at(1001)), Err(Fault::Replay));
}

#[test]
fn time_sandbox_and_code_count() {
    for (line, now, fault) in [
        (line(SANDBOX, 1000, NONCE), 1061, Fault::Late),
        (line(SANDBOX, 1000, NONCE), 939, Fault::Early),
        (line("ffffffffffffffff", 1000, NONCE), 1000, Fault::Sandbox),
        (make(&[7; 32], SANDBOX, 1000, NONCE, PRINT).unwrap().trim_end().as_bytes().to_vec(), 1000, Fault::Code),
    ] {
        assert_eq!(tokens().accept(&line, at(now)), Err(fault));
    }
    for now in [940, 1060] {
        assert!(tokens().accept(&line(SANDBOX, 1000, NONCE), at(now)).is_ok(), "{now}");
    }
}

#[test]
fn every_changed_or_cut_line_is_refused() {
    let good = line(SANDBOX, 1000, NONCE);
    for at_byte in 0..good.len() {
        assert!(tokens().accept(&good[..at_byte], at(1000)).is_err(), "cut at {at_byte}");
        let mut changed = good.clone();
        changed[at_byte] ^= 1;
        assert!(tokens().accept(&changed, at(1000)).is_err(), "changed at {at_byte}");
    }
    assert!(tokens().accept(&good, at(1000)).is_ok());
    let mut truncated = String::from_utf8(good).unwrap();
    truncated.truncate(truncated.len() - 23);
    assert_eq!(tokens().accept(truncated.as_bytes(), at(1000)), Err(Fault::Code), "half a code is no code");
}

#[test]
fn a_signature_takes_the_place_of_the_secret() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let bytes: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
    let data = russh::keys::ssh_key::public::KeyData::Ed25519(russh::keys::ssh_key::public::Ed25519PublicKey(bytes));
    let public = PublicKey::new(data, "").to_openssh().unwrap();
    let tokens = Tokens::with_key(&public, SANDBOX).unwrap();
    let signed = format!("{VERSION} {SANDBOX} 1000 {NONCE} {PRINT}");
    let code = STANDARD_NO_PAD.encode(pair.sign(signed.as_bytes()));
    assert!(tokens.accept(format!("{signed} ed25519:{code}").as_bytes(), at(1000)).is_ok());
    // The public key is no secret: a code made with it as one is nothing.
    let forged = make(&bytes, SANDBOX, 1000, "BBBBBBBBBBBBBBBBBBBBBB", PRINT).unwrap();
    assert_eq!(tokens.accept(forged.trim_end().as_bytes(), at(1000)), Err(Fault::Code));
}

#[test]
fn weak_secrets_are_refused() {
    assert_eq!(Tokens::with_secret(b" \n", SANDBOX).unwrap_err(), Error::Empty);
    assert_eq!(Tokens::with_secret(b"hunter2\n", SANDBOX).unwrap_err(), Error::Short(7));
    assert_eq!(Tokens::with_key("hello", SANDBOX).unwrap_err(), Error::Key);
}

#[test]
fn memory_is_bounded_and_never_forgets_early() {
    let mut used = Used::default();
    for n in 0..TOKENS_HERE {
        used.insert(&n.to_string(), 1060, 1000).unwrap();
    }
    assert_eq!(used.insert("one more", 1060, 1000), Err(Fault::Full));
    assert_eq!(used.insert("0", 1060, 1000), Err(Fault::Replay));
    assert_eq!(used.len(), TOKENS_HERE);
    used.insert("later", 1300, 1240).unwrap();
    assert_eq!(used.len(), 1);
}

const TOKENS_HERE: usize = crate::limits::TOKENS;

#[test]
fn a_clock_that_is_set_back_brings_nothing_back() {
    let tokens = tokens();
    let old = line(SANDBOX, 1000, NONCE);
    tokens.accept(&old, at(1000)).unwrap();
    tokens.accept(&line(SANDBOX, 5000, "BBBBBBBBBBBBBBBBBBBBBB"), at(5000)).unwrap();
    assert_eq!(tokens.accept(&old, at(1000)), Err(Fault::Clock));
}
