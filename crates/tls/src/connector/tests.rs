use rustls::{HandshakeKind, RootCertStore, ServerConfig, server::WebPkiClientVerifier};

use super::*;
use crate::{
    ExtraPem, OriginFault,
    testing::{Ends, HOUR, START, Side, shake},
};

fn fault(ends: Ends) -> OriginFault {
    OriginFault::of_tls(&ends.client_error.unwrap())
}

fn alpn(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|p| p.as_bytes().to_vec()).collect()
}

#[test]
fn origins_are_verified_by_issuer_name_and_time() {
    let (origin, stranger) = (Side::new(), Side::new());
    let config = origin.connector().config(&[], None);
    shake(&config, "a.test", &origin.server("a.test", None)).ok().talk();
    shake(&config, "192.0.2.1", &origin.server("192.0.2.1", None)).ok().talk();
    assert_eq!(fault(shake(&config, "a.test", &stranger.server("a.test", None))), OriginFault::UnknownIssuer);
    // An origin that shows its certificate whatever is asked for.
    let silent = |side: &Side| {
        let mut config = ClientConfig::clone(&side.connector().config(&[], None));
        config.enable_sni = false;
        Arc::new(config)
    };
    for (asked, shown) in
        [("a.test", "b.test"), ("192.0.2.1", "192.0.2.2"), ("192.0.2.1", "a.test"), ("a.test", "192.0.2.1")]
    {
        let ends = shake(&silent(&origin), asked, &origin.server(shown, None));
        assert_eq!(fault(ends), OriginFault::WrongName, "{asked} {shown}");
    }
    let server = origin.server("a.test", None);
    for (at, want) in [(START + 25 * HOUR, OriginFault::Expired), (START - 2 * HOUR, OriginFault::NotYetValid)] {
        origin.time.set(at);
        assert_eq!(fault(shake(&config, "a.test", &server)), want);
    }
}

#[test]
fn without_roots_nobody_is_trusted() {
    let origin = Side::new();
    let nobody = Connector::with_clock(&Roots::none(), &origin.time.clock()).unwrap();
    assert_eq!(
        fault(shake(&nobody.config(&[], None), "a.test", &origin.server("a.test", None))),
        OriginFault::UnknownIssuer
    );
}

#[test]
fn sessions_are_resumed_whatever_was_offered() {
    let origin = Side::new();
    let connector = origin.connector();
    let kind = |protocols: &[&str], host: &str| {
        let mut ends = shake(&connector.config(&alpn(protocols), None), host, &origin.server(host, None)).ok();
        ends.talk();
        ends.client.handshake_kind()
    };
    assert_eq!(kind(&["h2"], "a.test"), Some(HandshakeKind::Full));
    assert_eq!(kind(&["h2"], "a.test"), Some(HandshakeKind::Resumed));
    assert_eq!(kind(&["http/1.1"], "a.test"), Some(HandshakeKind::Resumed));
    assert_eq!(kind(&["h2"], "b.test"), Some(HandshakeKind::Full));
}

#[test]
fn equal_wishes_share_a_configuration_and_their_number_is_bounded() {
    let origin = Side::new();
    let connector = origin.connector();
    let one = connector.config(&alpn(&["h2"]), None);
    assert!(Arc::ptr_eq(&one, &connector.config(&alpn(&["h2"]), None)));
    assert!(!Arc::ptr_eq(&one, &connector.config(&alpn(&["h2", "http/1.1"]), None)));
    for at in 0..10 * MAX_CONFIGS {
        let _ = connector.config(&alpn(&[&at.to_string()]), None);
    }
    assert!(connector.configs.len() <= MAX_CONFIGS);
}

#[test]
fn an_endpoints_authorities_are_the_only_ones_for_it() {
    let (public, private) = (Side::new(), Side::new());
    let connector = public.connector();
    let extra = Extra::parse(ExtraPem { roots: Some(private.roots.pem().as_bytes()), identity: None }).unwrap();
    let config = connector.config(&[], Some(&extra));
    shake(&config, "a.test", &private.server("a.test", None)).ok();
    assert_eq!(fault(shake(&config, "a.test", &public.server("a.test", None))), OriginFault::UnknownIssuer);
    // And for it alone.
    let common = connector.config(&[], None);
    assert_eq!(fault(shake(&common, "a.test", &private.server("a.test", None))), OriginFault::UnknownIssuer);
}

#[test]
fn an_authority_s_own_certificate_is_told_from_a_bad_one() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let config = Side::new().connector().config(&[], None);
    assert_eq!(fault(shake(&config, "a.test", &Arc::new(server))), OriginFault::Authority);
}

/// An identity signed by a new authority, as PEM: chain, key, and the authority.
fn identity() -> [String; 3] {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let own = params.signed_by(&key, &issuer).unwrap();
    [own.pem(), key.serialize_pem(), ca.pem()]
}

#[test]
fn client_certificates_are_shown_where_they_are_named() {
    let origin = Side::new();
    let [chain, key, authority] = identity();
    let mut roots = RootCertStore::empty();
    roots.add(crate::Roots::none().with_pem(authority.as_bytes()).unwrap().certificates()[0].clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let usual = origin.server("a.test", None);
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&usual.cert_resolver));
    server.time_provider = Arc::new(origin.time.clock());
    let server = Arc::new(server);
    let connector = origin.connector();
    let without = shake(&connector.config(&[], None), "a.test", &server);
    assert_eq!(fault(without), OriginFault::ClientCertificate);

    let extra = |chain: &str| {
        Extra::parse(ExtraPem { roots: None, identity: Some((chain.as_bytes(), key.as_bytes())) }).unwrap()
    };
    let config = connector.config(&[], Some(&extra(&chain)));
    let ends = shake(&config, "a.test", &server).ok();
    assert_eq!(ends.server.peer_certificates().unwrap().len(), 1);
    assert!(Arc::ptr_eq(&config, &connector.config(&[], Some(&extra(&chain)))), "equal content, one configuration");
    // Towards others it is not shown.
    assert!(matches!(
        shake(&connector.config(&[], None), "a.test", &server).server_error,
        Some(Error::NoCertificatesPresented)
    ));
    // Resuming keeps to itself as well.
    let plain = shake(&connector.config(&[], None), "a.test", &usual).ok();
    assert_eq!(plain.client.handshake_kind(), Some(HandshakeKind::Full));
}
