use std::collections::HashSet;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;
use crate::testing::{Made, START, host};

fn parse<'a>(der: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    X509Certificate::from_der(der).unwrap().1
}

fn seconds(certificate: &X509Certificate<'_>) -> [i64; 2] {
    let valid = certificate.validity();
    [valid.not_before.timestamp(), valid.not_after.timestamp()]
}

#[test]
fn the_ca_may_sign_leaves_and_nothing_else_and_only_for_days() {
    let ca = Ca::new(Made::new().now()).unwrap();
    let parsed = parse(ca.certificate_der());
    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.digital_signature());
    let start = START as i64;
    assert_eq!(seconds(&parsed), [start - 25 * 3600, start + 7 * 24 * 3600]);
    assert!(ca.certificate_pem().starts_with("-----BEGIN CERTIFICATE-----\n"));
}

#[test]
fn the_ca_of_a_command_that_is_ended_ends_soon_after_it() {
    let now = Made::new().now();
    let hours = |run: Option<Duration>| {
        let ca = Ca::lasting(now, run).unwrap();
        (seconds(&parse(ca.certificate_der()))[1] - START as i64) / 3600
    };
    let run = |hours: u64| Some(Duration::from_secs(hours * 3600));
    assert_eq!([hours(run(0)), hours(run(1)), hours(run(100))], [25, 26, 125]);
    assert_eq!([hours(run(1000)), hours(Some(Duration::MAX)), hours(None)], [168, 168, 168], "never longer");
    let (ca, key) = (Ca::lasting(now, run(1)).unwrap(), Key::generate().unwrap());
    let leaf = ca.leaf(&host("a.test"), &key, now + Duration::from_secs(20 * 3600)).unwrap();
    assert_eq!(leaf.until, now + Duration::from_secs(26 * 3600), "nor its leaves");
}

#[test]
fn every_authority_is_another() {
    let made: Vec<_> = (0..20).map(|_| Ca::new(Made::new().now()).unwrap()).collect();
    let subjects: HashSet<_> = made.iter().map(|c| parse(c.certificate_der()).subject().to_string()).collect();
    let keys: HashSet<_> = made.iter().map(|c| parse(c.certificate_der()).public_key().raw.to_vec()).collect();
    assert_eq!((subjects.len(), keys.len()), (20, 20));
}

#[test]
fn a_leaf_is_for_one_host_and_servers_only() {
    let (now, key) = (Made::new().now(), Key::generate().unwrap());
    let ca = Ca::new(now).unwrap();
    let long = format!("{}.{}.test", "a".repeat(60), "b".repeat(60));
    let names = [("api.test", "CN=api.test"), (&long, "CN=Stockade leaf"), ("_dmarc.a-b.test", "CN=_dmarc.a-b.test")];
    for (text, subject) in names {
        let leaf = ca.leaf(&host(text), &key, now).unwrap();
        let parsed = parse(&leaf.der);
        assert_eq!(parsed.subject().to_string(), subject);
        let san = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(san.value.general_names, [GeneralName::DNSName(text)]);
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any && !usage.code_signing);
        assert!(!parsed.is_ca());
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        assert!(parsed.extensions().iter().any(|e| e.oid.to_id_string() == "2.5.29.35"), "authority key identifier");
        assert_eq!(seconds(&parsed), [START as i64 - 3600, START as i64 + 24 * 3600]);
    }
    for (text, bytes) in [
        ("192.0.2.7", &[192, 0, 2, 7][..]),
        ("[2001:db8::1]", &"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets()),
    ] {
        let leaf = ca.leaf(&host(text), &key, now).unwrap();
        let parsed = parse(&leaf.der);
        let san = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(san.value.general_names, [GeneralName::IPAddress(bytes)]);
    }
}

#[test]
fn numbers_are_never_used_twice() {
    let (now, key) = (Made::new().now(), Key::generate().unwrap());
    let ca = Ca::new(now).unwrap();
    let numbers: HashSet<_> =
        (0..200).map(|_| parse(&ca.leaf(&host("a.test"), &key, now).unwrap().der).raw_serial().to_vec()).collect();
    assert_eq!(numbers.len(), 200);
    assert!(numbers.iter().all(|n| n.len() == 16 && n[0] & 0x80 == 0), "positive, of full length");
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let (now, key) = (Made::new().now(), Key::generate().unwrap());
    let ca = Ca::new(now).unwrap();
    let late = now + CA_LIFETIME - Duration::from_secs(60);
    assert_eq!(ca.leaf(&host("a.test"), &key, late).unwrap().until, now + CA_LIFETIME);
    let over = ca.leaf(&host("a.test"), &key, now + CA_LIFETIME);
    assert!(matches!(over, Err(MintError::AuthorityExpired)));
}

#[test]
fn nothing_prints_the_key() {
    let ca = Ca::new(Made::new().now()).unwrap();
    assert_eq!(format!("{ca:?} {:?}", Key::generate().unwrap()), "Ca(redacted) Key(redacted)");
}
