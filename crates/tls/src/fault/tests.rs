use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::testing::{Side, name};

#[test]
fn what_is_not_tls_is_called_so() {
    let side = Side::new();
    let config = side.connector().config(&[], None);
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.9\r\n", b"220 mail ESMTP\r\n"] {
        let mut client = ClientConnection::new(config.clone(), name("a.test")).unwrap();
        client.read_tls(&mut &bytes[..]).unwrap();
        let error = client.process_new_packets().unwrap_err();
        assert_eq!(OriginFault::of_tls(&error), OriginFault::NotTls, "{error:?}");
    }
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0; 64]] {
        let mut server = ServerConnection::new(side.server("a.test", None)).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        let error = server.process_new_packets().unwrap_err();
        assert_eq!(ClientFault::of_tls(&error), ClientFault::NotTls, "{error:?}");
    }
}

#[test]
fn errors_are_found_within_those_of_streams() {
    let wrapped = |e: Error| io::Error::new(io::ErrorKind::InvalidData, e);
    let expired = wrapped(Error::InvalidCertificate(CertificateError::Expired));
    assert_eq!(OriginFault::of(&expired), OriginFault::Expired);
    for alert in [Alert::UnknownCA, Alert::BadCertificate, Alert::CertificateUnknown] {
        let error = wrapped(Error::AlertReceived(alert));
        assert_eq!(ClientFault::of(&error), ClientFault::RejectedCertificate);
        assert_eq!(OriginFault::of(&error), OriginFault::ClientCertificate);
    }
    for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
        assert_eq!(OriginFault::of(&kind.into()), OriginFault::Closed);
        assert_eq!(ClientFault::of(&kind.into()), ClientFault::Closed);
    }
    assert_eq!(OriginFault::of(&io::ErrorKind::Other.into()), OriginFault::Handshake);
}

#[test]
fn words_are_one_each_and_sentences_end_without_a_stop() {
    use std::collections::HashSet;
    let origin = [
        OriginFault::UnknownIssuer,
        OriginFault::Expired,
        OriginFault::NotYetValid,
        OriginFault::WrongName,
        OriginFault::Revoked,
        OriginFault::Authority,
        OriginFault::BadCertificate,
        OriginFault::ClientCertificate,
        OriginFault::Version,
        OriginFault::Protocol,
        OriginFault::UnknownName,
        OriginFault::NotTls,
        OriginFault::Closed,
        OriginFault::Handshake,
    ];
    assert_eq!(origin.iter().map(|f| f.word()).collect::<HashSet<_>>().len(), origin.len());
    assert!(
        origin
            .iter()
            .all(|f| !f.to_string().ends_with('.') && f.word().bytes().all(|b| b == b'_' || b.is_ascii_lowercase()))
    );
    assert!(ClientFault::RejectedCertificate.pinned() && !ClientFault::WrongName.pinned());
}
