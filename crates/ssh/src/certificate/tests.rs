use russh::keys::{
    PrivateKey,
    ssh_key::{
        certificate::Builder,
        private::{Ed25519Keypair, KeypairData},
    },
};

use super::*;

const NOW: u64 = 1_800_000_000;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

fn builder() -> Builder {
    let mut builder = Builder::new([7; 16], key(2).public_key().key_data().clone(), NOW - 10, NOW + 10).unwrap();
    builder.serial(5).unwrap().key_id("ann").unwrap().valid_principal("sandbox").unwrap();
    builder
}

/// What comes of it with key 1 as authority.
fn try_it(builder: Builder, signer: u8, options: &str, now: u64) -> Result<Login, Fault> {
    let certificate = builder.sign(&key(signer)).unwrap();
    let keys = AuthorizedKeys::parse(&format!("{options} {}", key(1).public_key().to_openssh().unwrap())).unwrap();
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now);
    let visitor = Visitor { user: "ann", peer: Some([192, 0, 2, 1].into()), now };
    check(&keys, &["sandbox".to_owned()], &visitor, &certificate)
}

#[test]
fn a_certificate_gives_what_it_says() {
    let mut plain = builder();
    plain.extension("permit-pty", "").unwrap();
    let login = try_it(plain, 1, "cert-authority", NOW).unwrap();
    assert_eq!((login.access.pty, login.access.forwarding), (true, false));
    assert!(login.by.starts_with("certificate \"ann\" serial 5 of SHA256:"), "{}", login.by);
    let mut forced = builder();
    forced.critical_option("force-command", "date").unwrap();
    let login = try_it(forced, 1, "cert-authority", NOW).unwrap();
    assert_eq!(login.access.command.as_deref(), Some("date"));
    let mut both = builder();
    both.critical_option("force-command", "date").unwrap();
    let with = |line: &str, both: Builder| try_it(both, 1, &format!("cert-authority,command=\"{line}\""), NOW);
    assert_eq!(with("uptime", both).unwrap_err(), Fault::Command, "the authority cannot undo what its line forces");
    let mut same = builder();
    same.critical_option("force-command", "date").unwrap();
    assert_eq!(with("date", same).unwrap().access.command.as_deref(), Some("date"));
    assert_eq!(with("uptime", builder()).unwrap().access.command.as_deref(), Some("uptime"));
    let mut forwards = builder();
    forwards.extension("permit-port-forwarding", "").unwrap();
    assert!(!try_it(forwards, 1, "cert-authority,no-port-forwarding", NOW).unwrap().access.forwarding);
}

#[test]
fn a_certificate_of_another_authority_time_or_name_is_refused() {
    assert_eq!(try_it(builder(), 3, "cert-authority", NOW).unwrap_err(), Fault::Authority);
    // The authority's own key as an ordinary line is no authority.
    assert_eq!(try_it(builder(), 1, "no-pty", NOW).unwrap_err(), Fault::Authority);
    for now in [NOW - 11, NOW + 10] {
        assert_eq!(try_it(builder(), 1, "cert-authority", now).unwrap_err(), Fault::Time);
    }
    let of = |principals: &str| try_it(builder(), 1, &format!("cert-authority,principals=\"{principals}\""), NOW);
    assert!(of("x,sandbox").is_ok());
    assert_eq!(of("ann,root").unwrap_err(), Fault::Principal("ann, root".to_owned()));
    let mut everybody = Builder::new([7; 16], key(2).public_key().key_data().clone(), NOW - 10, NOW + 10).unwrap();
    everybody.serial(5).unwrap().key_id("ann").unwrap().all_principals_valid().unwrap();
    assert!(matches!(try_it(everybody, 1, "cert-authority", NOW), Err(Fault::Principal(_))));
}

#[test]
fn a_host_s_certificate_or_an_unknown_condition_is_refused() {
    let mut host = builder();
    host.cert_type(CertType::Host).unwrap();
    assert_eq!(try_it(host, 1, "cert-authority", NOW).unwrap_err(), Fault::Host);
    let mut unknown = builder();
    unknown.critical_option("verify-required", "").unwrap();
    assert_eq!(try_it(unknown, 1, "cert-authority", NOW).unwrap_err(), Fault::Critical("verify-required".to_owned()));
    for (nets, ok) in [("192.0.2.0/24", true), ("10.0.0.0/8", false), ("nonsense", false)] {
        let mut from = builder();
        from.critical_option("source-address", nets).unwrap();
        assert_eq!(try_it(from, 1, "cert-authority", NOW).is_ok(), ok, "{nets}");
    }
}
