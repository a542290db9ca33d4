use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, ProtocolVersion, ServerConnection,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS12,
};

use super::*;
use crate::{
    ClientFault, Roots,
    ca::CA_LIFETIME,
    testing::{HOUR, START, Side, host, name, shake},
};

/// A client of `version` that trusts the sandbox's CA alone.
fn client(side: &Side, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(side.time.clock()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(side.roots.store())
        .with_no_client_auth();
    config.enable_early_data = true;
    config
}

#[test]
fn clients_that_trust_the_ca_accept_names_and_addresses() {
    let side = Side::new();
    for versions in [VERSIONS, &[&TLS12]] {
        let client = Arc::new(client(&side, versions));
        for (judged, asked) in [("a.test", "a.test"), ("192.0.2.1", "192.0.2.1"), ("[2001:db8::1]", "2001:db8::1")] {
            let mut ends = shake(&client, asked, &side.server(judged, None)).ok();
            ends.talk();
            let version = if versions.len() == 1 { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 };
            assert_eq!(ends.server.protocol_version(), Some(version));
        }
    }
    assert_eq!(side.interceptor.minted(), Minted { leaves: 3, refused: 0, failed: 0 });
}

#[test]
fn another_sandbox_and_the_machine_do_not_trust_the_ca() {
    let (ours, theirs) = (Side::new(), Side::new());
    let ends = shake(&Arc::new(client(&theirs, VERSIONS)), "a.test", &ours.server("a.test", None));
    assert!(matches!(ends.client_error, Some(Error::InvalidCertificate(_))), "{:?}", ends.client_error);
    let refused = ends.server_error.unwrap();
    assert_eq!(refused, Error::AlertReceived(AlertDescription::UnknownCA));
    assert_eq!(ClientFault::of_tls(&refused), ClientFault::RejectedCertificate);
}

#[test]
fn alpn_is_what_the_origin_chose() {
    let side = Side::new();
    let offer = |protocols: &[&[u8]]| {
        let mut client = client(&side, VERSIONS);
        client.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Arc::new(client)
    };
    let both = offer(&[b"h2", b"http/1.1"]);
    for (chosen, got) in [(Some(&b"h2"[..]), Some(&b"h2"[..])), (Some(b"http/1.1"), Some(b"http/1.1")), (None, None)] {
        let ends = shake(&both, "a.test", &side.server("a.test", chosen)).ok();
        assert_eq!(ends.client.alpn_protocol(), got);
    }
    let none = shake(&offer(&[]), "a.test", &side.server("a.test", Some(b"h2"))).ok();
    assert_eq!(none.client.alpn_protocol(), None);
    let other = shake(&offer(&[b"http/1.1"]), "a.test", &side.server("a.test", Some(b"h2")));
    assert_eq!(ClientFault::of_tls(&other.server_error.unwrap()), ClientFault::Protocol);
}

#[test]
fn a_client_that_names_another_host_gets_no_certificate() {
    let side = Side::new();
    let client = Arc::new(client(&side, VERSIONS));
    for (judged, asked) in [("a.test", "b.test"), ("a.test", "www.a.test"), ("192.0.2.1", "a.test")] {
        let ends = shake(&client, asked, &side.server(judged, None));
        assert_eq!(ClientFault::of_tls(&ends.server_error.unwrap()), ClientFault::WrongName, "{judged} {asked}");
        assert!(ends.client_error.is_some());
        assert!(ends.server.peer_certificates().is_none() && ends.client.peer_certificates().is_none());
    }
    // None named: the host that was judged.
    let mut silent = ClientConfig::clone(&client);
    silent.enable_sni = false;
    shake(&Arc::new(silent), "a.test", &side.server("a.test", None)).ok();
}

#[test]
fn sessions_are_resumed_without_early_data() {
    let side = Side::new();
    for versions in [VERSIONS, &[&TLS12]] {
        let client = Arc::new(client(&side, versions));
        let first = |kind| {
            let mut ends = shake(&client, "a.test", &side.server("a.test", None)).ok();
            assert_eq!(ends.kinds(), [Some(kind); 2]);
            ends.talk();
        };
        first(HandshakeKind::Full);
        first(HandshakeKind::Resumed);
        let mut early = ClientConnection::new(Arc::clone(&client), name("a.test")).unwrap();
        assert!(early.early_data().is_none(), "no ticket allows it");
    }
}

/// Takes any certificate: the name is not what these tests are about.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[test]
fn a_ticket_of_one_host_is_worth_nothing_at_another() {
    let side = Side::new();
    for versions in [VERSIONS, &[&TLS12]] {
        let mut config = client(&side, versions);
        // Without SNI, so that nothing but the ticket itself tells the hosts apart.
        config.enable_sni = false;
        config.dangerous().set_certificate_verifier(Arc::new(Trusting));
        let client = Arc::new(config);
        let to = |server: &str| {
            let mut ends = shake(&client, "a.test", &side.server(server, None)).ok();
            ends.talk();
            ends.server.handshake_kind()
        };
        assert_eq!(to("a.test"), Some(HandshakeKind::Full));
        assert_eq!(to("b.test"), Some(HandshakeKind::Full), "the ticket of a.test was presented");
        // b.test gave a ticket of its own, which a.test does not take either; then each takes its own.
        assert_eq!(to("a.test"), Some(HandshakeKind::Full));
        assert_eq!(to("a.test"), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn versions_before_1_2_are_refused() {
    let side = Side::new();
    for minor in [0, 1, 2] {
        let mut body = vec![3, minor];
        body.extend([7; 32]); // random
        body.extend([0, 0, 2, 0xc0, 0x09, 1, 0]); // no session, ECDHE-ECDSA-AES128-SHA, no compression
        let length = u8::try_from(body.len()).unwrap();
        let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
        record.extend(body);
        let mut server = ServerConnection::new(side.server("a.test", None)).unwrap();
        server.read_tls(&mut &record[..]).unwrap();
        let error = server.process_new_packets().unwrap_err();
        assert_eq!(ClientFault::of_tls(&error), ClientFault::Version, "3.{minor}: {error:?}");
        let mut answer = Vec::new();
        server.write_tls(&mut answer).unwrap();
        assert_eq!(answer[..1], [21], "an alert");
    }
}

#[test]
fn a_leaf_is_minted_once_and_anew_before_it_ends() {
    let side = Side::new();
    let minted = |at: u64| {
        side.time.set(at);
        side.server("a.test", None);
        side.interceptor.minted().leaves
    };
    assert_eq!([minted(START), minted(START + 22 * HOUR)], [1, 1]);
    assert_eq!([minted(START + 23 * HOUR), minted(START + 24 * HOUR)], [2, 2]);
    // Set back by a day: a leaf from the future is not shown.
    assert_eq!([minted(START - 20 * HOUR), minted(START - 20 * HOUR)], [3, 3]);
}

#[test]
fn a_clock_off_by_a_day_breaks_nothing() {
    let side = Side::new();
    let client = Arc::new(client(&side, VERSIONS));
    for at in [START, START + 24 * HOUR, START - 24 * HOUR, START + 6 * 24 * HOUR] {
        side.time.set(at);
        shake(&client, "a.test", &side.server("a.test", None)).ok();
    }
}

#[test]
fn a_failure_is_not_kept() {
    let side = Side::new();
    side.time.set(START + CA_LIFETIME.as_secs());
    for _ in 0..2 {
        let failed = side.interceptor.server_config(&host("a.test"), None);
        assert!(matches!(failed, Err(MintError::AuthorityExpired)));
    }
    side.time.set(START);
    side.server("a.test", None);
    side.server("a.test.test", None);
    assert_eq!(side.interceptor.minted(), Minted { leaves: 2, refused: 0, failed: 2 });
}

#[test]
fn minting_has_a_rate_and_the_cache_a_size() {
    let side = Side::new();
    let ask = |at: usize| side.interceptor.server_config(&host(&format!("n{at}.test")), None);
    for at in 0..MINT_BURST as usize {
        ask(at).unwrap();
    }
    assert!(matches!(ask(5000), Err(MintError::TooMany)));
    // What is there already is served.
    ask(MINT_BURST as usize - 1).unwrap();
    assert_eq!(side.interceptor.minted(), Minted { leaves: u64::from(MINT_BURST), refused: 1, failed: 0 });
    for second in 1..=20 {
        side.time.set(START + second);
        for at in 0..MINT_PER_SECOND as usize {
            ask(10_000 + second as usize * 1000 + at).unwrap();
        }
    }
    assert!(ask(9_000).is_err());
    assert!(side.interceptor.leaves.len() <= MAX_LEAVES, "{} leaves", side.interceptor.leaves.len());
    assert_eq!(side.interceptor.minted().leaves, u64::from(MINT_BURST) + 20 * u64::from(MINT_PER_SECOND));
}

#[test]
fn a_hundred_thousand_names_fill_neither_memory_nor_a_core() {
    let side = Side::new();
    // A thousand names a second.
    for at in 0..100_000_u64 {
        side.time.set(START + at / 1000);
        let asked = side.interceptor.server_config(&host(&format!("n{at}.wild.test")), None);
        assert!(asked.is_ok() || matches!(asked, Err(MintError::TooMany)), "{at}: {asked:?}");
    }
    let Minted { leaves, refused, failed } = side.interceptor.minted();
    assert_eq!((leaves, failed), (u64::from(MINT_BURST) + 99 * u64::from(MINT_PER_SECOND), 0));
    assert_eq!(leaves + refused, 100_000);
    assert!(side.interceptor.leaves.len() <= MAX_LEAVES, "{} leaves", side.interceptor.leaves.len());
}

#[test]
fn nothing_prints_keys() {
    let side = Side::new();
    let config = side.server("a.test", None);
    let text = format!("{:?} {config:?}", side.interceptor);
    assert!(text.contains("HostTickets(redacted)") && !text.contains("Key("), "{text}");
    let _: &Roots = &side.roots;
}
