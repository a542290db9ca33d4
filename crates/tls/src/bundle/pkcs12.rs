//! A PKCS#12 file of trusted certificates for Java.
//!
//! Nothing in it is secret, so it has neither encryption nor MAC: such a file opens without a password, with every JDK
//! from 8 on and without a word on the command line. Its integrity is that of the read-only mount it lies on.

use rustls::pki_types::CertificateDer;
use yasna::{DERWriter, models::ObjectIdentifier};

const DATA: [u64; 7] = [1, 2, 840, 113_549, 1, 7, 1];
const CERT_BAG: [u64; 8] = [1, 2, 840, 113_549, 1, 12, 10, 1];
const X509: [u64; 8] = [1, 2, 840, 113_549, 1, 9, 22, 1];
const FRIENDLY_NAME: [u64; 7] = [1, 2, 840, 113_549, 1, 9, 20];
/// Oracle's attribute; without it Java takes a certificate for part of a chain, not for trusted.
const TRUSTED_KEY_USAGE: [u64; 7] = [2, 16, 840, 1, 113_894, 746_875, 1];
const ANY_EXTENDED_KEY_USAGE: [u64; 5] = [2, 5, 29, 37, 0];

/// The certificates with their aliases.
pub(super) fn truststore<'a>(certificates: impl Iterator<Item = (String, &'a CertificateDer<'static>)>) -> Vec<u8> {
    let bags = yasna::construct_der(|w| {
        w.write_sequence_of(|w| {
            for (alias, der) in certificates {
                bag(w.next(), &alias, der);
            }
        });
    });
    let safe = yasna::construct_der(|w| w.write_sequence_of(|w| content(w.next(), &bags)));
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_u8(3);
            content(w.next(), &safe);
        });
    })
}

/// ContentInfo of plain data.
fn content(w: DERWriter<'_>, bytes: &[u8]) {
    w.write_sequence(|w| {
        w.next().write_oid(&oid(&DATA));
        w.next().write_tagged(yasna::Tag::context(0), |w| w.write_bytes(bytes));
    });
}

fn bag(w: DERWriter<'_>, alias: &str, der: &CertificateDer<'_>) {
    w.write_sequence(|w| {
        w.next().write_oid(&oid(&[&CERT_BAG[..], &[3]].concat()));
        w.next().write_tagged(yasna::Tag::context(0), |w| {
            w.write_sequence(|w| {
                w.next().write_oid(&oid(&X509));
                w.next().write_tagged(yasna::Tag::context(0), |w| w.write_bytes(der));
            });
        });
        w.next().write_set_of(|w| {
            attribute(w.next(), &FRIENDLY_NAME, |w| w.write_bmp_string(alias));
            attribute(w.next(), &[&TRUSTED_KEY_USAGE[..], &[1]].concat(), |w| {
                w.write_oid(&oid(&ANY_EXTENDED_KEY_USAGE));
            });
        });
    });
}

fn attribute(w: DERWriter<'_>, name: &[u64], value: impl FnOnce(DERWriter<'_>)) {
    w.write_sequence(|w| {
        w.next().write_oid(&oid(name));
        w.next().write_set_of(|w| value(w.next()));
    });
}

fn oid(parts: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(parts)
}
